#pragma once
/// Adam and its relatives.

#include <array>
#include <vector>

#include "optim/optimizer.h"

namespace unroll {

/// Options of Adam; the defaults are PyTorch's.
struct AdamOptions {
  double lr = 1e-3;                         ///< learning rate
  std::array<double, 2> betas{0.9, 0.999};  ///< how slowly the averages of g and g^2 change
  double eps = 1e-8;                        ///< added to what is divided by
  double weight_decay = 0.0;                ///< times the weight
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
  /// One group of parameters.
  explicit Adam(std::vector<Tensor> parameters, const AdamOptions& options = {});
  /// Another group of parameters, with options of its own.
  void add_param_group(std::vector<Tensor> parameters, const AdamOptions& options);

 protected:
  /// Which of the relatives.
  enum class Kind { adam, adamw, sparse };
  /// For the relatives.
  Adam(const char* name, Kind kind) : Optimizer(name), kind_(kind) {}

 private:
  void update(Tensor& parameter, const Tensor& grad, Slot& slot) override;
  bool passes_over_zeros(std::size_t) const override { return kind_ == Kind::sparse; }

  Kind kind_;
  std::vector<AdamOptions> options_;  ///< of each group
};

/// Options of AdamW; the defaults are PyTorch's.
struct AdamWOptions {
  double lr = 1e-3;                         ///< learning rate
  std::array<double, 2> betas{0.9, 0.999};  ///< how slowly the averages of g and g^2 change
  double eps = 1e-8;                        ///< added to what is divided by
  double weight_decay = 1e-2;               ///< times the weight
};

/// Adam whose weight decay is no part of the gradient (Loshchilov and Hutter 2019, algorithm 2, as
/// PyTorch writes it): w = (1 - lr * weight_decay) * w, then a step of Adam without weight decay.
class AdamW : public Adam {
 public:
  /// One group of parameters.
  explicit AdamW(std::vector<Tensor> parameters, const AdamWOptions& options = {});
  /// Another group of parameters, with options of its own.
  void add_param_group(std::vector<Tensor> parameters, const AdamWOptions& options);
};

/// Options of SparseAdam; the defaults are PyTorch's.
struct SparseAdamOptions {
  double lr = 1e-3;                         ///< learning rate
  std::array<double, 2> betas{0.9, 0.999};  ///< how slowly the averages of g and g^2 change
  double eps = 1e-8;                        ///< added to what is divided by
};

/// Lazy Adam: of a table whose gradient comes by rows (Embedding with sparse) it updates only the
/// rows that have one, m and v included; the others stay as they are, where Adam would let their m
/// and v decay and move them on. t counts the steps of the whole table. As in PyTorch, eps is added
/// to sqrt(v) and not to sqrt(v / (1 - beta2^t)). A dense gradient is one of all rows.
class SparseAdam : public Adam {
 public:
  /// One group of parameters.
  explicit SparseAdam(std::vector<Tensor> parameters, const SparseAdamOptions& options = {});
  /// Another group of parameters, with options of its own.
  void add_param_group(std::vector<Tensor> parameters, const SparseAdamOptions& options);
};

}  // namespace unroll
