#pragma once
/// Stochastic gradient descent.

#include <vector>

#include "optim/optimizer.h"

namespace unroll {

struct SGDOptions {
  double lr = 1e-3;
  double momentum = 0.0;
  bool nesterov = false;
  double weight_decay = 0.0;
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
  explicit SGD(std::vector<Tensor> parameters, const SGDOptions& options = {});
  void add_param_group(std::vector<Tensor> parameters, const SGDOptions& options);

 private:
  void update(Tensor& parameter, const Tensor& grad, Slot& slot) override;
  bool passes_over_zeros(std::size_t group) const override;

  std::vector<SGDOptions> options_;  ///< of each group
};

}  // namespace unroll
