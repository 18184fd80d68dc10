#include "optim/lr_scheduler.h"

#include <cmath>
#include <utility>

#include "framework/internal.h"

namespace unroll {

using detail::fail;

LRScheduler::LRScheduler(Optimizer& optimizer, Factor factor)
    : optimizer_(optimizer), factor_(std::move(factor)), base_lr_(optimizer.lr()) {
  optimizer_.set_lr(base_lr_ * factor_(0));
}

void LRScheduler::step() {
  ++epoch_;
  optimizer_.set_lr(base_lr_ * factor_(epoch_));
}

NamedTensors LRScheduler::state_dict() const {
  return {{"epoch", from_vector<std::int64_t>({epoch_}, {})},
          {"base_lr", tensor({base_lr_}, DType::f64)}};
}

void LRScheduler::load_state_dict(const NamedTensors& state) {
  const Tensor epoch = zeros({}, DType::i64);
  const Tensor base_lr = zeros({1}, DType::f64);
  copy_values(state, {{"epoch", epoch}, {"base_lr", base_lr}}, "load_state_dict: LRScheduler");
  const std::int64_t count = *epoch.data<std::int64_t>();
  if (count < 0)
    fail<ValueError>("load_state_dict: LRScheduler: epoch must not be negative, but is {}", count);
  optimizer_.set_lr(base_lr.item() * factor_(count));
  epoch_ = count;
  base_lr_ = base_lr.item();
}

namespace {

LRScheduler::Factor step_decay(std::int64_t step_size, double gamma) {
  if (step_size < 1) fail<ValueError>("StepLR: step_size must be at least 1, but is {}", step_size);
  return [=](std::int64_t epoch) {
    const std::int64_t decays = epoch / step_size;
    return std::pow(gamma, static_cast<double>(decays));
  };
}

}  // namespace

StepLR::StepLR(Optimizer& optimizer, std::int64_t step_size, double gamma)
    : LRScheduler(optimizer, step_decay(step_size, gamma)) {}

}  // namespace unroll
