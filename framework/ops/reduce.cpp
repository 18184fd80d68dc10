/// Reductions. A rule stretches the gradient back over the reduced dimensions.

#include <algorithm>
#include <cmath>
#include <limits>

#include "framework/internal.h"
#include "framework/ops.h"

namespace unroll {

using detail::fail;
using detail::wrap_dim;
using kernels::Op;

namespace {

constexpr std::int64_t kRowsTogether = 512;  // rows that are added before they join the sum

/// Which dimensions a reduction runs over.
struct Plan {
  Shape reduced, kept;  ///< dimension numbers, ascending
  Shape keepdim_shape;  ///< x's shape with 1 at the reduced dimensions
  Shape shape;          ///< the result's shape without them
  std::int64_t count;   ///< elements that go into one result

  Plan(const char* op, const Tensor& x, const Axes& axes) : keepdim_shape(x.shape()), count(1) {
    Shape named;  // 1 where a dimension is, otherwise 0
    named.resize(x.dim());
    for (std::int64_t axis : axes.list()) {
      std::int64_t& mark = named[wrap_dim(op, axis, x.shape())];
      if (mark) fail<ShapeError>("{}: dimension {} is named twice", op, axis);
      mark = 1;
    }
    for (std::int64_t d = 0; d < x.dim(); ++d) {
      if (axes.list().empty() || named[d]) {
        reduced.push_back(d);
        keepdim_shape[d] = 1;
        count *= x.shape()[d];
      } else {
        kept.push_back(d);
        shape.push_back(x.shape()[d]);
      }
    }
  }
  const Shape& result(bool keepdim) const { return keepdim ? keepdim_shape : shape; }
};

enum class Kind { sum, max, min };

template <class T>
T start(Kind kind) {
  if (kind == Kind::sum) return T{0};
  using Limits = std::numeric_limits<T>;
  const T infinity = Limits::has_infinity ? Limits::infinity() : Limits::max();
  const T lowest = Limits::has_infinity ? -Limits::infinity() : Limits::lowest();
  return kind == Kind::max ? lowest : infinity;
}

/// All of one row of contiguous elements.
template <class T>
T reduce_row(Kind kind, std::int64_t n, const T* x) {
  if constexpr (std::is_same_v<T, std::int64_t>) {
    T result = start<T>(kind);
    for (std::int64_t i = 0; i < n; ++i)
      result = kind == Kind::sum
                   ? result + x[i]
                   : (kind == Kind::max ? std::max(result, x[i]) : std::min(result, x[i]));
    return result;
  } else {
    const auto& k = kernels::float_kernels<T>();
    return kind == Kind::sum ? k.sum(n, x) : kind == Kind::max ? k.max(n, x) : k.min(n, x);
  }
}

/// The reduced values, in keepdim shape, not recorded. Where memory runs along a reduced dimension,
/// each result is a sum over a row; otherwise rows are added to rows.
Tensor reduce(Kind kind, const Tensor& x, const Plan& plan) {
  Tensor out = empty(plan.keepdim_shape, x.dtype());
  if (plan.reduced.empty()) {
    detail::copy_into(out, x);
    return out;
  }
  const bool rows_of_results = !plan.kept.empty() && x.numel() > 0 &&
                               x.strides()[plan.kept.back()] == 1 && plan.shape.back() > 1;
  if (rows_of_results) {
    // Reduced dimensions outermost: the result has stride 0 there and takes one row after another.
    Shape sizes, from, to;
    for (const Shape* dims : {&plan.reduced, &plan.kept})
      for (std::int64_t d : *dims) {
        sizes.push_back(x.shape()[d]);
        from.push_back(x.strides()[d]);
        to.push_back(dims == &plan.reduced ? 0 : out.strides()[d]);
      }
    const Op op = kind == Kind::sum ? Op::add : kind == Kind::max ? Op::maximum : Op::minimum;
    const auto take_rows = [&](const Tensor& result, std::int64_t first, std::int64_t count) {
      detail::dispatch(x.dtype(), [&]<class T>(T) {
        std::fill_n(detail::overwrite<T>(result), result.numel(), start<T>(kind));
      });
      Shape block = sizes;
      block[0] = count;
      const Tensor target = detail::view(result, block, to, 0);
      const Tensor source = detail::view(x, block, from, x.impl().offset + first * from[0]);
      detail::map_into(target, op, {&target, &source});
    };
    // A sum goes by blocks, so that its rounding errors do not grow with the number of rows.
    const std::int64_t rows = sizes[0];
    const std::int64_t block = std::max<std::int64_t>(1, kRowsTogether * rows / plan.count);
    take_rows(out, 0, kind == Kind::sum ? std::min(block, rows) : rows);
    if (kind != Kind::sum || block >= rows) return out;
    const Tensor part = empty(plan.keepdim_shape, x.dtype());
    for (std::int64_t first = block; first < rows; first += block) {
      take_rows(part, first, std::min(block, rows - first));
      detail::accumulate(out, part);
    }
    return out;
  }
  Shape order = plan.kept;
  for (std::int64_t d : plan.reduced) order.push_back(d);
  const Tensor rows = detail::dense(permute(x.detach(), order));
  detail::dispatch(x.dtype(), [&]<class T>(T) {
    const T* in = detail::read<T>(rows);
    T* result = detail::overwrite<T>(out);
    const std::int64_t n = out.numel();
    for (std::int64_t i = 0; i < n; ++i)
      result[i] = reduce_row(kind, plan.count, in + i * plan.count);
  });
  return out;
}

Tensor shaped(const Tensor& value, const Shape& shape) {
  return detail::view(value, shape, detail::contiguous_strides(shape), 0);
}

/// The largest or smallest value; ties share the gradient.
Tensor extreme(const char* name, Kind kind, const Tensor& x, const Axes& axes, bool keepdim) {
  const Plan plan(name, x, axes);
  if (plan.count == 0) fail<ShapeError>("{}: nothing to choose from in shape {}", name, x.shape());
  return record(name, {x}, shaped(reduce(kind, x, plan), plan.result(keepdim)),
                Keep::inputs | Keep::output, [full = plan.keepdim_shape, axes](Back& back) {
                  const Tensor in = back.in(0);
                  const Tensor ties = (in == reshape(back.out().detach(), full)).detach();
                  back.add(0, reshape(back.grad, full) * (ties / sum(ties, axes, true)));
                });
}

}  // namespace

// y = sum x: dx = g
Tensor sum(const Tensor& x, const Axes& axes, bool keepdim) {
  const Plan plan("sum", x, axes);
  return record("sum", {x}, shaped(reduce(Kind::sum, x, plan), plan.result(keepdim)), Keep::none,
                [full = plan.keepdim_shape, shape = x.shape()](Back& back) {
                  back.add(0, broadcast_to(reshape(back.grad, full), shape));
                });
}

Tensor sum_to(const Tensor& x, const Shape& shape) {
  if (x.shape() == shape) return x;
  const std::int64_t extra = x.dim() - shape.size();
  if (extra < 0 || detail::broadcast_shapes("sum_to", x.shape(), shape) != x.shape())
    fail<ShapeError>("sum_to: shape {} does not broadcast to {}", shape, x.shape());
  if (x.numel() == shape.numel()) return reshape(x, shape);
  Shape axes;
  for (std::int64_t d = 0; d < x.dim(); ++d)
    if (d < extra || (shape[d - extra] == 1 && x.shape()[d] != 1)) axes.push_back(d);
  return reshape(sum(x, axes, true), shape);
}

Tensor mean(const Tensor& x, const Axes& axes, bool keepdim) {
  detail::require_floating("mean", x);
  const double n = static_cast<double>(Plan("mean", x, axes).count);
  return sum(x, axes, keepdim) / n;
}

Tensor max(const Tensor& x, const Axes& axes, bool keepdim) {
  return extreme("max", Kind::max, x, axes, keepdim);
}

Tensor min(const Tensor& x, const Axes& axes, bool keepdim) {
  return extreme("min", Kind::min, x, axes, keepdim);
}

Tensor argmax(const Tensor& x, std::int64_t dim, bool keepdim) {
  const std::int64_t d = wrap_dim("argmax", dim, x.shape());
  const Plan plan("argmax", x, d);
  if (plan.count == 0) fail<ShapeError>("argmax: nothing to choose from in shape {}", x.shape());
  const Tensor rows = detail::dense(transpose(x.detach(), d, -1));
  Tensor out = empty(plan.result(true), DType::i64);
  // Row by row of x with `dim` last; the result is put back into x's order of dimensions.
  Tensor found =
      empty(rows.size(-1) == 0 ? Shape{0} : Shape{rows.numel() / rows.size(-1)}, DType::i64);
  detail::dispatch(x.dtype(), [&]<class T>(T) {
    const T* in = detail::read<T>(rows);
    std::int64_t* result = detail::overwrite<std::int64_t>(found);
    const std::int64_t n = found.numel();
    for (std::int64_t i = 0; i < n; ++i, in += plan.count) {
      std::int64_t best = 0;
      for (std::int64_t j = 1; j < plan.count; ++j)
        if (in[j] > in[best] ||
            (std::isnan(static_cast<double>(in[j])) && !std::isnan(static_cast<double>(in[best]))))
          best = j;
      result[i] = best;
    }
  });
  Shape last = rows.shape();
  last[x.dim() - 1] = 1;
  detail::copy_into(out, transpose(reshape(found, last), d, -1));
  return keepdim ? out : squeeze(out, d);
}

// y = log sum e^x: dx = g e^(x - y) / sum e^(x - y). The sum is 1 but for the rounding of y, which
// beside logits of 1e4 is worth three digits of an f32 gradient.
Tensor logsumexp(const Tensor& x, const Axes& axes, bool keepdim) {
  detail::require_floating("logsumexp", x);
  const Plan plan("logsumexp", x, axes);
  Tensor value;
  {
    NoGrad no_grad;
    if (plan.count == 0) {
      value = full(plan.result(keepdim), -std::numeric_limits<double>::infinity(), x.dtype());
    } else {
      const Tensor top = reduce(Kind::max, x, plan);
      // An infinite maximum would turn x - top into NaN; the sum then is 0 or infinite by itself.
      const Tensor shift =
          masked_fill(top, abs(top) == std::numeric_limits<double>::infinity(), 0.0);
      value = shaped(log(sum(exp(x - shift), axes, true)) + shift, plan.result(keepdim));
    }
  }
  return record("logsumexp", {x}, std::move(value), Keep::inputs | Keep::output,
                [full = plan.keepdim_shape](Back& back) {
                  const Tensor y = reshape(back.out(), full);
                  // Where all of a range is -inf, so is y, and the gradient is 0.
                  const Tensor nothing = y == -std::numeric_limits<double>::infinity();
                  const Tensor p = exp(back.in(0) - masked_fill(y, nothing, 0.0));
                  const Tensor total = masked_fill(sum_to(p, full), nothing, 1.0);
                  back.add(0, reshape(back.grad, full) / total * p);
                });
}

Tensor var(const Tensor& x, const Axes& axes, bool keepdim, double correction) {
  detail::require_floating("var", x);
  const double n = static_cast<double>(Plan("var", x, axes).count);
  return sum(square(x - mean(x, axes, true)), axes, keepdim) / (n - correction);
}

// p = 2: y = sqrt(sum x^2), dx = g x / y, and 0 where y = 0
Tensor norm(const Tensor& x, double p, const Axes& axes, bool keepdim) {
  detail::require_floating("norm", x);
  if (!(p > 0.0) || std::isinf(p)) fail<ValueError>("norm: needs 0 < p < inf, got {}", p);
  const Plan plan("norm", x, axes);
  if (p == 1.0) return sum(abs(x), axes, keepdim);
  if (p != 2.0) return pow(sum(pow(abs(x), p), axes, keepdim), 1.0 / p);
  Tensor value;
  {
    NoGrad no_grad;
    value = sqrt(sum(square(x), axes, keepdim));
  }
  return record("norm", {x}, std::move(value), Keep::inputs | Keep::output,
                [full = plan.keepdim_shape](Back& back) {
                  const Tensor y = reshape(back.out(), full);
                  back.add(0,
                           reshape(back.grad, full) * back.in(0) / masked_fill(y, y == 0.0, 1.0));
                });
}

// y_i = x_0 + ... + x_i: dx_i = g_i + ... + g_n
Tensor cumsum(const Tensor& x, std::int64_t dim) {
  const std::int64_t d = wrap_dim("cumsum", dim, x.shape());
  Tensor out = empty(x.shape(), x.dtype());
  detail::copy_into(out, x);
  const std::int64_t n = x.shape()[d], inner = out.strides()[d];
  if (out.numel() > 0) {
    detail::dispatch(x.dtype(), [&]<class T>(T) {
      using Sum = std::conditional_t<std::is_same_v<T, float>, double, T>;
      T* y = detail::overwrite<T>(out);
      for (std::int64_t o = 0; o < out.numel() / (n * inner); ++o, y += n * inner) {
        for (std::int64_t j = 0; j < inner; ++j) {
          Sum total = 0;
          for (std::int64_t i = j; i < n * inner; i += inner)
            y[i] = static_cast<T>(total += static_cast<Sum>(y[i]));
        }
      }
    });
  }
  return record("cumsum", {x}, std::move(out), Keep::none,
                [d](Back& back) { back.add(0, flip(cumsum(flip(back.grad, d), d), d)); });
}

}  // namespace unroll
