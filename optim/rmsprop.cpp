#include "optim/rmsprop.h"

#include <cmath>
#include <utility>

#include "optim/internal.h"

namespace unroll {

RMSprop::RMSprop(std::vector<Tensor> parameters, const RMSpropOptions& options)
    : Optimizer("RMSprop") {
  add_param_group(std::move(parameters), options);
}

void RMSprop::add_param_group(std::vector<Tensor> parameters, const RMSpropOptions& options) {
  detail::require_below_one(name(), "alpha", options.alpha);
  detail::require_not_negative(name(), "eps", options.eps);
  detail::require_not_negative(name(), "weight_decay", options.weight_decay);
  detail::require_not_negative(name(), "momentum", options.momentum);
  std::vector<Buffer> buffers{"square_avg"};
  if (options.centered) buffers.emplace_back("grad_avg");
  if (options.momentum != 0.0) buffers.emplace_back("momentum_buffer");
  add_group(std::move(parameters), options.lr, std::move(buffers));
  options_.push_back(options);
}

namespace {

/// a is there if centered, m with momentum. They are no conditions inside the loop, which the
/// compiler would not vectorise.
template <bool centered, bool with_momentum, class T>
void rmsprop_update(std::int64_t n, T* __restrict w, T* __restrict v, T* __restrict a,
                    T* __restrict m, const T* __restrict grad, T lr, T alpha, T eps, T weight_decay,
                    T momentum) {
  const T beta = T(1) - alpha;
  for (std::int64_t i = 0; i < n; ++i) {
    const T g = grad[i] + weight_decay * w[i];
    v[i] = alpha * v[i] + beta * g * g;
    T variance = v[i];
    if constexpr (centered) {
      a[i] = alpha * a[i] + beta * g;
      const T rest = variance - a[i] * a[i];
      variance = rest > T(0) ? rest : T(0);
    }
    T update = g / (std::sqrt(variance) + eps);
    if constexpr (with_momentum) update = m[i] = momentum * m[i] + update;
    w[i] -= lr * update;
  }
}

}  // namespace

void RMSprop::update(Tensor& parameter, const Tensor& grad, Slot& slot) {
  const RMSpropOptions& o = options_[slot.group];
  const double rate = lr(slot.group);
  detail::update_elements(
      parameter, grad, slot.buffers, [&]<class T>(std::int64_t n, T* w, const T* g, T* const* b) {
        const auto run = [&](auto rule, T* a, T* m) {
          rule(n, w, b[0], a, m, g, static_cast<T>(rate), static_cast<T>(o.alpha),
               static_cast<T>(o.eps), static_cast<T>(o.weight_decay), static_cast<T>(o.momentum));
        };
        if (o.momentum == 0.0)
          o.centered ? run(rmsprop_update<true, false, T>, b[1], nullptr)
                     : run(rmsprop_update<false, false, T>, nullptr, nullptr);
        else
          o.centered ? run(rmsprop_update<true, true, T>, b[1], b[2])
                     : run(rmsprop_update<false, true, T>, nullptr, b[1]);
      });
}

}  // namespace unroll
