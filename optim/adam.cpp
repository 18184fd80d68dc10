#include "optim/adam.h"

#include <cmath>
#include <utility>

#include "optim/internal.h"

namespace unroll {

using detail::fail;

Adam::Adam(std::vector<Tensor> parameters, const AdamOptions& options) : Adam("Adam", Kind::adam) {
  add_param_group(std::move(parameters), options);
}

void Adam::add_param_group(std::vector<Tensor> parameters, const AdamOptions& options) {
  for (const double beta : options.betas)
    if (!(beta >= 0.0 && beta < 1.0))
      fail<ValueError>("{}: betas must be in [0, 1), but are {} and {}", name(), options.betas[0],
                       options.betas[1]);
  detail::require_not_negative(name(), "eps", options.eps);
  detail::require_not_negative(name(), "weight_decay", options.weight_decay);
  add_group(std::move(parameters), options.lr, {"exp_avg", "exp_avg_sq"});
  options_.push_back(options);
}

AdamW::AdamW(std::vector<Tensor> parameters, const AdamWOptions& options)
    : Adam("AdamW", Kind::adamw) {
  add_param_group(std::move(parameters), options);
}

void AdamW::add_param_group(std::vector<Tensor> parameters, const AdamWOptions& options) {
  Adam::add_param_group(std::move(parameters), {.lr = options.lr,
                                                .betas = options.betas,
                                                .eps = options.eps,
                                                .weight_decay = options.weight_decay});
}

SparseAdam::SparseAdam(std::vector<Tensor> parameters, const SparseAdamOptions& options)
    : Adam("SparseAdam", Kind::sparse) {
  add_param_group(std::move(parameters), options);
}

void SparseAdam::add_param_group(std::vector<Tensor> parameters, const SparseAdamOptions& options) {
  Adam::add_param_group(std::move(parameters),
                        {.lr = options.lr, .betas = options.betas, .eps = options.eps});
}

namespace {

template <class T>
struct AdamNumbers {
  T beta1, one_minus_beta1, beta2, one_minus_beta2;
  T step_size;  ///< lr / (1 - beta1^t)
  T v_scale;    ///< 1 / sqrt(1 - beta2^t)
  T eps;
  T weight_decay;  ///< in the gradient
  T keep;          ///< or as a factor on w
};

template <class T>
void adam_update(std::int64_t n, T* __restrict w, T* __restrict m, T* __restrict v,
                 const T* __restrict grad, const AdamNumbers<T>& c) {
  for (std::int64_t i = 0; i < n; ++i) {
    const T g = grad[i] + c.weight_decay * w[i];
    m[i] = c.beta1 * m[i] + c.one_minus_beta1 * g;
    v[i] = c.beta2 * v[i] + c.one_minus_beta2 * g * g;
    w[i] = c.keep * w[i] - c.step_size * m[i] / (std::sqrt(v[i]) * c.v_scale + c.eps);
  }
}

}  // namespace

void Adam::update(Tensor& parameter, const Tensor& grad, Slot& slot) {
  const AdamOptions& o = options_[slot.group];
  const auto [beta1, beta2] = o.betas;
  const double t = static_cast<double>(slot.step), rate = lr(slot.group);
  const double step_size = rate / (1.0 - std::pow(beta1, t));
  const double v_scale = 1.0 / std::sqrt(1.0 - std::pow(beta2, t));
  const bool decoupled = kind_ == Kind::adamw;
  const AdamNumbers<double> c{beta1,
                              1.0 - beta1,
                              beta2,
                              1.0 - beta2,
                              step_size,
                              v_scale,
                              kind_ == Kind::sparse ? o.eps * v_scale : o.eps,
                              decoupled ? 0.0 : o.weight_decay,
                              decoupled ? 1.0 - rate * o.weight_decay : 1.0};
  detail::update_elements(
      parameter, grad, slot.buffers, [&]<class T>(std::int64_t n, T* w, const T* g, T* const* b) {
        const auto in_t = [](double number) { return static_cast<T>(number); };
        adam_update<T>(
            n, w, b[0], b[1], g,
            {in_t(c.beta1), in_t(c.one_minus_beta1), in_t(c.beta2), in_t(c.one_minus_beta2),
             in_t(c.step_size), in_t(c.v_scale), in_t(c.eps), in_t(c.weight_decay), in_t(c.keep)});
      });
}

}  // namespace unroll
