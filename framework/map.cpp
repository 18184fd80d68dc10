/// How an elementwise instruction runs over tensors of any strides.

#include <algorithm>
#include <cstring>

#include "framework/internal.h"
#include "framework/kernels/parallel.h"
#include "framework/trace.h"
#include "framework/watch.h"

namespace unroll::detail {
namespace {

using kernels::ElementwiseFn;
using kernels::Op;

constexpr std::int64_t kBlock = 512;    // elements gathered at a time where strides demand it
constexpr std::int64_t kCopied = 2048;  // elements that one thread copies in one go
constexpr int kOperands = 4;            // the result and up to three inputs

/// How an instruction on n elements is shared between threads.
struct Sharing {
  Sharing(Op op, std::int64_t n)
      : elements(kernels::kAdditionsPerThread / kernels::work(op)),
        wake(n * kernels::work(op) >= kernels::kAdditionsWorthWaking) {}
  std::int64_t elements;  ///< for each thread at least
  bool wake;
};

template <class T>
ElementwiseFn<T> kernel(Op op) {
  if constexpr (std::is_same_v<T, std::int64_t>)
    return kernels::active().i64[static_cast<std::size_t>(op)];
  else
    return kernels::float_kernels<T>().elementwise[static_cast<std::size_t>(op)];
}

/// The loop over one result and its operands: sizes from the outermost dimension to the innermost,
/// and a stride per dimension and operand. Operand 0 is the result.
struct Loop {
  Shape sizes;
  Shape strides[kOperands];
  int operands = 0;

  /// Dimensions of size 1 are dropped, and neighbours that every operand walks through in one go
  /// become one.
  void simplify() {
    std::int64_t kept = 0;
    for (std::int64_t d = 0; d < sizes.size(); ++d) {
      if (sizes[d] == 1) continue;
      bool merge = kept > 0;
      for (int k = 0; merge && k < operands; ++k)
        merge = strides[k][kept - 1] == strides[k][d] * sizes[d];
      const std::int64_t to = merge ? kept - 1 : kept;
      sizes[to] = merge ? sizes[to] * sizes[d] : sizes[d];
      for (int k = 0; k < operands; ++k) strides[k][to] = strides[k][d];
      kept = to + 1;
    }
    if (kept == 0) {
      sizes.resize(1);
      sizes[0] = 1;
      for (int k = 0; k < operands; ++k) {
        strides[k].resize(1);
        strides[k][0] = 1;
      }
      return;
    }
    sizes.resize(kept);
    for (int k = 0; k < operands; ++k) strides[k].resize(kept);
  }
};

/// One innermost row: `n` elements at p[k] with steps step[k].
template <class T>
void run_row(ElementwiseFn<T> f, std::int64_t n, T* const* p, const std::int64_t* step,
             int operands, const double* s) {
  bool direct = true;
  for (int k = 0; k < operands; ++k) direct = direct && step[k] == 1;
  if (direct) {
    f(n, p[0], p[1], p[2], p[3], s);
    return;
  }
  if (n == 1) {
    f(1, p[0], p[1], p[2], p[3], s);
    return;
  }
  if (step[0] == 0) {  // the result is one element, updated again and again
    for (std::int64_t i = 0; i < n; ++i) {
      const T* in[kOperands] = {};
      for (int k = 1; k < operands; ++k) in[k] = p[k] + i * step[k];
      f(1, p[0], in[1], in[2], in[3], s);
    }
    return;
  }
  alignas(64) T buffer[kOperands][kBlock];
  const T* in[kOperands] = {};
  for (int k = 1; k < operands; ++k) {
    if (step[k] != 0) continue;
    std::fill_n(buffer[k], std::min(n, kBlock), *p[k]);
    in[k] = buffer[k];
  }
  for (std::int64_t first = 0; first < n; first += kBlock) {
    const std::int64_t count = std::min(kBlock, n - first);
    for (int k = 1; k < operands; ++k) {
      if (step[k] == 1) {
        in[k] = p[k] + first;
      } else if (step[k] != 0) {
        const T* source = p[k] + first * step[k];
        for (std::int64_t i = 0; i < count; ++i) buffer[k][i] = source[i * step[k]];
        in[k] = buffer[k];
      }
    }
    if (step[0] == 1) {
      f(count, p[0] + first, in[1], in[2], in[3], s);
    } else {
      f(count, buffer[0], in[1], in[2], in[3], s);
      T* target = p[0] + first * step[0];
      for (std::int64_t i = 0; i < count; ++i) target[i * step[0]] = buffer[0][i];
    }
  }
}

template <class T>
void run_loop(Op op, Loop loop, T* const* base, const double* s, bool repeats) {
  const ElementwiseFn<T> f = kernel<T>(op);
  loop.simplify();
  const std::int64_t rank = loop.sizes.size();
  const std::int64_t inner = loop.sizes[rank - 1];
  const std::int64_t rows = loop.sizes.numel() / inner;
  std::int64_t step[kOperands] = {};
  for (int k = 0; k < loop.operands; ++k) step[k] = loop.strides[k][rank - 1];

  bool direct = rank == 2;  // rows of neighbours, which the kernel knows; they are not cut
  for (int k = 0; k < loop.operands; ++k) direct = direct && step[k] == 1;

  const auto run_rows = [&](std::int64_t first_row, std::int64_t last_row, std::int64_t first,
                            std::int64_t last) {
    T* p[kOperands] = {};
    if (direct) {
      std::int64_t stride[kOperands] = {};
      for (int k = 0; k < loop.operands; ++k) {
        stride[k] = loop.strides[k][0];
        p[k] = base[k] + first_row * stride[k];
      }
      f.rows(last_row - first_row, inner, p[0], p[1], p[2], p[3],
             {stride[0], stride[1], stride[2], stride[3]}, s);
      return;
    }
    for (std::int64_t row = first_row; row < last_row; ++row) {
      for (int k = 0; k < loop.operands; ++k) p[k] = base[k] + first * step[k];
      std::int64_t rest = row;
      for (std::int64_t d = rank - 2; d >= 0; --d) {
        const std::int64_t i = rest % loop.sizes[d];
        rest /= loop.sizes[d];
        for (int k = 0; k < loop.operands; ++k) p[k] += i * loop.strides[k][d];
      }
      run_row(f, last - first, p, step, loop.operands, s);
    }
  };

  const Sharing sharing(op, rows * inner);
  if (repeats) {
    run_rows(0, rows, 0, inner);
  } else if (rows == 1) {
    kernels::parallel_for(
        0, inner, sharing.elements,
        [&](std::int64_t first, std::int64_t last) { run_rows(0, 1, first, last); }, sharing.wake);
  } else {
    kernels::parallel_for(
        0, rows, std::max<std::int64_t>(1, sharing.elements / inner),
        [&](std::int64_t first, std::int64_t last) { run_rows(first, last, 0, inner); },
        sharing.wake);
  }
}

/// n elements of operands that lie in the same order.
template <class T>
[[gnu::noinline]] void share_in_order(Op op, std::int64_t n, T* out, const T* const* in,
                                      const double* s) {
  const ElementwiseFn<T> f = kernel<T>(op);
  const Sharing sharing(op, n);
  kernels::parallel_for(
      0, n, sharing.elements,
      [&](std::int64_t begin, std::int64_t end) {
        const auto at = [&](const T* p) { return p ? p + begin : p; };
        f(end - begin, out + begin, at(in[0]), at(in[1]), at(in[2]), s);
      },
      sharing.wake);
}

/// An instruction on operands whose elements lie in the same order as those of the result.
[[gnu::noinline]] void run_in_order(const TensorImpl& out, Op op, const Operands& operands,
                                    const double* s) {
  const std::int64_t n = out.numel;
  dispatch(out.dtype, [&]<class T>(T) {
    const auto data = [](const Tensor* x) { return x ? read<T>(*x->impl_ref()) : nullptr; };
    const auto& [a, b, c] = operands.tensors;
    const T* const in[3] = {data(a), data(b), data(c)};
    T* const y = overwrite<T>(out);
    constexpr std::int64_t few = kernels::kAdditionsPerThread / kernels::kMostWork;
    if (n <= few || n * kernels::work(op) <= kernels::kAdditionsPerThread)
      kernel<T>(op)(n, y, in[0], in[1], in[2], s);
    else
      share_in_order(op, n, y, in, s);
  });
}

/// The same for operands of other strides, or broadcast. Throws for dtypes that differ.
[[gnu::noinline]] Tensor map_broadcast(const char* name, Op op, const Operands& operands, double s0,
                                       double s1) {
  const Tensor& first = *operands.tensors[0];
  for (const Tensor* x : operands) require_same_dtype(name, first, *x);
  if (op >= kernels::kFirstFloatOp) require_floating(name, first);
  Shape shape = first.shape();
  for (const Tensor* x : operands) shape = broadcast_shapes(name, shape, x->shape());
  Tensor out = empty(shape, first.dtype());
  map_into(out, op, operands, s0, s1);
  return out;
}

}  // namespace

void map_into(const Tensor& out, Op op, const Operands& operands, double s0, double s1) {
  if (trace && trace->map_into(out, op, operands, s0, s1)) return;
  if (out.numel() == 0) return;
  const double s[2] = {s0, s1};
  bool in_order = out.is_contiguous();
  for (const Tensor* x : operands)
    in_order = in_order && x->is_contiguous() && x->numel() == out.numel();
  if (in_order) return run_in_order(out.impl(), op, operands, s);
  Loop loop;
  loop.sizes = out.shape();
  loop.strides[0] = out.strides();
  bool repeats = false;
  for (std::int64_t d = 0; d < out.dim(); ++d)
    repeats = repeats || (out.strides()[d] == 0 && out.shape()[d] > 1);
  loop.operands = 1;
  for (const Tensor* x : operands) {
    const std::int64_t extra = out.dim() - x->dim();
    Shape& strides = loop.strides[loop.operands++];
    strides.resize(out.dim());
    for (std::int64_t d = extra; d < out.dim(); ++d)
      strides[d] = x->shape()[d - extra] == 1 ? 0 : x->strides()[d - extra];
  }
  dispatch(out.dtype(), [&]<class T>(T) {
    T* base[kOperands] = {};
    int k = 1;
    // Operands are only read; one array serves the result and them.
    for (const Tensor* x : operands) base[k++] = const_cast<T*>(read<T>(*x));
    base[0] = overwrite<T>(out);
    run_loop<T>(op, std::move(loop), base, s, repeats);
  });
}

namespace {

/// Whether all operands have x's dtype, and their elements lie as x's do.
inline bool all_lie_as(const TensorImpl& x, const Operands& operands) {
  const auto lies_as = [&x](const Tensor* y) {
    if (!y) return true;
    const TensorImpl& impl = y->impl();
    return &impl == &x || (impl.contiguous && impl.dtype == x.dtype && impl.shape == x.shape);
  };
  const auto& [a, b, c] = operands.tensors;
  return x.contiguous && lies_as(a) && lies_as(b) && lies_as(c);
}

/// Whether there is such an instruction for the dtype.
bool fits(Op op, DType dtype) { return op < kernels::kFirstFloatOp || is_floating(dtype); }

/// Whether y has x's shape when it is broadcast to it.
bool broadcasts_to(const Shape& y, const Shape& x) {
  const std::int64_t extra = x.size() - y.size();
  if (extra < 0) return false;
  for (std::int64_t d = 0; d < y.size(); ++d)
    if (y[d] != 1 && y[d] != x[d + extra]) return false;
  return true;
}

/// The result of an instruction on operands that lie as `first` does.
Tensor map_to_new(const TensorImpl& first, Op op, const Operands& operands, const double* s) {
  Tensor out = make_like(first);
  run_in_order(out.impl(), op, operands, s);
  return out;
}

/// Whether the result of an instruction may be written over x, if it has its shape and dtype.
bool may_write_over(const Tensor* x) { return x && is_exclusive(*x); }

/// x as the result of an instruction: not that of an operation yet.
Tensor written_over(const Tensor& x) {
  if (!grad_enabled()) x.impl_ref()->node.reset();
  return x;
}

/// The same as map_over for operands that do not lie alike.
[[gnu::noinline]] Tensor map_over_broadcast(const char* name, Op op, const Operands& operands,
                                            double s0, double s1) {
  const auto has_result = [&](const Tensor& x) {
    if (!fits(op, x.dtype())) return false;
    for (const Tensor* y : operands)
      if (y->dtype() != x.dtype() || !broadcasts_to(y->shape(), x.shape())) return false;
    return true;
  };
  if (!trace && !watched())
    for (const Tensor* x : operands)
      if (may_write_over(x) && has_result(*x)) {
        map_into(*x, op, operands, s0, s1);
        return written_over(*x);
      }
  return map_broadcast(name, op, operands, s0, s1);
}

}  // namespace

Tensor map(const char* name, Op op, const Operands& operands, double s0, double s1) {
  const TensorImpl& first = operands.tensors[0]->impl();
  if (trace || !fits(op, first.dtype) || !all_lie_as(first, operands)) [[unlikely]]
    return map_broadcast(name, op, operands, s0, s1);
  const double s[2] = {s0, s1};
  return map_to_new(first, op, operands, s);
}

Tensor map_over(const char* name, Op op, const Operands& operands, double s0, double s1) {
  const TensorImpl& first = operands.tensors[0]->impl();
  if (trace || !fits(op, first.dtype) || !all_lie_as(first, operands)) [[unlikely]]
    return map_over_broadcast(name, op, operands, s0, s1);
  const double s[2] = {s0, s1};
  const auto& [a, b, c] = operands.tensors;
  const Tensor* over = may_write_over(a) ? a : may_write_over(b) ? b : c;
  if (!may_write_over(over) || watched()) return map_to_new(first, op, operands, s);
  run_in_order(over->impl(), op, operands, s);
  return written_over(*over);
}

void accumulate(const Tensor& out, const Tensor& x) { map_into(out, Op::add, {&out, &x}); }

void copy_into(const Tensor& out, std::int64_t begin, const Tensor& source) {
  if (trace || !source.is_contiguous() || source.numel() >= kCopied) {
    map_into(attach(out.impl().storage, out.dtype(), source.shape(), out.impl().offset + begin),
             Op::copy, {&source});
    return;
  }
  const std::int64_t size = size_of(out.dtype());
  std::memmove(static_cast<char*>(overwrite(out)) + begin * size, read(source),
               static_cast<std::size_t>(source.numel() * size));
}

void copy_into(const Tensor& out, const Tensor& source) {
  if (out.dtype() == source.dtype()) {
    if (!trace && out.is_contiguous() && out.shape() == source.shape())
      return copy_into(out, 0, source);
    map_into(out, Op::copy, {&source});
    return;
  }
  const Tensor from = dense(source);
  Tensor to = empty(source.shape(), out.dtype());
  dispatch(from.dtype(), [&]<class From>(From) {
    dispatch(to.dtype(), [&]<class To>(To) {
      const From* in = read<From>(from);
      std::transform(in, in + from.numel(), overwrite<To>(to),
                     [](From value) { return static_cast<To>(value); });
    });
  });
  map_into(out, Op::copy, {&to});
}

}  // namespace unroll::detail
