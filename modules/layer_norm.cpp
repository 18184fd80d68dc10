#include "modules/layer_norm.h"

#include "framework/internal.h"
#include "framework/ops.h"

namespace unroll {

using detail::fail;

LayerNorm::LayerNorm(std::int64_t size, const LayerNormOptions& options)
    : LayerNorm(Shape{size}, options) {}

LayerNorm::LayerNorm(const Shape& shape, const LayerNormOptions& options)
    : normalized_shape(shape), eps(options.eps) {
  if (shape.empty()) throw ValueError("LayerNorm: normalized_shape needs one dimension or more");
  for (std::int64_t size : shape)
    if (size < 1) fail<ValueError>("LayerNorm: sizes are at least 1, but the shape is {}", shape);
  if (!(eps >= 0)) fail<ValueError>("LayerNorm: eps must not be negative, but is {}", eps);
  if (!options.elementwise_affine) return;
  weight = param("weight", ones(shape));
  bias = param("bias", zeros(shape));
}

Tensor LayerNorm::operator()(const Tensor& x) const {
  const Scope here = scope();
  const std::int64_t n = normalized_shape.size();
  bool fits = x.dim() >= n;
  Shape last;
  for (std::int64_t d = 0; fits && d < n; ++d) {
    last.push_back(d - n);
    fits = x.size(d - n) == normalized_shape[d];
  }
  if (!fits)
    fail<ShapeError>("LayerNorm: x must end with {}, but is {}", normalized_shape, x.shape());
  const Tensor centred = x - mean(x, last, true);
  const Tensor y = centred / sqrt(mean(square(centred), last, true) + eps);
  return weight.defined() ? y * weight + bias : y;
}

}  // namespace unroll
