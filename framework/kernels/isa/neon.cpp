#include "framework/kernels/table.impl.h"

namespace unroll::kernels {

// A constant of the object file: nothing in here runs before the CPU is known.
constinit const Kernels kNeon = table<xsimd::neon64, 6, 4>("neon");

}  // namespace unroll::kernels
