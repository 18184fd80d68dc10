#include "framework/kernels/table.impl.h"

namespace unroll::kernels {

// A constant of the object file: nothing in here runs before the CPU is known.
constinit const Kernels kSse2 = table<xsimd::sse2, 4, 2>("sse2");

}  // namespace unroll::kernels
