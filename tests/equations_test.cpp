/// Equations: all time steps as one operation give what the steps one by one give.

#include "modules/equations.h"

#include <doctest/doctest.h>

#include <array>
#include <string>
#include <utility>
#include <vector>

#include "framework/autograd.h"
#include "framework/inspect.h"
#include "framework/kernels/parallel.h"
#include "framework/ops.h"
#include "modules/modules.h"
#include "tests/equations.h"
#include "tests/recurrent.h"
#include "tests/support.h"

using namespace unroll;
using namespace unroll::test;

namespace {

using Tensors = std::vector<Tensor>;

/// For every length, batch, direction, set of gradients and dtype.
template <class State, std::size_t n, class F>
void check(const std::string& name, F f, const std::array<Shape, n>& weights, std::int64_t width,
           const std::vector<std::int64_t>& state_widths) {
  INFO("equations of ", name);
  manual_seed(3);
  for (DType dtype : {DType::f32, DType::f64})
    for (const auto& size : {std::pair{1, 1}, {1, 3}, {6, 1}, {5, 3}, {9, 17}})
      for (bool reverse : {false, true})
        for (const Wanted& wanted : kWanted)
          for (bool second : {false, true}) {
            const std::int64_t T = size.first, B = size.second;
            if (second && (dtype == DType::f32 || T > 6)) continue;
            INFO("T = ", T, ", B = ", B, ", reverse: ", reverse, ", second: ", second,
                 ", wanted: ", &wanted - kWanted);
            State state{};
            std::size_t i = 0;
            for_each_tensor(state, [&](Tensor& t) {
              t = normal({B, state_widths[i++]}, 0.0, 1.0, dtype);
            });
            const Tensor xs = normal({T, B, width}, 0.0, 1.0, dtype);
            CHECK(compare<State, n>(f, weights, xs, state, {.reverse = reverse}, wanted, second));
            if (wanted.outputs != wanted.last && !second) continue;
            const Tensor lengths = randint(1, T + 1, {B});
            INFO("lengths: ", to_string(lengths));
            for (const ScanOptions& options :
                 {ScanOptions{.reverse = reverse, .lengths = lengths},
                  ScanOptions{.reverse = reverse, .truncate = 2},
                  ScanOptions{.reverse = reverse, .lengths = lengths, .truncate = 2}}) {
              INFO("with lengths: ", options.lengths.defined(), ", truncate: ", options.truncate);
              CHECK(compare<State, n>(f, weights, xs, state, options, wanted, second));
            }
          }
}

LSTMState lstm(const Tensor& sum, const Tensor& c0) {
  const auto gates = chunk(sum, 4, -1);
  const Tensor c = sigmoid(gates[1]) * c0 + sigmoid(gates[0]) * tanh(gates[2]);
  return {sigmoid(gates[3]) * tanh(c), c};
}

}  // namespace

TEST_CASE("equations: an LSTM, with sums in the products or behind them") {
  check<LSTMState, 3>("one sum",
                      [](const Tensor& x, const LSTMState& s, const Tensor& w, const Tensor& u,
                         const Tensor& b) { return lstm(linear(s.h, u, linear(x, w, b)), s.c); },
                      {Shape{12, 5}, {12, 3}, {12}}, 5, {3, 3});
  check<LSTMState, 3>("plain",
                      [](const Tensor& x, const LSTMState& s, const Tensor& w, const Tensor& u,
                         const Tensor& b) { return lstm(matmul(x, w) + matmul(s.h, u) + b, s.c); },
                      {Shape{5, 12}, {3, 12}, {12}}, 5, {3, 3});
  check<LSTMState, 3>("the state first",
                      [](const Tensor& x, const LSTMState& s, const Tensor& w, const Tensor& u,
                         const Tensor& b) { return lstm(linear(x, w, linear(s.h, u, b)), s.c); },
                      {Shape{12, 5}, {12, 3}, {12}}, 5, {3, 3});
  check<LSTMState, 4>(
      "x between two products with states",
      [](const Tensor& x, const LSTMState& s, const Tensor& w, const Tensor& u, const Tensor& v,
         const Tensor& b) { return lstm(linear(s.c, v, linear(x, w, linear(s.h, u, b))), s.c); },
      {Shape{12, 5}, {12, 3}, {12, 3}, {12}}, 5, {3, 3});
  check<LSTMState, 1>("projected",
                      [](const Tensor& x, const LSTMState& s, const Tensor& u) {
                        return lstm(linear(s.h, u, x), s.c);
                      },
                      {Shape{12, 3}}, 12, {3, 3});
}

TEST_CASE("equations: weights beside the products, of every shape") {
  check<LSTMState, 5>("peepholes",
                      [](const Tensor& x, const LSTMState& s, const Tensor& w, const Tensor& u,
                         const Tensor& p, const Tensor& q, const Tensor& scale) {
                        const auto gates = chunk(linear(s.h, u, linear(x, w)), 3, -1);
                        const Tensor f = sigmoid(gates[0] + p * s.c);
                        const Tensor c = f * s.c + (1 - f) * tanh(gates[1]) * scale;
                        return LSTMState{sigmoid(gates[2] + q * c) * tanh(c), c};
                      },
                      {Shape{9, 4}, {9, 3}, {3}, {1, 3}, {3}}, 4, {3, 3});
}

TEST_CASE("equations: x, the state and an output of its own, used in many ways") {
  check<Tensor, 2>("residual",
                   [](const Tensor& x, const Tensor& h, const Tensor& w, const Tensor& u) {
                     return tanh(linear(x, w) * sigmoid(matmul(h, u))) + 0.5 * x + 0.25 * h;
                   },
                   {Shape{4, 4}, {4, 4}}, 4, {4});
  check<Tensor, 2>("two products of each",
                   [](const Tensor& x, const Tensor& h, const Tensor& w, const Tensor& u) {
                     return tanh(linear(x, w) + matmul(x, u)) *
                            sigmoid(linear(h, u, x) + matmul(h, w));
                   },
                   {Shape{4, 4}, {4, 4}}, 4, {4});
  check<Tensor, 2>("output",
                   [](const Tensor& x, const Tensor& h, const Tensor& w, const Tensor& b) {
                     const Tensor next = tanh(linear(x, w, b) + h);
                     return std::pair{square(next) + x * h, next};
                   },
                   {Shape{4, 4}, {4}}, 4, {4});
  check<Tensor, 1>("no product",
                   [](const Tensor& x, const Tensor& h, const Tensor& a) {
                     return sigmoid(a) * h + (1 - sigmoid(a)) * x;
                   },
                   {Shape{1, 3}}, 3, {3});
  check<std::array<Tensor, 3>, 2>(
      "three states",
      [](const Tensor& x, const std::array<Tensor, 3>& s, const Tensor& w, const Tensor& u) {
        const Tensor a = sin(linear(s[1], u, linear(x, w)));
        return std::array<Tensor, 3>{a * s[2], s[0] + s[1], s[2] * 0.5 + a};
      },
      {Shape{3, 2}, {3, 3}}, 2, {3, 3, 3});
}

TEST_CASE("equations: products of what is computed, such as a gate times the state") {
  check<Tensor, 4>("a reset gate before the product",
                   [](const Tensor& x, const Tensor& h, const Tensor& w, const Tensor& u,
                      const Tensor& v, const Tensor& b) {
                     const auto xs = chunk(linear(x, w, b), 3, -1);
                     const auto hs = chunk(linear(h, u), 2, -1);
                     const Tensor r = sigmoid(xs[0] + hs[0]), z = sigmoid(xs[1] + hs[1]);
                     const Tensor n = tanh(xs[2] + linear(r * h, v));
                     return (1.0 - z) * n + z * h;
                   },
                   {Shape{9, 4}, {6, 3}, {3, 3}, {9}}, 4, {3});
  check<LSTMState, 3>(
      "a projected output",
      [](const Tensor& x, const LSTMState& s, const Tensor& w, const Tensor& u, const Tensor& p) {
        const LSTMState next = lstm(linear(s.h, u, matmul(x, w)), s.c);
        return LSTMState{matmul(next.h, p), next.c};
      },
      {Shape{4, 12}, {12, 2}, {3, 2}}, 4, {2, 3});
  check<LSTMState, 5>("a product of products",
                      [](const Tensor& x, const LSTMState& s, const Tensor& w, const Tensor& u,
                         const Tensor& wm, const Tensor& um, const Tensor& b) {
                        const Tensor m = linear(x, wm) * linear(s.h, um);
                        return lstm(linear(m, u, linear(x, w, b)), s.c);
                      },
                      {Shape{12, 4}, {12, 3}, {3, 4}, {3, 3}, {12}}, 4, {3, 3});
  check<Tensor, 4>("three layers in a step, added to each other",
                   [](const Tensor& x, const Tensor& h, const Tensor& w, const Tensor& u,
                      const Tensor& v, const Tensor& b) {
                     const Tensor one = tanh(linear(h, u, linear(x, w, b)));
                     const Tensor two = linear(one, v, linear(x, w)) * h;
                     return tanh(linear(two, u, linear(one, u))) + 0.5 * two;
                   },
                   {Shape{3, 4}, {3, 3}, {3, 3}, {3}}, 4, {3});
  check<Tensor, 3>(
      "a product with two weights, one after the other",
      [](const Tensor& x, const Tensor& h, const Tensor& w, const Tensor& u, const Tensor& v) {
        return tanh(linear(matmul(h, u), v, linear(x, w))) + matmul(matmul(x, w), u);
      },
      {Shape{3, 3}, {3, 3}, {3, 3}}, 3, {3});
  check<Tensor, 2>("a piece of the state, and an input that is none of a product",
                   [](const Tensor& x, const Tensor& h, const Tensor& u, const Tensor& v) {
                     const auto halves = chunk(h, 2, -1);
                     const Tensor a = matmul(halves[0], u), b = matmul(tanh(x) * halves[1], v);
                     return std::pair{a * b, concatenate({sin(a) + 0.5 * b, tanh(b)}, -1)};
                   },
                   {Shape{2, 2}, {2, 2}}, 2, {4});
}

TEST_CASE("equations: a long sequence is done in pieces") {
  manual_seed(4);
  const auto compare_long = [](auto f) {
    const std::array<Shape, 3> shapes = {Shape{4, 3}, {4, 4}, {4}};
    for (bool reverse : {false, true}) {
      AtOnce<decltype(f), 3> at_once;
      for (std::size_t i = 0; i < 3; ++i) at_once.weights[i] = random_leaf(shapes[i]);
      const StepByStep<decltype(f), Tensor, 3> step_by_step{at_once.weights};
      const Tensor xs = random_leaf({97, 11, 3}), h = random_leaf({11, 4});
      Tensors leaves = {xs, h};
      leaves.insert(leaves.end(), at_once.weights.begin(), at_once.weights.end());
      const auto a = scan(at_once, xs, h, {.reverse = reverse});
      const auto b = scan(step_by_step, xs, h, {.reverse = reverse});
      CHECK(difference(a.outputs, b.outputs, 1e-12, 1.0) == "");
      CHECK(is_scan(a.state));
      const auto loss = [](const auto& made) {
        return sum(square(made.outputs)) + sum(sin(made.state));
      };
      const Tensors g = grad({loss(a)}, leaves), want = grad({loss(b)}, leaves);
      for (std::size_t i = 0; i < leaves.size(); ++i)
        CHECK(difference(g[i], want[i], 1e-11, 1.0) == "");
    }
  };
  compare_long([](const Tensor& x, const Tensor& h, const Tensor& w, const Tensor& u,
                  const Tensor& b) { return tanh(linear(h, u, linear(x, w, b))); });
  compare_long(
      [](const Tensor& x, const Tensor& h, const Tensor& w, const Tensor& u, const Tensor& b) {
        const Tensor a = tanh(linear(h, u, linear(x, w, b)));
        return 0.5 * linear(a * h, u) + sin(linear(sigmoid(x), w));
      });
}

TEST_CASE("equations: [thread] the same bits with every number of threads") {
  const int threads_before = num_threads();
  const auto check_module = [](const auto& module, std::int64_t T, std::int64_t B,
                               std::int64_t width) {
    Tensors expected;
    for (int threads : {1, 2, 3, 4}) {
      INFO("T = ", T, ", B = ", B, ", width ", width, ", threads: ", threads);
      set_num_threads(threads);
      Generator generator(3);
      const Tensor xs = normal({T, B, width}, 0.0, 1.0, DType::f32, generator).requires_grad_();
      const auto made = module(xs);
      Tensors all = {made.outputs}, leaves = {xs};
      for (const Tensor& t : tensors_of(made.state)) all.push_back(t);
      for (const Tensor& w : module.parameters()) leaves.push_back(w);
      Tensor loss;
      for (const Tensor& t : all) loss = loss.defined() ? loss + sum(sin(t)) : sum(sin(t));
      CHECK(is_scan(made.outputs));
      for (const Tensor& g : grad({loss}, leaves)) all.push_back(g);
      if (threads == 1) expected = all;
      for (std::size_t i = 0; i < all.size(); ++i)
        CHECK(difference(all[i], expected[i], 0.0) == "");
    }
  };
  manual_seed(13);
  for (const auto& [T, B, width] :
       {std::array{30, 33, 96}, {9, 16, 130}, {40, 1, 64}, {7, 5, 128}, {3, 70, 64}}) {
    check_module(LSTM(width, width), T, B, width);
    check_module(GRU(width, width), T, B, width);
    check_module(RNN(width, width), T, B, width);
    check_module(GRU(width, width, GRUOptions{.reset_after = false}), T, B, width);
    check_module(LSTM(width, width, LSTMOptions{.proj_size = width / 2}), T, B, width);
    check_module(Recurrent<PeepholeLSTMCell>(width, width), T, B, width);
    check_module(Recurrent<CoupledLSTMCell>(width, width), T, B, width);
  }
  set_num_threads(threads_before);
}

TEST_CASE("equations: xs may lie in memory in any way, and be a part of something") {
  manual_seed(5);
  LSTM lstm = to_f64(LSTM(3, 4));
  const Tensor whole = random_leaf({6, 7, 5});
  const auto part = [](const Tensor& x) { return narrow(narrow(x, 0, 1, 4), 2, 1, 3); };
  const Tensor y = lstm(part(whole)).outputs, z = lstm(part(whole).contiguous()).outputs;
  CHECK(is_scan(y));
  CHECK(difference(y, z, 1e-14, 1.0) == "");
  const Tensor g = grad(sum(square(y)), whole), want = grad(sum(square(z)), whole);
  CHECK(difference(g, want, 1e-13, 1.0) == "");

  // All that x can be used for at once, in a part of something.
  const auto many = [](const Tensor& x, const Tensor& h, const Tensor& w, const Tensor& u) {
    return tanh(linear(x, w) + matmul(x, u)) * sigmoid(linear(h, u, x) + matmul(h, w)) + x;
  };
  const AtOnce<decltype(many), 2> at_once{{random_leaf({3, 3}), random_leaf({3, 3})}};
  const StepByStep<decltype(many), Tensor, 2> step_by_step{at_once.weights};
  const Tensor h = random64({7, 3});
  const auto a = scan(at_once, part(whole), h), b = scan(step_by_step, part(whole), h);
  CHECK(is_scan(a.outputs));
  CHECK(difference(grad(sum(square(a.outputs)), whole), grad(sum(square(b.outputs)), whole), 1e-12,
                   1.0) == "");
  const Tensor pieces = random_leaf({9, 7, 3});
  const auto in_pieces = [&](const auto& cell) {
    const Tensor before = scan(cell, narrow(pieces, 0, 0, 4), h).outputs;
    const Tensor after = scan(cell, narrow(pieces, 0, 4, 5), h).outputs;
    return grad(sum(square(before)) + sum(sin(after)), pieces);
  };
  CHECK(difference(in_pieces(at_once), in_pieces(step_by_step), 1e-12, 1.0) == "");

  // Both directions add to one input, and a layer's gradient goes to where the concatenation is.
  LSTM deep = to_f64(LSTM(5, 4, {.num_layers = 2, .bidirectional = true}));
  const auto f = [&](const Tensors& in) { return flat(deep(in[0])); };
  CHECK(gradcheck(f, {random_leaf({3, 2, 5})}));
}

namespace {

/// Values, and gradients of the table and the weights, of a cell on embeddings.
template <class Cell>
Tensors on_embedding(const Cell& cell, const Tensor& table, const Tensor& ids, const Tensor& h,
                     bool reverse, bool second, std::int64_t padding, const Tensors& weights) {
  const Tensor xs = embedding(table, ids, padding);
  const auto made = scan(cell, xs, h, {.reverse = reverse});
  Tensors leaves = {table, h};
  leaves.insert(leaves.end(), weights.begin(), weights.end());
  Tensors all = {made.outputs.detach(), made.state.detach()};
  const Tensor loss = sum(sin(made.outputs)) + sum(square(made.state));
  const Tensors first = grad({loss}, leaves, {.create_graph = second});
  for (const Tensor& g : first) all.push_back(g.detach());
  if (second) {
    Tensor total = sum(square(first[0]));
    for (const Tensor& g : first) total = total + sum(square(g));
    for (const Tensor& g : grad({total}, leaves)) all.push_back(g);
  }
  return all;
}

template <class F, std::size_t n>
void check_embedding(const std::string& name, F, const std::array<Shape, n>& shapes) {
  INFO("equations on embeddings: ", name);
  AtOnce<F, n> at_once;
  for (std::size_t i = 0; i < n; ++i) at_once.weights[i] = random_leaf(shapes[i]);
  const StepByStep<F, Tensor, n> step_by_step{at_once.weights};
  const Tensors weights(at_once.weights.begin(), at_once.weights.end());
  const Tensor table = random_leaf({5, 4});
  for (const auto& size : {std::pair{6, 3}, {1, 10}, {40, 17}, {3, 3}})
    for (bool reverse : {false, true})
      for (bool second : {false, true})
        for (std::int64_t padding : {-1, 2}) {
          const std::int64_t T = size.first, B = size.second;
          if (second && T > 6) continue;
          INFO("T = ", T, ", B = ", B, ", reverse: ", reverse, ", second: ", second,
               ", padding: ", padding);
          const Tensor ids = randint(0, 5, {T, B}), h = random_leaf({B, 4});
          const Tensors a = on_embedding(at_once, table, ids, h, reverse, second, padding, weights);
          const Tensors b =
              on_embedding(step_by_step, table, ids, h, reverse, second, padding, weights);
          for (std::size_t i = 0; i < a.size(); ++i) {
            CAPTURE(i);
            CHECK(difference(a[i], b[i], 1e-11, 1.0) == "");
          }
        }
}

}  // namespace

TEST_CASE("equations: on embeddings, rows of the table are multiplied once") {
  manual_seed(14);
  check_embedding(
      "one sum",
      [](const Tensor& x, const Tensor& h, const Tensor& w, const Tensor& u, const Tensor& b) {
        return tanh(linear(h, u, linear(x, w, b)));
      },
      std::array<Shape, 3>{Shape{4, 4}, {4, 4}, {4}});
  check_embedding(
      "all that x can be used for",
      [](const Tensor& x, const Tensor& h, const Tensor& w, const Tensor& u) {
        return tanh(linear(x, w, linear(x, u, x)) + matmul(x, u)) *
                   sigmoid(linear(h, u, x) + matmul(h, w)) +
               0.1 * x;
      },
      std::array<Shape, 2>{Shape{4, 4}, {4, 4}});
  check_embedding(
      "x in two sums of products",
      [](const Tensor& x, const Tensor& h, const Tensor& w, const Tensor& u, const Tensor& b) {
        const Tensor a = linear(h, w, linear(x, w, linear(x, u, b)));
        return a * sigmoid(linear(x, w, matmul(h, u)));
      },
      std::array<Shape, 3>{Shape{4, 4}, {4, 4}, {4}});
  check_embedding(
      "x is multiplied in the derivative",
      [](const Tensor& x, const Tensor& h, const Tensor& w, const Tensor& u) {
        return 0.02 * square(linear(x, w)) * tanh(matmul(h, u)) + x * sin(0.1 * h);
      },
      std::array<Shape, 2>{Shape{4, 4}, {4, 4}});
}

TEST_CASE("equations: on embeddings, whoever looks at their gradient gets that of each row") {
  manual_seed(15);
  GRU gru = to_f64(GRU(4, 3));
  const Tensor table = random_leaf({3, 4}), ids = randint(0, 3, {7, 4});
  const auto loss = [&](const Tensor& xs) { return sum(sin(gru(xs).outputs)); };
  const Tensor leaf = embedding(table, ids).detach().requires_grad_();
  const Tensor of_rows = grad(loss(leaf), leaf);

  Tensor xs = embedding(table, ids);
  CHECK(difference(grad(loss(xs), xs), of_rows, 1e-13, 1.0) == "");
  xs = embedding(table, ids);
  xs.retain_grad();
  loss(xs).backward();
  CHECK(difference(xs.grad(), of_rows, 1e-13, 1.0) == "");
  xs = embedding(table, ids);
  Tensor seen;
  xs.register_hook([&](const Tensor& g) {
    seen = g.detach();
    return 2.0 * g;
  });
  const Tensor doubled = grad(loss(xs), table);
  CHECK(difference(seen, of_rows, 1e-13, 1.0) == "");
  CHECK(difference(doubled, 2.0 * grad(loss(embedding(table, ids)), table), 1e-13, 1.0) == "");

  // Two who use the same embeddings, and rows of a gradient that is sparse.
  xs = embedding(table, ids);
  const Tensor other = random64({7, 4, 4});
  const Tensor both = grad(loss(xs) + sum(xs * other), table);
  const Tensor apart =
      grad(loss(embedding(table, ids)), table) + grad(sum(embedding(table, ids) * other), table);
  CHECK(difference(both, apart, 1e-13, 1.0) == "");
  const Tensor sparse = table.detach().requires_grad_();
  loss(embedding(sparse, ids, -1, true)).backward();
  CHECK(difference(sparse.grad(), grad(loss(embedding(table, ids)), table), 1e-13, 1.0) == "");
}

TEST_CASE("equations: embeddings that were written are no rows of the table any more") {
  manual_seed(16);
  const GRU gru = to_f64(GRU(4, 3));
  const Tensor table = random_leaf({3, 4}), ids = randint(0, 3, {7, 4});
  const Tensor noise = random64({7, 4, 4}), xs = embedding(table, ids);
  xs.detach().add_(noise);
  const Tensor expected = gru(embedding(table, ids) + noise).outputs;
  CHECK(difference(gru(xs).outputs, expected, 1e-13, 1.0) == "");
}

TEST_CASE("equations: backward a second time, and gradients that are kept") {
  manual_seed(6);
  const GRU gru = to_f64(GRU(3, 4));
  const Tensor xs = random_leaf({5, 2, 3});
  const Tensor loss = sum(square(gru(xs).outputs));
  loss.backward(Tensor(), true);
  const Tensor once = xs.grad() * 1.0;
  loss.backward();
  CHECK(difference(xs.grad(), 2.0 * once, 1e-14, 1.0) == "");
  CHECK_THROWS_AS(loss.backward(), GraphError);
}

TEST_CASE("equations: a result that was written has no derivative any more") {
  manual_seed(7);
  const LSTM lstm(3, 4);
  auto made = lstm(normal({5, 2, 3}));
  made.outputs.detach().mul_(2.0);
  CHECK_THROWS_WITH_AS(sum(made.outputs).backward(),
                       "backward: the output of scan, a tensor of shape (5, 2, 4), was written in "
                       "place; the gradient needs its old values",
                       GraphError);
}

namespace {

struct Reducing {
  Tensor u;
  Equations equations() const {
    return {[](const Tensor& x, const Tensor& h, const Tensor& w) {
              return tanh(matmul(tanh(h), w) + sum(x, -1, true));
            },
            u};
  }
};

struct Doubling : RNNCell {
  using RNNCell::RNNCell;
  Tensor step(const Tensor& x, const Tensor& h) const { return 2.0 * RNNCell::step(x, h); }
};

}  // namespace

TEST_CASE("equations: what cannot be done at once is done step by step") {
  manual_seed(8);
  const Reducing cell{random_leaf({4, 4})};
  const Tensor xs = random64({5, 2, 3}), h = random64({2, 4});
  const auto made = scan(cell, xs, h);
  CHECK(!is_scan(made.outputs));
  Tensor expected = h;
  for (std::int64_t t = 0; t < 5; ++t)
    expected = tanh(matmul(tanh(expected), cell.u) + sum(xs[t], -1, true));
  CHECK(difference(made.state, expected, 1e-14, 1.0) == "");
  CHECK(grad(sum(made.state), cell.u).defined());
}

TEST_CASE("equations: a long padded batch is done in pieces, with one thread or several") {
  manual_seed(12);
  const auto f = [](const Tensor& x, const Tensor& h, const Tensor& w, const Tensor& u,
                    const Tensor& b) { return tanh(linear(h, u, linear(x, w, b))); };
  const AtOnce<decltype(f), 3> at_once{
      {random_leaf({40, 30}), random_leaf({40, 40}), random_leaf({40})}};
  const StepByStep<decltype(f), Tensor, 3> step_by_step{at_once.weights};
  const Tensor xs = random_leaf({50, 24, 30}), h = random_leaf({24, 40});
  Tensors leaves = {xs, h};
  leaves.insert(leaves.end(), at_once.weights.begin(), at_once.weights.end());
  const int threads_before = num_threads();
  for (bool reverse : {false, true}) {
    const ScanOptions options{.reverse = reverse, .lengths = randint(1, 51, {24}), .truncate = 7};
    const auto run = [&](const auto& cell) {
      const auto made = scan(cell, xs, h, options);
      Tensors all = {made.outputs.detach(), made.state.detach()};
      for (const Tensor& g : grad({sum(sin(made.outputs)) + sum(square(made.state))}, leaves))
        all.push_back(g);
      return all;
    };
    const Tensors expected = run(step_by_step);
    Tensors with_one_thread;
    for (int threads : {1, 2, 3}) {
      set_num_threads(threads);
      const Tensors all = run(at_once);
      if (threads == 1) with_one_thread = all;
      for (std::size_t k = 0; k < all.size(); ++k) {
        CHECK(difference(all[k], expected[k], 1e-11, 1.0) == "");
        CHECK(difference(all[k], with_one_thread[k], 0.0) == "");
      }
    }
  }
  set_num_threads(threads_before);
}

TEST_CASE("equations: a weight with a row for each sequence, and cuts by chance, go step by step") {
  manual_seed(17);
  const auto f = [](const Tensor& x, const Tensor& h, const Tensor& of_each) {
    return tanh(x + h * of_each);
  };
  const AtOnce<decltype(f), 1> at_once{{random_leaf({3, 4})}};
  const Tensor xs = random_leaf({6, 3, 4}), h = random_leaf({3, 4});
  CHECK(is_scan(scan(at_once, xs, h).outputs));
  CHECK_THROWS_AS(scan(at_once, xs, h, {.lengths = indices({6, 2, 4})}), ShapeError);
  CHECK(!is_scan(scan(at_once, xs, h, {.random_truncate = 0.5}).outputs));
  const NoGrad no_grad;  // nothing is cut then
  CHECK(difference(scan(at_once, xs, h, {.random_truncate = 0.5}).outputs,
                   scan(at_once, xs, h).outputs, 0.0) == "");
}

TEST_CASE("equations: a single step without gradients is one pass, with the same numbers") {
  manual_seed(18);
  const auto f = [](const Tensor& x, const LSTMState& s, const Tensor& w, const Tensor& u,
                    const Tensor& b, const Tensor& p) {
    const auto gates = chunk(linear(x, w, linear(s.h, u, b)), 4, -1);
    const Tensor c = sigmoid(gates[1] + p * s.c) * s.c + sigmoid(gates[0]) * tanh(gates[2]);
    return LSTMState{sigmoid(gates[3]) * tanh(c), c};
  };
  for (DType dtype : {DType::f32, DType::f64})
    for (std::int64_t B : {1, 2, 7}) {
      const auto made = [&](Shape shape) { return normal(shape, 0.0, 0.7, dtype); };
      const Tensor w = made({12, 5}), u = made({12, 3}), b = made({12}), p = made({1, 3});
      const Tensor x = transpose(made({5, B}));  // not contiguous
      const LSTMState before{made({B, 3}), made({B, 3})};
      const LSTMState plain = f(x, before, w, u, b, p);
      const Equations equations(f, w, u, b, p);
      const auto step = equations.step(x, before);
      const double tolerance = dtype == DType::f32 ? 1e-6 : 1e-14;
      CHECK(difference(step.state.h, plain.h, tolerance, 1.0) == "");
      CHECK(difference(step.state.c, plain.c, tolerance, 1.0) == "");
      CHECK(difference(step.output, plain.h, tolerance, 1.0) == "");
      const Tensor leaf = w.detach().requires_grad_();
      CHECK(Equations(f, leaf, u, b, p).step(x, before).output.requires_grad());
      const NoGrad no_grad;
      CHECK(difference(Equations(f, leaf, u, b, p).step(x, before).output, step.output, 0.0) == "");
      const Inspect inspect;
      CHECK(difference(equations.step(x, before).output, plain.h, tolerance, 1.0) == "");
    }
}

TEST_CASE("equations: a state that does not fit, and none at all") {
  const Reducing cell{random64({4, 4})};
  const Tensor xs = random64({5, 2, 3});
  CHECK_THROWS_WITH_AS(scan(cell, xs, LSTMState{random64({2, 4}), random64({2, 4})}),
                       "Equations: the function takes a state of 1 tensor, but gets 2", ValueError);
  CHECK_THROWS_WITH_AS(Equations().step(xs[0], random64({2, 4})), "Equations: there are none",
                       ValueError);
}

TEST_CASE("equations: a step that was written anew is the one that counts") {
  manual_seed(9);
  const Doubling cell(3, 4);
  const Tensor xs = normal({5, 2, 3});
  Tensor h = zeros({2, 4});
  for (std::int64_t t = 0; t < 5; ++t) h = cell.step(cell.project(xs[t]), h);
  const auto made = scan(cell, xs);
  CHECK(!is_scan(made.outputs));
  CHECK(difference(made.state, h, 1e-5, 1.0) == "");
}

TEST_CASE("equations: without gradients the numbers are the same") {
  manual_seed(10);
  const Tensor xs = normal({7, 3, 5});
  const auto check_module = [&](const auto& module) {
    const Tensor y = module(xs).outputs;
    CHECK(is_scan(y));
    NoGrad no_grad;
    CHECK(difference(module(xs).outputs, y.detach(), 1e-5, 1.0) == "");
  };
  check_module(RNN(5, 4));
  check_module(RNN(5, 4, RNNOptions{.nonlinearity = Nonlinearity::relu, .bias = false}));
  check_module(GRU(5, 4));
  check_module(GRU(5, 4, GRUOptions{.bias = false}));
  check_module(LSTM(5, 4));
  check_module(LSTM(5, 4, LSTMOptions{.bias = false}));
}

TEST_CASE("equations: one who looks on sees the time steps") {
  manual_seed(11);
  const LSTM lstm(3, 4);
  const Tensor xs = normal({5, 2, 3});
  const Tensor y = lstm(xs).outputs;
  Inspect inspect;
  const Tensor seen = lstm(xs).outputs;
  CHECK(!is_scan(seen));
  CHECK(difference(seen.detach(), y.detach(), 1e-5, 1.0) == "");
}
