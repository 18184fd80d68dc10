#include "framework/anomaly.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "framework/autograd.h"
#include "framework/internal.h"

namespace unroll {

using detail::fail;
using detail::Node;

namespace {

/// What a tensor's elements are.
struct Range {
  Shape shape;
  std::int64_t nan = 0, infinite = 0;
  std::int64_t first = -1;  ///< NaN, or infinity if there is no NaN
  double low = std::numeric_limits<double>::infinity();
  double high = -std::numeric_limits<double>::infinity();  ///< of the finite ones

  explicit Range(const Tensor& x) : shape(x.shape()) {
    const Tensor values = detail::dense(x.detach());
    detail::dispatch(x.dtype(), [&]<class T>(T) {
      const T* data = detail::read<T>(values);
      for (std::int64_t i = 0; i < values.numel(); ++i) {
        const auto value = static_cast<double>(data[i]);
        if (std::isfinite(value)) {
          low = std::min(low, value);
          high = std::max(high, value);
          continue;
        }
        if (std::isnan(value)) {
          if (nan++ == 0) first = i;
        } else if (infinite++ == 0 && nan == 0) {
          first = i;
        }
      }
    });
  }

  bool finite() const { return nan == 0 && infinite == 0; }
  /// "NaN in 2 of 6 elements, the first at (0, 1)"; "Inf" where there is no NaN.
  std::string where() const {
    return detail::format("{} in {} of {} element{}, the first at {}", nan > 0 ? "NaN" : "Inf",
                          nan > 0 ? nan : infinite, shape.numel(), shape.numel() == 1 ? "" : "s",
                          detail::position(first, shape));
  }
  /// "(2, 3) in [-1, 4] with 2 NaN"
  std::string text() const {
    std::string result = detail::format("{}", shape);
    if (low <= high) result += detail::format(" in [{:.4g}, {:.4g}]", low, high);
    if (nan > 0) result += detail::format(" with {} NaN", nan);
    if (infinite > 0) result += detail::format(" {} {} Inf", nan > 0 ? "and" : "with", infinite);
    return result;
  }
};

std::string place_text(const detail::Place& place) {
  std::string text;
  if (!place.module.empty()) text += "; module " + place.module;
  if (place.step >= 0) text += detail::format("; time step {}", place.step);
  return text;
}

std::string ranges(const detail::Inputs& inputs) {
  std::string text;
  for (std::size_t i = 0; i < inputs.size(); ++i)
    text += (i > 0 ? ", " : "") + Range(inputs[i]).text();
  return text;
}

}  // namespace

DetectAnomaly::DetectAnomaly(const NamedTensors& names) : NamingWatcher(names) {}

std::string DetectAnomaly::context(const Node* node) const {
  if (!node) return place_text(detail::place());
  std::string text = detail::format("; in the backward of {}", node->op);
  const auto origin = origins_.find(node);
  if (origin == origins_.end()) return text;
  return text + ", whose inputs were " + origin->second.inputs + place_text(origin->second.place);
}

void DetectAnomaly::report(const std::string& message) {
  running_.clear();
  throw AnomalyError("anomaly: " + message);
}

void DetectAnomaly::computed(const char* op, const detail::Inputs& inputs, const Tensor& value,
                             int) {
  if (const Node* node = value.impl().node.get())
    origins_[detail::operation_of(node)] = {detail::place(), ranges(inputs)};
  if (!is_floating(value.dtype())) return;
  const Range result(value);
  if (result.finite()) return;
  if (result.nan == 0)  // an infinity that somebody has given is a mask
    for (std::size_t i = 0; i < inputs.size(); ++i)
      if (!Range(inputs[i]).finite()) return;
  report(detail::format("{}: the result {} has {}; inputs: {}{}", op, value.shape(), result.where(),
                        ranges(inputs), context(running_.empty() ? nullptr : running_.back())));
}

void DetectAnomaly::arrived(const Node& node, const Tensor& grad) {
  running_.push_back(&node);
  if (!grad.defined()) return;
  const Range g(grad);
  if (g.finite()) return;
  const std::string name = node.leaf ? detail::name_of(&node) : node.op;
  const auto origin = origins_.find(&node);
  report(detail::format(
      "the gradient of {} {} has {}{}", name.empty() ? "a leaf" : name, node.shape, g.where(),
      node.leaf || origin == origins_.end() ? "" : place_text(origin->second.place)));
}

void DetectAnomaly::added(const Node& node, int i, const Tensor& grad) {
  const Range g(grad);
  if (g.finite()) return;
  report(detail::format("{}: its rule gives input {} a gradient {} that has {}{}", node.op, i,
                        grad.shape(), g.where(), context(&node)));
}

void DetectAnomaly::passed(const Node&) {
  if (!running_.empty()) running_.pop_back();
}

void check_finite(const NamedTensors& tensors) {
  std::string message;
  const auto check = [&](const std::string& name, const char* what, const Tensor& x) {
    if (!x.defined() || !is_floating(x.dtype())) return;
    const Range range(x);
    if (!range.finite())
      message += detail::format("\n  {}{} {} has {}", what, name, x.shape(), range.where());
  };
  for (const auto& [name, tensor] : tensors) {
    check(name, "", tensor);
    check(name, "the gradient of ", tensor.grad());
  }
  if (!message.empty()) throw AnomalyError("check_finite:" + message);
}

}  // namespace unroll
