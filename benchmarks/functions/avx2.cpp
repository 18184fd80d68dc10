#include "functions/xsimd.impl.h"

namespace bench {

constinit const XsimdFunctions kXsimdAvx2 = functions<xsimd::fma3<xsimd::avx2>>();

}  // namespace bench
