#pragma once
/// Every Op as one formula, and the loop that runs it over arrays. See simd.impl.h.

#include "framework/kernels/exp.impl.h"
#include "framework/kernels/kernels.h"
#include "framework/kernels/simd.impl.h"

#include <utility>

namespace unroll::kernels {
namespace {

/// mask ? x : y, for the formulas below when they run on plain integers.
[[gnu::always_inline]] inline std::int64_t select(bool mask, std::int64_t x, std::int64_t y) {
  return mask ? x : y;
}

/// f of each lane of a and b, for functions that are too rare to be worth a vector version.
template <class T, class Arch, class F>
xsimd::batch<T, Arch> per_lane(const xsimd::batch<T, Arch>& a, const xsimd::batch<T, Arch>& b,
                               F f) {
  using V = xsimd::batch<T, Arch>;
  alignas(64) T x[V::size], y[V::size];
  a.store_aligned(x);
  b.store_aligned(y);
  for (std::size_t i = 0; i < V::size; ++i) x[i] = f(x[i], y[i]);
  return V::load_aligned(x);
}

// C's functions, chosen by type without the inline overloads of <cmath>.
inline float c_pow(float a, float b) { return __builtin_powf(a, b); }
inline double c_pow(double a, double b) { return __builtin_pow(a, b); }
inline float c_sin(float a) { return __builtin_sinf(a); }
inline double c_sin(double a) { return __builtin_sin(a); }
inline float c_cos(float a) { return __builtin_cosf(a); }
inline double c_cos(double a) { return __builtin_cos(a); }

/// One Op on vectors V of a floating-point type, or on V = int64_t. What xsimd's min, max and !=
/// make of a NaN depends on the instruction set and on the version: here stand `select` and ==.
template <Op op, class V>
[[gnu::always_inline]] inline V apply(V a, V b, V c, V s0, V s1) {
  const V zero(0), one(1);
  if constexpr (op == Op::copy) {
    return a;
  } else if constexpr (op == Op::affine) {
    return s0 * a + s1;
  } else if constexpr (op == Op::neg) {
    return V(-1) * a;  // xsimd's -a may be 0 - a, which makes +0 of +0
  } else if constexpr (op == Op::abs) {
    if constexpr (std::is_same_v<V, std::int64_t>) {
      return select(a < zero, -a, a);
    } else {
      return xsimd::abs(a);
    }
  } else if constexpr (op == Op::sign) {
    return select(a > zero, one, select(a < zero, -one, a));
  } else if constexpr (op == Op::square) {
    return a * a;
  } else if constexpr (op == Op::relu) {
    return select(a < zero, zero, a);
  } else if constexpr (op == Op::clamp) {
    const V above = select(a < s0, s0, a);
    return select(s1 < above, s1, above);
  } else if constexpr (op == Op::add) {
    return a + b;
  } else if constexpr (op == Op::sub) {
    return a - b;
  } else if constexpr (op == Op::mul) {
    return a * b;
  } else if constexpr (op == Op::minimum) {
    return select(a < b, a, select(!(a == a), a, b));
  } else if constexpr (op == Op::maximum) {
    return select(b < a, a, select(!(a == a), a, b));
  } else if constexpr (op == Op::eq) {
    return select(a == b, one, zero);
  } else if constexpr (op == Op::ne) {
    return select(a == b, zero, one);
  } else if constexpr (op == Op::lt) {
    return select(a < b, one, zero);
  } else if constexpr (op == Op::le) {
    return select(a <= b, one, zero);
  } else if constexpr (op == Op::gt) {
    return select(a > b, one, zero);
  } else if constexpr (op == Op::ge) {
    return select(a >= b, one, zero);
  } else if constexpr (op == Op::where) {
    return select(a == zero, c, b);
  } else if constexpr (op == Op::muladd) {
    return a * b + c;
  } else if constexpr (op == Op::scaled_mul) {
    return s0 * a * b;
  } else if constexpr (op == Op::div) {
    return a / b;
  } else if constexpr (op == Op::exp) {
    return exp_of(a);
  } else if constexpr (op == Op::log) {
    return xsimd::log(a);
  } else if constexpr (op == Op::sqrt) {
    return xsimd::sqrt(a);
  } else if constexpr (op == Op::sin) {
    // xsimd's sin and cos reduce large arguments in an inline function that is not a template of
    // the instruction set (see simd.impl.h).
    return per_lane(a, a, [](auto x, auto) { return c_sin(x); });
  } else if constexpr (op == Op::cos) {
    return per_lane(a, a, [](auto x, auto) { return c_cos(x); });
  } else if constexpr (op == Op::tanh) {
    return tanh_of(a);
  } else if constexpr (op == Op::sigmoid) {
    return one / (one + exp_of(-a));
  } else if constexpr (op == Op::softplus) {
    return select(a < zero, zero, a) + xsimd::log1p(exp_of(-xsimd::abs(a)));
  } else if constexpr (op == Op::pow) {
    return per_lane(a, b, [](auto x, auto y) { return c_pow(x, y); });
  } else if constexpr (op == Op::tanh_grad) {
    return a * (one - b * b);
  } else if constexpr (op == Op::sigmoid_grad) {
    return a * b * (one - b);
  } else if constexpr (op == Op::tanh_of_sum) {
    return tanh_of(a + b);
  } else if constexpr (op == Op::sigmoid_of_sum) {
    return one / (one + exp_of(-(a + b)));
  } else if constexpr (op == Op::tanh_mul) {
    return tanh_of(a) * b;
  } else if constexpr (op == Op::sigmoid_mul_tanh) {
    const auto [t, divisor] = tanh_parts(b);
    return xsimd::copysign(t / (divisor * (one + exp_of(-a))), b);
  } else if constexpr (op == Op::tanh_grad_of_mul) {
    return a * b * (one - c * c);
  } else if constexpr (op == Op::sigmoid_grad_of_mul) {
    return a * b * c * (one - c);
  } else {
    static_assert(op == Op::tanh_grad_add, "an Op without a formula");
    return a * (one - b * b) + c;
  }
}

constexpr bool has_immediates(Op op) {
  return op == Op::affine || op == Op::clamp || op == Op::scaled_mul;
}

/// One row of a floating-point Op. When n is no multiple of the vector length, the last vector
/// overlaps the one before it; its result is computed before anything is written, since out may be
/// one of the operands.
template <Op op, class V, class T>
[[gnu::always_inline]] inline void map_row(std::int64_t n, T* out, const T* a, const T* b,
                                           const T* c, V s0, V s1) {
  constexpr std::int64_t lanes = kLanes<V>;
  const auto at = [&](std::int64_t i) __attribute__((always_inline)) {
    const V x = V::load_unaligned(a + i);
    const V y = arity(op) > 1 ? V::load_unaligned(b + i) : x;
    const V z = arity(op) > 2 ? V::load_unaligned(c + i) : x;
    return apply<op, V>(x, y, z, s0, s1);
  };
  const bool whole = (n & (lanes - 1)) == 0;
  const std::int64_t last = n - (whole ? 0 : lanes);
  V tail;
  if (!whole) tail = at(last);
  for (std::int64_t i = 0; i < last; i += lanes) at(i).store_unaligned(out + i);
  if (!whole) tail.store_unaligned(out + last);
}

/// n elements, fewer than a vector has, and ones. One alone, such as a loss, is not put together
/// in memory: a vector that is read where single elements have just been written has to wait.
template <class V, class T>
V load_short(std::int64_t n, const T* x) {
  if (n == 1) return V(*x);
  alignas(64) T buffer[V::size];
  V(T(1)).store_aligned(buffer);
  for (std::int64_t i = 0; i < n; ++i) buffer[i] = x[i];
  return V::load_aligned(buffer);
}

/// A row that is shorter than a vector.
template <Op op, class V, class T>
void map_short_row(std::int64_t n, T* out, const T* a, const T* b, const T* c, V s0, V s1) {
  const V x = load_short<V>(n, a);
  const V y = arity(op) > 1 ? load_short<V>(n, b) : x;
  const V z = arity(op) > 2 ? load_short<V>(n, c) : x;
  alignas(64) T result[V::size];
  apply<op, V>(x, y, z, s0, s1).store_aligned(result);
  if (n == 1) {
    *out = *result;
    return;
  }
  for (std::int64_t i = 0; i < n; ++i) out[i] = result[i];
}

/// Asks for n elements that lie `ahead` of x, if that is not 0. The L2 cache is near enough: what
/// waits for room in the L1 cache holds up those who compute.
template <class T>
[[gnu::always_inline]] inline void ask_for(std::int64_t n, const T* x, std::int64_t ahead) {
  constexpr std::int64_t line = 64 / static_cast<std::int64_t>(sizeof(T));
  if (ahead == 0) return;
  for (std::int64_t i = 0; i < n; i += line) __builtin_prefetch(x + ahead + i, 0, 2);
}

template <Op op, class T, class Arch>
void map(std::int64_t rows, std::int64_t n, T* out, const T* a, const T* b, const T* c,
         const RowStrides& strides, const double* s) {
  using V = xsimd::batch<T, Arch>;
  const V s0(has_immediates(op) ? static_cast<T>(s[0]) : T(0));
  const V s1(has_immediates(op) ? static_cast<T>(s[1]) : T(0));
  if (n <= 0) return;
  for (; rows > 0; --rows) {
    if (n < kLanes<V>)
      map_short_row<op, V>(n, out, a, b, c, s0, s1);
    else
      map_row<op, V>(n, out, a, b, c, s0, s1);
    if (strides.asks) {
      ask_for(n, out, strides.ahead_out);
      ask_for(n, a, strides.ahead_a);
      if constexpr (arity(op) > 1) ask_for(n, b, strides.ahead_b);
      if constexpr (arity(op) > 2) ask_for(n, c, strides.ahead_c);
    }
    if (rows == 1) return;
    out += strides.out;
    a += strides.a;
    if constexpr (arity(op) > 1) b += strides.b;
    if constexpr (arity(op) > 2) c += strides.c;
  }
}

/// The loop of an integer Op; the compiler makes vectors of it.
template <Op op>
void map_integers(std::int64_t rows, std::int64_t n, std::int64_t* out, const std::int64_t* a,
                  const std::int64_t* b, const std::int64_t* c, const RowStrides& strides,
                  const double* s) {
  const std::int64_t s0 = has_immediates(op) ? static_cast<std::int64_t>(s[0]) : 0;
  const std::int64_t s1 = has_immediates(op) ? static_cast<std::int64_t>(s[1]) : 0;
  for (std::int64_t row = 0; row < rows; ++row) {
    for (std::int64_t i = 0; i < n; ++i) {
      const std::int64_t y = arity(op) > 1 ? b[i] : 0;
      const std::int64_t z = arity(op) > 2 ? c[i] : 0;
      out[i] = apply<op, std::int64_t>(a[i], y, z, s0, s1);
    }
    out += strides.out;
    a += strides.a;
    if constexpr (arity(op) > 1) b += strides.b;
    if constexpr (arity(op) > 2) c += strides.c;
  }
}

template <class T, class Arch, int... I>
constexpr std::array<ElementwiseFn<T>, kOpCount> float_ops(std::integer_sequence<int, I...>) {
  return {{{map<static_cast<Op>(I), T, Arch>}...}};
}

template <int I>
constexpr ElementwiseFn<std::int64_t> integer_op() {
  if constexpr (static_cast<Op>(I) < kFirstFloatOp) {
    return {map_integers<static_cast<Op>(I)>};
  } else {
    return {};
  }
}

template <int... I>
constexpr std::array<ElementwiseFn<std::int64_t>, kOpCount> integer_ops(
    std::integer_sequence<int, I...>) {
  return {{integer_op<I>()...}};
}

}  // namespace
}  // namespace unroll::kernels
