#pragma once
/// Products of the time steps of a sequence with weights, made for many time steps at once. Not for
/// users.

#include <cstdint>
#include <vector>

#include "framework/tensor.h"

namespace unroll::detail {

/// A sequence of up to kWholeRows rows (time steps x batch) is multiplied at once, a longer one in
/// pieces of kPieceRows or a little more, half as many where what comes of it is wider than kWide:
/// enough for a product at full speed, few enough to be still in the cache when the steps come to
/// them. What is left over is not the last piece, so that from the end on the pieces are those in
/// which backward() sums the gradient of a weight up.
inline constexpr std::int64_t kPieceRows = 256;
inline constexpr std::int64_t kWholeRows = 512;
inline constexpr std::int64_t kWide = 1536;
inline std::int64_t piece_rows(std::int64_t widest) {
  return widest > kWide ? kPieceRows / 2 : kPieceRows;
}

/// The part of a tensor's first dimension that a time step is.
struct TimeStep {
  std::int64_t first;  ///< its index, or its first row
  std::int64_t rows;   ///< 0: the index `first`, without the dimension
  /// A view on it.
  Tensor of(const Tensor& whole) const;
};

/// A sequence on its way through a cell, piece by piece. What the cell multiplies its input by, as
/// it got it, needs no state: where matmul() or linear() meets a time step and a weight, the result
/// is a view on the product of all time steps of the piece, which is made for the first one that
/// asks. So a cell's plain equations run as fast as with a `project` of their own, and the products
/// of the backward are large ones too.
///
/// Every step is taken to ask for what the first one asked for. A walk in which one does not makes
/// no more such products, and a piece with a number that is not finite makes none: a step that
/// looks at its input and leaves it out must not find the NaN in its weight's gradient.
///
/// One per walk and thread; a walk in the step of another takes its place until it ends.
class StepProducts {
 public:
  StepProducts();
  ~StepProducts();
  StepProducts(const StepProducts&) = delete;
  StepProducts& operator=(const StepProducts&) = delete;

  /// The time steps that come next: [T, ...], or their rows, one below the other.
  void begin(Tensor piece);
  const Tensor& piece() const { return piece_; }
  /// Lets go of the piece, and of what was made of it.
  void clear();
  /// The next time step, to be handed to the cell.
  const Tensor& next(TimeStep step);
  /// The last dimension of the piece, or of the widest of its products.
  std::int64_t widest() const;

  /// The product by `multiply(x, weight, bias)` as a part of that of the piece, if x is the time
  /// step that this thread is at and the others are weights (the bias: or undefined). Undefined
  /// otherwise.
  using Multiply = Tensor (*)(const Tensor& x, const Tensor& weight, const Tensor& bias);
  static Tensor find(Multiply multiply, const Tensor& x, const Tensor& weight, const Tensor& bias) {
    return current_ && current_->x_.is(x) ? current_->product(multiply, weight, bias) : Tensor();
  }

 private:
  struct Product {
    Multiply multiply;
    Tensor weight, bias;
    std::uint32_t weight_version, bias_version, piece_version;
    bool recorded;
    Tensor value;
    std::int64_t asked;  ///< the number of the step that did last
  };
  bool is(const Product& p, Multiply multiply, const Tensor& weight, const Tensor& bias) const;
  Tensor product(Multiply multiply, const Tensor& weight, const Tensor& bias);
  bool may_begin_one();

  static constinit thread_local StepProducts* current_;

  Tensor piece_, x_;
  TimeStep step_{};
  std::int64_t number_ = -1;  ///< of the step, in the walk
  enum class Finite { unknown, yes, no } finite_ = Finite::unknown;
  bool off_ = false;
  std::vector<Product> products_;
  StepProducts* outer_;
};

}  // namespace unroll::detail
