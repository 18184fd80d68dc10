// LayerNorm, the library's less common cells, and cells that users write: against the written-out
// formulas, and through the whole stack.

#include <doctest/doctest.h>

#include <cmath>
#include <vector>

#include "tests/recurrent.h"
#include "tests/reference.h"

using namespace unroll;
using namespace unroll::test;

namespace {

/// One sequence's numbers, computed with nothing but loops.
using Vec = std::vector<double>;

Vec to_vec(const Tensor& t) { return t.detach().contiguous().to_vector<double>(); }
double sig(double a) { return 1.0 / (1.0 + std::exp(-a)); }

/// Rows [first, first + x.size() of w) of W x.
Vec product(const Tensor& w, const Vec& x) {
  const Vec values = to_vec(w);
  Vec y(static_cast<std::size_t>(w.size(0)));
  for (std::size_t i = 0; i < y.size(); ++i)
    for (std::size_t j = 0; j < x.size(); ++j) y[i] += values[i * x.size() + j] * x[j];
  return y;
}

/// n elements from `first` on, normalised, times weight, plus bias.
Vec normed(const Vec& x, std::size_t first, std::size_t n, const LayerNorm& norm) {
  double m = 0, v = 0;
  for (std::size_t i = 0; i < n; ++i) m += x[first + i] / static_cast<double>(n);
  for (std::size_t i = 0; i < n; ++i)
    v += (x[first + i] - m) * (x[first + i] - m) / static_cast<double>(n);
  const Vec weight = to_vec(norm.weight), bias = to_vec(norm.bias);
  Vec y(n);
  for (std::size_t i = 0; i < n; ++i)
    y[i] = (x[first + i] - m) / std::sqrt(v + norm.eps) * weight[i] + bias[i];
  return y;
}

/// Steps a cell and its formula over three time steps. formula(x, parts of the state) changes the
/// parts, of which the first is the output.
template <class Cell, class Formula>
void compare_with_formula(Cell cell, Formula formula) {
  cell.to(DType::f64);
  {
    const NoGrad no_grad;  // weights and biases of norms, too, are numbers like any others
    for (Tensor& parameter : cell.parameters()) parameter.copy_(random64(parameter.shape()));
  }
  const Tensor xs = random64({3, 1, cell.input_size});
  const auto start = random_state(cell, 1);
  const auto [outputs, last] = scan(cell, xs, start);
  std::vector<Vec> state;
  for (const Tensor& t : tensors_of(start)) state.push_back(to_vec(t));
  for (std::int64_t t = 0; t < 3; ++t) {
    formula(cell, to_vec(xs[t]), state);
    CHECK(max_difference(outputs[t], from_vector(state[0], {1, cell.hidden_size})) < 1e-13);
  }
  const std::vector<Tensor> ends = tensors_of(last);
  for (std::size_t i = 0; i < ends.size(); ++i)
    CHECK(max_difference(ends[i], from_vector(state[i], {1, cell.hidden_size})) < 1e-13);
}

}  // namespace

// --- LayerNorm ----------------------------------------------------------------------------------

TEST_CASE("layer norm: values and gradients equal PyTorch's") {
  int cases = 0;
  for (const nlohmann::json& test : read_reference("layer_norm.json")) {
    const Shape shape(test["shape"].get<std::vector<std::int64_t>>());
    const Shape last(test["normalized_shape"].get<std::vector<std::int64_t>>());
    for (const DType dtype : {DType::f32, DType::f64}) {
      const double tolerance = dtype == DType::f32 ? 1e-5 : 1e-10;
      CAPTURE(test["seed"].dump());
      LayerNorm norm(last, {.eps = test["eps"], .elementwise_affine = test["affine"]});
      norm.to(dtype);
      Draw draw(test["seed"]);
      {
        const NoGrad no_grad;
        for (Tensor& parameter : norm.parameters()) parameter.copy_(draw(parameter.shape(), dtype));
      }
      const Tensor x = draw(shape, dtype).requires_grad_();
      const Tensor y = norm(x);
      y.backward(draw(shape, dtype));
      CHECK(max_difference(y, read_numbers(test["y"], y)) < tolerance);
      CHECK(max_difference(x.grad(), read_numbers(test["x_grad"], x)) < tolerance);
      for (const auto& [name, parameter] : norm.named_parameters())
        CHECK(max_difference(parameter.grad(),
                             read_numbers(test["parameter_grads"][name], parameter)) < tolerance);
      ++cases;
    }
  }
  CHECK(cases == 10);
}

TEST_CASE("layer norm: gradcheck of orders 1 and 2") {
  manual_seed(80);
  const LayerNorm norm = to_f64(LayerNorm({2, 3}));
  const Tensor x = random_leaf({2, 2, 3});
  const auto f = [&](const std::vector<Tensor>& in) { return norm(in[0]); };
  CHECK(gradcheck_message(f, {x, norm.weight, norm.bias}, {.order = 1}) == "");
  CHECK(gradcheck_message(f, {x, norm.weight, norm.bias}, {.order = 2}) == "");
}

TEST_CASE("layer norm: what comes out has mean 0 and variance 1, wherever the input lies") {
  manual_seed(81);
  const LayerNorm norm(50);
  const Tensor y = norm(normal({4, 50}) * 30.0 + 1000.0);
  CHECK(max_difference(mean(y, -1), zeros({4})) < 1e-4);
  CHECK(max_difference(var(y, -1, false, 0.0), ones({4})) < 1e-3);
  CHECK(max_difference(norm.weight, ones({50})) == 0.0);
  CHECK(max_difference(norm.bias, zeros({50})) == 0.0);
  CHECK(LayerNorm(3, {.elementwise_affine = false}).parameters().empty());
}

TEST_CASE("layer norm: errors") {
  CHECK_THROWS_WITH_AS(LayerNorm({3, 4})(zeros({2, 4})),
                       "LayerNorm: x must end with (3, 4), but is (2, 4)", ShapeError);
  CHECK_THROWS_WITH_AS(LayerNorm({3, 4})(zeros({4})),
                       "LayerNorm: x must end with (3, 4), but is (4)", ShapeError);
  CHECK_THROWS_WITH_AS(LayerNorm(0), "LayerNorm: sizes are at least 1, but the shape is (0)",
                       ValueError);
  CHECK_THROWS_WITH_AS(LayerNorm(Shape{}),
                       "LayerNorm: normalized_shape needs one dimension or more", ValueError);
  CHECK_THROWS_WITH_AS(LayerNorm(3, {.eps = -1}), "LayerNorm: eps must not be negative, but is -1",
                       ValueError);
}

// --- The formulas -------------------------------------------------------------------------------

TEST_CASE("cells: a peephole LSTM equals its formula") {
  manual_seed(82);
  compare_with_formula(PeepholeLSTMCell(3, 4), [](const PeepholeLSTMCell& cell, const Vec& x,
                                                  std::vector<Vec>& state) {
    const Vec wx = product(cell.weight_ih, x), uh = product(cell.weight_hh, state[0]);
    const Vec b_i = to_vec(cell.bias_ih), b_h = to_vec(cell.bias_hh);
    const Vec ci = to_vec(cell.weight_ci), cf = to_vec(cell.weight_cf), co = to_vec(cell.weight_co);
    for (std::size_t j = 0; j < 4; ++j) {
      const auto a = [&](std::size_t gate) {
        const std::size_t r = gate * 4 + j;
        return wx[r] + b_i[r] + uh[r] + b_h[r];
      };
      double& c = state[1][j];
      const double i = sig(a(0) + ci[j] * c), f = sig(a(1) + cf[j] * c), g = std::tanh(a(2));
      c = f * c + i * g;
      state[0][j] = sig(a(3) + co[j] * c) * std::tanh(c);
    }
  });
}

TEST_CASE("cells: a coupled LSTM equals its formula") {
  manual_seed(83);
  compare_with_formula(CoupledLSTMCell(3, 4), [](const CoupledLSTMCell& cell, const Vec& x,
                                                 std::vector<Vec>& state) {
    const Vec wx = product(cell.weight_ih, x), uh = product(cell.weight_hh, state[0]);
    const Vec b_i = to_vec(cell.bias_ih), b_h = to_vec(cell.bias_hh);
    for (std::size_t j = 0; j < 4; ++j) {
      const auto a = [&](std::size_t gate) {
        const std::size_t r = gate * 4 + j;
        return wx[r] + b_i[r] + uh[r] + b_h[r];
      };
      double& c = state[1][j];
      c = (1 - sig(a(0))) * c + sig(a(0)) * std::tanh(a(1));
      state[0][j] = sig(a(2)) * std::tanh(c);
    }
  });
}

TEST_CASE("cells: an LSTM with layer normalisation equals its formula") {
  manual_seed(84);
  compare_with_formula(LayerNormLSTMCell(3, 4), [](const LayerNormLSTMCell& cell, const Vec& x,
                                                   std::vector<Vec>& state) {
    const Vec wx = normed(product(cell.weight_ih, x), 0, 16, cell.norm_ih);
    const Vec uh = normed(product(cell.weight_hh, state[0]), 0, 16, cell.norm_hh);
    for (std::size_t j = 0; j < 4; ++j) {
      const auto a = [&](std::size_t gate) { return wx[gate * 4 + j] + uh[gate * 4 + j]; };
      state[1][j] = sig(a(1)) * state[1][j] + sig(a(0)) * std::tanh(a(2));
    }
    const Vec c = normed(state[1], 0, 4, cell.norm_c);
    for (std::size_t j = 0; j < 4; ++j)
      state[0][j] = sig(wx[12 + j] + uh[12 + j]) * std::tanh(c[j]);
  });
}

TEST_CASE("cells: a GRU with layer normalisation equals its formula") {
  manual_seed(85);
  compare_with_formula(LayerNormGRUCell(3, 4), [](const LayerNormGRUCell& cell, const Vec& x,
                                                  std::vector<Vec>& state) {
    const Vec wx = product(cell.weight_ih, x), uh = product(cell.weight_hh, state[0]);
    const Vec x_g = normed(wx, 0, 8, cell.norm_ih), h_g = normed(uh, 0, 8, cell.norm_hh);
    const Vec x_n = normed(wx, 8, 4, cell.norm_in), h_n = normed(uh, 8, 4, cell.norm_hn);
    for (std::size_t j = 0; j < 4; ++j) {
      const double r = sig(x_g[j] + h_g[j]), z = sig(x_g[4 + j] + h_g[4 + j]);
      const double n = std::tanh(x_n[j] + r * h_n[j]);
      state[0][j] = (1 - z) * n + z * state[0][j];
    }
  });
}

TEST_CASE("cells: a GRU with layer normalisation carries its state past a mask") {
  manual_seed(86);
  const LayerNormGRUCell cell = to_f64(LayerNormGRUCell(3, 4));
  const Tensor x = cell.project(random64({2, 3})), h = random64({2, 4});
  CHECK(max_difference(cell.step(x, h, ones_like(h)), cell.step(x, h)) < 1e-14);
  // With the mask 0 the products see no h: what h carries is z * h, with z for h = 0.
  const Tensor zero = zeros_like(h);
  const Tensor without = cell.step(x, zero, zero);  // (1 - z) * n
  const Tensor z =
      sigmoid(narrow(x, 1, 4, 4) + narrow(cell.norm_hh(zeros({2, 8}, DType::f64)), 1, 4, 4));
  CHECK(max_difference(cell.step(x, h, zero), without + z * h) < 1e-14);
}

TEST_CASE("cells: biases can be left out, and start as PyTorch's do") {
  CHECK(PeepholeLSTMCell(3, 4, {.bias = false}).parameters().size() == 5);
  CHECK(CoupledLSTMCell(3, 4, {.bias = false}).parameters().size() == 2);
  const PeepholeLSTMCell cell(3, 50);
  for (const Tensor& parameter : cell.parameters())
    CHECK(max(abs(parameter)).item() <= 1.0 / std::sqrt(50.0));
  CHECK(CoupledLSTMCell(3, 4).weight_hh.shape() == Shape{12, 4});
}

TEST_CASE("cells: gradcheck, lengths and streaming through the whole stack") {
  manual_seed(87);
  const RecurrentOptions deep{.num_layers = 2, .bidirectional = true};
  const auto check = [&]<class Cell>(const Cell*) {
    check_gradients(Recurrent<Cell>(2, 2, deep), 2, indices({3, 2}));
    check_gradients(Recurrent<Cell>(2, 2), 2, {}, 2);
    check_lengths(Recurrent<Cell>(2, 3, deep), 2);
    check_streaming(Recurrent<Cell>(2, 3, {.num_layers = 2}), 2);
  };
  SUBCASE("peephole LSTM") { check(static_cast<const PeepholeLSTMCell*>(nullptr)); }
  SUBCASE("coupled LSTM") { check(static_cast<const CoupledLSTMCell*>(nullptr)); }
  // With two units a layer norm is -1 and 1 whatever goes in: three have a gradient to check.
  const auto check_norm = [&]<class Cell>(const Cell*) {
    check_gradients(Recurrent<Cell>(2, 3, deep), 2, indices({3, 2}));
    check_gradients(Recurrent<Cell>(2, 3), 2, {}, 2);
    check_lengths(Recurrent<Cell>(2, 3, deep), 2);
    check_streaming(Recurrent<Cell>(2, 3, {.num_layers = 2}), 2);
  };
  SUBCASE("layer-norm LSTM") { check_norm(static_cast<const LayerNormLSTMCell*>(nullptr)); }
  SUBCASE("layer-norm GRU") { check_norm(static_cast<const LayerNormGRUCell*>(nullptr)); }
}

// --- Cells that users write ---------------------------------------------------------------------

namespace {

/// Minimal gated unit (Zhou et al. 2016): one gate.
struct MinimalGatedUnit : Module {
  Linear x_f, x_n, h_f, h_n;
  MinimalGatedUnit(std::int64_t in, std::int64_t n)
      : x_f(child("x_f", Linear(in, n))),
        x_n(child("x_n", Linear(in, n))),
        h_f(child("h_f", Linear(n, n, false))),
        h_n(child("h_n", Linear(n, n, false))) {}
  Tensor initial_state(std::int64_t batch) const { return zeros({batch, h_f.in_features}); }
  Tensor project(const Tensor& xs) const { return concatenate({x_f(xs), x_n(xs)}, -1); }
  Tensor step(const Tensor& x, const Tensor& h) const {
    const auto xs = chunk(x, 2, -1);
    const Tensor f = sigmoid(xs[0] + h_f(h));
    return (1 - f) * h + f * tanh(xs[1] + h_n(f * h));
  }
};

/// An LSTM with peepholes and normalised gates, in a user's own words.
struct NormPeepholeLSTM : Module {
  Linear w;
  Tensor p;
  LayerNorm norm;
  NormPeepholeLSTM(std::int64_t in, std::int64_t n)
      : w(child("w", Linear(in + n, 4 * n))),
        p(param("p", normal({3, n}))),
        norm(child("norm", LayerNorm(4 * n))) {}
  LSTMState initial_state(std::int64_t batch) const {
    return {zeros({batch, p.size(1)}), zeros({batch, p.size(1)})};
  }
  LSTMState step(const Tensor& x, const LSTMState& s) const {
    const auto a = chunk(norm(w(concatenate({x, s.h}, 1))), 4, 1);
    const Tensor c = sigmoid(a[1] + p[1] * s.c) * s.c + sigmoid(a[0] + p[0] * s.c) * tanh(a[2]);
    return {sigmoid(a[3] + p[2] * c) * tanh(c), c};
  }
};

/// A diagonal linear recurrence (as in Orvieto et al. 2023, with real eigenvalues): h' = a * h + b
/// * W x, with 0 < a < 1; puts out tanh(h').
struct DiagonalRecurrence : Module {
  Linear w;
  Tensor rate;
  DiagonalRecurrence(std::int64_t in, std::int64_t n)
      : w(child("w", Linear(in, n))), rate(param("rate", normal({n}))) {}
  Tensor initial_state(std::int64_t batch) const { return zeros({batch, rate.numel()}); }
  Tensor project(const Tensor& xs) const { return w(xs); }
  std::pair<Tensor, Tensor> step(const Tensor& x, const Tensor& h) const {
    const Tensor a = exp(-softplus(rate));
    const Tensor next = a * h + sqrt(1 - a * a) * x;
    return {tanh(next), next};
  }
};

/// All that a stack gives, for any cell that is made from two sizes.
template <class Cell>
void check_everything() {
  manual_seed(88);
  const RecurrentOptions deep{.num_layers = 2, .bidirectional = true};
  const Tensor lengths = indices({3, 2});
  check_gradients(Recurrent<Cell>(2, 3, deep), 2, lengths);
  check_gradients(Recurrent([](std::int64_t layer, bool) { return Cell(layer == 0 ? 2 : 3, 3); },
                            {.num_layers = 2,
                             .batch_first = true,
                             .dropout = 0.3,
                             .bidirectional = true,
                             .merge = Merge::sum,
                             .variational = {.input = 0.2, .output = 0.2, .recurrent = 0.2}}),
                  2, lengths);
  check_lengths(Recurrent<Cell>(2, 3, deep), 2);
  check_lengths(Recurrent<Cell>(2, 3, {.num_layers = 2, .bidirectional = true, .truncate = 2}), 2);
  check_streaming(Recurrent<Cell>(2, 3, {.num_layers = 2}), 2);

  const auto module = to_f64(Recurrent<Cell>(2, 3, {.truncate = 2}));
  const Tensor xs = random_leaf({5, 2, 2});
  const Tensor g = grad(sum(module(xs).outputs[4]), xs);
  CHECK(max_difference(narrow(g, 0, 0, 4), zeros({4, 2, 2}, DType::f64)) == 0.0);
  CHECK(max(abs(g[4])).item() > 0.0);
}

}  // namespace

TEST_CASE("cells: one that a user writes gets all that a stack gives") {
  SUBCASE("minimal gated unit") { check_everything<MinimalGatedUnit>(); }
  SUBCASE("peephole LSTM with layer norm") { check_everything<NormPeepholeLSTM>(); }
  SUBCASE("diagonal linear recurrence") { check_everything<DiagonalRecurrence>(); }
}
