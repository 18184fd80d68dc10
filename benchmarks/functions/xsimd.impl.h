#pragma once
/// Compiled once per instruction set, by the files beside it.

#include <xsimd/xsimd.hpp>

#include "functions/xsimd.h"

namespace bench {
namespace {

template <class Arch, auto f>
void each(std::int64_t n, float* y, const float* x) {
  using V = xsimd::batch<float, Arch>;
  for (std::int64_t i = 0; i < n; i += static_cast<std::int64_t>(V::size))
    f(V::load_unaligned(x + i)).store_unaligned(y + i);
}

template <class Arch>
constexpr XsimdFunctions functions() {
  using V = xsimd::batch<float, Arch>;
  return {each<Arch, [](const V& x) { return xsimd::exp(x); }>,
          each<Arch, [](const V& x) { return xsimd::log(x); }>,
          each<Arch, [](const V& x) { return xsimd::tanh(x); }>,
          each<Arch, [](const V& x) { return V(1.0f) / (V(1.0f) + xsimd::exp(-x)); }>};
}

}  // namespace
}  // namespace bench
