#include "functions/xsimd.impl.h"

namespace bench {

constinit const XsimdFunctions kXsimdAvx512 = functions<xsimd::avx512bw>();

}  // namespace bench
