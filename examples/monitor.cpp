// Watches a stream of numbers: expects the next one, learns while it runs, and gives alarm.
//
//   monitor                                   on a generated sensor that drifts and fails
//   monitor generate --labels faults.txt      prints such a sensor's values
//   command | monitor watch                   a number per line of yours, as they come
//   monitor watch --labels faults.txt         ... and how many of the faults were found
//   monitor watch --history past.csv          ... that knows what was before
//
// docs/examples/monitor.md has the equations and all options.

#include <fmt/format.h>
#include <unistd.h>
#include <unroll/unroll.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "common/checkpoint.h"
#include "common/interrupt.h"
#include "common/line_reader.h"
#include "common/options.h"
#include "common/program.h"
#include "common/progress.h"
#include "framework/file.h"
#include "monitor/model.h"
#include "monitor/monitor.h"
#include "monitor/sensor.h"
#include "monitor/watcher.h"

using namespace unroll;
using monitor::Config, monitor::Monitor, monitor::Score, monitor::Sensor, monitor::Verdict,
    monitor::Watcher;

namespace {

/// Numbers from stdin, as they come. Returns the exit code.
int watch(Monitor& monitor, const std::string& labels, bool quiet,
          const examples::Interrupt& interrupt) {
  std::ifstream faults(labels);
  if (!labels.empty() && (!faults || std::filesystem::is_directory(labels)))
    throw FileError(fmt::format("cannot read '{}'", labels));
  examples::LineReader reader(STDIN_FILENO);
  Score score;
  std::int64_t number = 0;
  for (std::string line, fault; reader.next(line, interrupt);) {
    ++number;
    if (!labels.empty() && !std::getline(faults, fault))
      throw FileError(fmt::format("cannot read '{}': line {}: there is none, but the input goes on",
                                  labels, number));
    const std::optional<double> x = parse_number(line);
    if (!x || std::abs(*x) > 1e100) {
      monitor.report(line, number);
      continue;
    }
    const Verdict verdict = monitor.watch(*x, number);
    score.add(verdict, fault);
    if (verdict.begins && !quiet) {
      fmt::print("ALARM line {}: {:.6g}, expected {:.6g} +- {:.2g}\n", number, *x, verdict.expected,
                 verdict.width);
      std::fflush(stdout);
    }
  }
  monitor.finish(labels.empty() ? nullptr : &score);
  if (!labels.empty())
    fmt::print("precision {:.3f}, recall {:.3f}\n", score.precision(), score.recall());
  return interrupt.exit_code();
}

/// The generated sensor, by the forecaster and by persistence. Returns the exit code.
int demonstrate(Monitor& monitor, const Config& config, std::int64_t length, bool quiet,
                const examples::Interrupt& interrupt) {
  Sensor sensor(config.seed);
  monitor::Persistence persistence;
  Watcher naive;
  struct Row {
    const char* name;
    Score score{};
    double squares = 0;
  } rows[] = {{"persistence"}, {"network"}};
  std::int64_t good = 0, t = 0;  // values with nothing wrong; all values
  {
    examples::Progress progress({.total = length, .quiet = quiet});
    for (; t < length && !interrupt.requested(); ++t) {
      const auto [x, fault] = sensor.next();
      const Verdict verdicts[] = {naive.watch(x, persistence, config), monitor.watch(x, t + 1)};
      bool counts = false;
      for (int i = 0; i < 2; ++i) {
        rows[i].score.add(verdicts[i], fault);
        counts = t >= config.warm_up && rows[i].score.clear();
        if (counts) rows[i].squares += std::pow(x - verdicts[i].expected, 2);
      }
      if (counts) ++good;
      progress.update(t + 1, fmt::format("{} alarms right, {} wrong", rows[1].score.right,
                                         rows[1].score.wrong));
    }
    progress.finish(t, "");
  }
  monitor.finish(&rows[1].score);
  fmt::print("\n{:14}{:>8}{:>11}{:>8}  found, by kind of fault\n", "", "error", "precision",
             "recall");
  for (const Row& row : rows) {
    fmt::print("{:14}{:8.3f}{:11.3f}{:8.3f} ", row.name,
               std::sqrt(row.squares / std::max(static_cast<double>(good), 1.0)),
               row.score.precision(), row.score.recall());
    for (const auto& [kind, counts] : row.score.kinds)
      fmt::print(" {} {}/{}", kind, counts.first, counts.second);
    fmt::print("\n");
  }
  return interrupt.exit_code();
}

/// The sensor's values on stdout, and what is wrong with each of them in a file.
void generate(std::int64_t length, std::uint64_t seed, const std::string& labels) {
  if (!labels.empty()) examples::require_writable(labels);
  Sensor sensor(seed);
  std::string faults;
  for (std::int64_t t = 0; t < length; ++t) {
    const auto [value, fault] = sensor.next();
    fmt::print("{:.6f}\n", value);
    faults += fault + "\n";
  }
  if (!labels.empty()) write_file_atomically(labels, faults);
}

}  // namespace

int main(int argc, char** argv) {
  std::vector<std::string> arguments(argv + 1, argv + argc);
  const std::string first = arguments.empty() ? "-" : arguments[0];
  if (first[0] == '-' && first != "--help" && first != "-h")
    arguments.insert(arguments.begin(), "demo");

  CLI::App app("Watches a stream of numbers. Without a command: demo.", "monitor");
  app.require_subcommand(1);
  CLI::App& demo = *app.add_subcommand("demo", "watch a generated sensor that drifts and fails");
  CLI::App& watches = *app.add_subcommand("watch", "watch the numbers on stdin, one per line");
  CLI::App& generates = *app.add_subcommand("generate", "print the values of such a sensor");
  Config config;
  std::string load, save = "monitor.safetensors", labels;
  std::string history;
  std::int64_t length = 20'000, epochs = 1;
  int threads = 1;
  bool quiet = false;
  for (CLI::App* command : {&demo, &watches}) {
    examples::add_options(*command, config);
    command->add_option("--load", load, "what an earlier call saved, to go on from");
    CLI::Option* past = command->add_option(
        "--history", history, "CSV file whose last column is the past, to learn before the stream");
    command->add_option("--epochs", epochs, "times through the history")
        ->capture_default_str()
        ->check(examples::at_least(1))
        ->needs(past);
    command->add_option("--save", save, "file for the model; \"\": none")->capture_default_str();
    command->add_option("--threads", threads, "0: one per core")
        ->capture_default_str()
        ->check(examples::at_least(0));
  }
  demo.add_flag("--quiet", quiet, "no progress");
  watches.add_flag("--quiet", quiet, "no alarms, only what there was at the end");
  watches.add_option("--labels", labels, "file with the fault of each line, or nothing");
  generates.add_option("--labels", labels, "file for the fault of each value, or an empty line");
  generates.add_option("--seed", config.seed, "of all random numbers")
      ->capture_default_str()
      ->check(examples::at_least(0));
  for (CLI::App* command : {&demo, &generates})
    command->add_option("--length", length, "values")
        ->capture_default_str()
        ->check(examples::at_least(1));

  return examples::run(app, arguments, [&] {
    if (generates.parsed()) {
      generate(length, config.seed, labels);
      return 0;
    }
    if (threads > 0) set_num_threads(threads);
    if (!load.empty()) {
      const examples::Checkpoint saved(load);
      saved.require_program("monitor");
      config = saved.values<Config>("config");
      const std::int64_t hidden = config.hidden;
      examples::parse(app, arguments);  // options that are given count more
      if (config.hidden != hidden)
        throw ValueError(
            fmt::format("--hidden {} does not fit {}, which has {}", config.hidden, load, hidden));
    }
    manual_seed(config.seed);
    Monitor monitor(config, load, save);
    const examples::Interrupt interrupt;
    if (!history.empty()) {
      const CsvTable past = read_csv(history);
      monitor.learn(past.numbers(std::to_string(past.columns())), epochs, quiet, interrupt);
    }
    return watches.parsed() ? watch(monitor, labels, quiet, interrupt)
                            : demonstrate(monitor, config, length, quiet, interrupt);
  });
}
