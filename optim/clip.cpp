#include "optim/clip.h"

#include <algorithm>
#include <cmath>

#include "framework/autograd.h"
#include "framework/internal.h"
#include "framework/ops.h"
#include "framework/row_grad.h"

namespace unroll {

using detail::fail;

namespace {

/// In double and in eight sums, which the compiler keeps in vector registers.
template <class T>
double sum_of_squares(std::int64_t n, const T* x) {
  double lanes[8] = {};
  std::int64_t i = 0;
  for (; i + 8 <= n; i += 8)
    for (int lane = 0; lane < 8; ++lane) {
      const auto value = static_cast<double>(x[i + lane]);
      lanes[lane] += value * value;
    }
  for (; i < n; ++i) lanes[0] += static_cast<double>(x[i]) * static_cast<double>(x[i]);
  double sum = 0.0;
  for (const double lane : lanes) sum += lane;
  return sum;
}

/// The gradient, undefined if there is none; of one by rows (row_grad.h) their values.
Tensor grad_values(const Tensor& parameter) {
  const RowGrad rows = row_grad(parameter);
  return rows.defined() ? rows.values : parameter.grad();
}

/// Replaces the gradient and does not write into it: two parameters may share one.
void replace_values(Tensor parameter, const Tensor& values) {
  const RowGrad rows = row_grad(parameter);
  if (rows.defined())
    set_row_grad(parameter, {rows.rows, values});
  else
    parameter.set_grad(values);
}

}  // namespace

double clip_grad_norm(const std::vector<Tensor>& parameters, double max_norm) {
  if (!(max_norm >= 0.0))
    fail<ValueError>("clip_grad_norm: max_norm must not be negative, but is {}", max_norm);
  NoGrad no_grad;
  double sum = 0.0;
  for (const Tensor& parameter : parameters) {
    const Tensor grad = grad_values(parameter);
    if (!grad.defined()) continue;
    const Tensor values = grad.contiguous();
    detail::dispatch_floating(values.dtype(), [&]<class T>(T) {
      sum += sum_of_squares(values.numel(), detail::read<T>(values));
    });
  }
  const double norm = std::sqrt(sum);
  const double factor = max_norm / (norm + 1e-6);
  if (factor >= 1.0) return norm;
  for (const Tensor& parameter : parameters) {
    const Tensor grad = grad_values(parameter);
    if (grad.defined()) replace_values(parameter, grad * factor);
  }
  return norm;
}

void clip_grad_value(const std::vector<Tensor>& parameters, double limit) {
  if (!(limit >= 0.0))
    fail<ValueError>("clip_grad_value: limit must not be negative, but is {}", limit);
  NoGrad no_grad;
  for (const Tensor& parameter : parameters) {
    const Tensor grad = grad_values(parameter);
    if (grad.defined()) replace_values(parameter, clamp(grad, -limit, limit));
  }
}

}  // namespace unroll
