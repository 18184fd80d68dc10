#include "modules/linear.h"

#include <cmath>

#include "framework/internal.h"
#include "framework/ops.h"
#include "framework/random.h"

namespace unroll {

using detail::fail;

Linear::Linear(std::int64_t inputs, std::int64_t outputs, bool with_bias)
    : in_features(inputs), out_features(outputs) {
  if (inputs < 1 || outputs < 1)
    fail<ValueError>("Linear: sizes are at least 1, but in_features is {} and out_features is {}",
                     inputs, outputs);
  const double k = 1.0 / std::sqrt(static_cast<double>(inputs));
  weight = param("weight", uniform({outputs, inputs}, -k, k));
  if (with_bias) bias = param("bias", uniform({outputs}, -k, k));
}

Tensor Linear::operator()(const Tensor& x) const {
  const Scope here = scope();
  if (x.dim() < 1 || x.size(-1) != in_features)
    fail<ShapeError>("Linear: x must be [..., in_features = {}], but is {}", in_features,
                     x.shape());
  return linear(x, weight, bias);
}

}  // namespace unroll
