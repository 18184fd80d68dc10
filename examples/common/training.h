#pragma once
/// What a program that learns by epochs does around its equations: commands and options, a file to
/// go on from, progress, Ctrl-C, log and plot.
///
///   Config config;                                    // with each(), which calls training.each()
///   examples::TrainingProgram program("What it does.", "name", argc, argv);
///   CLI::App& use = program.add_command("use", "what a saved model is for");
///   return program.run(config, {"hidden"},
///                      [&](const Config&, const Call& call, const Checkpoint* saved) { ... },
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

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "examples/common/checkpoint.h"
#include "examples/common/epoch_loop.h"
#include "examples/common/plot.h"
#include "examples/common/training_program.h"
#include "framework/autograd.h"
#include "framework/random.h"
#include "modules/module.h"
#include "optim/optimizer.h"

namespace examples {

/// The mean loss over so many tokens or sequences.
struct TrainingLoss {
  unroll::Tensor mean;
  std::int64_t units;
};

/// Numbers with names, such as {"dev_accuracy", 0.9}.
using Metrics = std::vector<std::pair<std::string, double>>;

/// The mean over all units of the batches of a data set, off the tape; loss(batch) -> TrainingLoss.
/// The model has to be in evaluation mode.
template <class Batches, class Loss>
double mean_loss(const Batches& batches, const Loss& loss) {
  const unroll::NoGrad no_grad;
  double sum = 0, all = 0;
  for (const auto& batch : batches) {
    const auto [mean, units] = loss(batch);
    sum += mean.item() * static_cast<double>(units);
    all += static_cast<double>(units);
  }
  return sum / all;
}

/// Trains one model with one optimizer.
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
  /// Where the epoch that was interrupted cannot go on: `why` is the first part of a warning.
  void restart_epoch(const std::string& why) { loop_.restart_epoch(why); }

  /// All epochs that are left, or until Ctrl-C. Each calls make_batches(generator), with the same
  /// generator if the epoch goes on after an interruption; loss(batch) -> TrainingLoss for each
  /// batch; and metrics() at its end, in evaluation mode and off the tape, when curve() has its
  /// "train_loss". Saves at the end, once a minute, and when interrupted. Returns whether all is
  /// done; otherwise it has said how to go on.
  template <class MakeBatches, class Loss>
  bool run(const MakeBatches& make_batches, const Loss& loss,
           const std::function<Metrics()>& metrics) {
    return run_epochs(
        [&](unroll::Generator& generator) {
          auto batches =
              std::make_shared<decltype(make_batches(generator))>(make_batches(generator));
          return Epoch{std::ssize(*batches),
                       [batches, &loss](std::int64_t i) { return loss((*batches)[i]); }};
        },
        metrics);
  }
  int exit_code() const { return loop_.exit_code(); }

  /// One value per complete epoch, of "train_loss" and of each metric.
  const std::vector<double>& curve(const std::string& name) const;
  std::int64_t epochs() const { return loop_.epochs(); }
  /// Of all complete epochs, evaluation not counted.
  double seconds() const { return so_far_.total_seconds; }
  /// The last line of the log: "final", the number of parameters, and these.
  void log_final(const Metrics& metrics);
  /// Curves, by name and title, over the epochs as a picture, if one is wanted and there is
  /// something to see. A name that no metric has is left out.
  void plot(const PlotOptions& options,
            const std::vector<std::pair<std::string, std::string>>& names_and_titles) const;

 private:
  struct Epoch {
    std::int64_t batches = 0;
    std::function<TrainingLoss(std::int64_t)> loss;
  };
  /// What has come out.
  struct Results {
    double loss = 0;         ///< of the epoch that goes on: the sum over its units,
    std::int64_t units = 0;  ///< how many these are,
    double seconds = 0;      ///< and what they took
    double total_seconds = 0;
    std::map<std::string, std::vector<double>> curves;

    template <class F>
    void each(F&& field) {
      field("loss", loss), field("units", units), field("seconds", seconds);
      field("total_seconds", total_seconds), field("curves", curves);
    }
  };

  bool run_epochs(const std::function<Epoch(unroll::Generator&)>& start,
                  const std::function<Metrics()>& metrics);
  void learn(const TrainingLoss& loss);
  std::string status() const;
  void finish_epoch(const std::function<Metrics()>& metrics, Json& line);

  TrainingOptions options_;
  unroll::Module model_;
  unroll::Optimizer& optimizer_;
  std::function<void(Checkpoint&)> describe_;
  std::string units_;
  Results so_far_;
  EpochLoop loop_;
};

}  // namespace examples
