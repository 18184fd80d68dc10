#pragma once
/// What the tests of recurrent modules share: random values in f64, states as lists of tensors,
/// and checks that hold for every module over sequences, whatever its cell.

#include <doctest/doctest.h>

#include <cmath>
#include <string>
#include <vector>

#include "framework/autograd.h"
#include "framework/gradcheck.h"
#include "framework/random.h"
#include "modules/modules.h"
#include "tests/compare.h"

namespace unroll::test {

inline Tensor random64(const Shape& shape) { return normal(shape, 0.0, 1.0, DType::f64); }
inline Tensor random_leaf(const Shape& shape) { return random64(shape).requires_grad_(); }
inline Tensor indices(const std::vector<std::int64_t>& values) { return from_vector(values); }

template <class M>
M to_f64(M module) {
  module.to(DType::f64);
  return module;
}

/// All tensors of a state, in order.
template <class State>
std::vector<Tensor> tensors_of(State state) {
  std::vector<Tensor> list;
  for_each_tensor(state, [&](Tensor& t) { list.push_back(t); });
  return list;
}

/// A state of random leaves of f64.
template <class M>
auto random_state(const M& module, std::int64_t batch) {
  return map_state(module.initial_state(batch),
                   [](const Tensor& t) { return random_leaf(t.shape()); });
}

/// What gradients are asked for: the input, the initial state and the parameters.
template <class State>
std::vector<Tensor> leaves(const Tensor& xs, const State& state, const Module& module) {
  std::vector<Tensor> list{xs};
  for (const Tensor& t : tensors_of(state)) list.push_back(t);
  for (const Tensor& t : module.parameters()) list.push_back(t);
  return list;
}

/// Outputs and final states in one row, for gradcheck.
template <class State>
Tensor flat(const ScanResult<State>& result) {
  std::vector<Tensor> list{reshape(result.outputs, {-1})};
  for (const Tensor& t : tensors_of(result.state)) list.push_back(reshape(t, {-1}));
  return concatenate(list);
}

/// Gradcheck over the input [T, B, in], the initial states and all parameters.
template <class M>
void check_gradients(M module, std::int64_t in, const Tensor& lengths = {}, int order = 1) {
  module.to(DType::f64);
  const bool batch_first = module.options().batch_first;
  const Tensor xs = random_leaf(batch_first ? Shape{2, 3, in} : Shape{3, 2, in});
  const auto state = random_state(module, 2);
  const auto f = [&](const std::vector<Tensor>&) {
    manual_seed(99);  // the same masks each time
    return flat(module(xs, state, lengths));
  };
  CHECK(gradcheck_message(f, leaves(xs, state, module), {.order = order}) == "");
}

/// A padded batch gives what one sequence at a time gives: outputs, final states and gradients,
/// with NaN in the padding.
template <class M>
void check_lengths(M module, std::int64_t in) {
  module.to(DType::f64);
  const std::int64_t T = 6;
  const std::vector<std::int64_t> lengths{3, 6, 1, 4};
  const auto B = static_cast<std::int64_t>(lengths.size());
  Tensor xs = random64({T, B, in});
  for (std::int64_t b = 0; b < B; ++b) {
    const std::int64_t n = lengths[static_cast<std::size_t>(b)];
    narrow(select(xs, 1, b), 0, n, T - n).fill_(std::nan(""));
  }
  xs.requires_grad_();
  const auto state = random_state(module, B);
  const std::vector<Tensor> wanted = leaves(xs, state, module);

  const auto [outputs, last] = module(xs, state, indices(lengths));
  const Tensor output_seed = random64(outputs.shape());
  std::vector<Tensor> state_seeds;
  Tensor loss = sum(outputs * output_seed);
  const std::vector<Tensor> ends = tensors_of(last);
  for (const Tensor& t : ends) {
    state_seeds.push_back(random64(t.shape()));
    loss = loss + sum(t * state_seeds.back());
  }
  const std::vector<Tensor> padded = grad({loss}, wanted);

  Tensor loss_alone;
  for (std::int64_t b = 0; b < B; ++b) {
    const std::int64_t n = lengths[static_cast<std::size_t>(b)];
    const auto row = [&](const Tensor& t) { return narrow(t, 0, b, 1); };
    const auto [ys, end] = module(narrow(narrow(xs, 1, b, 1), 0, 0, n), map_state(state, row));
    const Tensor ours = narrow(outputs, 1, b, 1);
    CHECK(max_difference(narrow(ours, 0, 0, n), ys) < 1e-12);
    CHECK(max_difference(narrow(ours, 0, n, T - n), zeros_like(narrow(ours, 0, n, T - n))) == 0.0);
    Tensor part = sum(ys * narrow(narrow(output_seed, 1, b, 1), 0, 0, n));
    const std::vector<Tensor> alone = tensors_of(end);
    REQUIRE(alone.size() == ends.size());
    for (std::size_t i = 0; i < ends.size(); ++i) {
      CHECK(max_difference(row(ends[i]), alone[i]) < 1e-12);
      part = part + sum(alone[i] * row(state_seeds[i]));
    }
    loss_alone = loss_alone.defined() ? loss_alone + part : part;
  }
  const std::vector<Tensor> expected = grad({loss_alone}, wanted);
  for (std::size_t i = 0; i < wanted.size(); ++i)
    CHECK(max_difference(padded[i], expected[i]) < 1e-12);
}

/// What goes in one step at a time, with the state that the step before returned, gives what the
/// whole sequence gives.
template <class M>
void check_streaming(M module, std::int64_t in) {
  module.to(DType::f64);
  const Tensor xs = random64({5, 2, in});
  const auto start = random_state(module, 2);
  const auto [whole, last] = module(xs, start);
  auto state = start;
  for (std::int64_t t = 0; t < 5; ++t) {
    auto next = module.step(xs[t], state);
    CHECK(max_difference(next.output, whole[t]) < 1e-12);
    state = next.state;
  }
  for (std::size_t i = 0; i < tensors_of(last).size(); ++i)
    CHECK(max_difference(tensors_of(state)[i], tensors_of(last)[i]) < 1e-12);
}

}  // namespace unroll::test
