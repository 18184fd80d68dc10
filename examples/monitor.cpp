// Watches a stream of numbers: expects the next one, learns while it runs, and gives alarm.
//
//   monitor                                  on a generated sensor that drifts and fails
//   command | monitor watch                  on numbers of yours, one per line, as they come
//   command | monitor watch --history past.csv         ... and what was before
//   monitor generate | monitor watch         such a sensor's values, with their faults
// docs/examples/monitor.md has the equations and all options.

#include <fmt/format.h>
#include <unistd.h>
#include <unroll/unroll.h>

#include <chrono>
#include <cmath>
#include <cstdio>
#include <deque>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "common/interrupt.h"
#include "common/line_reader.h"
#include "common/plot.h"
#include "common/program.h"
#include "common/progress.h"
#include "common/training_program.h"
#include "data/sensor.h"

using namespace unroll;
using examples::Call, examples::Curve, examples::Json;
using Clock = std::chrono::steady_clock;

namespace {

/// A saved model carries it.
struct Config {
  std::int64_t hidden = 16, steps = 20, warm_up = 500, keep = 1000, epochs = 1;
  double limit = 4, lr = 0.01, clip = 1;
  std::uint64_t seed = 0;
  std::string log, plot = "monitor.svg";

  template <class F>
  void each(F&& option) {
    using examples::above, examples::at_least;
    option("hidden", hidden, "size of the hidden state", at_least(1));
    option("steps", steps, "values that the gradient flows back through", at_least(1));
    option("limit", limit, "usual range, in root mean squares of the error", above(0));
    option("warm-up", warm_up, "values to learn from before the first alarm", at_least(1));
    option("keep", keep, "last values that the plot shows", at_least(1));
    examples::each_learning_option(*this, option);
  }
};

/// Expects the next value of a stream, and learns while it runs:
///
///   h_t = GRU([scaled x_t, scaled (x_t - x_{t-1})], h_{t-1})
///   expected x_{t+1} = x_t + what is scaled to W h_t + b
///
/// with the running mean and deviation of values and changes. After every `steps` values the loss
/// of their errors is swept back and the state taken off the tape (truncated backpropagation
/// through time): the tape, and with it the memory, never grows beyond that.
class Forecaster : public Module {
 public:
  explicit Forecaster(const Config& config) : config_(config) {}

  /// The next value; NaN before the first one.
  double expected() {
    guess_ = out_(state_[0]);
    return last_.item() + changes_.unscale(guess_.item());
  }

  /// What has come instead.
  void read(double x) {
    const double change = std::isnan(last_.item()) ? 0 : x - last_.item();
    values_.add(x), changes_.add(change);
    losses_.push_back(huber_loss(guess_, full({1, 1}, changes_.scale(change))));
    if (std::ssize(losses_) == config_.steps) {
      optimizer_.zero_grad();
      mean(stack(losses_)).backward();
      if (config_.clip > 0) clip_grad_norm(optimizer_.parameters(), config_.clip);
      optimizer_.step();
      losses_.clear();
      state_ = detach(state_);  // where the next gradient ends
    }
    const std::vector<double> input{values_.scale(x), changes_.scale(change)};
    state_ = gru_.step(from_vector(input, {1, 2}).to(DType::f32), state_).state;
    last_.fill_(x);
  }

  void save(Checkpoint& file) const {
    file.add("model", state_dict()), file.add("optimizer", optimizer_);
    file.add("values", values_), file.add("changes", changes_);
    file.add("state", {{"h", state_[0].detach()}, {"last", last_}});
  }
  void load(const Checkpoint& file) {
    file.load("model", static_cast<Module&>(*this)), file.load("optimizer", optimizer_);
    file.load("values", values_), file.load("changes", changes_);
    copy_values(file.part("state"), {{"h", state_[0]}, {"last", last_}}, file.path());
  }

 private:
  Config config_;
  GRU gru_ = child("gru", GRU(2, config_.hidden));
  Linear out_ = child("out", Linear(config_.hidden, 1));
  Adam optimizer_{parameters(), {.lr = config_.lr}};
  GRU::State state_ = gru_.initial_state(1);
  Tensor guess_;                ///< W h_t + b, on the tape
  std::vector<Tensor> losses_;  ///< since the last step of descent
  RunningStatistics values_{500}, changes_{500};
  Tensor last_ = full({}, std::nan(""), DType::f64);
};

using Readings = std::deque<std::pair<std::int64_t, ControlChart::Reading>>;  ///< with their lines

/// The last values, the range in which they were expected, and the alarms.
void plot(const std::string& path, const Readings& readings) {
  Curve value{"value"}, least{"least usual"}, most{"most usual"};
  Curve alarm{.name = "alarm", .points = true};
  for (const auto& [line, r] : readings) {
    for (Curve* c : {&value, &least, &most, &alarm}) c->x.push_back(static_cast<double>(line));
    value.y.push_back(r.value), alarm.y.push_back(r.alarm ? r.value : std::nan(""));
    least.y.push_back(r.expected - r.width), most.y.push_back(r.expected + r.width);
  }
  examples::plot_svg(path, {.x_label = "line", .y_label = "x"}, {value, least, most, alarm});
}

/// Goes through the past, so many times, and then through a stream: next(line) gives its next line,
/// as long as there is one.
void watch(const Config& config, const Call& call, const examples::Checkpoint* saved,
           const std::vector<double>& past, const std::function<bool(std::string&)>& next) {
  for (const std::string& path : {call.save, config.plot}) examples::require_writable(path);
  examples::JsonLog log(config.log, saved != nullptr);
  Forecaster network(config);
  ControlChart chart({.limit = config.limit, .warm_up = config.warm_up}), naive_chart = chart;
  if (saved) network.load(*saved), saved->load("chart", chart);
  const auto save = [&] {
    examples::save(call, [&](examples::Checkpoint& file) {
      file.add_values("config", config);
      file.add("chart", chart);
      network.save(file);
    });
  };
  const auto step = [&](double x) {
    const ControlChart::Reading reading = chart.add(x, network.expected());
    network.read(reading.usual);  // a fault is not learned; what lasts is caught up with in steps
    return reading;
  };

  examples::Progress progress({.total = config.epochs * std::ssize(past), .quiet = call.quiet});
  for (std::int64_t epoch = 1; epoch <= config.epochs && !past.empty(); ++epoch) {
    AlarmScores scores;
    for (const double x : past) scores.add(step(x), "");
    log.write({{"epoch", epoch}, {"error", scores.usual_error()}}, save);
    progress.finish(epoch * std::ssize(past), fmt::format("error {:.4g}", scores.usual_error()));
  }

  AlarmScores scores, naive_scores;  // of the network; of the last value, expected again
  double last = std::nan("");
  std::int64_t number = 0, alarms = 0;
  RunningStatistics microseconds;
  Readings readings;
  for (std::string line; next(line);) {
    ++number;
    const std::size_t tab = (line + '\t').find('\t');  // behind it stands the fault
    const auto x = parse_number(line.substr(0, tab));
    if (!x || std::abs(*x) > 1e100) {
      examples::warn(fmt::format("line {}: '{}' is no number", number, examples::printable(line)));
      log.write({{"line", number}, {"malformed", examples::printable(line)}}, save);
      continue;
    }
    const auto start = Clock::now();
    const auto reading = step(*x);
    microseconds.add(std::chrono::duration<double, std::micro>(Clock::now() - start).count());
    scores.add(reading, line.erase(0, tab + 1));
    naive_scores.add(naive_chart.add(*x, std::exchange(last, *x)), line);
    readings.emplace_back(number, reading);
    if (std::ssize(readings) > config.keep) readings.pop_front();
    if (!reading.alarm) continue;
    const auto& [value, expected, width, usual, alarm, begins] = reading;
    log.write({{"line", number}, {"value", value}, {"expected", expected}, {"width", width}}, save);
    if (begins) ++alarms;
    if (!begins || call.quiet) continue;
    fmt::print("ALARM line {}: {:.6g}, expected {:.6g} +- {:.2g}\n", number, value, expected,
               width);
    std::fflush(stdout);
  }

  save();
  const std::int64_t values = microseconds.count(), malformed = number - values;
  const std::int64_t peak = pool_stats().peak_in_use;
  fmt::print("{} values, {} malformed lines, {} alarms. {:.1f} us per value, {} kB of tensors.{}\n",
             examples::grouped(values), malformed, alarms, microseconds.mean(), peak / 1000,
             call.save.empty() ? "" : " Saved " + call.save + ".");
  if (!scores.kinds().empty()) {
    fmt::print("\n{:14}   error  precision  recall  found, by kind of fault\n", "");
    for (const auto& [name, s] : {std::pair{"persistence", naive_scores}, {"network", scores}}) {
      fmt::print("{:14}{:8.3f}{:11.3f}{:8.3f} ", name, s.usual_error(), s.precision(), s.recall());
      for (const auto& [kind, n] : s.kinds()) fmt::print(" {} {}/{}", kind, n.found, n.all);
      fmt::print("\n");
    }
  }
  Json last_line{{"final", true}, {"values", values}, {"malformed", malformed}, {"alarms", alarms}};
  last_line["microseconds"] = microseconds.mean(), last_line["peak_bytes"] = peak;
  last_line["precision"] = scores.precision(), last_line["recall"] = scores.recall();
  log.write(last_line);
  if (!config.plot.empty() && values > 0) plot(config.plot, readings);
}

}  // namespace

int main(int argc, char** argv) {
  Config config;
  std::string history;
  std::int64_t length = 20'000;
  examples::TrainingProgram program("Watches a stream of numbers.", "monitor", argc, argv, "demo",
                                    "watch a generated sensor that drifts and fails");
  CLI::App& demo = program.train();
  CLI::App& input = program.add_training("watch", "watch the numbers on stdin, one per line");
  CLI::App& generate = program.add_action("generate", "print such a sensor's values", [&] {
    for (examples::Sensor sensor(config.seed); length-- > 0;) fmt::print("{}\n", sensor.next());
  });
  generate.add_option("--seed", config.seed, "of all random numbers")->check(examples::at_least(0));
  for (CLI::App* command : {&demo, &generate})
    command->add_option("--length", length, "values (20000)")->check(examples::at_least(1));
  for (CLI::App* command : {&demo, &input})
    command->add_option("--history", history, "CSV file, its last column the past to learn first");

  const auto learn = [&](const Config&, const Call& call, const examples::Checkpoint* saved) {
    if (history.empty() && demo.count("--epochs") + input.count("--epochs") > 0)
      throw CLI::RequiresError("--epochs", "--history");
    std::vector<double> past;
    if (!history.empty()) {
      const CsvTable table = read_csv(history);
      past = table.numbers(std::to_string(table.columns()));
    }
    const examples::Interrupt interrupt;
    examples::LineReader reader(STDIN_FILENO);
    examples::Sensor sensor(config.seed);
    const auto next = [&](std::string& line) {
      if (input.parsed()) return reader.next(line, interrupt);
      line = sensor.next();
      return length-- > 0 && !interrupt.requested();
    };
    manual_seed(config.seed);
    watch(config, call, saved, past, next);
    return interrupt.exit_code();
  };
  return program.run(config, {"hidden"}, learn);
}
