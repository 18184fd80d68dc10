#pragma once
/// What tests of equations share: a cell with equations beside the same cell without.

#include <doctest/doctest.h>

#include <array>
#include <string>
#include <tuple>
#include <vector>

#include "framework/autograd.h"
#include "framework/ops.h"
#include "modules/equations.h"
#include "modules/recurrent.h"
#include "tests/recurrent.h"
#include "tests/support.h"

namespace unroll::test {

/// Whether y is a result of all time steps at once, also with its rows put at their places.
inline bool is_scan(const Tensor& y) {
  const detail::Node* node = y.impl().node.get();
  for (int i = 0; node && i < 4; ++i) {
    node = detail::operation_of(node);
    if (std::string(node->op) == "scan") return true;
    node = node->input_count > 0 ? node->input(0) : nullptr;
  }
  return false;
}

/// A cell with equations, and the same without.
template <class F, std::size_t n>
struct AtOnce {
  std::array<Tensor, n> weights;
  Equations equations() const {
    return std::apply([](const auto&... w) { return Equations(F{}, w...); }, weights);
  }
};
template <class F, class State, std::size_t n>
struct StepByStep {
  std::array<Tensor, n> weights;
  auto step(const Tensor& x, const State& state) const {
    return std::apply([&](const auto&... w) { return F{}(x, state, w...); }, weights);
  }
};

/// Which inputs require a gradient, and which results have one.
struct Wanted {
  bool xs, state, weights, outputs, last;
};
inline constexpr Wanted kWanted[] = {
    {true, true, true, true, true},    {true, false, false, true, false},
    {false, true, false, true, true},  {false, false, true, true, false},
    {true, false, true, false, true},  {true, true, true, false, true},
    {false, false, false, true, true},
};

/// That values, first and, if `second`, second derivatives of scan() are the same with equations
/// and without. Whether the equations were one operation.
template <class State, std::size_t n, class F>
bool compare(F, const std::array<Shape, n>& weight_shapes, const Tensor& values, State state,
             const ScanOptions& options, Wanted wanted, bool second, const Tensor& ids = {}) {
  const DType dtype = values.dtype();
  const double tolerance = dtype == DType::f32 ? 5e-5 : 1e-11;
  const auto leaf = [](const Tensor& x, bool requires_grad) {
    return requires_grad ? x.detach().requires_grad_() : x.detach();
  };
  const Tensor given = leaf(values, wanted.xs);
  const auto xs = [&] { return ids.defined() ? embedding(given, ids) : given; };
  state = map_state(state, [&](const Tensor& t) { return leaf(t, wanted.state); });
  AtOnce<F, n> at_once;
  for (std::size_t i = 0; i < n; ++i)
    at_once.weights[i] = leaf(normal(weight_shapes[i], 0.0, 0.7, dtype), wanted.weights);
  const StepByStep<F, State, n> step_by_step{at_once.weights};

  std::vector<Tensor> leaves = {given};
  for (const Tensor& t : tensors_of(state)) leaves.push_back(t);
  leaves.insert(leaves.end(), at_once.weights.begin(), at_once.weights.end());
  std::erase_if(leaves, [](const Tensor& t) { return !t.requires_grad(); });

  std::vector<bool> differentiable;  // as the steps say; a state of a whole sequence counts as such
  const auto run = [&](const auto& cell) {
    Generator generator(5);
    const auto made = scan(cell, xs(), state, options);
    std::vector<Tensor> all = {made.outputs}, results;
    for (const Tensor& t : tensors_of(made.state)) all.push_back(t);
    for (const Tensor& y : all) results.push_back(y.detach());
    if (leaves.empty()) return results;
    if (!wanted.outputs) all.erase(all.begin());
    if (!wanted.last) all.resize(1);
    std::vector<Tensor> seeds;
    for (const Tensor& y : all) seeds.push_back(normal(y.shape(), 0.0, 1.0, dtype, generator));
    if (differentiable.empty())
      for (const Tensor& y : all) differentiable.push_back(y.requires_grad());
    for (std::size_t i = all.size(); i-- > 0;) {
      if (differentiable[i]) continue;
      all.erase(all.begin() + static_cast<std::ptrdiff_t>(i));
      seeds.erase(seeds.begin() + static_cast<std::ptrdiff_t>(i));
    }
    if (all.empty()) return results;
    const GradOptions how{.create_graph = second, .grad_outputs = seeds, .allow_unused = true};
    const std::vector<Tensor> first = grad(all, leaves, how);
    Tensor sum;
    for (const Tensor& g : first) {
      results.push_back(g.defined() ? g.detach() : Tensor());
      if (!second || !g.defined() || !g.requires_grad()) continue;
      sum = sum.defined() ? sum + unroll::sum(square(g)) : unroll::sum(square(g));
    }
    if (sum.defined())
      for (const Tensor& g : grad({sum}, leaves, {.allow_unused = true})) results.push_back(g);
    return results;
  };
  const std::vector<Tensor> expected = run(step_by_step), actual = run(at_once);
  REQUIRE(actual.size() == expected.size());
  for (std::size_t i = 0; i < actual.size(); ++i) {
    CAPTURE(i);
    const auto or_zeros = [](const Tensor& t, const Tensor& like) {
      return t.defined() || !like.defined() ? t : zeros_like(like);
    };
    const Tensor a = or_zeros(actual[i], expected[i]), b = or_zeros(expected[i], actual[i]);
    if (a.defined()) CHECK(difference(a, b, tolerance, 1.0) == "");
  }
  return leaves.empty() || is_scan(scan(at_once, xs(), state, options).outputs);
}

}  // namespace unroll::test
