#pragma once
/// Models that learn one task side by side, from the same batches, so that they can be compared.

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "examples/common/checkpoint.h"
#include "examples/common/epoch_loop.h"
#include "examples/common/plot.h"
#include "examples/common/training.h"
#include "framework/tensor.h"
#include "modules/module.h"
#include "optim/best_weights.h"
#include "optim/optimizer.h"

namespace examples {

struct Batch {
  unroll::Tensor x, y;
};

/// How a model has learned.
struct LearningCurve {
  std::vector<double> loss;     ///< the mean of each complete epoch
  std::vector<double> seconds;  ///< for how long it has learned when the epoch ends
  std::vector<double> norm;     ///< the largest norm of the gradient, before clipping, in the epoch
  std::vector<double> valid;    ///< Learner::validate after the epoch, if there is one
  double bytes = 0;             ///< memory that a step took at its peak, the mean of the last epoch
  bool diverged = false;        ///< the loss was not finite any more, and learning ended

  std::int64_t steps = 0;  // of the epoch that goes on, and of these:
  double loss_sum = 0, largest_norm = 0, byte_sum = 0, elapsed = 0;

  template <class F>
  void each(F&& field) {
    field("loss", loss), field("seconds", seconds), field("norm", norm), field("bytes", bytes);
    field("valid", valid);
    field("diverged", diverged), field("steps", steps), field("loss_sum", loss_sum);
    field("largest_norm", largest_norm), field("byte_sum", byte_sum), field("elapsed", elapsed);
  }
};

/// One of the models.
struct Learner {
  std::string name;
  unroll::Module model;  ///< a handle, for the parameters
  std::function<unroll::Tensor(const Batch&)> loss;
  std::function<double()> validate{};  ///< an error on other data, to choose an epoch by
  std::shared_ptr<unroll::Optimizer> optimizer{};  ///< default: Adam with --lr
  std::optional<double> clip{};  ///< largest norm of the gradient, 0: any; default: --clip
  LearningCurve curve{};
  std::optional<unroll::BestWeights> best{};  ///< by validate()
};

/// Trains learners in step: each batch is made once and seen by all. They are saved together, once
/// a minute, at the end and when interrupted; a run that goes on from there is the same as one that
/// was never interrupted.
class Comparison {
 public:
  /// An epoch are so many batches. Throws FileError for files that cannot be written.
  Comparison(const TrainingOptions& options, std::int64_t batches, const Call& call);

  void add(Learner learner);
  const std::vector<Learner>& learners() const { return learners_; }
  /// Per epoch.
  std::int64_t batches() const { return batches_; }
  /// The models of a file, to use them. Throws FileError for one of other learners.
  void load(const Checkpoint& saved);
  /// The same, to go on with its training. Throws ValueError if all epochs are done.
  void go_on_from(const Checkpoint& saved);

  /// Gives those that validate the weights of their best epoch; returns the place of the best.
  std::size_t use_best();

  /// All epochs that are left, or until Ctrl-C. `describe` adds to a file what it takes to make the
  /// learners again. Returns whether all is done; otherwise it has said how to go on.
  bool run(const std::function<Batch()>& make_batch,
           const std::function<void(Checkpoint&)>& describe);
  int exit_code() const { return loop_.exit_code(); }
  /// A last line for the log, with "final" before it.
  void log_final(const Metrics& metrics);
  /// A line for each: its loss, time and memory per batch, and the largest gradient.
  std::string table() const;
  /// The loss of each as a curve, and that of a model that learns nothing, if one is given.
  std::vector<Curve> loss_curves(std::optional<double> baseline = {}) const;
  /// The same over the time that each has learned for.
  std::vector<Curve> loss_over_seconds() const;
  /// The largest norm of the gradient in each epoch.
  std::vector<Curve> norm_curves() const;

 private:
  void learn(Learner& learner, const Batch& batch) const;
  void validate(Learner& learner) const;
  void finish_epoch(Json& line);
  std::string status() const;

  TrainingOptions options_;
  std::int64_t batches_;
  std::vector<Learner> learners_;
  EpochLoop loop_;
};

}  // namespace examples
