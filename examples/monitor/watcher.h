#pragma once
/// What is usual, what is an alarm, and how many alarms are right.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <map>
#include <string>
#include <utility>

#include "examples/monitor/model.h"

namespace monitor {

constexpr std::int64_t kGrace = 10;  ///< values without an alarm that end it

/// Whether an error is out of its usual range: by itself, or in an exponential average of the last
/// ones, which sees what is a little wrong again and again (Roberts 1959). What is out counts only
/// as the end of the range, so that a fault does not become usual.
class Range {
 public:
  /// Returns whether it is out.
  bool add(double error, double limit) {
    average_ += 0.2 * (error - average_);
    const bool out = add(error, single_, limit);
    return add(average_, several_, limit) || out;
  }
  /// Half of the width, for a single error.
  double width(double limit) const { return limit * single_.root(); }

  template <class F>
  void each(F&& field) {
    field("average", average_);
    single_.each("single", field), several_.each("several", field);
  }

 private:
  static bool add(double error, RunningSquare& usual, double limit) {
    const double end = usual.count < 50 ? std::abs(error) : limit * usual.root();
    usual.add(std::clamp(error, -end, end));
    return std::abs(error) > end;
  }

  RunningSquare single_, several_;
  double average_ = 0;
};

/// The last value is expected again.
struct Persistence {
  double read(double x) { return x; }
};

/// A value beside what was expected.
struct Verdict {
  double value = 0, expected = 0, width = 0;
  bool alarm = false;   ///< out of expected +- width, or a little off for a while
  bool begins = false;  ///< the first alarm after kGrace values or more without one
};

/// What is usual, from what a model expects of each value.
struct Watcher {
  Range range{};
  std::int64_t seen = 0, since_alarm = kGrace;
  double expected = 0;

  /// An alarming value is taken for the end of the usual range: what is learned from stays usual,
  /// and what lasts is caught up with.
  template <class Model>
  Verdict watch(double x, Model& model, const Config& config) {
    Verdict verdict{x, expected, range.width(config.limit)};
    const bool out = seen > 0 && range.add(x - expected, config.limit);
    verdict.alarm = out && seen >= config.warm_up;
    verdict.begins = verdict.alarm && since_alarm >= kGrace;
    since_alarm = verdict.alarm ? 0 : since_alarm + 1;
    if (seen++ >= config.warm_up)
      x = std::clamp(x, expected - verdict.width, expected + verdict.width);
    expected = model.read(x);
    return verdict;
  }
  template <class F>
  void each(F&& field) {
    field("seen", seen), field("since_alarm", since_alarm), field("expected", expected);
    range.each(field);
  }
};

/// Alarms against what is known of the faults. One that begins in a fault, or up to kGrace values
/// behind it, is right.
struct Score {
  std::int64_t right = 0, wrong = 0;
  std::map<std::string, std::pair<std::int64_t, std::int64_t>> kinds{};  ///< found, all

  void add(const Verdict& verdict, const std::string& fault) {
    if (!fault.empty() && last_.empty()) {
      kind_ = fault;
      found_ = false;
      ++kinds[kind_].second;
    }
    last_ = fault;
    since_fault_ = fault.empty() ? since_fault_ + 1 : 0;
    if (!verdict.alarm) return;
    if (verdict.begins) ++(clear() ? wrong : right);
    if (!clear() && !std::exchange(found_, true)) ++kinds[kind_].first;
  }
  /// Whether the last value was neither in a fault nor right behind one.
  bool clear() const { return kind_.empty() || since_fault_ > kGrace; }
  double precision() const {
    return right + wrong == 0 ? 0 : static_cast<double>(right) / static_cast<double>(right + wrong);
  }
  double recall() const {
    std::int64_t found = 0, all = 0;
    for (const auto& [kind, counts] : kinds) found += counts.first, all += counts.second;
    return all == 0 ? 0 : static_cast<double>(found) / static_cast<double>(all);
  }

 private:
  std::string last_{}, kind_{};
  bool found_ = false;
  std::int64_t since_fault_ = 0;
};

}  // namespace monitor
