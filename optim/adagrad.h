#pragma once
/// Adagrad and Adadelta.

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

struct AdadeltaOptions {
  double lr = 1.0;
  double rho = 0.9;
  double eps = 1e-6;
  double weight_decay = 0.0;
};

/// Adadelta (Zeiler 2012, algorithm 1, with a learning rate):
///
///   g = grad + weight_decay * w
///   v = rho * v + (1 - rho) * g^2
///   u = sqrt(d + eps) / sqrt(v + eps) * g
///   d = rho * d + (1 - rho) * u^2
///   w = w - lr * u
///
/// Throws ValueError for negative numbers, and for a rho that is not below 1.
class Adadelta : public Optimizer {
 public:
  explicit Adadelta(std::vector<Tensor> parameters, const AdadeltaOptions& options = {});
  void add_param_group(std::vector<Tensor> parameters, const AdadeltaOptions& options);

 private:
  void update(Tensor& parameter, const Tensor& grad, Slot& slot) override;

  std::vector<AdadeltaOptions> options_;  ///< of each group
};

}  // namespace unroll
