#pragma once
/// What a program that learns by epochs does around its equations: commands and options, a file to
/// go on from, progress, Ctrl-C, log and plot.
///
///   Config config;                                    // with each(), which calls training.each()
///   examples::TrainingProgram program("What it does.", "name", argc, argv);
///   CLI::App& use = program.add_command("use", "what a saved model is for");
///   return program.run(config, {"hidden"},
///                      [&](const Call& call, const Checkpoint* saved) { ... },
///                      [&](const CLI::App& command, const Checkpoint& saved) { ... });
///
/// and, where it trains,
///
///   examples::Training training(config.training, call, model, optimizer, [&](Checkpoint& file) {
///     file.add_values("config", config);
///   });
///   if (saved) training.go_on_from(*saved);
///   bool done = training.run(
///       [&](Generator& generator) { return bucketed_batches(sequences, {}, generator); },
///       [&](const PaddedBatch& batch) { return TrainingLoss{loss(batch), batch.size}; },
///       [&] { return Metrics{{"accuracy", accuracy()}}; });

#include <CLI/CLI.hpp>
#include <array>
#include <cstdint>
#include <functional>
#include <initializer_list>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "examples/common/checkpoint.h"
#include "examples/common/interrupt.h"
#include "examples/common/json_log.h"
#include "examples/common/options.h"
#include "framework/random.h"
#include "modules/module.h"
#include "optim/optimizer.h"

namespace examples {

/// Options that every training has. A saved model carries them.
struct TrainingOptions {
  std::int64_t epochs = 10;
  std::int64_t batch = 32;
  double lr = 1e-3;
  double clip = 1;
  std::uint64_t seed = 0;
  std::string log{}, plot{};

  template <class F>
  void each(F&& option) {
    option("epochs", epochs, "times through the training data", at_least(1));
    option("batch", batch, "sequences side by side", at_least(1));
    option("lr", lr, "learning rate of Adam", above(0));
    option("clip", clip, "largest norm of the gradient; 0: any", at_least(0));
    option("seed", seed, "of all random numbers");
    option("log", log, "file for one JSON object per epoch");
    option("plot", plot, "SVG file for the curves; \"\": none");
  }
};

/// The files of --train, --dev and --test, with each() for a configuration.
struct DataFiles {
  std::string train{}, dev{}, test{};

  template <class F>
  void each(F&& option) {
    option("train", train, "file to learn (default: the bundled data)");
    option("dev", dev, "file to measure on after each epoch");
    option("test", test, "file to measure on at the end");
  }
  /// Without --train those that come with the examples, such as "ner.english.train.conll" for
  /// ("ner.english", "conll"). Throws ValueError for --dev or --test alone.
  DataFiles or_bundled(const std::string& name, const std::string& extension) const;
};

/// What belongs to one call of a program; a saved model carries the rest.
struct Call {
  std::string load, save, program;
  int threads = 0;
  bool quiet = false;
};

/// A command line: "train", which is also meant when there is no command, and others that use a
/// saved model.
class TrainingProgram {
 public:
  /// The default file for models is "name.safetensors".
  TrainingProgram(const std::string& description, const std::string& name, int argc, char** argv);

  /// Its options are those of the configuration, --load, --save, --quiet and --threads.
  CLI::App& train() { return *train_; }
  /// Has the options --load and --threads.
  CLI::App& add_command(const std::string& name, const std::string& description);

  /// Parses and calls `learn(call, saved)`, which returns the exit code, or `use(command, saved)`.
  /// With --load the configuration is that of the file, and options that are given count more; it
  /// is a ValueError if one of the options `fixed`, which make the model what it is, differs.
  template <class Config>
  int run(Config& config, std::initializer_list<const char*> fixed,
          const std::function<int(const Call&, const Checkpoint*)>& learn,
          const std::function<void(const CLI::App&, const Checkpoint&)>& use) {
    add_options(train(), config);
    return dispatch([&](const Checkpoint& saved) { config = saved.values<Config>("config"); },
                    [&](const Checkpoint& saved) {
                      require_same(to_json(saved.values<Config>("config")), to_json(config), fixed);
                    },
                    learn, use);
  }

 private:
  int dispatch(const std::function<void(const Checkpoint&)>& load,
               const std::function<void(const Checkpoint&)>& check,
               const std::function<int(const Call&, const Checkpoint*)>& learn,
               const std::function<void(const CLI::App&, const Checkpoint&)>& use);
  void require_same(const Json& before, const Json& now,
                    std::initializer_list<const char*> fixed) const;

  std::vector<std::string> arguments_;
  CLI::App app_;
  CLI::App* train_;
  std::string default_file_;
  Call call_;
};

/// The mean loss over so many tokens or sequences.
struct TrainingLoss {
  unroll::Tensor mean;
  std::int64_t units;
};

/// Numbers with names, such as {"dev_accuracy", 0.9}.
using Metrics = std::vector<std::pair<std::string, double>>;

class Training {
 public:
  /// `describe` adds to a file what it takes to use the model: configuration and vocabularies.
  /// `units` are what the loss is a mean over: "tokens", "sentences". Throws FileError for files
  /// that cannot be written, before any work is done.
  Training(const TrainingOptions& options, const Call& call, unroll::Module& model,
           unroll::Optimizer& optimizer, std::function<void(Checkpoint&)> describe,
           std::string units = "sentences");

  /// The model, optimizer, position and random numbers of a file. Throws ValueError if all epochs
  /// are done.
  void go_on_from(const Checkpoint& saved);

  /// All epochs that are left, or until Ctrl-C. Each calls make_batches(generator), with the same
  /// generator if the epoch goes on after an interruption; loss(batch) -> TrainingLoss for each
  /// batch; and metrics() at its end, in evaluation mode and off the tape. Saves at the end, once a
  /// minute, and when interrupted. Returns whether all is done; otherwise it has said how to go on.
  template <class MakeBatches, class Loss>
  bool run(const MakeBatches& make_batches, const Loss& loss,
           const std::function<Metrics()>& metrics) {
    return run_epochs(
        [&](unroll::Generator& generator) {
          auto batches =
              std::make_shared<decltype(make_batches(generator))>(make_batches(generator));
          return Epoch{batches->size(),
                       [batches, &loss](std::int64_t i) { return loss((*batches)[i]); }};
        },
        metrics);
  }
  int exit_code() const { return interrupt_.exit_code(); }

  /// One value per complete epoch, of "train_loss" and of each metric.
  const std::vector<double>& curve(const std::string& name) const;
  std::int64_t epochs() const { return at_.epoch; }
  /// Of all complete epochs, evaluation not counted.
  double seconds() const { return at_.total_seconds; }
  /// The last line of the log: "final", the number of parameters, and these.
  void log_final(const Metrics& metrics);
  /// The curves as a picture, if one is wanted.
  void plot(const std::string& title, const std::string& y_label,
            const std::vector<std::pair<std::string, std::string>>& names_and_titles) const;

 private:
  struct Epoch {
    std::int64_t batches = 0;
    std::function<TrainingLoss(std::int64_t)> loss;
  };
  /// With model, optimizer and random numbers, all that it takes to go on as if nothing had
  /// happened.
  struct Position {
    std::int64_t epoch = 0;    ///< complete epochs
    std::int64_t batch = 0;    ///< complete batches of the next one,
    std::int64_t batches = 0;  ///< out of so many,
    double loss = 0;           ///< the sum over their units,
    std::int64_t units = 0;    ///< how many these are,
    double seconds = 0;        ///< and what they took
    double total_seconds = 0;
    std::map<std::string, std::vector<double>> curves;
    std::array<std::uint64_t, 6> generator{};

    template <class F>
    void each(F&& field) {
      field("epoch", epoch), field("batch", batch), field("batches", batches);
      field("loss", loss), field("units", units), field("seconds", seconds);
      field("total_seconds", total_seconds), field("curves", curves);
      field("generator", generator);
    }
    void start_epoch() { batch = units = 0, loss = seconds = 0; }
  };

  bool run_epochs(const std::function<Epoch(unroll::Generator&)>& start,
                  const std::function<Metrics()>& metrics);
  void learn(const TrainingLoss& loss);
  void finish_epoch(const Metrics& metrics);
  void save();

  TrainingOptions options_;
  Call call_;
  unroll::Module model_;
  unroll::Optimizer& optimizer_;
  std::function<void(Checkpoint&)> describe_;
  std::string units_;
  Position at_;
  std::optional<JsonLog> log_;
  Interrupt interrupt_;
};

}  // namespace examples
