#pragma once
/// The state of a recurrence is a value: a Tensor; a struct of states that says what it holds,
///
///   struct MyState {
///     Tensor h, c;
///     auto fields() { return std::tie(h, c); }
///   };
///
/// or a std::pair, std::tuple, std::array or std::vector of states. The functions here work on all
/// of them.

#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>

#include "framework/tensor.h"

namespace unroll {

/// Calls f(Tensor&) for each tensor of a state, in order.
template <class State, class F>
void for_each_tensor(State& state, F&& f) {
  if constexpr (std::is_same_v<State, Tensor>) {
    f(state);
  } else if constexpr (requires { state.fields(); }) {
    auto fields = state.fields();
    for_each_tensor(fields, f);
  } else if constexpr (requires { std::tuple_size<State>::value; }) {
    std::apply([&](auto&... part) { (for_each_tensor(part, f), ...); }, state);
  } else if constexpr (requires { state.begin() != state.end(); }) {
    for (auto& part : state) for_each_tensor(part, f);
  } else {
    static_assert(
        requires { state.fields(); },
        "a state is a Tensor, a struct of states with `auto fields() { return "
        "std::tie(a, b); }`, or a pair, tuple, array or vector of states");
  }
}

/// The state with f(tensor) in place of each tensor. What beam search does with it:
/// map_state(state, [&](const Tensor& t) { return index_select(t, 0, rows); }).
template <class State, class F>
State map_state(State state, F&& f) {
  for_each_tensor(state, [&](Tensor& t) { t = f(std::as_const(t)); });
  return state;
}

/// The same values, off the tape: where truncated backpropagation through time stops.
template <class State>
State detach(const State& state) {
  return map_state(state, [](const Tensor& t) { return t.detach(); });
}

namespace detail {

/// What a step puts out unless it says otherwise.
template <class State>
Tensor first_tensor(State state) {
  Tensor first;
  for_each_tensor(state, [&](Tensor& t) {
    if (!first.defined()) first = t;
  });
  return first;
}

}  // namespace detail

}  // namespace unroll
