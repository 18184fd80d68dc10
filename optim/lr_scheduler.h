#pragma once
/// Learning-rate schedules.

#include <cstdint>
#include <functional>

#include "optim/optimizer.h"

namespace unroll {

/// Sets an optimizer's learning rate to the one that it had at first times a factor, which depends
/// on how often step() was called, once per epoch for instance. Any function makes a schedule:
///
///   LRScheduler warm_up(opt, [](std::int64_t epoch) { return std::min(1.0, 0.2 * (epoch + 1)); });
///
/// The optimizer must outlive it.
class LRScheduler {
 public:
  using Factor = std::function<double(std::int64_t epoch)>;

  /// Sets the learning rate for epoch 0.
  LRScheduler(Optimizer& optimizer, Factor factor);
  LRScheduler(const LRScheduler&) = delete;
  LRScheduler& operator=(const LRScheduler&) = delete;

  /// On to the next epoch.
  void step();
  /// How often step() was called.
  std::int64_t epoch() const { return epoch_; }

  /// "epoch" (i64, a scalar) and "base_lr" (f64, [1]).
  NamedTensors state_dict() const;
  /// Sets the learning rate, too. Throws ValueError unless both are there, and nothing else.
  void load_state_dict(const NamedTensors& state);

 private:
  Optimizer& optimizer_;
  Factor factor_;
  double base_lr_;
  std::int64_t epoch_ = 0;
};

/// Step decay: times gamma after every step_size epochs. Throws ValueError for a step_size below 1.
struct StepLR : LRScheduler {
  StepLR(Optimizer& optimizer, std::int64_t step_size, double gamma = 0.1);
};

}  // namespace unroll
