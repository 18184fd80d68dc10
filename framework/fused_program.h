#pragma once
/// What fused() makes of a function that it has seen at work: straight-line code for the function,
/// and for the derivative that the rules of its operations give. Not for users.

#include <algorithm>
#include <cstdint>
#include <vector>

#include "framework/fused.h"
#include "framework/stage.h"
#include "framework/trace.h"

namespace unroll::detail {

inline constexpr std::size_t kMostArrays = 64;  ///< of one program

inline std::int64_t width_of(const Shape& shape) { return shape.empty() ? 1 : shape.back(); }
inline std::int64_t rows_of(const Shape& shape) {
  return shape.numel() / std::max<std::int64_t>(width_of(shape), 1);
}

/// The stages, and what lies between them.
///
/// A time step may multiply what it has computed itself, such as a gate times the state. Those
/// products have a level above 0: one more than the highest of those that the factor is made of. So
/// a step is, level by level, a stage that computes factors and the products with them, and then
/// the stage that computes the results; and the derivative the same backwards.
///
/// Arrays are numbered: the stage's own registers, arguments, results, values that are kept for the
/// derivative, factors, gradients of the results, of the kept values and of the factors, gradients
/// of the arguments.
struct FusedProgram : Counted<FusedProgram> {
  // What it is for.
  DType dtype;
  std::vector<Shape> shapes;    ///< of the arguments, and of the products behind them
  std::uint32_t differentiate;  ///< arguments that require a gradient, as bits
  /// -1, or: the function is a time step, which begins with products, of an input, so many tensors
  /// of a state, and weights.
  int states = -1;

  bool possible = false;  ///< to run it; if not, the function runs as it stands
  std::int64_t rows = 0;
  /// Products of the function. Once it is computed, each of them is an argument.
  struct Product : Trace::Product {
    int level = 0;
  };
  std::vector<Product> products;
  int levels = 0;  ///< the highest level
  struct Factor {
    std::vector<Window> content;
    std::int64_t width;
    int level;
    bool differentiable;
    int value;            ///< the value that it is, or -1
    bool needed = false;  ///< by the derivative of the values around it
  };
  std::vector<Factor> factors;
  std::uint32_t weights = 0;  ///< arguments that products multiply by, as bits
  std::size_t given() const { return shapes.size() - products.size(); }  ///< other arguments
  bool is_state(std::size_t k) const { return k >= 1 && static_cast<int>(k) <= states; }
  std::vector<TracedValue> values;
  std::vector<Stage> ahead;  ///< [level - 1]: compute the factors of that level
  Stage forward;             ///< the results
  struct Result {
    Shape shape;
    std::int64_t width;
    bool differentiable;
    int value;            ///< the value that it is, or -1
    bool needed = false;  ///< by the derivative
  };
  std::vector<Result> results;

  // The derivative.
  std::uint32_t kept_arguments = 0;  ///< that the backward stage reads, as bits
  struct Kept {
    int value;
    bool in_argument = false;  ///< it lies in the memory of `reused`, not in that of kept values
    std::int64_t begin = 0;    ///< in elements
    std::int64_t stride = 0;   ///< from one row to the next
  };
  std::vector<Kept> kept;
  int reused = -1;  ///< an argument whose memory takes kept values, if nobody else needs it
  std::int64_t kept_elements = 0;
  std::vector<int> seeds;  ///< the values that stand for the gradients that come in
  struct Gradient {
    Shape shape;
    std::vector<Window> content;  ///< empty: the argument has no influence
    int same_as = -1;             ///< the gradient of this argument, an earlier one, is the same
    int over = -1;                ///< the seed that it may be written over, if nobody else has that
  };
  std::vector<Gradient> gradients;
  std::vector<Stage> behind;  ///< [level - 1]: the gradients of products of that level
  Stage backward;             ///< all others
  /// The program that also takes gradients of the kept values, for higher derivatives.
  Ref<FusedProgram> extended;

  // The first array of each kind, once it is known how many there are.
  static constexpr int first_argument = kRegisters + 1;
  int first_result = 0, first_kept = 0, first_factor = 0, first_seed = 0, first_gradient = 0;
  void number_arrays() {
    first_result = first_argument + static_cast<int>(shapes.size());
    first_kept = first_result + static_cast<int>(results.size());
    first_factor = first_kept + static_cast<int>(kept.size());
    first_seed = first_factor + static_cast<int>(factors.size());
    first_gradient = first_seed + static_cast<int>(seeds.size());
  }
  int argument_value(std::size_t k) const {
    return k < given() ? static_cast<int>(k) : products[k - given()].value;
  }
  /// Of what is there before the first product, 0; of a product, its own.
  int level_of(std::size_t k) const { return k < given() ? 0 : products[k - given()].level; }
  int argument_array(std::size_t k) const { return first_argument + static_cast<int>(k); }
  int result_array(std::size_t k) const { return first_result + static_cast<int>(k); }
  int kept_array(std::size_t k) const { return first_kept + static_cast<int>(k); }
  int factor_array(std::size_t k) const { return first_factor + static_cast<int>(k); }
  int seed_array(std::size_t k) const { return first_seed + static_cast<int>(k); }
  int gradient_array(std::size_t k) const { return first_gradient + static_cast<int>(k); }
};

/// Calls the function with tensors that stand for arguments of these shapes, and writes down what
/// happens. With `base`: the program for the same that also takes gradients of the values that base
/// keeps. Throws TraceStop if the function does what a program cannot.
void make_program(FusedProgram& program, FusedFunction::Call call, int result_count,
                  const FusedProgram* base = nullptr);

}  // namespace unroll::detail
