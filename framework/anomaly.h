#pragma once
/// Where a NaN comes from.

#include <cstdint>
#include <string>
#include <unordered_map>
#include <vector>

#include "framework/scope.h"
#include "framework/state.h"

namespace unroll {

/// A number that is none: what DetectAnomaly and check_finite throw.
class AnomalyError : public Error {
 public:
  using Error::Error;
};

/// While one lives, the first operation of this thread whose result holds a NaN, or an infinity
/// that its inputs did not hold, throws AnomalyError; and so does the first one in a sweep, or the
/// rule that gives such a gradient. The message names the operation, shapes and ranges of its
/// inputs, the module and the time step (scope.h; with `names`, such as model.named_parameters(),
/// by path), and for a sweep the operation whose rule it is.
///
///   DetectAnomaly detect(model.named_parameters());
///   model.loss(x, y).backward();
///
/// Every result is read once more, and fused() runs as its operations: that costs time, so it is
/// for looking for a fault. While none lives nothing is checked.
class DetectAnomaly final : detail::NamingWatcher {
 public:
  /// `names` is what modules and parameters are called by.
  explicit DetectAnomaly(const NamedTensors& names = {});

 private:
  /// What is said of an operation when its rule runs.
  struct Origin {
    detail::Place place;
    std::string inputs;
  };

  void computed(const char* op, const detail::Inputs& inputs, const Tensor& value, int k) override;
  void arrived(const detail::Node& node, const Tensor& grad) override;
  void added(const detail::Node& node, int i, const Tensor& grad) override;
  void passed(const detail::Node& node) override;
  /// "; in the backward of log, whose inputs were (2, 3) in [0, 1]; module rnn.l0; time step 4", or
  /// without a node where the forward pass is.
  std::string context(const detail::Node* node) const;
  [[noreturn]] void report(const std::string& message);

  std::unordered_map<const detail::Node*, Origin> origins_;
  std::vector<const detail::Node*> running_;  ///< whose rules run, the innermost last
};

/// Throws AnomalyError if one of the tensors, or its gradient, holds a NaN or an infinity: a line
/// for each such, with how many there are and where the first one is.
void check_finite(const NamedTensors& tensors);

}  // namespace unroll
