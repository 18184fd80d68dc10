#pragma once
/// Linear: y = x W' + b.

#include "modules/module.h"

namespace unroll {

/// weight and bias start uniform in (-k, k), k = 1 / sqrt(in_features), as PyTorch's do. Throws
/// ValueError for sizes below 1.
struct Linear : Module {
  /// Throws ValueError for sizes below 1.
  Linear(std::int64_t in_features, std::int64_t out_features, bool bias = true);

  /// x: [..., in_features]; returns [..., out_features]. Throws ShapeError.
  Tensor operator()(const Tensor& x) const;

  std::int64_t in_features;   ///< numbers that go in
  std::int64_t out_features;  ///< numbers that come out
  Tensor weight;              ///< [out_features, in_features]
  Tensor bias;                ///< [out_features], undefined without bias
};

}  // namespace unroll
