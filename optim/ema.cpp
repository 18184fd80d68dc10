#include "optim/ema.h"

#include <utility>

#include "framework/autograd.h"
#include "optim/internal.h"

namespace unroll {

using detail::fail;

EMA::EMA(std::vector<Tensor> parameters, double decay)
    : parameters_(std::move(parameters)), decay_(decay) {
  if (!(decay >= 0.0 && decay <= 1.0))
    fail<ValueError>("EMA: decay must be in [0, 1], but is {}", decay);
  detail::require_floating("EMA", parameters_);
  for (const Tensor& parameter : parameters_) averages_.push_back(parameter.detach().clone());
}

void EMA::update() {
  require_own_weights("update");
  NoGrad no_grad;
  for (std::size_t i = 0; i < parameters_.size(); ++i)
    averages_[i].mul_(decay_).add_(parameters_[i], 1.0 - decay_);
}

void EMA::swap() {
  NoGrad no_grad;
  for (std::size_t i = 0; i < parameters_.size(); ++i) {
    const Tensor own = parameters_[i].detach().clone();
    parameters_[i].copy_(averages_[i]);
    averages_[i].copy_(own);
  }
  swapped_ = !swapped_;
}

NamedTensors EMA::state_dict() const {
  require_own_weights("state_dict");
  NamedTensors state;
  for (const Tensor& average : averages_) state.emplace_back(std::to_string(state.size()), average);
  return state;
}

void EMA::load_state_dict(const NamedTensors& state) {
  require_own_weights("load_state_dict");
  copy_values(state, state_dict(), "load_state_dict: EMA");
}

void EMA::require_own_weights(const char* what) const {
  if (swapped_)
    fail<GraphError>("EMA: {}: the parameters hold the averages; call swap() first", what);
}

}  // namespace unroll
