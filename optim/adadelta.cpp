#include "optim/adadelta.h"

#include <cmath>
#include <utility>

#include "optim/internal.h"

namespace unroll {

Adadelta::Adadelta(std::vector<Tensor> parameters, const AdadeltaOptions& options)
    : Optimizer("Adadelta") {
  add_param_group(std::move(parameters), options);
}

void Adadelta::add_param_group(std::vector<Tensor> parameters, const AdadeltaOptions& options) {
  detail::require_below_one(name(), "rho", options.rho);
  detail::require_not_negative(name(), "eps", options.eps);
  detail::require_not_negative(name(), "weight_decay", options.weight_decay);
  add_group(std::move(parameters), options.lr, {"square_avg", "acc_delta"});
  options_.push_back(options);
}

namespace {

template <class T>
void adadelta_update(std::int64_t n, T* __restrict w, T* __restrict v, T* __restrict d,
                     const T* __restrict grad, T lr, T rho, T eps, T weight_decay) {
  const T rest = T(1) - rho;
  for (std::int64_t i = 0; i < n; ++i) {
    const T g = grad[i] + weight_decay * w[i];
    v[i] = rho * v[i] + rest * g * g;
    const T u = std::sqrt(d[i] + eps) / std::sqrt(v[i] + eps) * g;
    d[i] = rho * d[i] + rest * u * u;
    w[i] -= lr * u;
  }
}

}  // namespace

void Adadelta::update(Tensor& parameter, const Tensor& grad, Slot& slot) {
  const AdadeltaOptions& o = options_[slot.group];
  const double rate = lr(slot.group);
  detail::update_elements(
      parameter, grad, slot.buffers, [&]<class T>(std::int64_t n, T* w, const T* g, T* const* b) {
        adadelta_update(n, w, b[0], b[1], g, static_cast<T>(rate), static_cast<T>(o.rho),
                        static_cast<T>(o.eps), static_cast<T>(o.weight_decay));
      });
}

}  // namespace unroll
