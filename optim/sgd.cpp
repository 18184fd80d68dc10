#include "optim/sgd.h"

#include <utility>

#include "framework/internal.h"
#include "framework/kernels/parallel.h"

namespace unroll {

using detail::fail;

SGD::SGD(std::vector<Tensor> parameters, const SGDOptions& options)
    : Optimizer("SGD", std::move(parameters), options.lr,
                options.momentum != 0.0 ? std::vector<std::string>{"momentum_buffer"}
                                        : std::vector<std::string>{}),
      options_(options) {
  if (!(options.momentum >= 0.0))
    fail<ValueError>("SGD: momentum must not be negative, but is {}", options.momentum);
  if (!(options.weight_decay >= 0.0))
    fail<ValueError>("SGD: weight_decay must not be negative, but is {}", options.weight_decay);
  if (options.nesterov && options.momentum == 0.0)
    throw ValueError("SGD: nesterov needs a momentum");
}

namespace {

constexpr std::int64_t kGrain = 1 << 16;  // elements that are worth a thread

/// n elements of w, with their momentum buffer m (null without momentum).
template <class T>
void sgd_update(std::int64_t n, T* __restrict w, T* __restrict m, const T* __restrict grad, T lr,
                T momentum, T weight_decay, bool nesterov) {
  if (!m) {
    for (std::int64_t i = 0; i < n; ++i) w[i] -= lr * (grad[i] + weight_decay * w[i]);
    return;
  }
  const T g_part = nesterov ? T(1) : T(0);  // the update is g_part * g + m_part * m
  const T m_part = nesterov ? momentum : T(1);
  for (std::int64_t i = 0; i < n; ++i) {
    const T g = grad[i] + weight_decay * w[i];
    m[i] = momentum * m[i] + g;
    w[i] -= lr * (g_part * g + m_part * m[i]);
  }
}

}  // namespace

void SGD::update(Tensor& parameter, const Tensor& grad, Slot& slot) {
  detail::dispatch_floating(parameter.dtype(), [&]<class T>(T) {
    T* w = detail::overwrite<T>(parameter);
    T* m = slot.buffers.empty() ? nullptr : detail::overwrite<T>(slot.buffers[0]);
    const T* g = detail::read<T>(grad);
    kernels::parallel_for(0, parameter.numel(), kGrain, [&](std::int64_t first, std::int64_t last) {
      sgd_update(last - first, w + first, m ? m + first : nullptr, g + first, static_cast<T>(lr()),
                 static_cast<T>(options_.momentum), static_cast<T>(options_.weight_decay),
                 options_.nesterov);
    });
  });
}

}  // namespace unroll
