#include "optim/adagrad.h"

#include <cmath>
#include <utility>

#include "optim/internal.h"

namespace unroll {

Adagrad::Adagrad(std::vector<Tensor> parameters, const AdagradOptions& options)
    : Optimizer("Adagrad") {
  add_param_group(std::move(parameters), options);
}

void Adagrad::add_param_group(std::vector<Tensor> parameters, const AdagradOptions& options) {
  detail::require_not_negative(name(), "lr_decay", options.lr_decay);
  detail::require_not_negative(name(), "weight_decay", options.weight_decay);
  detail::require_not_negative(name(), "initial_accumulator_value",
                               options.initial_accumulator_value);
  detail::require_not_negative(name(), "eps", options.eps);
  add_group(std::move(parameters), options.lr, {{"sum", options.initial_accumulator_value}});
  options_.push_back(options);
}

namespace {

template <class T>
void adagrad_update(std::int64_t n, T* __restrict w, T* __restrict s, const T* __restrict grad,
                    T lr, T eps, T weight_decay) {
  for (std::int64_t i = 0; i < n; ++i) {
    const T g = grad[i] + weight_decay * w[i];
    s[i] += g * g;
    w[i] -= lr * g / (std::sqrt(s[i]) + eps);
  }
}

}  // namespace

void Adagrad::update(Tensor& parameter, const Tensor& grad, Slot& slot) {
  const AdagradOptions& o = options_[slot.group];
  const double rate = lr(slot.group) / (1.0 + static_cast<double>(slot.step - 1) * o.lr_decay);
  detail::update_elements(parameter, grad, slot.buffers,
                          [&]<class T>(std::int64_t n, T* w, const T* g, T* const* b) {
                            adagrad_update(n, w, b[0], g, static_cast<T>(rate),
                                           static_cast<T>(o.eps), static_cast<T>(o.weight_decay));
                          });
}

}  // namespace unroll
