/// The matrix product.

#include <algorithm>
#include <utility>

#include "framework/internal.h"
#include "framework/ops.h"
#include "framework/step_products.h"
#include "framework/trace.h"

namespace unroll {
namespace {

/// The last two dimensions of x as the kernels read them, in any strides.
template <class T>
kernels::MatrixRef<T> matrix(const Tensor& x) {
  const std::int64_t r = x.dim();
  return {detail::read<T>(x), x.strides()[r - 2], x.strides()[r - 1]};
}

/// out = [m, k] x [k, n], or [n, k] read transposed, by kernel. `bias`, where there is one, is
/// added: [n] to each row, or [m, n], which may be `out` itself.
void multiply_matrices(const Tensor& a, const Tensor& b, bool transposed, const Tensor& bias,
                       Tensor& out) {
  const std::int64_t m = a.shape()[0];
  if (m == 0 || b.shape()[!transposed] == 0) return;
  detail::dispatch_floating(a.dtype(), [&]<class T>(T) {
    kernels::Addend<T> d;
    Tensor copy;
    if (bias.defined()) {
      if (bias.strides().back() != 1) copy = detail::dense(bias);
      const Tensor& added = copy.defined() ? copy : bias;
      d = {detail::read<T>(added), added.dim() == 1 ? 0 : added.strides()[0]};
    }
    T* c = detail::overwrite<T>(out);
    detail::Multiplier<T>(b, transposed)(m, matrix<T>(a), c, d);
  });
}

Tensor multiply_matrices(const Tensor& a, const Tensor& b, bool transposed,
                         const Tensor& bias = Tensor()) {
  Tensor out = detail::make({a.shape()[0], b.shape()[!transposed]}, a.dtype());
  multiply_matrices(a, b, transposed, bias, out);
  return out;
}

/// Adds g w, or g w', to the gradient of input i, where it belongs. What is there already is part
/// of the product.
void add_product_of_rows(Back& back, int i, const Tensor& g, const Tensor& w, bool transposed) {
  if (!back.needs(i)) return;
  Tensor sum = back.take_grad(i);
  if (!sum.defined()) {
    Tensor product = back.place(i);
    if (product.defined())
      multiply_matrices(g, w, transposed, Tensor(), product);
    else
      product = transposed ? linear(g, w) : matmul(g, w);
    back.add(i, std::move(product));
  } else if (detail::is_exclusive(sum)) {
    multiply_matrices(g, w, transposed, sum, sum);
    back.add(i, std::move(sum));
  } else {
    back.add(i, multiply_matrices(g, w, transposed, sum));
  }
}

/// [..., m, k] x [..., k, n] with equal leading dimensions, by kernel.
Tensor multiply(const Tensor& a, const Tensor& b) {
  const std::int64_t r = a.dim();
  const std::int64_t m = a.shape()[r - 2], k = a.shape()[r - 1], n = b.shape()[r - 1];
  Shape shape = a.shape();
  shape[r - 1] = n;
  Tensor out = empty(shape, a.dtype());
  if (out.numel() == 0) return out;
  const std::int64_t batches = out.numel() / (m * n);
  detail::dispatch_floating(a.dtype(), [&]<class T>(T) {
    T* c = detail::overwrite<T>(out);
    auto ra = matrix<T>(a);
    auto rb = matrix<T>(b);
    const T *a0 = ra.data, *b0 = rb.data;
    for (std::int64_t batch = 0; batch < batches; ++batch) {
      std::int64_t rest = batch, offset_a = 0, offset_b = 0;
      for (std::int64_t d = r - 3; d >= 0; --d) {
        offset_a += rest % shape[d] * a.strides()[d];
        offset_b += rest % shape[d] * b.strides()[d];
        rest /= shape[d];
      }
      ra.data = a0 + offset_a;
      rb.data = b0 + offset_b;
      kernels::gemm<T>(m, n, k, ra, rb, c + batch * m * n, n, false);
    }
  });
  return out;
}

Tensor matmul_weight(const Tensor& x, const Tensor& w, const Tensor&) { return matmul(x, w); }

Shape leading(const Tensor& x) {
  return Shape(x.shape().data(), static_cast<std::size_t>(x.dim() - 2));
}

Tensor with_leading(const Tensor& x, Shape shape) {
  shape.push_back(x.size(-2));
  shape.push_back(x.size(-1));
  return detail::expand(x, shape);
}

}  // namespace

template <class T>
detail::Multiplier<T>::Multiplier(const Tensor& w, bool transposed)
    : w_(matrix<T>(w)),
      k_(w.shape()[transposed]),
      n_(w.shape()[!transposed]),
      panels_(k_ > 0 ? packed<T>(w, transposed) : nullptr) {
  if (transposed) std::swap(w_.row_stride, w_.col_stride);
}
template class detail::Multiplier<float>;
template class detail::Multiplier<double>;

// C = A B: dA = G B^T, dB = A^T G; broadcast leading dimensions are summed by `back`.
Tensor matmul(const Tensor& a, const Tensor& b) {
  detail::require_floating("matmul", a);
  detail::require_same_dtype("matmul", a, b);
  if (a.dim() == 0 || b.dim() == 0)
    detail::fail<ShapeError>("matmul: needs one dimension or more: a is {}, b is {}", a.shape(),
                             b.shape());
  const std::int64_t inner = b.size(b.dim() == 1 ? 0 : -2);
  if (a.size(-1) != inner)
    detail::fail<ShapeError>(
        "matmul: inner dimensions differ: a is {}, b is {}: a.size(-1) = {}, b.size({}) = {}",
        a.shape(), b.shape(), a.size(-1), b.dim() == 1 ? 0 : -2, inner);
  if (b.dim() == 2)
    if (Tensor y = detail::StepProducts::find(matmul_weight, a, b, Tensor()); y.defined()) return y;
  if (detail::trace) return detail::trace->product(a, b, Tensor(), false);
  if (a.dim() == 1) return squeeze(matmul(unsqueeze(a, 0), b), b.dim() == 1 ? 0 : -2);
  if (b.dim() == 1) return squeeze(matmul(a, unsqueeze(b, 1)), -1);
  if (a.dim() > 2 && b.dim() == 2) {  // every row of a meets the same matrix: one large product
    Shape shape = a.shape();
    shape[a.dim() - 1] = b.size(1);
    const std::int64_t rows = a.numel() / std::max<std::int64_t>(a.size(-1), 1);
    if (a.size(-1) > 0) return reshape(matmul(reshape(a, {rows, a.size(-1)}), b), shape);
  }
  Tensor value;
  if (a.dim() == 2 && b.dim() == 2) {
    value = multiply_matrices(a, b, false);
  } else {
    const Shape batch =
        detail::broadcast_shapes("matmul: leading dimensions", leading(a), leading(b));
    value = multiply(with_leading(a, batch), with_leading(b, batch));
  }
  return record("matmul", {a, b}, std::move(value), Keep::inputs, [](Back& back) {
    const Tensor x = back.in(0), y = back.in(1), g = back.grad;
    if (g.dim() == 2) {
      if (back.puts_off(0))
        back.add_product(0, transpose(g), transpose(y));
      else
        add_product_of_rows(back, 0, g, y, true);
      back.add_product(1, x, g);
    } else {
      if (back.needs(0)) back.add(0, matmul(g, transpose(y)));
      if (back.needs(1)) back.add(1, matmul(transpose(x), g));
    }
  });
}

// y = x W' + b: dx = G W, dW = G' x, db = the sum of G's rows
Tensor linear(const Tensor& x, const Tensor& weight, const Tensor& bias) {
  detail::require_floating("linear", x);
  detail::require_same_dtype("linear", x, weight);
  if (x.dim() == 0 || weight.dim() != 2 || x.size(-1) != weight.size(1))
    detail::fail<ShapeError>(
        "linear: needs x [..., in] and weight [out, in]: x is {}, weight is {}", x.shape(),
        weight.shape());
  const std::int64_t in = weight.shape()[1], out = weight.shape()[0];
  if (bias.defined()) {
    detail::require_same_dtype("linear", x, bias);
    bool fits = bias.dim() == 1 || bias.dim() == x.dim();
    for (std::int64_t d = 1; fits && d < bias.dim(); ++d)
      fits = bias.shape()[d - 1] == x.shape()[d - 1];
    if (!fits || bias.size(-1) != out)
      detail::fail<ShapeError>(
          "linear: bias must be [out = {}], or that for each row of x, which is {}, but is {}", out,
          x.shape(), bias.shape());
  }
  if (!bias.defined() || bias.dim() == 1)
    if (Tensor y = detail::StepProducts::find(linear, x, weight, bias); y.defined()) return y;
  if (detail::trace) return detail::trace->product(x, weight, bias, true);
  if (x.dim() != 2) {
    Shape shape = x.shape();
    shape[x.dim() - 1] = out;
    const std::int64_t rows =
        in > 0 ? x.numel() / in : Shape(shape).numel() / std::max<std::int64_t>(out, 1);
    const bool by_rows = bias.defined() && bias.dim() > 1;
    return reshape(
        linear(reshape(x, {rows, in}), weight, by_rows ? reshape(bias, {rows, out}) : bias), shape);
  }
  const bool biased = bias.defined();
  const auto rule = [biased](Back& back) {
    add_product_of_rows(back, 0, back.grad, back.in(1), false);
    back.add_product(1, back.grad, back.in(0));
    if (biased) back.add(2, back.grad);
  };
  const Keep keep = Keep::input(0) | Keep::input(1);
  Tensor y = multiply_matrices(x, weight, true, bias);
  if (!biased) return record("linear", {x, weight}, std::move(y), keep, rule);
  y = record("linear", {x, weight, bias}, std::move(y), keep, rule);
  if (y.requires_grad() && bias.dim() == 2) y.impl().node->passes_on = 1u << 2;
  return y;
}

}  // namespace unroll
