#include "framework/kernels/table.impl.h"

namespace unroll::kernels {

// A constant of the object file: nothing in here runs before the CPU is known.
constinit const Kernels kAvx2 = table<xsimd::fma3<xsimd::avx2>, 6, 2>("avx2");

}  // namespace unroll::kernels
