#pragma once
/// The tape in words: what is on it, and what a sweep over it does.
///
///   Inspect inspect(model.named_parameters());
///   Tensor loss = ...;
///   loss.backward();
///   print_tape(loss);
///
/// graph.h draws the same as a picture. docs/looking_inside.md shows all of it.

#include <cstdint>
#include <string>
#include <unordered_map>
#include <vector>

#include "framework/scope.h"
#include "framework/tensor.h"

namespace unroll {

namespace detail {
struct TapeView;
}

/// While one lives, what this thread records is remembered with its module and time step (scope.h),
/// its order, its values where they are few, and the gradients that sweeps bring. Without one the
/// functions below say what the tape itself knows.
///
/// It holds no tensor: what it knows of a result is forgotten when an operation takes the result's
/// place. A chain in fused() runs as its operations meanwhile, so they can be seen one by one; that
/// costs time, and rounds differently in the last digit.
class Inspect final : detail::NamingWatcher {
 public:
  /// `names`, such as model.named_parameters(), is what tensors are called.
  explicit Inspect(const NamedTensors& names = {});
  ~Inspect() override;

 private:
  friend struct detail::TapeView;

  /// A tensor, or as much of it as can be shown.
  struct Content {
    Shape shape;
    std::vector<double> values{};  ///< all of them, or none if they are many
  };
  struct Entry {
    std::int64_t order = -1;  ///< -1: a leaf
    detail::Place place{};
    std::vector<Content> inputs{};
    Content value{};
    double grad_norm = -1.0;  ///< of the last sweep; -1: there was none
  };

  void computed(const char* op, const detail::Inputs& inputs, const Tensor& value, int k) override;
  void arrived(const detail::Node& node, const Tensor& grad) override;
  static Content content_of(const Tensor& x);

  std::unordered_map<const detail::Node*, Entry> entries_;
  std::int64_t next_ = 0;
  Inspect* outer_;
};

/// The tape behind y, a line per entry, inputs before what is made of them: its number, operation,
/// inputs (the numbers of their lines, or the shape of what is not on the tape), shape, module,
/// time step and, after a sweep, the norm of its gradient. A leaf's line has its name. Columns that
/// would be empty are left out. Throws GraphError if y is not on the tape.
std::string describe_tape(const Tensor& y);
/// The same on the standard output.
void print_tape(const Tensor& y);

/// Backpropagation from y step by step, for learning how it works: for each entry from y on down
/// its rule as a formula, the gradient that has arrived and what the rule adds to the gradient of
/// each input, with values where they are few; in the end the gradients of the leaves. y has one
/// element. It sweeps over the tape, but leaves the tape and every .grad as they are. Throws
/// GraphError if y is not on the tape, if that is gone, or if y has more than one element.
std::string describe_backward(const Tensor& y);
/// The same on the standard output.
void explain_backward(const Tensor& y);

}  // namespace unroll
