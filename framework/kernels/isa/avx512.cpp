#include "framework/kernels/table.impl.h"

namespace unroll::kernels {

// A constant of the object file: nothing in here runs before the CPU is known.
constinit const Kernels kAvx512 = table<xsimd::avx512bw, 9, 3>("avx512");

}  // namespace unroll::kernels
