#pragma once
/// What differs between xsimd 8.1 and later versions, in one place.
///
/// Files named *.impl.h are compiled once per instruction set and only by isa/*.cpp. Whatever such
/// a file defines stands in an anonymous namespace, and it calls no inline function of the standard
/// library: of an inline function that two object files hold, the linker keeps one copy, perhaps
/// the one with instructions that this CPU lacks.

#include <xsimd/xsimd.hpp>

#include <cstdint>
#include <type_traits>

#if !defined(XSIMD_VERSION_MAJOR) || XSIMD_VERSION_MAJOR < 8
#error "unroll needs xsimd 8.1 or later"
#endif

namespace unroll::kernels {
namespace {

template <class V>
inline constexpr std::int64_t kLanes = static_cast<std::int64_t>(V::size);

/// The sum of all lanes.
template <class T, class Arch>
T sum_lanes(const xsimd::batch<T, Arch>& x) {
#if XSIMD_VERSION_MAJOR < 9
  return xsimd::hadd(x);
#else
  return xsimd::reduce_add(x);
#endif
}

/// The bits of x, read as lanes of type To.
template <class To, class T, class Arch>
xsimd::batch<To, Arch> bits_as(const xsimd::batch<T, Arch>& x) {
#if XSIMD_VERSION_MAJOR < 11
  return xsimd::bitwise_cast<xsimd::batch<To, Arch>>(x);
#else
  return xsimd::bitwise_cast<To>(x);
#endif
}

/// Calls f(integral_constant 0), ..., f(integral_constant N - 1): a loop that is always unrolled,
/// so that arrays of vectors stay in registers.
template <int N, int I = 0, class F>
[[gnu::always_inline]] inline void unrolled(F&& f) {
  if constexpr (I < N) {
    f(std::integral_constant<int, I>());
    unrolled<N, I + 1>(f);
  }
}

}  // namespace
}  // namespace unroll::kernels
