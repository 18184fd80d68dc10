#pragma once
/// A time step that is nothing but its equations.

#include <cstdint>
#include <type_traits>
#include <utility>
#include <vector>

#include "framework/fused.h"
#include "modules/cell_state.h"

namespace unroll {

/// What one time step gives.
template <class State>
struct StepResult {
  Tensor output;  ///< [B, ...], of this time step
  State state;    ///< what the next time step begins with
};

namespace detail {

template <class State>
StepResult<State> as_step(State next) {
  Tensor output = first_tensor(next);
  return {std::move(output), std::move(next)};
}
template <class State>
StepResult<State> as_step(std::pair<Tensor, State> next) {
  return {std::move(next.first), std::move(next.second)};
}
template <class State>
StepResult<State> as_step(StepResult<State> next) {
  return next;
}

/// The type of the second argument of a lambda.
template <class Result, class F, class X, class S, class... Weights>
std::remove_cvref_t<S> state_argument(Result (F::*)(X, S, Weights...) const);

}  // namespace detail

/// The equations of a cell, and its weights: `equations()` of a cell returns them.
///
///   Equations equations() const {
///     return {[](const Tensor& x, const LSTMState& s, const Tensor& w, const Tensor& u,
///                const Tensor& b) {
///               const auto gates = chunk(linear(s.h, u, linear(x, w, b)), 4, -1);
///               const Tensor i = sigmoid(gates[0]), f = sigmoid(gates[1]);
///               const Tensor g = tanh(gates[2]), o = sigmoid(gates[3]);
///               const Tensor c = f * s.c + i * g;
///               return LSTMState{o * tanh(c), c};
///             },
///             w, u, b};
///   }
///
/// The function is a lambda that captures nothing, of x, the state (cell_state.h) and up to so many
/// weights that there are twelve tensors; it returns what a step returns. What it does depends on
/// its arguments alone, and on their shapes but not on their values, so scan() need not call it for
/// each time step: products with weights as they are (linear, with a bias, x or another such
/// product to add, or matmul), and before and behind these what fused() is for, become one
/// operation for all time steps of a sequence [T, B, input_size], derivative included. Any other
/// function runs step by step, as it stands, and so does every function while somebody looks at the
/// tape (inspect.h).
class Equations {
 public:
  /// None: the cell's `step` is called for each time step.
  Equations() = default;
  template <class F, class... Weights>
  Equations(F, const Weights&... weights) : function_(function_of<F>), weights_{weights...} {
    static_assert((std::is_same_v<Weights, Tensor> && ...),
                  "Equations(f, ...): weights are Tensors");
    static_assert(std::is_invocable_v<F, const Tensor&, const StateOf<F>&, const Weights&...>,
                  "Equations(f, weights...): f takes x, the state and these weights");
    static_assert(sizeof...(Weights) + 1 + states_of<F> <= detail::kSequenceArguments,
                  "Equations(f, ...): x, state and weights are twelve tensors at most");
  }

  /// Whether there are any.
  explicit operator bool() const { return function_ != nullptr; }

  /// One time step: as it stands, or, where no gradient is wanted, as one of a sequence. Throws
  /// ValueError if there are no equations, or for a state of another number of tensors.
  template <class State>
  StepResult<State> step(const Tensor& x, const State& state) const {
    StepResult<State> next{Tensor(), state};
    auto tensors = detail::tensors_of(state);
    next.output = step_tensors(x, tensors);
    std::size_t i = 0;
    for_each_tensor(next.state, [&](Tensor& t) { t = std::move(tensors[i++]); });
    return next;
  }

  /// The outputs [T, B, ...] of all time steps of xs [T, B, ...], if that can be done at once;
  /// `state` is then the one after the last step. Undefined, and nothing done, otherwise.
  Tensor over_time(const Tensor& xs, const detail::SequenceOptions& options,
                   std::vector<Tensor>& state) const;

 private:
  template <class F>
  using StateOf = decltype(detail::state_argument(&F::operator()));
  template <class F>
  static constexpr int states_of = detail::tensor_count<StateOf<F>>();

  template <class F>
  static detail::FusedFunction& function_of() {
    static_assert(std::is_empty_v<F> && std::is_default_constructible_v<F>,
                  "Equations(f, ...): f must capture nothing; what it uses are its arguments");
    static thread_local detail::FusedFunction function = make_function(&F::operator());
    return function;
  }
  template <class Result, class F, class X, class S, class... Weights>
  static detail::FusedFunction make_function(Result (F::*)(X, S, Weights...) const) {
    using State = std::remove_cvref_t<S>;
    constexpr int states = detail::tensor_count<State>();
    static_assert(states >= 1 && states < detail::kFusedResults,
                  "Equations(f, ...): the state is one to three Tensors: as they are, or in a "
                  "struct with fields(), a pair, a tuple or an array");
    constexpr bool has_output = !std::is_same_v<Result, State>;
    return detail::FusedFunction(
        [](const Tensor* in, Tensor* out) {
          State state{};
          const Tensor* next = in + 1;
          for_each_tensor(state, [&](Tensor& t) { t = *next++; });
          StepResult<State> made = [&]<std::size_t... i>(std::index_sequence<i...>) {
            return detail::as_step<State>(F{}(in[0], std::as_const(state), next[i]...));
          }
          (std::make_index_sequence<sizeof...(Weights)>());
          if constexpr (has_output) *out++ = std::move(made.output);
          for_each_tensor(made.state, [&](Tensor& t) { *out++ = std::move(t); });
        },
        1 + states + static_cast<int>(sizeof...(Weights)), states + has_output, states);
  }
  std::vector<Tensor> arguments(const Tensor& x, const std::vector<Tensor>& state) const;
  Tensor step_tensors(const Tensor& x, std::vector<Tensor>& state) const;

  detail::FusedFunction& (*function_)() = nullptr;  ///< that of the thread that asks
  std::vector<Tensor> weights_;
};

}  // namespace unroll
