#pragma once
/// Adagrad.

#include <vector>

#include "optim/optimizer.h"

namespace unroll {

/// Options of Adagrad; the defaults are PyTorch's.
struct AdagradOptions {
  double lr = 1e-2;                        ///< learning rate
  double lr_decay = 0.0;                   ///< the rate falls as 1 / (1 + lr_decay t)
  double weight_decay = 0.0;               ///< times the weight
  double initial_accumulator_value = 0.0;  ///< what the sums of squares begin with
  double eps = 1e-10;                      ///< added to what is divided by
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
  /// One group of parameters.
  explicit Adagrad(std::vector<Tensor> parameters, const AdagradOptions& options = {});
  /// Another group of parameters, with options of its own.
  void add_param_group(std::vector<Tensor> parameters, const AdagradOptions& options);

 private:
  void update(Tensor& parameter, const Tensor& grad, Slot& slot) override;
  bool passes_over_zeros(std::size_t group) const override {
    return options_[group].weight_decay == 0.0;
  }

  std::vector<AdagradOptions> options_;  ///< of each group
};

}  // namespace unroll
