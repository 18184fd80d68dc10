#pragma once
/// What the tests share: plain arrays to compute expected values with, comparisons, and tensors
/// that lie in memory in every way that a tensor can.

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "framework/autograd.h"
#include "framework/check.h"
#include "framework/ops.h"
#include "framework/random.h"
#include "framework/tensor.h"

namespace unroll::test {

// --- Plain arrays -------------------------------------------------------------------------------

/// Calls f(index) for every index of an array of that shape, in row-major order.
template <class F>
void for_each_index(const Shape& shape, F f) {
  Shape index;
  index.resize(shape.size());
  for (std::int64_t i = 0; i < shape.numel(); ++i) {
    std::int64_t rest = i;
    for (std::int64_t d = shape.size() - 1; d >= 0; --d) {
      index[d] = rest % shape[d];
      rest /= shape[d];
    }
    f(index);
  }
}

/// A row-major array of doubles with nothing clever about it. It shares no code with the engine.
struct Array {
  Shape shape;
  std::vector<double> values;

  std::size_t position(const Shape& index) const {
    std::int64_t p = 0;
    for (std::int64_t d = 0; d < shape.size(); ++d) p = p * shape[d] + index[d];
    return static_cast<std::size_t>(p);
  }
  double at(const Shape& index) const { return values.at(position(index)); }
  double& at(const Shape& index) { return values.at(position(index)); }
};

/// The array whose element at each index is f(index).
template <class F>
Array generate(const Shape& shape, F f) {
  Array result{shape, {}};
  for_each_index(shape, [&](const Shape& index) { result.values.push_back(f(index)); });
  return result;
}

/// The elements of a tensor of any dtype.
Array to_array(const Tensor& x);
Tensor to_tensor(const Array& x, DType dtype);

// --- Comparisons --------------------------------------------------------------------------------

/// "" if shapes are equal and each |actual - expected| <= tolerance * max(|expected|, floor), NaN
/// equal to NaN and infinities equal to themselves; otherwise a text about the worst element.
/// Written as CHECK(difference(y, expected, 1e-12) == "").
std::string difference(const Tensor& actual, const Array& expected, double tolerance,
                       double floor = 0.0);
std::string difference(const Tensor& actual, const Tensor& expected, double tolerance,
                       double floor = 0.0);

/// Whether both are windows on the same memory.
bool shares_memory(const Tensor& a, const Tensor& b);

// --- Layouts ------------------------------------------------------------------------------------

/// How the elements of a tensor lie in memory.
enum class Layout {
  contiguous,
  offset,          ///< contiguous from an odd address on
  transposed,      ///< the first dimension innermost
  stepped,         ///< every second element
  flipped,         ///< back to front, all strides negative
  first_repeated,  ///< the first dimension has stride 0; changes the values
  last_repeated,   ///< the last dimension has stride 0; changes the values
};
inline constexpr Layout kLayouts[] = {Layout::contiguous,   Layout::offset,  Layout::transposed,
                                      Layout::stepped,      Layout::flipped, Layout::first_repeated,
                                      Layout::last_repeated};
std::string to_string(Layout layout);

/// x in another layout, as far as its rank and sizes have it; differentiable.
Tensor lay_out(const Tensor& x, Layout layout);

// --- The op table -------------------------------------------------------------------------------

struct Range {
  double low;
  double high;
};

enum class Takes { floating, any };

/// A row of the op table: one operation, and what is known about it.
struct Op {
  std::string name;
  std::function<Tensor(const std::vector<Tensor>&)> run = {};
  /// What `run` should give, by another way.
  std::function<Array(const std::vector<Array>&)> expected = {};
  /// The shapes of the inputs, once for each case.
  std::vector<std::vector<Shape>> shapes = {};
  /// Where the values of the inputs are drawn from; the last range counts for all further inputs.
  std::vector<Range> ranges = {{-2.0, 2.0}};
  /// `floating`: i64 throws the DTypeError "<name>: needs a floating-point tensor, got i64".
  Takes takes = Takes::floating;
  bool differentiable = true;
  /// Whether there is a gradient where elements are equal, as there is none for max.
  bool smooth = true;
  /// Whether the result is a window on the first input.
  bool view = false;
  /// Errors are measured relative to max(|expected|, floor): 1 where terms are added that may
  /// cancel.
  double floor = 0.0;
  /// The dtype of the result, if it is not that of the inputs.
  std::function<DType(DType)> result_dtype = [](DType dtype) { return dtype; };
};

/// Checks one row in f32 (to 1e-5), f64 (1e-12) and i64 (exactly), over all of its shapes and all
/// layouts: values, shape and dtype of the result, that it has memory of its own (or is a view),
/// and that the inputs stay what they were.
void check_values(const Op& op);
/// Gradcheck of orders 1 and 2 in f64 over shapes (those of few elements) and layouts; the
/// gradient in f32 against that in f64; for what is not differentiable, that it records nothing.
void check_gradients(const Op& op);

/// Reproducible random values of a dtype; whole numbers for i64.
Tensor random_tensor(const Shape& shape, Range range, DType dtype, Generator& generator);

}  // namespace unroll::test
