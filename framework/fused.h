#pragma once
/// fused(): a chain of elementwise operations done in one pass over memory, and as one entry on the
/// tape.

#include <cstddef>
#include <cstdint>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>

#include "framework/for_each_tensor.h"
#include "framework/tensor.h"

namespace unroll {

namespace detail {

inline constexpr int kFusedArguments = 8;
inline constexpr int kSequenceArguments = 12;
inline constexpr int kFusedProducts = 6;
inline constexpr int kFusedResults = 4;

/// How many tensors a value has (for_each_tensor.h), or -1 if its type does not say.
template <class Value>
constexpr int tensor_count() {
  if constexpr (std::is_same_v<Value, Tensor>) {
    return 1;
  } else if constexpr (requires(Value & value) { value.fields(); }) {
    return tensor_count<decltype(std::declval<Value&>().fields())>();
  } else if constexpr (requires { std::tuple_size<Value>::value; }) {
    int total = 0;
    [&total]<std::size_t... i>(std::index_sequence<i...>) {
      const auto add = [&total](int part) { total = part < 0 || total < 0 ? -1 : total + part; };
      (add(tensor_count<std::remove_cvref_t<std::tuple_element_t<i, Value>>>()), ...);
    }
    (std::make_index_sequence<std::tuple_size_v<Value>>());
    return total;
  } else {
    return -1;
  }
}

struct FusedProgram;

/// How a FusedFunction goes over the time steps of a sequence.
struct SequenceOptions {
  bool reverse = false;  ///< from the last one on
  std::int64_t truncate =
      0;  ///< no gradient passes from step truncate, 2 truncate, ... to the one before
  /// Of a batch of sequences that end earlier or later: how many take part in each step, the
  /// longest first. Then xs are [rows, I], the rows of one time step behind those of the other, and
  /// so are the outputs; not with `reverse`. Null: all do.
  const std::vector<std::int64_t>* running = nullptr;
};

/// What is known of one function in one thread: a program for each set of shapes that it met.
class FusedFunction {
 public:
  /// Calls the function: reads as many tensors as it has arguments, writes its results.
  using Call = void (*)(const Tensor* arguments, Tensor* results);

  /// `states`, if not -1: the function is f(x, state, weights), where the state is so many tensors,
  /// and returns the next state, or an output and the next state.
  FusedFunction(Call call, int arguments, int results, int states = -1);
  ~FusedFunction();
  FusedFunction(const FusedFunction&) = delete;
  FusedFunction& operator=(const FusedFunction&) = delete;
  /// Arguments that nobody else holds may be written over.
  void operator()(const Tensor* arguments, Tensor* results);
  /// All time steps of a sequence as one operation. `arguments`: xs [T, B, I] in the place of x,
  /// the state before the first step, the weights. `results`: the outputs [T, B, ...] (without an
  /// output of its own: of the first tensor of the state) and the state after the last step. False,
  /// and nothing done, if f does anything else than multiply by weights as they are and what
  /// fused() is for.
  bool over_time(const Tensor* arguments, const SequenceOptions& options, Tensor* results);
  /// One time step without gradients, from x [B, I] and a state, in as few passes as there are.
  /// False, and nothing done, as over_time, or where a gradient is wanted.
  bool step(const Tensor* arguments, Tensor* results);
  /// As it stands.
  void call(const Tensor* arguments, Tensor* results) const { call_(arguments, results); }
  int states() const { return states_; }
  bool has_output() const { return results_ > states_; }

 private:
  FusedProgram* program_for(const Tensor* arguments, std::uint32_t differentiate);

  Call call_;
  int arguments_, results_, states_;
  std::vector<Ref<FusedProgram>> programs_;
};

}  // namespace detail

/// f(args...), computed in one pass. f is a lambda that captures nothing, takes Tensors and returns
/// a Tensor or a struct, pair, tuple or array of them (for_each_tensor.h):
///
///   auto [h, c] = fused([](const Tensor& x, const Tensor& r, const Tensor& c0) {
///     const auto gates = chunk(x + r, 4, -1);
///     const Tensor c = sigmoid(gates[1]) * c0 + sigmoid(gates[0]) * tanh(gates[2]);
///     return std::pair{sigmoid(gates[3]) * tanh(c), c};
///   }, x, matmul(h, u), c);
///
/// The values, all derivatives and all errors are those of f(args...) to within rounding. f is
/// called once for each new set of shapes, with tensors that stand for its arguments, to see what
/// it does; a program is made of that, and another one of the derivative that the rules of its
/// operations give. From then on each call runs the program: block by block, from memory through
/// the cache to memory, whatever the number of operations.
///
/// This works for elementwise operations and for pieces of the last dimension (chunk, split, narrow
/// along it), with arguments that broadcast along rows (a bias) or along columns (a mask [B, 1]).
/// With anything else in it, f runs as it stands, each time. What f does must depend on its
/// arguments alone, and may depend on their shapes but not on their values. The memory of a
/// temporary, such as matmul(h, u) above, is used again for what the derivative needs.
template <class F, class... Tensors>
auto fused(F f, Tensors&&... args) {
  static_assert(std::is_empty_v<F> && std::is_default_constructible_v<F>,
                "fused(f, ...): f must capture nothing; what it uses are its arguments");
  static_assert((std::is_same_v<std::remove_cvref_t<Tensors>, Tensor> && ...),
                "fused(f, ...): arguments are Tensors");
  static_assert(sizeof...(args) >= 1 && sizeof...(args) <= detail::kFusedArguments,
                "fused(f, ...): one to eight arguments");
  using Result = decltype(f(std::as_const(args)...));
  constexpr int results = detail::tensor_count<Result>();
  static_assert(results >= 1 && results <= detail::kFusedResults,
                "fused(f, ...): f returns one to four Tensors: as they are, or in a struct with "
                "fields(), a pair, a tuple or an array");
  static thread_local detail::FusedFunction function(
      [](const Tensor* in, Tensor* out) {
        Result made = [in]<std::size_t... i>(std::index_sequence<i...>) { return F{}(in[i]...); }
        (std::make_index_sequence<sizeof...(Tensors)>());
        for_each_tensor(made, [&](Tensor& t) { *out++ = std::move(t); });
      },
      static_cast<int>(sizeof...(args)), results);
  const Tensor in[] = {std::forward<Tensors>(args)...};
  Tensor out[detail::kFusedResults];
  function(in, out);
  Result result{};
  Tensor* next = out;
  for_each_tensor(result, [&](Tensor& t) { t = std::move(*next++); });
  return result;
}

}  // namespace unroll
