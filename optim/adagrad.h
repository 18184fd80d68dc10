#pragma once
/// Adagrad.

#include <vector>

#include "optim/optimizer.h"

namespace unroll {

struct AdagradOptions {
  double lr = 1e-2;
  double lr_decay = 0.0;
  double weight_decay = 0.0;
  double initial_accumulator_value = 0.0;
  double eps = 1e-10;
};

/// Adagrad (Duchi et al. 2011), t being the number of updates of the parameter, and s, which starts
/// with initial_accumulator_value, the sum of all squares:
///
///   g = grad + weight_decay * w
///   s = s + g^2
///   w = w - lr / (1 + (t - 1) * lr_decay) * g / (sqrt(s) + eps)
///
/// Throws ValueError for negative numbers. Without weight decay it touches only the rows of a table
/// that have a gradient.
class Adagrad : public Optimizer {
 public:
  explicit Adagrad(std::vector<Tensor> parameters, const AdagradOptions& options = {});
  void add_param_group(std::vector<Tensor> parameters, const AdagradOptions& options);

 private:
  void update(Tensor& parameter, const Tensor& grad, Slot& slot) override;
  bool passes_over_zeros(std::size_t group) const override {
    return options_[group].weight_decay == 0.0;
  }

  std::vector<AdagradOptions> options_;  ///< of each group
};

}  // namespace unroll
