#pragma once
/// Stochastic gradient descent.

#include <vector>

#include "optim/optimizer.h"

namespace unroll {

/// Options of SGD; the defaults are PyTorch's.
struct SGDOptions {
  double lr = 1e-3;           ///< learning rate
  double momentum = 0.0;      ///< the part of the step before that is kept
  bool nesterov = false;      ///< look ahead along the momentum
  double weight_decay = 0.0;  ///< times the weight
};

/// Stochastic gradient descent, with momentum as PyTorch writes it (Sutskever et al. 2013, with the
/// learning rate outside of the buffer):
///
///   g = grad + weight_decay * w
///   m = momentum * m + g
///   w = w - lr * m,  or with nesterov  w - lr * (g + momentum * m)
///
/// Throws ValueError for negative numbers, and for nesterov without momentum. Without momentum and
/// weight decay it touches only the rows of a table that have a gradient.
class SGD : public Optimizer {
 public:
  /// One group of parameters.
  explicit SGD(std::vector<Tensor> parameters, const SGDOptions& options = {});
  /// Another group of parameters, with options of its own.
  void add_param_group(std::vector<Tensor> parameters, const SGDOptions& options);

 private:
  void update(Tensor& parameter, const Tensor& grad, Slot& slot) override;
  bool passes_over_zeros(std::size_t group) const override;

  std::vector<SGDOptions> options_;  ///< of each group
};

}  // namespace unroll
