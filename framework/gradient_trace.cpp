#include "framework/gradient_trace.h"

#include <algorithm>
#include <cmath>
#include <iterator>
#include <limits>
#include <map>

#include "framework/file.h"
#include "framework/gnuplot.h"
#include "framework/tape_view.h"

namespace unroll {

using detail::fail;

struct GradientTrace::State : detail::Counted<State> {
  GradientTraceOptions options;
  std::int64_t step = 0;
  bool open = true;  ///< false when the trace is gone, but tensors that it watches are not
  std::vector<GradientRecord> records;
  std::vector<std::string> names;  ///< in the order in which they came
};

GradientTrace::GradientTrace(const GradientTraceOptions& options)
    : state_(detail::Ref<State>::adopt(new State)) {
  state_->options = options;
}

GradientTrace::~GradientTrace() {
  state_->open = false;
  for (auto& [leaf, hook] : leaves_)
    if (leaf.requires_grad()) leaf.remove_hook(hook);
}

void GradientTrace::watch(const std::string& name, const Tensor& x, std::int64_t t) {
  if (!x.requires_grad())
    fail<GraphError>("GradientTrace: {}, a tensor of shape {}, requires no gradient", name,
                     x.shape());
  auto& names = state_->names;
  if (std::find(names.begin(), names.end(), name) == names.end()) names.push_back(name);
  const std::int64_t time = t >= 0 ? t : detail::place().step;
  Tensor watched = x;
  const std::int64_t hook =
      watched.register_hook([state = state_, name, time](const Tensor& grad) -> Tensor {
        if (!state->open) return Tensor();
        GradientRecord record{state->step, name, time, detail::norm_of(grad)};
        if (state->options.values) record.values = detail::all_values(grad);
        state->records.push_back(std::move(record));
        return Tensor();
      });
  if (x.is_leaf()) leaves_.emplace_back(x, hook);
}

void GradientTrace::watch(const NamedTensors& tensors) {
  for (const auto& [name, tensor] : tensors) watch(name, tensor);
}

void GradientTrace::next_step() { ++state_->step; }

const std::vector<GradientRecord>& GradientTrace::records() const { return state_->records; }

// --- Telling ------------------------------------------------------------------------------------

std::string GradientTrace::table() const {
  constexpr std::size_t kColumns = 8;
  std::vector<std::int64_t> steps;
  std::map<std::pair<std::string, std::int64_t>, std::map<std::int64_t, double>> norms;
  for (const GradientRecord& r : records()) {
    if (steps.empty() || steps.back() != r.step) steps.push_back(r.step);
    norms[{r.name, r.t}][r.step] = r.norm;
  }
  std::vector<std::int64_t> shown;
  const std::size_t columns = std::min(steps.size(), kColumns);
  for (std::size_t i = 0; i < columns; ++i)
    shown.push_back(steps[columns == 1 ? 0 : i * (steps.size() - 1) / (columns - 1)]);

  std::vector<std::string> head = {"tensor", "t"};
  std::vector<bool> right = {false, true};
  for (const std::int64_t step : shown) {
    head.push_back(detail::format("step {}", step));
    right.push_back(true);
  }
  std::vector<std::vector<std::string>> rows;
  for (const std::string& name : state_->names)
    for (const auto& [key, by_step] : norms) {
      if (key.first != name) continue;
      rows.push_back({name, key.second >= 0 ? std::to_string(key.second) : ""});
      for (const std::int64_t step : shown) {
        const auto norm = by_step.find(step);
        rows.back().push_back(norm == by_step.end() ? "-" : detail::format("{:.3g}", norm->second));
      }
    }
  return detail::table(head, rows, right);
}

void GradientTrace::write_csv(const std::string& path) const {
  const auto quoted = [](const std::string& name) {
    if (name.find_first_of(",\"\n") == std::string::npos) return name;
    std::string text = "\"";
    for (const char c : name) text += c == '"' ? std::string("\"\"") : std::string(1, c);
    return text + "\"";
  };
  std::string text = state_->options.values ? "step,name,t,norm,values\n" : "step,name,t,norm\n";
  for (const GradientRecord& r : records()) {
    text += detail::format("{},{},{},{}", r.step, quoted(r.name),
                           r.t >= 0 ? std::to_string(r.t) : "", r.norm);
    if (state_->options.values) {
      text += ',';
      for (std::size_t i = 0; i < r.values.size(); ++i)
        text += detail::format("{}{}", i > 0 ? " " : "", r.values[i]);
    }
    text += '\n';
  }
  write_file_atomically(path, text);
}

namespace {

constexpr double kGap = std::numeric_limits<double>::quiet_NaN();

/// A curve per name, of norms by their place on the x axis: squares that meet are summed up.
class Curves {
 public:
  void add(const std::string& name, std::int64_t x, double norm) {
    squares_[name][x] += norm * norm;
  }
  void draw(const std::string& path, const std::vector<std::string>& names,
            const char* x_label) const {
    std::int64_t first = std::numeric_limits<std::int64_t>::max(), last = -1;
    for (const auto& [name, points] : squares_) {
      first = std::min(first, points.begin()->first);
      last = std::max(last, points.rbegin()->first);
    }
    if (last < 0) fail<ValueError>("GradientTrace: no gradient was seen that could be drawn");
    std::vector<Curve> curves;
    for (const std::string& name : names) {
      const auto points = squares_.find(name);
      if (points == squares_.end()) continue;
      Curve curve{.name = name};
      for (std::int64_t x = first; x <= last; ++x) {
        const auto point = points->second.find(x);
        // A logarithm has no place for 0.
        const bool gap = point == points->second.end() || !(point->second > 0.0);
        curve.x.push_back(static_cast<double>(x));
        curve.y.push_back(gap ? kGap : std::sqrt(point->second));
      }
      curves.push_back(std::move(curve));
    }
    draw_curves(path, {{{.title = "Norm of gradients",
                         .x_label = x_label,
                         .y_label = "norm",
                         .log_scale = true,
                         .log_base = 10,
                         .legend = "below"},  // gradients can be large at either end
                        curves}});
  }

 private:
  std::map<std::string, std::map<std::int64_t, double>> squares_;
};

}  // namespace

void GradientTrace::plot_over_time(const std::string& path) const {
  Curves curves;
  std::vector<std::string> names;
  const auto add_step = [&](std::int64_t step, const std::string& suffix) {
    for (const std::string& name : state_->names) names.push_back(name + suffix);
    for (const GradientRecord& r : records())
      if (r.step == step && r.t >= 0) curves.add(r.name + suffix, r.t, r.norm);
  };
  if (!records().empty()) {
    const std::int64_t first = records().front().step, last = records().back().step;
    if (first != last) add_step(first, detail::format(", step {}", first));
    add_step(last, first != last ? detail::format(", step {}", last) : "");
  }
  curves.draw(path, names, "time step");
}

void GradientTrace::plot_over_steps(const std::string& path) const {
  Curves curves;
  for (const GradientRecord& r : records()) curves.add(r.name, r.step, r.norm);
  curves.draw(path, state_->names, "training step");
}

}  // namespace unroll
