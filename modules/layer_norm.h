#pragma once
/// Layer normalisation.

#include "modules/module.h"

namespace unroll {

/// Options of LayerNorm and of the cells with it.
struct LayerNormOptions {
  double eps = 1e-5;               ///< added to the variance
  bool elementwise_affine = true;  ///< whether there are a weight and a bias
};

/// y = (x - mean) / sqrt(variance + eps) * weight + bias, with the mean and the variance (of the
/// population: divided by n) over the last dimensions (Ba, Kiros and Hinton 2016). The
/// weight starts at 1, the bias at 0. Throws ValueError for no dimensions, for sizes below 1 and
/// for a negative eps.
struct LayerNorm : Module {
  /// Over the last dimension.
  explicit LayerNorm(std::int64_t size, const LayerNormOptions& options = {});
  /// Over the last dimensions, of these sizes.
  explicit LayerNorm(const Shape& normalized_shape, const LayerNormOptions& options = {});

  /// x: [..., normalized_shape]; returns the same shape. Throws ShapeError.
  Tensor operator()(const Tensor& x) const;

  Shape normalized_shape;  ///< the last dimensions, which are normalised
  double eps;              ///< added to the variance
  Tensor weight;           ///< [normalized_shape], undefined without elementwise_affine
  Tensor bias;             ///< [normalized_shape], undefined without elementwise_affine
};

}  // namespace unroll
