#pragma once
/// Dropout, as a module that knows whether it trains.

#include "modules/module.h"

namespace unroll {

/// In training each element is zeroed with probability p and the others are divided by 1 - p
/// (Srivastava et al. 2014); in evaluation x stays as it is. Throws ValueError unless 0 <= p < 1.
struct Dropout : Module {
  /// Throws ValueError unless 0 <= p < 1.
  explicit Dropout(double p = 0.5);

  /// dropout(x, p) in training mode, x itself in evaluation mode.
  Tensor operator()(const Tensor& x) const;

  double p;  ///< the probability that an element is zeroed
};

}  // namespace unroll
