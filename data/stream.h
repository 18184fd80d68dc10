#pragma once
/// Streams of numbers, looked at value by value in memory that does not grow: their mean and
/// deviation, the usual range of a forecast's errors, and how many alarms are right.
///
///     ControlChart chart({.limit = 4});
///     for (double x, expected = std::nan(""); std::cin >> x; expected = forecast(x))
///       if (chart.add(x, expected).begins) std::cout << "alarm at " << x << '\n';

#include <cstdint>
#include <limits>
#include <map>
#include <string>

#include "framework/state.h"

namespace unroll {

/// Mean and deviation of the numbers so far or, with a memory, of those that came last: of the n-th
/// number x a part 1 / min(n, memory) goes in, so that older ones are forgotten little by little
/// (Welford 1962; with weights, West 1979).
class RunningStatistics {
 public:
  /// Throws ValueError for a memory below 1.
  explicit RunningStatistics(std::int64_t memory = std::numeric_limits<std::int64_t>::max());
  /// Throws ValueError unless x is between -1e150 and 1e150.
  void add(double x);

  /// Numbers that were added, `memory` at most.
  std::int64_t count() const { return count_; }
  /// 0 before the first number, as those below.
  double mean() const { return mean_; }
  /// The root of the mean of (x - mean)^2.
  double deviation() const;
  /// The root of the mean of x^2.
  double root_mean_square() const;
  /// (x - mean) / deviation; 0 where the deviation is 0.
  double scale(double x) const;
  /// The way back: mean + deviation z.
  double unscale(double z) const { return mean_ + deviation() * z; }

  /// "statistics", f64 [3]: count, mean and deviation^2.
  NamedTensors state_dict() const;
  /// Throws ValueError as copy_values (framework/state.h).
  void load_state_dict(const NamedTensors& state);

 private:
  std::int64_t memory_, count_ = 0;
  double mean_ = 0, variance_ = 0;
};

/// Of a ControlChart.
struct ControlChartOptions {
  double limit = 4;            ///< the usual range, in root mean squares of the errors
  double smoothing = 0.2;      ///< the weight of the last error in the average
  std::int64_t memory = 500;   ///< errors that say what is usual
  std::int64_t warm_up = 500;  ///< errors before the first alarm
  std::int64_t grace = 10;     ///< errors without an alarm that end it
};

/// Tells which values of a stream are not what a forecast expected: whose error leaves its usual
/// range. Watched are an error e by itself (Shewhart 1931) and an exponential average of errors,
/// a <- a + smoothing (e - a), which sees what is a little wrong again and again (Roberts 1959).
/// The range of each is -limit r to limit r, with r its running root mean square. The first 50
/// errors are never out; later, what is out counts only as the end of the range, so that a fault
/// does not become usual.
class ControlChart {
 public:
  /// A value beside what was expected.
  struct Reading {
    double value = 0;     ///< what has come
    double expected = 0;  ///< instead of this
    double width = 0;     ///< the usual range, before this value, was expected - width to + width
    double usual = 0;    ///< the value; after the warm-up, if it is out of the range, the end of it
    bool alarm = false;  ///< it is out, by itself or on average, and the warm-up is over
    bool begins = false;  ///< the first alarm after `grace` values or more without one
  };

  /// Throws ValueError for a limit that is not above 0, a smoothing outside of (0, 1], a memory
  /// below 1, and a negative warm_up or grace.
  explicit ControlChart(const ControlChartOptions& options = {});
  /// Takes in the next value. Where nothing is expected of it yet (NaN) it is usual, and nothing is
  /// learned. Throws ValueError for any other value or error that is not between -1e150 and 1e150.
  Reading add(double value, double expected);

  /// "chart", f64 [3]: the average, errors so far, errors since the last alarm; and the statistics
  /// of single errors and of averages ("single", "averages"), f64 [3].
  NamedTensors state_dict() const;
  /// Throws ValueError as copy_values (framework/state.h).
  void load_state_dict(const NamedTensors& state);

 private:
  double clip(double error, RunningStatistics& usual) const;

  ControlChartOptions options_;
  RunningStatistics single_, averages_;  ///< of errors, of their average
  double average_ = 0;
  std::int64_t seen_ = 0, since_alarm_;
};

/// Alarms against faults that are known, event by event: a fault lasts as long as values are marked
/// with it, and is found if there is an alarm in it or up to `grace` values behind it. An alarm is
/// right if it begins there.
class AlarmScores {
 public:
  /// How many faults of a kind there were, and how many of them were found.
  struct Counts {
    std::int64_t found = 0;  ///< with an alarm
    std::int64_t all = 0;    ///< in the stream
  };

  /// Throws ValueError for a negative grace.
  explicit AlarmScores(std::int64_t grace = 10);
  /// The next value, and which fault it is of; "" for none.
  void add(const ControlChart::Reading& reading, const std::string& fault);

  /// Alarms that began in a fault or right behind it.
  std::int64_t right() const { return right_; }
  /// All others.
  std::int64_t wrong() const { return wrong_; }
  /// right / (right + wrong); 0 for 0 / 0, as recall().
  double precision() const;
  /// Faults found / all faults.
  double recall() const;
  /// The root mean square of the errors neither in a fault nor right behind one.
  double usual_error() const { return usual_.root_mean_square(); }
  /// By kind of fault.
  const std::map<std::string, Counts>& kinds() const { return kinds_; }

 private:
  std::int64_t grace_, right_ = 0, wrong_ = 0, since_fault_ = 0;
  std::map<std::string, Counts> kinds_;
  RunningStatistics usual_;
  std::string last_, kind_;  ///< of the last value; of the last fault
  bool found_ = false;       ///< that one
};

}  // namespace unroll
