#include "functions/xsimd.impl.h"

namespace bench {

constinit const XsimdFunctions kXsimdNeon = functions<xsimd::neon64>();

}  // namespace bench
