#pragma once
/// Dropout, as a module that knows whether it trains.

#include "modules/module.h"

namespace unroll {

/// In training each element is zeroed with probability p and the others are divided by 1 - p
/// (Srivastava et al. 2014); in evaluation x stays as it is. Throws ValueError unless 0 <= p < 1.
struct Dropout : Module {
  explicit Dropout(double p = 0.5);

  Tensor operator()(const Tensor& x) const;

  double p;
};

}  // namespace unroll
