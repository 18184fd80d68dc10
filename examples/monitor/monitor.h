#pragma once
/// A forecaster that watches a stream, and what there is to say about it.

#include <fmt/format.h>
#include <unroll/unroll.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdint>
#include <deque>
#include <string>
#include <utility>
#include <vector>

#include "examples/common/checkpoint.h"
#include "examples/common/interrupt.h"
#include "examples/common/json_log.h"
#include "examples/common/line_reader.h"
#include "examples/common/plot.h"
#include "examples/common/program.h"
#include "examples/common/progress.h"
#include "examples/monitor/model.h"
#include "examples/monitor/watcher.h"

namespace monitor {

using examples::Curve, examples::Json;

/// Of one call of the program. Its memory does not grow with the stream.
class Monitor {
 public:
  Monitor(const Config& config, const std::string& load, const std::string& save)
      : config_(config), save_(save), model_(config), log_(config.log, !load.empty()) {
    for (const std::string& path : {save, config.plot})
      if (!path.empty()) examples::require_writable(path);
    if (load.empty()) return;
    const examples::Checkpoint file(load);
    model_.load(file);
    watcher_ = file.values<Watcher>("watcher");
  }

  /// Learns from the past, so many times, before the stream begins. Nothing in it is an alarm.
  void learn(const std::vector<double>& history, std::int64_t epochs, bool quiet,
             const examples::Interrupt& interrupt) {
    const std::int64_t size = std::ssize(history);
    examples::Progress progress({.total = epochs * size, .quiet = quiet});
    for (std::int64_t epoch = 1; epoch <= epochs; ++epoch) {
      double squares = 0;
      for (std::int64_t t = 0; t < size; ++t) {
        if (interrupt.requested()) return;
        const double x = history[static_cast<std::size_t>(t)];
        const double error = x - watcher_.watch(x, model_, config_).expected;
        if (t > 0) squares += error * error;  // the first one is expected of nothing
        progress.update((epoch - 1) * size + t + 1, fmt::format("epoch {}/{}", epoch, epochs));
      }
      const double root = std::sqrt(squares / static_cast<double>(size));
      progress.finish(epoch * size, fmt::format("epoch {}/{}  error {:.4g}", epoch, epochs, root));
      log({{"epoch", epoch}, {"error", root}});
    }
  }

  /// One value; `line` is its number.
  Verdict watch(double x, std::int64_t line) {
    if (values_ == 2 * config_.steps) reset_peak_memory();
    const auto start = Clock::now();
    const Verdict verdict = watcher_.watch(x, model_, config_);
    const double seconds = std::chrono::duration<double>(Clock::now() - start).count();
    seconds_ += seconds;
    slowest_ = std::max(slowest_, seconds);
    ++values_;
    recent_.emplace_back(line, verdict);
    if (std::ssize(recent_) > config_.keep) recent_.pop_front();
    if (verdict.alarm) {
      if (verdict.begins) ++alarms_;
      log({{"line", line}, {"value", x}, {"expected", verdict.expected}, {"width", verdict.width}});
    }
    return verdict;
  }

  /// A line that is no number is reported, and that is all.
  void report(const std::string& text, std::int64_t line) {
    ++malformed_;
    examples::warn(fmt::format("line {}: '{}' is no number", line, examples::printable(text)));
    log({{"line", line}, {"malformed", examples::printable(text)}});
  }

  /// Saves, draws, and says what there was.
  void finish(const Score* score) {
    save();
    if (!config_.plot.empty() && !recent_.empty()) plot();
    const double mean = 1e6 * seconds_ / std::max(static_cast<double>(values_), 1.0);
    const std::int64_t peak = pool_stats().peak_in_use;
    fmt::print(
        "{} values, {} malformed lines, {} alarms. {:.1f} us per value (the slowest {:.0f} us), at "
        "most {:.0f} kB of tensors.{}\n",
        examples::grouped(values_), malformed_, alarms_, mean, 1e6 * slowest_,
        static_cast<double>(peak) / 1000, save_.empty() ? "" : " Saved " + save_ + ".");
    Json line{{"final", true},     {"values", values_},    {"malformed", malformed_},
              {"alarms", alarms_}, {"microseconds", mean}, {"peak_bytes", peak}};
    if (score) line["precision"] = score->precision(), line["recall"] = score->recall();
    log_.write(line);
  }

 private:
  using Clock = std::chrono::steady_clock;

  void save() {
    if (save_.empty()) return;
    examples::Checkpoint file;
    file.add_program("monitor");
    file.add_values("config", config_);
    file.add_values("watcher", watcher_);
    model_.save(file);
    file.save(save_);
  }
  /// What was learned is not lost where the log cannot be written.
  void log(const Json& line) {
    try {
      log_.write(line);
    } catch (const FileError&) {
      save();
      throw;
    }
  }

  /// The last values, what was expected of them, and the alarms; below, the errors and their range.
  void plot() const {
    Curve value{.name = "value"}, expected{.name = "expected"}, error{.name = "error"},
        range{.name = "usual range"}, high;
    Curve alarm{.name = "alarm", .points = true};
    for (const auto& [line, verdict] : recent_) {
      const auto add = [at = static_cast<double>(line)](Curve& curve, double y) {
        curve.x.push_back(at), curve.y.push_back(y);
      };
      add(value, verdict.value), add(expected, verdict.expected);
      add(error, verdict.value - verdict.expected);
      add(range, -verdict.width), add(high, verdict.width);
      if (verdict.alarm) add(alarm, verdict.value);
    }
    range.x.push_back(high.x.back()), range.y.push_back(std::nan(""));  // a gap
    range.x.insert(range.x.end(), high.x.begin(), high.x.end());
    range.y.insert(range.y.end(), high.y.begin(), high.y.end());
    examples::plot_svg(
        config_.plot,
        {{{.title = "The last values", .x_label = "line", .y_label = "x"},
          {value, expected, alarm}},
         {{.title = "Errors", .x_label = "line", .y_label = "x - expected"}, {error, range}}});
  }

  Config config_;
  std::string save_;
  Forecaster model_;
  Watcher watcher_;
  examples::JsonLog log_;
  std::deque<std::pair<std::int64_t, Verdict>> recent_;
  std::int64_t values_ = 0, malformed_ = 0, alarms_ = 0;
  double seconds_ = 0, slowest_ = 0;
};

}  // namespace monitor
