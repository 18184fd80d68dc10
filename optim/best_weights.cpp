#include "optim/best_weights.h"

#include <limits>
#include <utility>

#include "framework/autograd.h"
#include "optim/internal.h"

namespace unroll {

BestWeights::BestWeights(std::vector<Tensor> parameters)
    : parameters_(std::move(parameters)),
      error_(full({}, std::numeric_limits<double>::infinity(), DType::f64)) {
  detail::require_floating("BestWeights", parameters_);
  for (const Tensor& parameter : parameters_) values_.push_back(parameter.detach().clone());
}

bool BestWeights::update(double error) {
  if (!(error < this->error())) return false;
  for (std::size_t i = 0; i < values_.size(); ++i) values_[i].copy_(parameters_[i].detach());
  error_.fill_(error);
  return true;
}

void BestWeights::restore() {
  const NoGrad no_grad;
  for (std::size_t i = 0; i < values_.size(); ++i) parameters_[i].copy_(values_[i]);
}

NamedTensors BestWeights::state_dict() const {
  NamedTensors state;
  for (const Tensor& value : values_) state.emplace_back(std::to_string(state.size()), value);
  state.emplace_back("error", error_);
  return state;
}

void BestWeights::load_state_dict(const NamedTensors& state) {
  copy_values(state, state_dict(), "load_state_dict: BestWeights");
}

}  // namespace unroll
