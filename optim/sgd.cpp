#include "optim/sgd.h"

#include <utility>

#include "optim/internal.h"

namespace unroll {

SGD::SGD(std::vector<Tensor> parameters, const SGDOptions& options) : Optimizer("SGD") {
  add_param_group(std::move(parameters), options);
}

void SGD::add_param_group(std::vector<Tensor> parameters, const SGDOptions& options) {
  detail::require_not_negative(name(), "momentum", options.momentum);
  detail::require_not_negative(name(), "weight_decay", options.weight_decay);
  if (options.nesterov && options.momentum == 0.0)
    throw ValueError("SGD: nesterov needs a momentum");
  std::vector<Buffer> buffers;
  if (options.momentum != 0.0) buffers.emplace_back("momentum_buffer");
  add_group(std::move(parameters), options.lr, std::move(buffers));
  options_.push_back(options);
}

bool SGD::passes_over_zeros(std::size_t group) const {
  return options_[group].momentum == 0.0 && options_[group].weight_decay == 0.0;
}

namespace {

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
  const SGDOptions& o = options_[slot.group];
  const double rate = lr(slot.group);
  detail::update_elements(
      parameter, grad, slot.buffers, [&]<class T>(std::int64_t n, T* w, const T* g, T* const* b) {
        sgd_update(n, w, b[0], g, static_cast<T>(rate), static_cast<T>(o.momentum),
                   static_cast<T>(o.weight_decay), o.nesterov);
      });
}

}  // namespace unroll
