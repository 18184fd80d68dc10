#pragma once
/// The tables that isa/*.cpp fill, each compiled for its instruction set.

#include "framework/kernels/kernels.h"

namespace unroll::kernels {

extern const Kernels kSse2;
extern const Kernels kAvx2;
extern const Kernels kAvx512;
extern const Kernels kNeon;

}  // namespace unroll::kernels
