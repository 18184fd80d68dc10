#pragma once
/// Adam.

#include <array>
#include <vector>

#include "optim/optimizer.h"

namespace unroll {

struct AdamOptions {
  double lr = 1e-3;
  std::array<double, 2> betas{0.9, 0.999};
  double eps = 1e-8;
  double weight_decay = 0.0;
};

/// Adam (Kingma and Ba 2015, algorithm 1), t being the number of updates of the parameter:
///
///   g = grad + weight_decay * w
///   m = beta1 * m + (1 - beta1) * g
///   v = beta2 * v + (1 - beta2) * g^2
///   w = w - lr * m / (1 - beta1^t) / (sqrt(v / (1 - beta2^t)) + eps)
///
/// Throws ValueError for negative numbers, and for betas that are not below 1.
class Adam : public Optimizer {
 public:
  explicit Adam(std::vector<Tensor> parameters, const AdamOptions& options = {});

 private:
  void update(Tensor& parameter, const Tensor& grad, Slot& slot) override;

  AdamOptions options_;
};

}  // namespace unroll
