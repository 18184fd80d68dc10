#pragma once
/// Learning-rate schedules.
///
///   LRScheduler schedule(opt, CosineAnnealingLR{.T_max = 50});
///   for (int epoch = 0; epoch < 50; ++epoch) {
///     train(model, opt);
///     schedule.step();
///   }
///
/// A rule says what the learning rate of an epoch is; LRScheduler applies it to an optimizer. The
/// rules have PyTorch's names and give PyTorch's numbers. They throw ValueError, when they are
/// first applied, for options out of their range.

#include <cstdint>
#include <functional>
#include <vector>

#include "optim/optimizer.h"

namespace unroll {

/// The learning rate of an epoch (0, 1, 2, ...), given the one that the optimizer had at first. Any
/// function will do:
///
///   LRScheduler warm_up(opt, [](double lr, std::int64_t epoch) { return lr / (1.0 + epoch); });
using LRRule = std::function<double(double lr, std::int64_t epoch)>;

/// Sets the learning rate of each group of an optimizer by a rule, depending on how often step()
/// was called, once per epoch for instance. The optimizer must outlive it.
class LRScheduler {
 public:
  /// Sets the learning rates for epoch 0.
  LRScheduler(Optimizer& optimizer, LRRule rule);
  LRScheduler(const LRScheduler&) = delete;
  LRScheduler& operator=(const LRScheduler&) = delete;

  /// On to the next epoch.
  void step();
  /// How often step() was called.
  std::int64_t epoch() const { return epoch_; }

  /// "epoch" (i64, a scalar) and "base_lr" (f64, one per group).
  NamedTensors state_dict() const;
  /// Sets the learning rates, too. Throws ValueError unless both are there, and nothing else.
  void load_state_dict(const NamedTensors& state);

 private:
  std::vector<double> rates(const std::vector<double>& base, std::int64_t epoch) const;
  void apply(const std::vector<double>& rates);

  Optimizer& optimizer_;
  LRRule rule_;
  std::vector<double> base_lr_;  ///< of each group
  std::int64_t epoch_ = 0;
};

// --- Rules --------------------------------------------------------------------------------------

/// Times gamma after every step_size epochs.
struct StepLR {
  std::int64_t step_size;  ///< at least 1
  double gamma = 0.1;      ///< not negative, here and below
  /// The rate at an epoch, from 0 on.
  double operator()(double lr, std::int64_t epoch) const;
};

/// Times gamma when an epoch of `milestones` is reached; one that is listed twice counts twice.
struct MultiStepLR {
  std::vector<std::int64_t> milestones;  ///< epochs
  double gamma = 0.1;                    ///< the factor
  /// The rate at an epoch, from 0 on.
  double operator()(double lr, std::int64_t epoch) const;
};

/// Times gamma after every epoch.
struct ExponentialLR {
  double gamma;  ///< the factor
  /// The rate at an epoch, from 0 on.
  double operator()(double lr, std::int64_t epoch) const;
};

/// Linear warm-up: the factor goes from start_factor to end_factor in total_iters epochs and stays
/// there.
struct LinearLR {
  double start_factor = 1.0 / 3.0;  ///< above 0, at most 1
  double end_factor = 1.0;          ///< in [0, 1]
  std::int64_t total_iters = 5;     ///< at least 1
  /// The rate at an epoch, from 0 on.
  double operator()(double lr, std::int64_t epoch) const;
};

/// Half a cosine from lr down to eta_min in T_max epochs, and then up again, and so on.
struct CosineAnnealingLR {
  std::int64_t T_max;    ///< at least 1
  double eta_min = 0.0;  ///< the lowest rate
  /// The rate at an epoch, from 0 on.
  double operator()(double lr, std::int64_t epoch) const;
};

/// Half a cosine from lr down to eta_min in T_0 epochs; then again from lr in T_0 * T_mult epochs,
/// T_0 * T_mult^2 and so on (Loshchilov and Hutter 2017, eq. 5).
struct CosineAnnealingWarmRestarts {
  std::int64_t T_0;         ///< at least 1
  std::int64_t T_mult = 1;  ///< at least 1
  double eta_min = 0.0;     ///< the lowest rate
  /// The rate at an epoch, from 0 on.
  double operator()(double lr, std::int64_t epoch) const;
};

/// Each rule is given the learning rate that the one before it made: factors are multiplied.
///
///   LRScheduler schedule(opt, ChainedScheduler{{LinearLR{}, ExponentialLR{.gamma = 0.9}}});
struct ChainedScheduler {
  std::vector<LRRule> rules;  ///< in their order
  /// The rate at an epoch, from 0 on.
  double operator()(double lr, std::int64_t epoch) const;
};

/// One rule after the other: rule i + 1 begins with its epoch 0 at epoch milestones[i].
///
///   LRScheduler schedule(opt, SequentialLR{{LinearLR{}, CosineAnnealingLR{.T_max = 45}}, {5}});
struct SequentialLR {
  std::vector<LRRule> rules;             ///< in their order
  std::vector<std::int64_t> milestones;  ///< rising, from 1 on, one less than rules
  /// The rate at an epoch, from 0 on.
  double operator()(double lr, std::int64_t epoch) const;
};

// --- Plateau ------------------------------------------------------------------------------------

/// Options of ReduceLROnPlateau; the defaults are PyTorch's.
struct ReduceLROnPlateauOptions {
  /// Whether small metrics are good, or large ones.
  enum class Mode { min, max };
  /// Whether the threshold is a part of the best metric, or absolute.
  enum class ThresholdMode { rel, abs };

  Mode mode = Mode::min;       ///< whether smaller metrics are better, or larger
  double factor = 0.1;         ///< in [0, 1)
  std::int64_t patience = 10;  ///< epochs without improvement that are put up with
  double threshold = 1e-4;     ///< what is better by less is no improvement:
  ThresholdMode threshold_mode = ThresholdMode::rel;  ///< by a part of the best metric, or as it is
  std::int64_t cooldown = 0;  ///< epochs after a reduction that are not counted
  double min_lr = 0.0;        ///< no rate falls below it
  double eps = 1e-8;          ///< a smaller change is not made
};

/// Multiplies the learning rates by a factor when a metric, such as the loss on validation data,
/// has stopped to get better. It changes the rates that it finds: not to be used together with an
/// LRScheduler, which sets them. A metric that is NaN is no improvement. Throws ValueError for
/// options out of their range.
class ReduceLROnPlateau {
 public:
  /// Refers to the optimizer, which has to live as long.
  explicit ReduceLROnPlateau(Optimizer& optimizer, const ReduceLROnPlateauOptions& options = {});
  ReduceLROnPlateau(const ReduceLROnPlateau&) = delete;
  ReduceLROnPlateau& operator=(const ReduceLROnPlateau&) = delete;

  /// Once per epoch, with its metric.
  void step(double metric);

  /// "best" (f64, a scalar), "num_bad_epochs" and "cooldown_counter" (i64, scalars). The learning
  /// rates are in the optimizer's state.
  NamedTensors state_dict() const;
  /// Throws ValueError, and changes nothing, unless all fits.
  void load_state_dict(const NamedTensors& state);

 private:
  bool improves(double metric) const;

  Optimizer& optimizer_;
  ReduceLROnPlateauOptions options_;
  double best_;
  std::int64_t bad_epochs_ = 0, cooldown_ = 0;
};

}  // namespace unroll
