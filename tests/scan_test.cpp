// scan: cells that users write, states of any kind, and what does not fit.

#include <doctest/doctest.h>

#include <array>
#include <cstdint>
#include <tuple>
#include <utility>
#include <vector>

#include "framework/check.h"
#include "framework/gradcheck.h"
#include "framework/ops.h"
#include "framework/random.h"
#include "modules/modules.h"
#include "tests/compare.h"
#include "tests/recurrent.h"

using namespace unroll;
using namespace unroll::test;

// --- Cells that users write ---------------------------------------------------------------------

namespace {

/// Only `step`, and no module at all.
struct Accumulator {
  Tensor step(const Tensor& x, const Tensor& total) const { return total + x; }
};

/// Puts out something other than its state.
struct Squares {
  std::pair<Tensor, Tensor> step(const Tensor& x, const Tensor& total) const {
    const Tensor next = total + x;
    return {next * next, next};
  }
};

struct Pair {
  Tensor fast, slow;
  auto fields() { return std::tie(fast, slow); }
};

/// A state of one's own, and outputs as a Step.
struct TwoSpeeds {
  StepResult<Pair> step(const Tensor& x, const Pair& s) const {
    const Pair next{s.fast * 0.5 + x, s.slow * 0.9 + x};
    return {next.fast - next.slow, next};
  }
};

/// The example of the documentation: any recurrence, in plain equations; int will do for sizes.
struct MyCell : Module {
  Tensor w, u, b;
  MyCell(int in, int n)
      : w(param("w", uniform({in, n}))),
        u(param("u", orthogonal({n, n}))),
        b(param("b", zeros({n}))) {}
  Tensor initial_state(int batch) const { return zeros({batch, u.size(0)}); }
  Tensor project(const Tensor& xs) const { return matmul(xs, w) + b; }
  Tensor step(const Tensor& x, const Tensor& h) const { return tanh(x + matmul(h, u)); }
};

/// Takes token ids: its projection is an embedding.
struct TokenCell : Module {
  Embedding embed = child("embed", Embedding(5, 3));
  Tensor initial_state(std::int64_t batch) const { return zeros({batch, 3}); }
  Tensor project(const Tensor& ids) const { return embed(ids); }
  Tensor step(const Tensor& x, const Tensor& h) const { return 0.5 * (x + h); }
};

struct WrongState {
  Tensor step(const Tensor& x, const LSTMState& state) const { return x + state.h; }
};
struct NotConst {
  Tensor step(const Tensor& x, const Tensor& h) { return x + h; }
};
struct WrongResult {
  double step(const Tensor&, const Tensor&) const { return 0.0; }
};

static_assert(CellFor<Accumulator, Tensor>);
static_assert(CellFor<Squares, Tensor>);
static_assert(CellFor<TwoSpeeds, Pair>);
static_assert(CellFor<LSTM, LSTM::State>, "a Recurrent is a cell, too");
static_assert(!CellFor<WrongState, Tensor>);
static_assert(!CellFor<NotConst, Tensor>);
static_assert(!CellFor<WrongResult, Tensor>);

}  // namespace

TEST_CASE("scan: a cell needs only step") {
  const Tensor xs = tensor({{1, 2}, {3, 4}, {5, 6}});
  const auto [sums, total] = scan(Accumulator{}, xs, zeros({2}));
  CHECK(max_difference(sums, tensor({{1, 2}, {4, 6}, {9, 12}})) == 0.0);
  CHECK(max_difference(total, tensor({9, 12})) == 0.0);

  const auto [scalars, end] = scan(Accumulator{}, tensor({1, 2, 3}), tensor(10.0));
  CHECK(max_difference(scalars, tensor({11, 13, 16})) == 0.0);
  CHECK(end.item() == 16.0);
}

TEST_CASE("scan: a step may put out something other than its state") {
  const auto [squares, total] = scan(Squares{}, tensor({1, 2, 3}), tensor(0.0));
  CHECK(max_difference(squares, tensor({1, 9, 36})) == 0.0);
  CHECK(total.item() == 6.0);

  const auto [outputs, state] = scan(TwoSpeeds{}, tensor({1, 1}), Pair{tensor(0.0), tensor(0.0)});
  CHECK(max_difference(outputs, tensor({0, 1.5 - 1.9})) < 1e-6);
  CHECK(state.slow.item() == doctest::Approx(1.9));
}

TEST_CASE("scan: the documentation's cell, from its own initial state, and as a module") {
  manual_seed(30);
  MyCell cell(3, 4);
  cell.to(DType::f64);
  const Tensor xs = random64({5, 2, 3});
  Tensor h = zeros({2, 4}, DType::f64);
  std::vector<Tensor> hs;
  for (std::int64_t t = 0; t < 5; ++t) {
    h = tanh(matmul(xs[t], cell.w) + cell.b + matmul(h, cell.u));
    hs.push_back(h);
  }
  const Tensor expected = stack(hs);
  CHECK(max_difference(scan(cell, xs, zeros({2, 4}, DType::f64)).outputs, expected) < 1e-14);
  CHECK(max_difference(scan(cell, xs).outputs, expected) < 1e-14);

  const Recurrent module(cell);
  CHECK(max_difference(module(xs).outputs, expected) < 1e-14);
  CHECK(module.named_parameters()[1].first == "u_l0");
  CHECK(module.parameters()[1].is(cell.u));
  const auto copy = clone(module);
  CHECK_FALSE(copy.cell().u.is(cell.u));
  CHECK(copy.cell().u.is(copy.parameters()[1]));

  const Recurrent<MyCell> deep(3, 4, {.num_layers = 2, .bidirectional = true});
  CHECK(deep(normal({5, 2, 3})).outputs.shape() == Shape{5, 2, 8});
  CHECK(deep.cell(1).w.shape() == Shape{8, 4});
}

TEST_CASE("scan: a user's cell passes gradcheck like any other") {
  manual_seed(31);
  MyCell cell(2, 3);
  cell.to(DType::f64);
  std::vector<Tensor> inputs{random_leaf({3, 2, 2}), random_leaf({2, 3})};
  for (const Tensor& parameter : cell.parameters()) inputs.push_back(parameter);
  const auto f = [&](const std::vector<Tensor>& in) { return scan(cell, in[0], in[1]).outputs; };
  CHECK(gradcheck_message(f, inputs, {.order = 1}) == "");
  CHECK(gradcheck_message(f, inputs, {.order = 2}) == "");
}

TEST_CASE("scan: token ids go in where the projection takes them, and children keep their names") {
  manual_seed(32);
  const Recurrent module{TokenCell()};
  CHECK(module.named_parameters()[0].first == "embed_l0.weight");
  const Tensor ids = from_vector<std::int64_t>({4, 0, 2, 2}, {2, 2});
  const auto [outputs, state] = module(ids);
  const Tensor table = module.cell().embed.weight;
  CHECK(max_difference(outputs[0][0], table[4] * 0.5) < 1e-7);
  CHECK(max_difference(state[0][1], table[0] * 0.25 + table[2] * 0.5) < 1e-6);
}

TEST_CASE("scan: a Recurrent is a cell itself") {
  manual_seed(33);
  const GRU gru(3, 4);
  const Tensor xs = normal({5, 2, 3});
  CHECK(max_difference(scan(gru, xs).outputs, gru(xs).outputs) < 1e-6);
}

TEST_CASE("recurrent: train and eval reach the cell") {
  struct Noisy : Module {
    Tensor w = param("w", ones({1}));
    Dropout drop = child("drop", Dropout(0.5));
    Tensor initial_state(std::int64_t batch) const { return zeros({batch, 3}); }
    Tensor step(const Tensor& x, const Tensor& h) const { return drop(x) * w + h; }
  };
  manual_seed(34);
  Recurrent module{Noisy()};
  const Tensor xs = ones({8, 2, 3});
  module.eval();
  CHECK(max_difference(module(xs).outputs[7], full({2, 3}, 8.0)) == 0.0);
  module.train();
  CHECK(max_difference(module(xs).outputs, module(xs).outputs) > 0.0);
}

// --- States -------------------------------------------------------------------------------------

TEST_CASE("state: map_state and detach reach every tensor of any kind of state") {
  const Tensor x = ones({2}).requires_grad_() * 2.0;
  const auto twice = [](const Tensor& t) { return t * 2.0; };
  CHECK(max_difference(map_state(x, twice), full({2}, 4.0)) == 0.0);
  const LSTMState lstm = map_state(LSTMState{x, x * 3.0}, twice);
  CHECK(max_difference(lstm.c, full({2}, 12.0)) == 0.0);
  const std::vector<LSTMState> stack_of{{x, x}, {x, x}};
  CHECK(max_difference(map_state(stack_of, twice)[1].h, full({2}, 4.0)) == 0.0);
  CHECK(max_difference(stack_of[1].h, full({2}, 2.0)) == 0.0);
  const auto mixed = std::tuple(x, std::array<Tensor, 2>{x, x}, std::pair(lstm, x));
  int count = 0;
  auto off = detach(mixed);
  for_each_tensor(off, [&](const Tensor& t) {
    CHECK_FALSE(t.requires_grad());
    ++count;
  });
  CHECK(count == 6);
  CHECK(std::get<0>(mixed).requires_grad());
}

// --- Errors -------------------------------------------------------------------------------------

TEST_CASE("recurrent: errors name what does not fit") {
  const GRU gru(3, 4);
  CHECK_THROWS_WITH_AS(gru(zeros({5, 2, 7})),
                       "GRU: xs must be [T, B, input_size = 3], but is (5, 2, 7)", ShapeError);
  CHECK_THROWS_WITH_AS(gru(zeros({2, 3})), "GRU: xs must be [T, B, input_size = 3], but is (2, 3)",
                       ShapeError);
  CHECK_THROWS_WITH_AS(gru.step(zeros({5, 2, 3})),
                       "GRU: step: x must be [B, input_size = 3], but is (5, 2, 3)", ShapeError);
  CHECK_THROWS_WITH_AS(gru(zeros({0, 2, 3})), "scan: the sequence is empty: xs is (0, 2, 3)",
                       ShapeError);
  CHECK_THROWS_WITH_AS(gru(zeros({5, 2, 3}), {zeros({3, 4})}),
                       "GRUCell: step: h must be [B, hidden_size] = (2, 4), but is (3, 4)",
                       ShapeError);
  CHECK_THROWS_WITH_AS(gru(zeros({5, 2, 3}), {zeros({2, 4}), zeros({2, 4})}),
                       "GRU: the state must hold 1 cell state (1 layer x 1 direction), but holds 2",
                       ValueError);
  CHECK_THROWS_WITH_AS(LSTM(3, 4)(zeros({5, 2, 3}), {LSTMState{zeros({2, 4}), zeros({1, 2, 4})}}),
                       "LSTMCell: step: c must be [B, hidden_size] = (2, 4), but is (1, 2, 4)",
                       ShapeError);

  const RNNCell cell(3, 4);
  CHECK_THROWS_WITH_AS(cell.project(zeros({2, 4})),
                       "RNNCell: project: x must be [..., input_size = 3], but is (2, 4)",
                       ShapeError);
  CHECK_THROWS_WITH_AS(
      GRUCell(3, 4).step(zeros({2, 3}), zeros({2, 4})),
      "GRUCell: step: x must be projected, [B, 3 * hidden_size = 12], but is (2, 3)", ShapeError);
  CHECK_THROWS_WITH_AS(scan(Accumulator{}, zeros({}), zeros({})),
                       "scan: xs must be [T, ...], but is ()", ShapeError);
  CHECK_THROWS_WITH_AS(scan(cell, zeros({3})), "scan: xs must be [T, B, ...], but is (3)",
                       ShapeError);
  CHECK_THROWS_WITH_AS(LSTM(3, 0),
                       "LSTMCell: sizes are at least 1, but input_size is 3 and hidden_size is 0",
                       ValueError);
}

TEST_CASE("recurrent: an empty batch is a batch") {
  const LSTM lstm(3, 4);
  const auto [outputs, state] = lstm(zeros({5, 0, 3}));
  CHECK(outputs.shape() == Shape{5, 0, 4});
  CHECK(state[0].c.shape() == Shape{0, 4});
  sum(outputs).backward();
  CHECK(max_difference(lstm.cell().weight_hh.grad(), zeros({16, 4})) == 0.0);
}
