#pragma once
/// Sums, maxima and dot products of contiguous values. See simd.impl.h.

#include "framework/kernels/exp.impl.h"
#include "framework/kernels/simd.impl.h"

#include <limits>

namespace unroll::kernels {
namespace {

/// Copies the count < lanes values at x to `padded` and fills it up with `fill`.
template <class V, class T>
V load_padded(const T* x, std::int64_t count, T fill) {
  alignas(64) T padded[V::size];
  V(fill).store_aligned(padded);
  for (std::int64_t i = 0; i < count; ++i) padded[i] = x[i];
  return V::load_aligned(padded);
}

/// 0, 1, 2, ... in the lanes.
template <class V>
[[gnu::always_inline]] inline V counting() {
  using T = typename V::value_type;
  alignas(64) static constexpr T numbers[16] = {0, 1, 2,  3,  4,  5,  6,  7,
                                                8, 9, 10, 11, 12, 13, 14, 15};
  return V::load_aligned(numbers);
}

/// The sum over i < n of a term; whole(i) gives the terms from i on, one per lane, and
/// part(i, count) the same for the last `count` values, zero in the lanes behind them. Blocks of
/// 4,096 are summed in vector lanes, the blocks in double.
template <class V, class Whole, class Part>
[[gnu::always_inline]] inline typename V::value_type blocked_sum(std::int64_t n, Whole whole,
                                                                 Part part) {
  using T = typename V::value_type;
  constexpr std::int64_t lanes = kLanes<V>;
  constexpr std::int64_t block = 4096;
  double total = 0;
  for (std::int64_t first = 0; first < n; first += block) {
    const std::int64_t end = n - first < block ? n : first + block;
    V sums[4] = {V(T(0)), V(T(0)), V(T(0)), V(T(0))};
    std::int64_t i = first;
    for (; i + 4 * lanes <= end; i += 4 * lanes) {
      unrolled<4>([&](auto j) __attribute__((always_inline)) { sums[j] += whole(i + j * lanes); });
    }
    for (; i + lanes <= end; i += lanes) sums[0] += whole(i);
    if (i < end) sums[1] += part(i, end - i);
    total += static_cast<double>(sum_lanes((sums[0] + sums[1]) + (sums[2] + sums[3])));
  }
  return static_cast<T>(total);
}

template <class T, class Arch>
T sum(std::int64_t n, const T* x) {
  using V = xsimd::batch<T, Arch>;
  return blocked_sum<V>(
      n, [=](std::int64_t i) { return V::load_unaligned(x + i); },
      [=](std::int64_t i, std::int64_t count) { return load_padded<V>(x + i, count, T(0)); });
}

template <class T, class Arch>
T dot(std::int64_t n, const T* x, const T* y) {
  using V = xsimd::batch<T, Arch>;
  return blocked_sum<V>(
      n, [=](std::int64_t i) { return V::load_unaligned(x + i) * V::load_unaligned(y + i); },
      [=](std::int64_t i, std::int64_t count) {
        return load_padded<V>(x + i, count, T(0)) * load_padded<V>(y + i, count, T(0));
      });
}

template <class T, class Arch>
T exp_sum(std::int64_t n, const T* x, T shift, T* out) {
  using V = xsimd::batch<T, Arch>;
  constexpr std::int64_t lanes = kLanes<V>;
  const std::int64_t rest = n % lanes;
  // Before anything is written, for out may be x.
  const V last =
      n < lanes || rest == 0 ? V(T(0)) : exp_of(V::load_unaligned(x + n - lanes) - V(shift));
  const T total = blocked_sum<V>(
      n,
      [=](std::int64_t i) __attribute__((always_inline)) {
        const V y = exp_of(V::load_unaligned(x + i) - V(shift));
        if (out != nullptr) y.store_unaligned(out + i);
        return y;
      },
      [=](std::int64_t i, std::int64_t count) __attribute__((always_inline)) {
        if (n >= lanes)
          return xsimd::select(counting<V>() < V(static_cast<T>(lanes - count)), V(T(0)), last);
        alignas(64) T y[V::size];
        exp_of(load_padded<V>(x + i, count, shift) - V(shift)).store_aligned(y);
        if (out != nullptr) {
          for (std::int64_t j = 0; j < count; ++j) out[i + j] = y[j];
        }
        return load_padded<V>(y, count, T(0));
      });
  if (out != nullptr && n > lanes && rest != 0) last.store_unaligned(out + n - lanes);
  return total;
}

/// The smallest or the greatest of n values. A NaN replaces any value and is replaced by none,
/// since it compares false with everything.
template <class T, class Arch, bool smallest>
T extremum(std::int64_t n, const T* x) {
  using V = xsimd::batch<T, Arch>;
  constexpr std::int64_t lanes = kLanes<V>;
  constexpr T infinity = std::numeric_limits<T>::infinity();
  constexpr T identity = smallest ? infinity : -infinity;
  const auto better = [](const V& a, const V& b) {
    return smallest ? xsimd::select((b < a) | !(b == b), b, a)
                    : xsimd::select((a < b) | !(b == b), b, a);
  };
  V best[4] = {V(identity), V(identity), V(identity), V(identity)};
  std::int64_t i = 0;
  for (; i + 4 * lanes <= n; i += 4 * lanes) {
    unrolled<4>([&](auto j) __attribute__((always_inline)) {
      best[j] = better(best[j], V::load_unaligned(x + i + j * lanes));
    });
  }
  for (; i + lanes <= n; i += lanes) best[0] = better(best[0], V::load_unaligned(x + i));
  if (i < n)  // a value may be looked at twice, and nothing has to wait for a store
    best[1] = better(best[1], n < lanes ? load_padded<V>(x + i, n - i, identity)
                                        : V::load_unaligned(x + n - lanes));
  alignas(64) T values[V::size];
  better(better(best[0], best[1]), better(best[2], best[3])).store_aligned(values);
  T result = values[0];
  for (std::int64_t j = 1; j < lanes; ++j) {
    const T y = values[j];
    if ((smallest ? y < result : result < y) || y != y) result = y;
  }
  return result;
}

}  // namespace
}  // namespace unroll::kernels
