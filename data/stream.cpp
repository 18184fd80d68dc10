#include "data/stream.h"

#include <algorithm>
#include <cmath>
#include <utility>
#include <vector>

#include "framework/check.h"
#include "framework/format.h"
#include "framework/tensor.h"

namespace unroll {
namespace {

constexpr std::int64_t kFirst = 50;  ///< errors before there is a range
constexpr double kLargest = 1e150;   ///< whose square is a number

void require(bool good, const char* where, const std::string& what) {
  if (!good) detail::fail<ValueError>("{}: {}", where, what);
}

/// The three numbers of a state.
std::vector<double> from_state(const NamedTensors& state, const char* name, const char* where) {
  const Tensor numbers = zeros({3}, DType::f64);
  copy_values(state, {{name, numbers}}, where);
  const auto values = numbers.to_vector<double>();
  for (const double x : values)
    require(std::isfinite(x), where, detail::format("the state has a {} in it", x));
  return values;
}
std::int64_t to_count(double x) { return static_cast<std::int64_t>(std::clamp(x, 0.0, 1e15)); }

double ratio(std::int64_t part, std::int64_t whole) {
  return whole == 0 ? 0 : static_cast<double>(part) / static_cast<double>(whole);
}

}  // namespace

RunningStatistics::RunningStatistics(std::int64_t memory) : memory_(memory) {
  require(memory >= 1, "RunningStatistics",
          detail::format("the memory must be at least 1, not {}", memory));
}

void RunningStatistics::add(double x) {
  require(std::abs(x) <= kLargest, "RunningStatistics",
          detail::format("a number must be between -1e150 and 1e150, not {}", x));
  count_ = std::min(count_ + 1, memory_);
  const double before = x - mean_, part = 1 / static_cast<double>(count_);
  mean_ += part * before;
  variance_ += part * (before * (x - mean_) - variance_);
}

double RunningStatistics::deviation() const { return std::sqrt(variance_); }

double RunningStatistics::root_mean_square() const { return std::hypot(mean_, deviation()); }

double RunningStatistics::scale(double x) const {
  return variance_ > 0 ? (x - mean_) / deviation() : 0;
}

NamedTensors RunningStatistics::state_dict() const {
  return {{"statistics", from_vector<double>({static_cast<double>(count_), mean_, variance_})}};
}

void RunningStatistics::load_state_dict(const NamedTensors& state) {
  const auto numbers = from_state(state, "statistics", "RunningStatistics");
  count_ = to_count(numbers[0]);
  mean_ = numbers[1];
  variance_ = std::max(numbers[2], 0.0);
}

ControlChart::ControlChart(const ControlChartOptions& options)
    : options_(options),
      single_(options.memory),
      averages_(options.memory),
      since_alarm_(options.grace) {
  const auto check = [](bool good, const char* rule, double value) {
    require(good, "ControlChart", detail::format("{}, not {}", rule, value));
  };
  const auto& [limit, smoothing, memory, warm_up, grace] = options;
  check(limit > 0, "the limit must be above 0", limit);
  check(smoothing > 0 && smoothing <= 1, "the smoothing must be in (0, 1]", smoothing);
  check(warm_up >= 0, "the warm_up must be at least 0", static_cast<double>(warm_up));
  check(grace >= 0, "the grace must be at least 0", static_cast<double>(grace));
}

/// The error, or the end of its range; this becomes a part of what is usual.
double ControlChart::clip(double error, RunningStatistics& usual) const {
  const double end = seen_ < kFirst ? std::abs(error) : options_.limit * usual.root_mean_square();
  const double clipped = std::clamp(error, -end, end);
  usual.add(clipped);
  return clipped;
}

ControlChart::Reading ControlChart::add(double value, double expected) {
  const double error = value - expected;
  Reading reading{.value = value,
                  .expected = expected,
                  .width = options_.limit * single_.root_mean_square(),
                  .usual = value};
  require(std::abs(value) <= kLargest && (std::isnan(expected) || std::abs(error) <= kLargest),
          "ControlChart",
          detail::format("value and error must be between -1e150 and 1e150, not {} and {}", value,
                         error));
  if (std::isnan(expected)) return reading;
  const double clipped = clip(error, single_);
  average_ += options_.smoothing * (clipped - average_);
  const bool out = clip(average_, averages_) != average_ || clipped != error;

  if (seen_ >= options_.warm_up) {
    reading.alarm = out;
    if (clipped != error) reading.usual = expected + clipped;
  }
  reading.begins = reading.alarm && since_alarm_ >= options_.grace;
  since_alarm_ = reading.alarm ? 0 : since_alarm_ + 1;
  ++seen_;
  return reading;
}

NamedTensors ControlChart::state_dict() const {
  return {{"chart", from_vector<double>(
                        {average_, static_cast<double>(seen_), static_cast<double>(since_alarm_)})},
          {"single", single_.state_dict()[0].second},
          {"averages", averages_.state_dict()[0].second}};
}

void ControlChart::load_state_dict(const NamedTensors& state) {
  NamedTensors parts = ControlChart().state_dict();
  copy_values(state, parts, "ControlChart");
  const auto numbers = from_state({parts[0]}, "chart", "ControlChart");
  RunningStatistics single = single_, averages = averages_;
  single.load_state_dict({{"statistics", parts[1].second}});
  averages.load_state_dict({{"statistics", parts[2].second}});
  single_ = single, averages_ = averages;
  average_ = numbers[0];
  seen_ = to_count(numbers[1]);
  since_alarm_ = to_count(numbers[2]);
}

AlarmScores::AlarmScores(std::int64_t grace) : grace_(grace) {
  require(grace >= 0, "AlarmScores", detail::format("the grace must be at least 0, not {}", grace));
}

void AlarmScores::add(const ControlChart::Reading& reading, const std::string& fault) {
  if (!fault.empty() && fault != last_) {
    ++kinds_[kind_ = fault].all;
    found_ = false;
  }
  last_ = fault;
  since_fault_ = fault.empty() ? since_fault_ + 1 : 0;
  const bool clear = kind_.empty() || since_fault_ > grace_;
  if (const double error = reading.value - reading.expected; clear && !std::isnan(error))
    usual_.add(error);
  if (reading.begins) ++(clear ? wrong_ : right_);
  if (reading.alarm && !clear && !std::exchange(found_, true)) ++kinds_[kind_].found;
}

double AlarmScores::precision() const { return ratio(right_, right_ + wrong_); }

double AlarmScores::recall() const {
  Counts total;
  for (const auto& [kind, counts] : kinds_) total.found += counts.found, total.all += counts.all;
  return ratio(total.found, total.all);
}

}  // namespace unroll
