#pragma once
/// RMSprop.

#include <vector>

#include "optim/optimizer.h"

namespace unroll {

/// Options of RMSprop; the defaults are PyTorch's.
struct RMSpropOptions {
  double lr = 1e-2;           ///< learning rate
  double alpha = 0.99;        ///< how slowly the average of g^2 changes
  double eps = 1e-8;          ///< added to what is divided by
  double weight_decay = 0.0;  ///< times the weight
  double momentum = 0.0;      ///< the part of the step before that is kept
  bool centered = false;      ///< divide by the standard deviation instead of the root mean square
};

/// RMSprop (Hinton 2012, lecture 6; centered: Graves 2013, eq. 38-40), as PyTorch writes it:
///
///   g = grad + weight_decay * w
///   v = alpha * v + (1 - alpha) * g^2
///   a = alpha * a + (1 - alpha) * g          (centered; otherwise 0)
///   u = g / (sqrt(v - a^2) + eps)
///   m = momentum * m + u                     (with momentum; otherwise u)
///   w = w - lr * m
///
/// Where rounding makes v - a^2 negative it counts as 0. Throws ValueError for negative numbers,
/// and for an alpha that is not below 1.
class RMSprop : public Optimizer {
 public:
  /// One group of parameters.
  explicit RMSprop(std::vector<Tensor> parameters, const RMSpropOptions& options = {});
  /// Another group of parameters, with options of its own.
  void add_param_group(std::vector<Tensor> parameters, const RMSpropOptions& options);

 private:
  void update(Tensor& parameter, const Tensor& grad, Slot& slot) override;

  std::vector<RMSpropOptions> options_;  ///< of each group
};

}  // namespace unroll
