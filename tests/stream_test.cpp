/// Streams: running statistics, control charts, and how right alarms are.

#include <doctest/doctest.h>

#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "data/stream.h"
#include "framework/check.h"
#include "framework/random.h"
#include "framework/tensor.h"

using namespace unroll;

namespace {

const double kNan = std::nan("");

/// A chart that has seen errors of a deviation of 1.
ControlChart settled(const ControlChartOptions& options = {}) {
  Generator generator(3);
  ControlChart chart(options);
  for (int i = 0; i < 1000; ++i) chart.add(generator.normal(), 0);
  return chart;
}

}  // namespace

TEST_CASE("running statistics are those of all numbers, or of the last ones") {
  RunningStatistics all;
  CHECK(all.mean() == 0);
  CHECK(all.scale(3) == 0);
  const std::vector<double> x{2, 4, 4, 4, 5, 5, 7, 9};
  for (const double value : x) all.add(value);
  CHECK(all.count() == 8);
  CHECK(all.mean() == doctest::Approx(5));
  CHECK(all.deviation() == doctest::Approx(2));
  CHECK(all.root_mean_square() == doctest::Approx(std::sqrt(29.0)));
  CHECK(all.scale(9) == doctest::Approx(2));
  CHECK(all.unscale(2) == doctest::Approx(9));

  RunningStatistics last(50);  // mean <- mean + (x - mean) / 50, once 50 were seen
  for (int i = 0; i < 100; ++i) last.add(7);
  CHECK(last.count() == 50);
  CHECK(last.deviation() == 0);
  last.add(57);
  CHECK(last.mean() == doctest::Approx(8));
  CHECK(last.deviation() == doctest::Approx(7));  // 0.98 times 1^2 and 0.02 times 49^2
  for (int i = 0; i < 1000; ++i) last.add(-1);
  CHECK(last.mean() == doctest::Approx(-1));
  CHECK(last.deviation() == doctest::Approx(0).scale(1).epsilon(1e-3));

  CHECK_THROWS_WITH_AS(RunningStatistics(0),
                       "RunningStatistics: the memory must be at least 1, not 0", ValueError);
  CHECK_THROWS_WITH_AS(last.add(kNan),
                       "RunningStatistics: a number must be between -1e150 and 1e150, not nan",
                       ValueError);
  CHECK(last.mean() == doctest::Approx(-1));
}

TEST_CASE("a control chart sees what is out by itself and what is out again and again") {
  ControlChart chart = settled();
  CHECK_FALSE(chart.add(3, 0).alarm);
  CHECK_FALSE(chart.add(-3, 0).alarm);
  const ControlChart::Reading spike = chart.add(10, 2);
  CHECK(spike.value == 10);
  CHECK(spike.expected == 2);
  CHECK(spike.width == doctest::Approx(4).epsilon(0.1));  // 4 deviations
  CHECK(spike.alarm);
  CHECK(spike.begins);
  CHECK(spike.usual == doctest::Approx(2 + spike.width));
  CHECK(chart.add(-10, 2).usual < -1);  // the other end

  // 2.5 deviations are usual, but not one after the other: the average has a third of the
  // deviation.
  ControlChart drifts = settled();
  int steps = 0;
  while (!drifts.add(2.5, 0).alarm) ++steps;
  CHECK(steps > 0);
  CHECK(steps < 10);
  CHECK(drifts.add(2.5, 0).usual == 2.5);

  // Alarms with few values between them are one.
  ControlChart again = settled({.grace = 3});
  CHECK(again.add(50, 0).begins);
  CHECK(again.add(-50, 0).alarm);
  for (int i = 0; i < 2; ++i) again.add(0, 0);
  const ControlChart::Reading soon = again.add(50, 0);
  CHECK(soon.alarm);
  CHECK_FALSE(soon.begins);
  while (again.add(0, 0).alarm) {
  }
  for (int i = 0; i < 3; ++i) again.add(0, 0);
  CHECK(again.add(50, 0).begins);
}

TEST_CASE("a control chart: warm-up, what does not become usual, what is not expected") {
  ControlChart chart({.warm_up = 100});
  Generator generator(4);
  for (int i = 0; i < 100; ++i) {
    const double x = i == 80 ? 1000 : generator.normal();
    const ControlChart::Reading reading = chart.add(x, 0);
    CHECK_FALSE(reading.alarm);
    CHECK(reading.usual == x);
  }
  CHECK(chart.add(1000, 0).alarm);

  chart = settled();
  const double width = chart.add(0, 0).width;
  for (int i = 0; i < 20; ++i) CHECK(chart.add(1e6, 0).alarm);
  CHECK(chart.add(0, 0).width < 1.5 * width);  // each of them counts as the end of the range

  const NamedTensors before = chart.state_dict();
  const ControlChart::Reading first = chart.add(5, kNan);
  CHECK(first.usual == 5);
  CHECK_FALSE(first.alarm);
  CHECK(chart.state_dict()[0].second.to_vector<double>() == before[0].second.to_vector<double>());

  ControlChart constant;  // nothing ever changes: no alarm, but one for the first change
  for (int i = 0; i < 1000; ++i) CHECK_FALSE(constant.add(7, 7).alarm);
  CHECK(constant.add(7.001, 7).alarm);
}

TEST_CASE("a control chart goes on from its state") {
  const ControlChart chart = settled();
  ControlChart copy;
  copy.load_state_dict(chart.state_dict());
  ControlChart original = chart;
  Generator generator(5);
  for (int i = 0; i < 200; ++i) {
    const double x = 2 * generator.normal();
    const ControlChart::Reading a = original.add(x, 0), b = copy.add(x, 0);
    CHECK(a.width == b.width);
    CHECK(a.alarm == b.alarm);
    CHECK(a.begins == b.begins);
  }
  CHECK_THROWS_WITH_AS(copy.load_state_dict({}),
                       "ControlChart: the state does not fit:\n  averages: missing\n  chart: "
                       "missing\n  single: missing",
                       ValueError);
  NamedTensors damaged = chart.state_dict();
  damaged[2].second = full({3}, kNan, DType::f64);
  CHECK_THROWS_WITH_AS(copy.load_state_dict(damaged),
                       "RunningStatistics: the state has a nan in it", ValueError);

  RunningStatistics statistics(10), other(10);
  for (int i = 0; i < 20; ++i) statistics.add(i);
  other.load_state_dict(statistics.state_dict());
  statistics.add(3), other.add(3);
  CHECK(other.mean() == statistics.mean());
  CHECK(other.deviation() == statistics.deviation());
}

TEST_CASE("what a control chart refuses") {
  using Options = ControlChartOptions;
  CHECK_THROWS_WITH_AS(ControlChart(Options{.limit = 0}),
                       "ControlChart: the limit must be above 0, not 0", ValueError);
  CHECK_THROWS_WITH_AS(ControlChart(Options{.smoothing = 1.5}),
                       "ControlChart: the smoothing must be in (0, 1], not 1.5", ValueError);
  CHECK_THROWS_WITH_AS(ControlChart(Options{.memory = 0}),
                       "RunningStatistics: the memory must be at least 1, not 0", ValueError);
  CHECK_THROWS_WITH_AS(ControlChart(Options{.warm_up = -1}),
                       "ControlChart: the warm_up must be at least 0, not -1", ValueError);
  CHECK_THROWS_WITH_AS(ControlChart(Options{.grace = -1}),
                       "ControlChart: the grace must be at least 0, not -1", ValueError);
  ControlChart chart;
  CHECK_THROWS_WITH_AS(
      chart.add(kNan, 1),
      "ControlChart: value and error must be between -1e150 and 1e150, not nan and nan",
      ValueError);
  CHECK_THROWS_WITH_AS(
      chart.add(1, -std::numeric_limits<double>::infinity()),
      "ControlChart: value and error must be between -1e150 and 1e150, not 1 and inf", ValueError);
}

TEST_CASE("alarms are right in a fault or right behind it") {
  AlarmScores scores(2);
  const auto add = [&](const char* alarm, const std::string& fault) {
    const bool any = *alarm != '.';
    scores.add({.value = 3, .expected = 1, .alarm = any, .begins = *alarm == 'B'}, fault);
  };
  add("B", "");  // wrong
  add(".", "");
  add("B", "spike");  // right
  add(".", "");
  add(".", "step"), add("B", "step"), add("A", "step");  // right, and found once
  add(".", ""), add(".", ""), add(".", "");
  add("B", "");  // wrong: three values behind it
  add(".", "step"), add(".", "");
  add("B", "");                                        // right: two values behind it
  add(".", ""), add(".", "noise"), add(".", "spike");  // two faults, one after the other, missed
  CHECK(scores.right() == 3);
  CHECK(scores.wrong() == 2);
  CHECK(scores.precision() == doctest::Approx(0.6));
  CHECK(scores.recall() == doctest::Approx(0.6));
  CHECK(scores.kinds().at("spike").all == 2);
  CHECK(scores.kinds().at("spike").found == 1);
  CHECK(scores.kinds().at("step").found == 2);
  CHECK(scores.kinds().at("noise").found == 0);
  CHECK(scores.usual_error() == doctest::Approx(2));

  CHECK(AlarmScores().precision() == 0);
  CHECK(AlarmScores().recall() == 0);
  CHECK_THROWS_WITH_AS(AlarmScores(-1), "AlarmScores: the grace must be at least 0, not -1",
                       ValueError);
}
