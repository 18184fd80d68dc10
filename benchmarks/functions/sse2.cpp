#include "functions/xsimd.impl.h"

namespace bench {

constinit const XsimdFunctions kXsimdSse2 = functions<xsimd::sse2>();

}  // namespace bench
