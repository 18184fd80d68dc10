/// Softmax.

#include <cmath>
#include <limits>

#include "framework/internal.h"
#include "framework/kernels/parallel.h"
#include "framework/ops.h"

namespace unroll {

using detail::fail;

namespace {

constexpr std::int64_t kRowsTogether = 16384;  // elements of softmax that one thread takes at least

/// f(n, in, out) for every row of x along dim, not recorded.
template <class F>
Tensor along(const Tensor& x, std::int64_t dim, F&& f) {
  const Tensor rows = detail::dense(transpose(x.detach(), dim, -1));
  Tensor out = empty(rows.shape(), x.dtype());
  const std::int64_t n = rows.size(-1);
  if (out.numel() > 0) {
    detail::dispatch_floating(x.dtype(), [&]<class T>(T) {
      const T* in = detail::read<T>(rows);
      T* result = detail::overwrite<T>(out);
      kernels::parallel_for(0, out.numel() / n, kRowsTogether / n + 1,
                            [&](std::int64_t first, std::int64_t last) {
                              for (std::int64_t i = first; i < last; ++i)
                                f(n, in + i * n, result + i * n);
                            });
    });
  }
  if (dim == x.dim() - 1) return out;
  return detail::dense(transpose(out, dim, -1));
}

}  // namespace

// y_i = e^x_i / sum e^x: dx = y (g - sum(g y))
Tensor softmax(const Tensor& x, std::int64_t dim) {
  detail::require_floating("softmax", x);
  const std::int64_t d = detail::wrap_dim("softmax", dim, x.shape());
  Tensor value = along(x, d, []<class T>(std::int64_t n, const T* in, T* out) {
    const auto& k = kernels::float_kernels<T>();
    const T total = k.exp_sum(n, in, k.max(n, in), out);
    const double scale[2] = {1.0 / static_cast<double>(total), 0.0};
    k.elementwise[static_cast<std::size_t>(kernels::Op::affine)](n, out, out, nullptr, nullptr,
                                                                 scale);
  });
  return record("softmax", {x}, std::move(value), Keep::output, [d](Back& back) {
    const Tensor y = back.out(), gy = back.grad * y;
    back.add(0, gy - y * sum(gy, d, true));
  });
}

// y_i = x_i - log sum e^x: dx = g - e^y sum(g)
Tensor log_softmax(const Tensor& x, std::int64_t dim) {
  detail::require_floating("log_softmax", x);
  const std::int64_t d = detail::wrap_dim("log_softmax", dim, x.shape());
  Tensor value = along(x, d, []<class T>(std::int64_t n, const T* in, T* out) {
    const auto& k = kernels::float_kernels<T>();
    const T top = k.max(n, in);
    const T total = k.exp_sum(n, in, top, nullptr);
    // One after the other: their sum would round off the logarithm beside a large maximum.
    for (const T shift : {top, std::log(total)}) {
      const double s[2] = {1.0, -static_cast<double>(shift)};
      k.elementwise[static_cast<std::size_t>(kernels::Op::affine)](n, out, in, nullptr, nullptr, s);
      in = out;
    }
  });
  return record("log_softmax", {x}, std::move(value), Keep::output, [d](Back& back) {
    back.add(0, back.grad - exp(back.out()) * sum(back.grad, d, true));
  });
}

}  // namespace unroll
