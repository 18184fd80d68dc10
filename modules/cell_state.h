#pragma once
/// The state of a recurrence is a value: a Tensor, a struct of tensors that says what it holds, or
/// a pair, tuple, array or vector of states (framework/for_each_tensor.h).

#include <utility>
#include <vector>

#include "framework/for_each_tensor.h"

namespace unroll {

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

/// What a step puts out unless it says otherwise. Throws ValueError for a state without tensors.
template <class State>
Tensor& first_tensor(State& state) {
  Tensor* first = nullptr;
  for_each_tensor(state, [&](Tensor& t) { first = first ? first : &t; });
  if (!first) throw ValueError("a recurrent state must hold a tensor");
  return *first;
}

/// The tensors of a state, in order.
template <class State>
std::vector<Tensor> tensors_of(State state) {
  std::vector<Tensor> list;
  for_each_tensor(state, [&](Tensor& t) { list.push_back(t); });
  return list;
}

}  // namespace detail

}  // namespace unroll
