#include "modules/dropout.h"

#include "framework/internal.h"
#include "framework/random.h"

namespace unroll {

using detail::fail;

Dropout::Dropout(double probability) : p(probability) {
  if (!(p >= 0.0 && p < 1.0)) fail<ValueError>("Dropout: p must be in [0, 1), but is {}", p);
}

Tensor Dropout::operator()(const Tensor& x) const {
  const Scope here = scope();
  return is_training() ? dropout(x, p) : x;
}

}  // namespace unroll
