#pragma once
/// Comparing tensors in tests.

#include <cmath>
#include <limits>
#include <vector>

#include "framework/tensor.h"

namespace unroll {

/// The largest |a - b|; infinity where the shapes differ or a value is NaN.
inline double max_difference(const Tensor& a, const Tensor& b) {
  if (!a.defined() || !b.defined() || !(a.shape() == b.shape()))
    return std::numeric_limits<double>::infinity();
  const std::vector<double> x = a.detach().to(DType::f64).to_vector<double>();
  const std::vector<double> y = b.detach().to(DType::f64).to_vector<double>();
  double largest = 0.0;
  for (std::size_t i = 0; i < x.size(); ++i) {
    const double difference = std::abs(x[i] - y[i]);
    if (!(difference <= largest)) largest = difference;
    if (std::isnan(difference)) return std::numeric_limits<double>::infinity();
  }
  return largest;
}

}  // namespace unroll
