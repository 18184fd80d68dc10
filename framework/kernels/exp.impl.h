#pragma once
/// exp and tanh, on which the gates of recurrent cells spend their time. See simd.impl.h.

#include <limits>

#include "framework/kernels/simd.impl.h"

namespace unroll::kernels {
namespace {

/// Constants of the exponential function in T.
template <class T>
struct ExpConstants;

template <>
struct ExpConstants<float> {
  using Int = std::int32_t;
  static constexpr int kMantissaBits = 23;
  static constexpr float kLog2E = 0x1.715476p+0f;
  // ln 2 in two parts, the first with so few bits that its product with an exponent is exact.
  static constexpr float kLn2High = 0x1.63p-1f, kLn2Low = -0x1.bd0106p-13f;
  // Where e^x leaves the normal numbers, and where tanh rounds to 1.
  static constexpr float kLowest = -0x1.5d589ep+6f, kHighest = 0x1.62e42ep+6f, kTanhIsOne = 9.1f;
  // (e^r - 1 - r) / r^2 for |r| <= ln(2) / 2, fitted at Chebyshev nodes to 7e-8, of which an eighth
  // and less is left in e^r.
  static constexpr float kCoefficients[] = {0x1.6d10fcp-10f, 0x1.120b62p-7f, 0x1.55551ap-5f,
                                            0x1.5554dep-3f, 0.5f};
};

template <>
struct ExpConstants<double> {
  using Int = std::int64_t;
  static constexpr int kMantissaBits = 52;
  static constexpr double kLog2E = 0x1.71547652b82fep+0;
  static constexpr double kLn2High = 0x1.62e42feep-1, kLn2Low = 0x1.a39ef35793c76p-33;
  static constexpr double kLowest = -0x1.6232bdd7abcd2p+9, kHighest = 0x1.62e42fefa39efp+9,
                          kTanhIsOne = 19.1;
  // As above, to 1e-18.
  static constexpr double kCoefficients[] = {0x1.1f733f411b727p-29,
                                             0x1.af4e5274a366cp-26,
                                             0x1.27e4db47938d1p-22,
                                             0x1.71de01ff19a6bp-19,
                                             0x1.a01a01a6e1a43p-16,
                                             0x1.a01a01abf7ed6p-13,
                                             0x1.6c16c16c162c3p-10,
                                             0x1.11111111100bep-7,
                                             0x1.5555555555556p-5,
                                             0x1.5555555555557p-3,
                                             0.5};
};

/// e^x = 2^n (1 + p) with a whole n and |log(1 + p)| <= ln(2) / 2.
template <class V, class IntV>
struct ExpParts {
  V p;
  IntV n;  ///< already where an exponent stands in a floating-point number
};

template <class T, class Arch, class C = ExpConstants<T>>
[[gnu::always_inline]] inline auto exp_parts(const xsimd::batch<T, Arch>& x) {
  using V = xsimd::batch<T, Arch>;
  // A sum with 1.5 * 2^mantissa bits has no room for a fraction: it is rounded, and n stands in its
  // lowest bits.
  constexpr T magic = T(1.5) * static_cast<T>(std::int64_t{1} << C::kMantissaBits);
  const V shifted = xsimd::fma(x, V(C::kLog2E), V(magic));
  const V n = shifted - V(magic);
  const V r = xsimd::fnma(n, V(C::kLn2Low), xsimd::fnma(n, V(C::kLn2High), x));
  V q(C::kCoefficients[0]);
  constexpr int count = sizeof(C::kCoefficients) / sizeof(T);
  unrolled<count - 1>([&](auto i) __attribute__((always_inline)) {
    q = xsimd::fma(q, r, V(C::kCoefficients[i + 1]));
  });
  const V p = xsimd::fma(q, r * r, r);
  const auto bits = bits_as<typename C::Int>(shifted) << C::kMantissaBits;
  return ExpParts<V, std::remove_const_t<decltype(bits)>>{p, bits};
}

/// e^x to within 1.1 ulp; 0 where that is no normal number.
template <class T, class Arch, class C = ExpConstants<T>>
[[gnu::always_inline]] inline xsimd::batch<T, Arch> exp_of(const xsimd::batch<T, Arch>& x) {
  using V = xsimd::batch<T, Arch>;
  const auto parts = exp_parts(x);
  // Not a product with 2^n, which is no number where n is greatest.
  const V y = bits_as<T>(bits_as<typename C::Int>(V(T(1)) + parts.p) + parts.n);
  const V beyond = x + V(std::numeric_limits<T>::infinity());  // of a NaN a NaN
  const V bounded = xsimd::select(x <= V(C::kHighest), y, beyond);
  return xsimd::select(x < V(C::kLowest), V(T(0)), bounded);
}

/// |tanh(x)| as a fraction.
template <class V>
struct TanhParts {
  V numerator, divisor;
};

/// |tanh(x)| = t / (t + 2) with t = e^(2|x|) - 1, to within 3 ulp also near 0.
template <class T, class Arch, class C = ExpConstants<T>>
[[gnu::always_inline]] inline auto tanh_parts(const xsimd::batch<T, Arch>& x) {
  using V = xsimd::batch<T, Arch>;
  const V one(T(1)), limit(C::kTanhIsOne);
  const V size = xsimd::abs(x);
  const V z = xsimd::select(size > limit, limit, size);
  const auto parts = exp_parts(z + z);
  const V power = bits_as<T>(bits_as<typename C::Int>(one) + parts.n);
  const V t = xsimd::fma(power, parts.p, power - one);
  return TanhParts<V>{t, t + V(T(2))};
}

template <class T, class Arch>
[[gnu::always_inline]] inline xsimd::batch<T, Arch> tanh_of(const xsimd::batch<T, Arch>& x) {
  const auto [t, divisor] = tanh_parts(x);
  return xsimd::copysign(t / divisor, x);
}

}  // namespace
}  // namespace unroll::kernels
