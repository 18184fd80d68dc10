#include "framework/profiler.h"

#include <algorithm>
#include <chrono>
#include <map>
#include <nlohmann/json.hpp>

#include "framework/autograd.h"
#include "framework/file.h"
#include "framework/internal.h"
#include "framework/tape_view.h"

namespace unroll {

using detail::Node;
using detail::Place;

namespace {

/// Nanoseconds.
std::int64_t clock_time() {
  const auto time = std::chrono::steady_clock::now().time_since_epoch();
  return std::chrono::duration_cast<std::chrono::nanoseconds>(time).count();
}

}  // namespace

Profiler::Profiler(const NamedTensors& names, const ProfilerOptions& options)
    : NamingWatcher(names),
      start_(clock_time()),
      open_chains_(options.open_chains),
      here_(detail::place()) {}

// --- Measuring ----------------------------------------------------------------------------------

std::int64_t Profiler::now() const { return clock_time() - start_; }

void Profiler::begin_anew() {
  asked_ = -1;
  bytes_ = 0;
}

void Profiler::allocated(std::int64_t bytes) {
  if (asked_ < 0) asked_ = now();
  bytes_ += bytes;
}

void Profiler::computed(const char* op, const detail::Inputs& inputs, const Tensor& value, int k) {
  if (const Node* node = value.impl().node.get())
    places_[detail::operation_of(node)] = detail::place();
  if (k > 0 || !running_.empty()) return;  // part of what is measured already
  const std::int64_t end = now();
  // A view may be part of an operation that has asked for memory and is still at work.
  for (std::size_t i = 0; i < inputs.size(); ++i)
    if (inputs[i].defined() && inputs[i].impl().storage == value.impl().storage) {
      events_.push_back({op, detail::place(), false, end, 0, 0});
      return;
    }
  const std::int64_t start = asked_ < 0 ? end : asked_;
  events_.push_back({op, detail::place(), false, start, end - start, bytes_});
  begin_anew();
}

void Profiler::arrived(const Node& node, const Tensor&) {
  const std::int64_t time = now();
  if (node.leaf && asked_ >= 0 && running_.empty()) {
    // Between the last rule and this leaf the sweep has done what rules had put off.
    const std::string name = detail::name_of(&node);
    const std::size_t dot = name.rfind('.');
    const Place place{dot == std::string::npos ? "" : name.substr(0, dot)};
    events_.push_back({"products put off", place, true, last_passed_, time - last_passed_, bytes_});
  }
  begin_anew();
  running_.push_back(time);
}

void Profiler::passed(const Node& node) {
  if (running_.empty()) return;
  const std::int64_t start = running_.back();
  running_.pop_back();
  last_passed_ = now();
  if (running_.empty() && !node.leaf && detail::operation_of(&node) == &node) {
    const auto place = places_.find(&node);
    events_.push_back({std::string(node.op) + " backward",
                       place == places_.end() ? Place{} : place->second, true, start,
                       last_passed_ - start, bytes_});
  }
  if (running_.empty()) begin_anew();
}

void Profiler::place_changed() {
  const std::int64_t time = now();
  if (here_ != Place{}) stays_.push_back({here_, entered_, time - entered_});
  here_ = detail::place();
  entered_ = time;
  if (running_.empty()) begin_anew();
}

// --- Telling ------------------------------------------------------------------------------------

namespace {

struct Total {
  std::int64_t count = 0, forward = 0, backward = 0, bytes = 0;
};

std::string milliseconds(std::int64_t nanoseconds) {
  return detail::format("{:.3f}", static_cast<double>(nanoseconds) / 1e6);
}

std::string share(std::int64_t part, std::int64_t whole) {
  return detail::format("{:.1f}%", 100.0 * static_cast<double>(part) /
                                       static_cast<double>(std::max<std::int64_t>(whole, 1)));
}

std::string size_text(std::int64_t bytes) {
  if (bytes < 10'000) return detail::format("{} B", bytes);
  if (bytes < 10'000'000) return detail::format("{:.1f} kB", static_cast<double>(bytes) / 1e3);
  return detail::format("{:.1f} MB", static_cast<double>(bytes) / 1e6);
}

}  // namespace

std::string Profiler::table() const {
  const std::int64_t whole = now();
  std::map<std::string, Total> by_op, by_module;
  std::int64_t measured = 0;
  for (const Event& event : events_) {
    measured += event.duration;
    for (Total* total : {&by_op[event.op], &by_module[event.place.module]}) {
      ++total->count;
      (event.backward ? total->backward : total->forward) += event.duration;
      total->bytes += event.bytes;
    }
  }
  const auto sorted = [](const std::map<std::string, Total>& totals) {
    std::vector<std::pair<std::string, Total>> list(totals.begin(), totals.end());
    std::stable_sort(list.begin(), list.end(), [](const auto& a, const auto& b) {
      return a.second.forward + a.second.backward > b.second.forward + b.second.backward;
    });
    return list;
  };

  std::vector<std::vector<std::string>> rows;
  for (const auto& [op, total] : sorted(by_op)) {
    const std::int64_t time = total.forward + total.backward;
    rows.push_back({op, std::to_string(total.count), milliseconds(time), share(time, whole),
                    detail::format("{:.2f}", static_cast<double>(time) / 1e3 /
                                                 static_cast<double>(total.count)),
                    size_text(total.bytes)});
  }
  std::string text = detail::table({"operation", "calls", "ms", "share", "us each", "memory"}, rows,
                                   {false, true, true, true, true, true});
  rows.clear();
  for (const auto& [module, total] : sorted(by_module))
    rows.push_back({module.empty() ? "(no module)" : module, std::to_string(total.count),
                    milliseconds(total.forward), milliseconds(total.backward),
                    share(total.forward + total.backward, whole), size_text(total.bytes)});
  text += "\n" + detail::table({"module", "calls", "forward ms", "backward ms", "share", "memory"},
                               rows, {false, true, true, true, true, true});
  return text + detail::format("\n{} ms in operations, {} ms in all\n", milliseconds(measured),
                               milliseconds(whole));
}

void Profiler::write_trace(const std::string& path) const {
  using Json = nlohmann::ordered_json;
  Json list = Json::array();
  const auto label = [](const Place& place) {
    std::string text = place.module;
    if (place.step >= 0) text += detail::format("{}t = {}", text.empty() ? "" : ", ", place.step);
    return text;
  };
  const auto add = [&](const std::string& name, const char* category, int row, std::int64_t start,
                       std::int64_t duration, Json arguments) {
    list.push_back({{"name", name},
                    {"cat", category},
                    {"ph", "X"},
                    {"pid", 1},
                    {"tid", row},
                    {"ts", static_cast<double>(start) / 1e3},
                    {"dur", static_cast<double>(duration) / 1e3},
                    {"args", std::move(arguments)}});
  };
  for (const auto& [row, name] : {std::pair(1, "operations"), std::pair(2, "modules and steps")})
    list.push_back({{"name", "thread_name"},
                    {"ph", "M"},
                    {"pid", 1},
                    {"tid", row},
                    {"args", {{"name", name}}}});
  for (const Event& event : events_)
    add(event.op, event.backward ? "backward" : "forward", 1, event.start, event.duration,
        {{"place", label(event.place)}, {"bytes", event.bytes}});
  for (const Stay& stay : stays_)
    add(label(stay.place), "place", 2, stay.start, stay.duration, Json::object());
  write_file_atomically(
      path, Json{{"traceEvents", std::move(list)}, {"displayTimeUnit", "ns"}}.dump() + "\n");
}

}  // namespace unroll
