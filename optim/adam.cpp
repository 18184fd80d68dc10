#include "optim/adam.h"

#include <cmath>
#include <utility>

#include "framework/internal.h"
#include "framework/kernels/parallel.h"

namespace unroll {

using detail::fail;

Adam::Adam(std::vector<Tensor> parameters, const AdamOptions& options)
    : Optimizer("Adam", std::move(parameters), options.lr, {"exp_avg", "exp_avg_sq"}),
      options_(options) {
  for (const double beta : options.betas)
    if (!(beta >= 0.0 && beta < 1.0))
      fail<ValueError>("Adam: betas must be in [0, 1), but are {} and {}", options.betas[0],
                       options.betas[1]);
  if (!(options.eps >= 0.0))
    fail<ValueError>("Adam: eps must not be negative, but is {}", options.eps);
  if (!(options.weight_decay >= 0.0))
    fail<ValueError>("Adam: weight_decay must not be negative, but is {}", options.weight_decay);
}

namespace {

constexpr std::int64_t kGrain = 1 << 16;  // elements that are worth a thread

template <class T>
struct AdamNumbers {
  T beta1, one_minus_beta1, beta2, one_minus_beta2;
  T step_size;  ///< lr / (1 - beta1^t)
  T v_scale;    ///< 1 / sqrt(1 - beta2^t)
  T eps, weight_decay;
};

template <class T>
void adam_update(std::int64_t n, T* __restrict w, T* __restrict m, T* __restrict v,
                 const T* __restrict grad, const AdamNumbers<T>& c) {
  for (std::int64_t i = 0; i < n; ++i) {
    const T g = grad[i] + c.weight_decay * w[i];
    m[i] = c.beta1 * m[i] + c.one_minus_beta1 * g;
    v[i] = c.beta2 * v[i] + c.one_minus_beta2 * g * g;
    w[i] -= c.step_size * m[i] / (std::sqrt(v[i]) * c.v_scale + c.eps);
  }
}

}  // namespace

void Adam::update(Tensor& parameter, const Tensor& grad, Slot& slot) {
  const auto [beta1, beta2] = options_.betas;
  const double t = static_cast<double>(slot.step);
  const double step_size = lr() / (1.0 - std::pow(beta1, t));
  const double v_scale = 1.0 / std::sqrt(1.0 - std::pow(beta2, t));
  detail::dispatch_floating(parameter.dtype(), [&, beta1 = beta1, beta2 = beta2]<class T>(T) {
    const AdamNumbers<T> numbers{
        static_cast<T>(beta1),        static_cast<T>(1.0 - beta1),
        static_cast<T>(beta2),        static_cast<T>(1.0 - beta2),
        static_cast<T>(step_size),    static_cast<T>(v_scale),
        static_cast<T>(options_.eps), static_cast<T>(options_.weight_decay)};
    T* w = detail::overwrite<T>(parameter);
    T* m = detail::overwrite<T>(slot.buffers[0]);
    T* v = detail::overwrite<T>(slot.buffers[1]);
    const T* g = detail::read<T>(grad);
    kernels::parallel_for(0, parameter.numel(), kGrain, [&](std::int64_t first, std::int64_t last) {
      adam_update(last - first, w + first, m + first, v + first, g + first, numbers);
    });
  });
}

}  // namespace unroll
