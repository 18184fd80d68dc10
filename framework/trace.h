#pragma once
/// What fused() sees of a function: the elementwise instructions that it runs, written down while
/// it is called with tensors that stand for its arguments and hold no elements. The derivative is
/// written down in the same way, by a sweep over the tape that this call leaves. Not for users.

#include <vector>

#include "framework/kernels/kernels.h"
#include "framework/tensor.h"

namespace unroll::detail {

struct Operands;  // internal.h

/// Thrown when a traced function does what a program cannot. fused() then runs it as it stands.
struct TraceStop {};

/// Columns [offset, offset + width) of a value.
struct Window {
  int value;
  std::int64_t offset, width;
  friend bool operator==(const Window&, const Window&) = default;
};

/// A matrix of rows and columns that an instruction makes; the last dimension of its tensor are the
/// columns. Each value is made once.
struct TracedValue {
  enum class Kind : std::uint8_t { argument, constant, instruction } kind;
  Shape shape;
  bool one_row = false;  ///< where others have more: it repeats
  kernels::Op op{};
  int operands = 0;
  Window in[3]{};  ///< as wide as this value, or one column that repeats
  double s[2]{};   ///< immediates, or the constant

  std::int64_t width() const { return shape.empty() ? 1 : shape.back(); }
};

class Trace {
 public:
  /// Takes the place of the present trace of this thread until it ends.
  Trace(DType dtype, std::int64_t rows);
  ~Trace();
  Trace(const Trace&) = delete;
  Trace& operator=(const Trace&) = delete;

  /// The function runs, not the sweep over what it did.
  bool forward = true;
  std::vector<TracedValue> values;
  /// A tensor that the value is a part of, and the column where it begins there.
  struct Origin {
    int value;
    Tensor tensor;
    std::int64_t column;
  };
  std::vector<Origin> origins;
  /// A tensor that stands for one that is given from outside. Those are made before all others.
  Tensor argument(const Shape& shape);
  /// What linear() or matmul() made of matrices: x w' (`transposed`) or x w, where w is an
  /// argument, and x an argument or a factor; and a bias, which is an argument as well or another
  /// product; -1: there is none.
  struct Product {
    int x = -1, factor = -1;
    int w = -1;
    int bias = -1, addend = -1;
    bool transposed = false;
    int value = -1;
    Tensor tensor;
  };
  std::vector<Product> products;
  /// What is multiplied that is no argument: the function has computed it.
  struct Factor {
    std::vector<Window> content;
    Tensor tensor;
  };
  std::vector<Factor> factors;
  bool may_multiply = false;
  /// A tensor that stands for a product. Throws TraceStop for any other one.
  Tensor product(const Tensor& x, const Tensor& w, const Tensor& bias, bool transposed);
  /// What the columns of a traced tensor are made of, from left to right.
  std::vector<Window> read(const Tensor& x) const;

  // What tensor.cpp and map.cpp call instead of touching memory.
  Tensor empty(const Shape& shape, DType dtype);
  Tensor full(const Shape& shape, double value, DType dtype);
  /// False if neither `out` nor an operand is traced.
  bool map_into(const Tensor& out, kernels::Op op, const Operands& operands, double s0, double s1);

 private:
  /// What a piece of memory would hold by now.
  struct State {
    std::int64_t width, rows;
    bool argument;
    std::vector<Window> pieces;
  };
  struct Place {
    int state;
    std::int64_t offset, width, rows;
  };
  Place place(const Tensor& x) const;
  /// The number of an argument as it was given, or the value of a product; -1 for anything else.
  int argument_number(const Tensor& x) const;
  int factor_number(const Tensor& x);
  Tensor make(const Shape& shape, Window content, bool argument);
  int add(TracedValue value);
  Window instruction(const TracedValue& value);
  bool is_zero(const Window& w) const;

  DType dtype_;
  std::int64_t rows_;
  std::vector<State> states_;
  Trace* outer_;
};

/// The trace of this thread, or null.
extern constinit thread_local Trace* trace;

}  // namespace unroll::detail
