#pragma once
/// Adadelta.

#include <vector>

#include "optim/optimizer.h"

namespace unroll {

/// Options of Adadelta; the defaults are PyTorch's.
struct AdadeltaOptions {
  double lr = 1.0;            ///< learning rate
  double rho = 0.9;           ///< how slowly the averages change
  double eps = 1e-6;          ///< added to what is divided by
  double weight_decay = 0.0;  ///< times the weight
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
  /// One group of parameters.
  explicit Adadelta(std::vector<Tensor> parameters, const AdadeltaOptions& options = {});
  /// Another group of parameters, with options of its own.
  void add_param_group(std::vector<Tensor> parameters, const AdadeltaOptions& options);

 private:
  void update(Tensor& parameter, const Tensor& grad, Slot& slot) override;

  std::vector<AdadeltaOptions> options_;  ///< of each group
};

}  // namespace unroll
