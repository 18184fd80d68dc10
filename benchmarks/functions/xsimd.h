#pragma once
/// xsimd's own functions of a number, over arrays of floats: one table per instruction set, as the
/// library's kernels. xsimd.impl.h makes them.

#include <cstdint>

namespace bench {

/// y = f(x), n elements; n is a multiple of 16.
using Function = void (*)(std::int64_t n, float* y, const float* x);

struct XsimdFunctions {
  Function exp, log, tanh, sigmoid;
};

extern const XsimdFunctions kXsimdSse2, kXsimdAvx2, kXsimdAvx512, kXsimdNeon;

}  // namespace bench
