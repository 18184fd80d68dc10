// Cells, scan, Recurrent: against PyTorch, against backpropagation through time derived by hand,
// against the textbooks' writings, and by properties that they all have.

#include "modules/modules.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <functional>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "framework/autograd.h"
#include "framework/gradcheck.h"
#include "framework/random.h"
#include "tests/compare.h"
#include "tests/recurrent.h"
#include "tests/reference.h"

using namespace unroll;
using namespace unroll::test;

namespace {

/// The states of the library's cells as a list of tensors, and back.
std::vector<Tensor> to_list(const Tensor& h) { return {h}; }
std::vector<Tensor> to_list(const LSTMState& state) { return {state.h, state.c}; }
void from_list(const std::vector<Tensor>& list, Tensor& h) { h = list[0]; }
void from_list(const std::vector<Tensor>& list, LSTMState& state) { state = {list[0], list[1]}; }

/// sum(outputs * seed_0) + sum(state tensor 1 * seed_1) + ...
template <class State>
Tensor weighted(const ScanResult<State>& result, const std::vector<Tensor>& seeds) {
  Tensor total = sum(result.outputs * seeds[0]);
  const std::vector<Tensor> state = to_list(result.state);
  for (std::size_t i = 0; i < state.size(); ++i) total = total + sum(state[i] * seeds[i + 1]);
  return total;
}

}  // namespace

// --- PyTorch ------------------------------------------------------------------------------------

namespace {

using Json = nlohmann::json;

/// What stands behind the lengths becomes NaN.
void poison_padding(Tensor xs, const std::vector<std::int64_t>& lengths, bool batch_first) {
  for (std::size_t b = 0; b < lengths.size(); ++b) {
    Tensor sequence = select(xs, batch_first ? 0 : 1, static_cast<std::int64_t>(b));
    narrow(sequence, 0, lengths[b], sequence.size(0) - lengths[b]).fill_(std::nan(""));
  }
}

/// Runs one reference case; every number must agree to `tolerance`.
template <class M>
void compare_with_pytorch(M module, const Json& test, DType dtype, double tolerance) {
  module.to(dtype);
  Draw draw(test["seed"]);
  {
    const NoGrad no_grad;
    for (Tensor& parameter : module.parameters()) parameter.copy_(draw(parameter.shape(), dtype));
  }
  const std::int64_t T = test["sizes"][0], B = test["sizes"][1], in = test["sizes"][2];
  const std::int64_t H = test["sizes"][3], projected = test["proj_size"];
  const std::int64_t width = projected > 0 ? projected : H, cells = module.num_cells();
  const bool batch_first = test["batch_first"];
  const bool lstm = test["cell"] == "lstm";
  const std::vector<std::string> names =
      lstm ? std::vector<std::string>{"h", "c"} : std::vector<std::string>{"h"};

  Tensor xs = draw(batch_first ? Shape{B, T, in} : Shape{T, B, in}, dtype);
  Tensor lengths;
  if (!test["lengths"].is_null()) {
    const auto list = test["lengths"].get<std::vector<std::int64_t>>();
    lengths = from_vector(list);
    poison_padding(xs, list, batch_first);
  }
  xs.requires_grad_();
  std::vector<Tensor> initial, seeds;  // h, c: [cells, B, ...]
  for (std::size_t i = 0; i < names.size(); ++i)
    initial.push_back(draw({cells, B, i == 0 ? width : H}, dtype).requires_grad_());
  const std::int64_t out = width * (test["bidirectional"] ? 2 : 1);
  seeds.push_back(draw(batch_first ? Shape{B, T, out} : Shape{T, B, out}, dtype));
  for (const Tensor& state : initial) seeds.push_back(draw(state.shape(), dtype));

  typename M::State start(static_cast<std::size_t>(cells));
  for (std::size_t c = 0; c < start.size(); ++c) {
    std::vector<Tensor> list;
    for (const Tensor& state : initial) list.push_back(state[static_cast<std::int64_t>(c)]);
    from_list(list, start[c]);
  }
  const auto [outputs, last] = module(xs, start, lengths);
  std::vector<Tensor> ends;  // h, c: [cells, B, ...]
  for (std::size_t i = 0; i < names.size(); ++i) {
    std::vector<Tensor> list;
    for (const auto& state : last) list.push_back(to_list(state)[i]);
    ends.push_back(stack(list));
  }
  Tensor loss = sum(outputs * seeds[0]);
  for (std::size_t i = 0; i < names.size(); ++i) loss = loss + sum(ends[i] * seeds[i + 1]);
  loss.backward();

  const auto agree = [&](const Tensor& ours, const Json& theirs) {
    CHECK(max_difference(ours, read_numbers(theirs, ours)) < tolerance);
  };
  agree(outputs, test["outputs"]);
  agree(xs.grad(), test["xs_grad"]);
  for (std::size_t i = 0; i < names.size(); ++i) {
    agree(ends[i], test["last"][names[i]]);
    agree(initial[i].grad(), test["initial_grads"][names[i]]);
  }
  CHECK(module.named_parameters().size() == test["parameter_grads"].size());
  for (const auto& entry : module.named_parameters()) {
    CAPTURE(entry.first);
    agree(entry.second.grad(), test["parameter_grads"][entry.first]);
  }
}

}  // namespace

TEST_CASE("recurrent: values, final states and all gradients equal PyTorch's") {
  int cases = 0;
  for (const Json& test : read_reference("recurrent.json")) {
    const std::string cell = test["cell"];
    const std::int64_t in = test["sizes"][2], hidden = test["sizes"][3];
    const RecurrentOptions options{.num_layers = test["layers"],
                                   .batch_first = test["batch_first"],
                                   .bidirectional = test["bidirectional"]};
    const bool bias = test["bias"];
    for (const DType dtype : {DType::f32, DType::f64}) {
      const double tolerance = dtype == DType::f32 ? 1e-5 : 1e-10;
      INFO("case ", test["seed"].dump(), ", ", cell, ", ", to_string(dtype));
      if (cell == "gru") {
        compare_with_pytorch(GRU(in, hidden, options, {.bias = bias}), test, dtype, tolerance);
      } else if (cell == "lstm") {
        const LSTMOptions lstm{.bias = bias, .proj_size = test["proj_size"]};
        compare_with_pytorch(LSTM(in, hidden, options, lstm), test, dtype, tolerance);
      } else {
        const auto f = cell == "relu" ? Nonlinearity::relu : Nonlinearity::tanh;
        compare_with_pytorch(RNN(in, hidden, options, {.nonlinearity = f, .bias = bias}), test,
                             dtype, tolerance);
      }
      ++cases;
    }
  }
  CHECK(cases == 188);
}

// --- Backpropagation through time by hand -------------------------------------------------------

namespace {

using Vec = std::vector<double>;

struct Mat {
  std::size_t rows = 0, cols = 0;
  Vec a;

  static Mat from(const Tensor& t) {
    const bool vector = t.dim() == 1;
    return {static_cast<std::size_t>(t.size(0)), vector ? 1 : static_cast<std::size_t>(t.size(1)),
            t.detach().to_vector<double>()};
  }
  Mat like() const { return {rows, cols, Vec(a.size())}; }
  double& at(std::size_t i, std::size_t j) { return a[i * cols + j]; }
  double at(std::size_t i, std::size_t j) const { return a[i * cols + j]; }
  Vec row(std::size_t i) const {
    const auto first = a.begin() + static_cast<std::ptrdiff_t>(i * cols);
    return Vec(first, first + static_cast<std::ptrdiff_t>(cols));
  }
  void set_row(std::size_t i, const Vec& v) {
    std::copy(v.begin(), v.end(), a.begin() + static_cast<std::ptrdiff_t>(i * cols));
  }
};

/// rows [first, first + n) of W, times x
Vec times(const Mat& w, const Vec& x, std::size_t first, std::size_t n) {
  Vec y(n);
  for (std::size_t i = 0; i < n; ++i)
    for (std::size_t j = 0; j < x.size(); ++j) y[i] += w.at(first + i, j) * x[j];
  return y;
}
/// dx += rows' g
void times_transposed(const Mat& w, const Vec& g, std::size_t first, Vec& dx) {
  for (std::size_t i = 0; i < g.size(); ++i)
    for (std::size_t j = 0; j < dx.size(); ++j) dx[j] += w.at(first + i, j) * g[i];
}
/// rows of dW += g x'
void add_outer(Mat& dw, const Vec& g, const Vec& x, std::size_t first) {
  for (std::size_t i = 0; i < g.size(); ++i)
    for (std::size_t j = 0; j < x.size(); ++j) dw.at(first + i, j) += g[i] * x[j];
}
double sig(double a) { return 1.0 / (1.0 + std::exp(-a)); }

/// What hand-derived BPTT works on. Sequences of rows: [t * B + b].
struct Problem {
  std::size_t T, B, H;
  Mat w_ih, w_hh, b_ih, b_hh;                                // parameters
  Mat xs, h0, c0;                                            // input and initial state
  Mat seed_out, seed_h, seed_c;                              // dL/d(outputs), dL/dh_T, dL/dc_T
  Mat d_w_ih, d_w_hh, d_b_ih, d_b_hh, d_xs, d_h0, d_c0, hs;  // results
};

/// A pre-activation that is W_ih[rows] x + b_ih[rows] + W_hh[rows] h + b_hh[rows].
double gate(const Problem& p, const Vec& wx, const Vec& uh, std::size_t i) {
  return wx[i] + p.b_ih.a[i] + uh[i] + p.b_hh.a[i];
}

/// h_t = f(W_ih x_t + b_ih + W_hh h_{t-1} + b_hh); f' is written with h_t.
void rnn_bptt(Problem& p, bool relu_cell) {
  for (std::size_t b = 0; b < p.B; ++b) {
    std::vector<Vec> h{p.h0.row(b)};
    for (std::size_t t = 0; t < p.T; ++t) {
      const Vec wx = times(p.w_ih, p.xs.row(t * p.B + b), 0, p.H);
      const Vec uh = times(p.w_hh, h[t], 0, p.H);
      Vec next(p.H);
      for (std::size_t i = 0; i < p.H; ++i) {
        const double a = gate(p, wx, uh, i);
        next[i] = relu_cell ? std::max(a, 0.0) : std::tanh(a);
      }
      h.push_back(next);
      p.hs.set_row(t * p.B + b, next);
    }
    Vec dh = p.seed_h.row(b);
    for (std::size_t t = p.T; t-- > 0;) {
      Vec da(p.H);
      for (std::size_t i = 0; i < p.H; ++i) {
        dh[i] += p.seed_out.at(t * p.B + b, i);
        const double y = h[t + 1][i];
        da[i] = dh[i] * (relu_cell ? (y > 0.0 ? 1.0 : 0.0) : 1.0 - y * y);
      }
      add_outer(p.d_w_ih, da, p.xs.row(t * p.B + b), 0);
      add_outer(p.d_w_hh, da, h[t], 0);
      add_outer(p.d_b_ih, da, {1.0}, 0);
      add_outer(p.d_b_hh, da, {1.0}, 0);
      Vec dx(p.xs.cols);
      times_transposed(p.w_ih, da, 0, dx);
      p.d_xs.set_row(t * p.B + b, dx);
      dh.assign(p.H, 0.0);
      times_transposed(p.w_hh, da, 0, dh);
    }
    p.d_h0.set_row(b, dh);
  }
}

void gru_bptt(Problem& p, bool reset_after) {
  const std::size_t H = p.H;
  struct Kept {
    Vec r, z, n, q;  // q = W_hn h + b_hn
  };
  for (std::size_t b = 0; b < p.B; ++b) {
    std::vector<Vec> h{p.h0.row(b)};
    std::vector<Kept> kept;
    for (std::size_t t = 0; t < p.T; ++t) {
      const Vec wx = times(p.w_ih, p.xs.row(t * p.B + b), 0, 3 * H);
      const Vec uh = times(p.w_hh, h[t], 0, 3 * H);
      Kept k{Vec(H), Vec(H), Vec(H), Vec(H)};
      Vec rh(H), next(H);
      for (std::size_t i = 0; i < H; ++i) {
        k.r[i] = sig(gate(p, wx, uh, i));
        k.z[i] = sig(gate(p, wx, uh, H + i));
        k.q[i] = uh[2 * H + i] + p.b_hh.a[2 * H + i];
        rh[i] = k.r[i] * h[t][i];
      }
      const Vec u_rh = times(p.w_hh, rh, 2 * H, H);
      for (std::size_t i = 0; i < H; ++i) {
        const double recurrent = reset_after ? k.r[i] * k.q[i] : u_rh[i] + p.b_hh.a[2 * H + i];
        k.n[i] = std::tanh(wx[2 * H + i] + p.b_ih.a[2 * H + i] + recurrent);
        next[i] = (1.0 - k.z[i]) * k.n[i] + k.z[i] * h[t][i];
      }
      h.push_back(next);
      kept.push_back(k);
      p.hs.set_row(t * p.B + b, next);
    }
    Vec dh = p.seed_h.row(b);
    for (std::size_t t = p.T; t-- > 0;) {
      const Kept& k = kept[t];
      const Vec x = p.xs.row(t * p.B + b);
      Vec da_r(H), da_z(H), da_n(H), d_before(H);
      for (std::size_t i = 0; i < H; ++i) {
        dh[i] += p.seed_out.at(t * p.B + b, i);
        da_n[i] = dh[i] * (1.0 - k.z[i]) * (1.0 - k.n[i] * k.n[i]);
        da_z[i] = dh[i] * (h[t][i] - k.n[i]) * k.z[i] * (1.0 - k.z[i]);
        d_before[i] = dh[i] * k.z[i];
      }
      Vec dr(H);
      if (reset_after) {
        Vec dq(H);
        for (std::size_t i = 0; i < H; ++i) {
          dr[i] = da_n[i] * k.q[i];
          dq[i] = da_n[i] * k.r[i];
        }
        add_outer(p.d_w_hh, dq, h[t], 2 * H);
        add_outer(p.d_b_hh, dq, {1.0}, 2 * H);
        times_transposed(p.w_hh, dq, 2 * H, d_before);
      } else {
        Vec rh(H), d_rh(H);
        for (std::size_t i = 0; i < H; ++i) rh[i] = k.r[i] * h[t][i];
        add_outer(p.d_w_hh, da_n, rh, 2 * H);
        add_outer(p.d_b_hh, da_n, {1.0}, 2 * H);
        times_transposed(p.w_hh, da_n, 2 * H, d_rh);
        for (std::size_t i = 0; i < H; ++i) {
          dr[i] = d_rh[i] * h[t][i];
          d_before[i] += d_rh[i] * k.r[i];
        }
      }
      for (std::size_t i = 0; i < H; ++i) da_r[i] = dr[i] * k.r[i] * (1.0 - k.r[i]);
      Vec dx(x.size());
      std::size_t first = 0;
      for (const Vec* da : {&da_r, &da_z, &da_n}) {
        add_outer(p.d_w_ih, *da, x, first);
        add_outer(p.d_b_ih, *da, {1.0}, first);
        times_transposed(p.w_ih, *da, first, dx);
        if (da != &da_n) {
          add_outer(p.d_w_hh, *da, h[t], first);
          add_outer(p.d_b_hh, *da, {1.0}, first);
          times_transposed(p.w_hh, *da, first, d_before);
        }
        first += H;
      }
      p.d_xs.set_row(t * p.B + b, dx);
      dh = d_before;
    }
    p.d_h0.set_row(b, dh);
  }
}

void lstm_bptt(Problem& p) {
  const std::size_t H = p.H;
  struct Kept {
    Vec i, f, g, o;
  };
  for (std::size_t b = 0; b < p.B; ++b) {
    std::vector<Vec> h{p.h0.row(b)}, c{p.c0.row(b)};
    std::vector<Kept> kept;
    for (std::size_t t = 0; t < p.T; ++t) {
      const Vec wx = times(p.w_ih, p.xs.row(t * p.B + b), 0, 4 * H);
      const Vec uh = times(p.w_hh, h[t], 0, 4 * H);
      Kept k{Vec(H), Vec(H), Vec(H), Vec(H)};
      Vec next_c(H), next_h(H);
      for (std::size_t j = 0; j < H; ++j) {
        k.i[j] = sig(gate(p, wx, uh, j));
        k.f[j] = sig(gate(p, wx, uh, H + j));
        k.g[j] = std::tanh(gate(p, wx, uh, 2 * H + j));
        k.o[j] = sig(gate(p, wx, uh, 3 * H + j));
        next_c[j] = k.f[j] * c[t][j] + k.i[j] * k.g[j];
        next_h[j] = k.o[j] * std::tanh(next_c[j]);
      }
      h.push_back(next_h);
      c.push_back(next_c);
      kept.push_back(k);
      p.hs.set_row(t * p.B + b, next_h);
    }
    Vec dh = p.seed_h.row(b), dc = p.seed_c.row(b);
    for (std::size_t t = p.T; t-- > 0;) {
      const Kept& k = kept[t];
      const Vec x = p.xs.row(t * p.B + b);
      Vec da(4 * H);
      for (std::size_t j = 0; j < H; ++j) {
        dh[j] += p.seed_out.at(t * p.B + b, j);
        const double y = std::tanh(c[t + 1][j]);
        dc[j] += dh[j] * k.o[j] * (1.0 - y * y);
        da[j] = dc[j] * k.g[j] * k.i[j] * (1.0 - k.i[j]);
        da[H + j] = dc[j] * c[t][j] * k.f[j] * (1.0 - k.f[j]);
        da[2 * H + j] = dc[j] * k.i[j] * (1.0 - k.g[j] * k.g[j]);
        da[3 * H + j] = dh[j] * y * k.o[j] * (1.0 - k.o[j]);
        dc[j] *= k.f[j];
      }
      add_outer(p.d_w_ih, da, x, 0);
      add_outer(p.d_w_hh, da, h[t], 0);
      add_outer(p.d_b_ih, da, {1.0}, 0);
      add_outer(p.d_b_hh, da, {1.0}, 0);
      Vec dx(x.size());
      times_transposed(p.w_ih, da, 0, dx);
      p.d_xs.set_row(t * p.B + b, dx);
      dh.assign(H, 0.0);
      times_transposed(p.w_hh, da, 0, dh);
    }
    p.d_h0.set_row(b, dh);
    p.d_c0.set_row(b, dc);
  }
}

/// The tape's gradients of a module against those of `by_hand`.
template <class M>
void compare_with_hand(M module, const std::function<void(Problem&)>& by_hand) {
  const std::int64_t T = 7, B = 3;
  module.to(DType::f64);
  const auto& cell = module.cell();
  const std::int64_t in = cell.input_size, H = cell.hidden_size;
  const Tensor xs = random_leaf({T, B, in});
  const std::vector<Tensor> initial{random_leaf({B, H}), random_leaf({B, H})};
  const std::vector<Tensor> seeds{random64({T, B, H}), random64({B, H}), random64({B, H})};

  typename M::CellState start;
  from_list(initial, start);
  const auto [outputs, last] = module(xs, {start});
  weighted(ScanResult<typename M::CellState>{outputs, last[0]}, seeds).backward();

  const auto rows = [](const Tensor& t) { return Mat::from(reshape(t, {-1, t.size(-1)})); };
  Problem p;
  p.T = static_cast<std::size_t>(T);
  p.B = static_cast<std::size_t>(B);
  p.H = static_cast<std::size_t>(H);
  p.w_ih = Mat::from(cell.weight_ih);
  p.w_hh = Mat::from(cell.weight_hh);
  p.b_ih = Mat::from(cell.bias_ih);
  p.b_hh = Mat::from(cell.bias_hh);
  p.xs = rows(xs);
  p.h0 = rows(initial[0]);
  p.c0 = rows(initial[1]);
  p.seed_out = rows(seeds[0]);
  p.seed_h = rows(seeds[1]);
  p.seed_c = rows(seeds[2]);
  p.d_w_ih = p.w_ih.like();
  p.d_w_hh = p.w_hh.like();
  p.d_b_ih = p.b_ih.like();
  p.d_b_hh = p.b_hh.like();
  p.d_xs = p.xs.like();
  p.d_h0 = p.h0.like();
  p.d_c0 = p.c0.like();
  p.hs = p.seed_out.like();
  by_hand(p);

  const auto agree = [](const Tensor& tape, const Mat& hand) {
    CHECK(max_difference(tape, from_vector(hand.a, tape.shape())) < 1e-10);
  };
  agree(outputs, p.hs);
  agree(cell.weight_ih.grad(), p.d_w_ih);
  agree(cell.weight_hh.grad(), p.d_w_hh);
  agree(cell.bias_ih.grad(), p.d_b_ih);
  agree(cell.bias_hh.grad(), p.d_b_hh);
  agree(xs.grad(), p.d_xs);
  agree(initial[0].grad(), p.d_h0);
  if (to_list(start).size() == 2) agree(initial[1].grad(), p.d_c0);
}

}  // namespace

TEST_CASE("recurrent: the tape's gradients equal BPTT derived by hand") {
  manual_seed(21);
  SUBCASE("RNN, tanh") {
    compare_with_hand(RNN(4, 5), [](Problem& p) { rnn_bptt(p, false); });
  }
  SUBCASE("RNN, relu") {
    compare_with_hand(RNN(4, 5, {.nonlinearity = Nonlinearity::relu}),
                      [](Problem& p) { rnn_bptt(p, true); });
  }
  SUBCASE("GRU, reset after the product") {
    compare_with_hand(GRU(4, 5), [](Problem& p) { gru_bptt(p, true); });
  }
  SUBCASE("GRU, reset before the product") {
    compare_with_hand(GRU(4, 5, {.reset_after = false}), [](Problem& p) { gru_bptt(p, false); });
  }
  SUBCASE("LSTM") { compare_with_hand(LSTM(4, 5), lstm_bptt); }
}

// --- Textbook writings --------------------------------------------------------------------------

namespace {

/// [W_hh, W_ih] of one gate (rows [gate * H, (gate + 1) * H)): what multiplies [h, x].
template <class Cell>
Tensor joined(const Cell& cell, std::int64_t gate) {
  const std::int64_t H = cell.hidden_size;
  return concatenate(
      {narrow(cell.weight_hh, 0, gate * H, H), narrow(cell.weight_ih, 0, gate * H, H)}, 1);
}
template <class Cell>
Tensor joined_bias(const Cell& cell, std::int64_t gate) {
  const std::int64_t H = cell.hidden_size;
  return narrow(cell.bias_ih, 0, gate * H, H) + narrow(cell.bias_hh, 0, gate * H, H);
}

Tensor apply(const Tensor& w, const Tensor& h, const Tensor& x) {
  return matmul(concatenate({h, x}, 1), transpose(w));
}

/// h' = tanh(W [h, x] + b)
struct TextbookRNN {
  Tensor w, b;
  Tensor step(const Tensor& x, const Tensor& h) const { return tanh(apply(w, h, x) + b); }
};

/// z = sigmoid(W_z [h, x]), r = sigmoid(W_r [h, x]), n = tanh(W [r * h, x]),
/// h' = (1 - z) * h + z * n: z is the part that is new, and gates have no bias.
struct TextbookGRU {
  Tensor w_z, w_r, w;
  Tensor step(const Tensor& x, const Tensor& h) const {
    const Tensor z = sigmoid(apply(w_z, h, x));
    const Tensor r = sigmoid(apply(w_r, h, x));
    const Tensor n = tanh(apply(w, r * h, x));
    return (1 - z) * h + z * n;
  }
};

/// f = sigmoid(W_f [h, x] + b_f), and so on.
struct TextbookLSTM {
  std::array<Tensor, 4> w, b;  // i, f, c~, o
  LSTMState step(const Tensor& x, const LSTMState& s) const {
    const Tensor i = sigmoid(apply(w[0], s.h, x) + b[0]);
    const Tensor f = sigmoid(apply(w[1], s.h, x) + b[1]);
    const Tensor candidate = tanh(apply(w[2], s.h, x) + b[2]);
    const Tensor o = sigmoid(apply(w[3], s.h, x) + b[3]);
    const Tensor c = f * s.c + i * candidate;
    return {o * tanh(c), c};
  }
};

/// Both cells give the same outputs and the same gradient of the inputs and of ours' parameters.
template <class Ours, class Theirs, class State>
void compare_writings(const Ours& ours, const Theirs& theirs, const State& start) {
  const Tensor xs = random_leaf({6, 2, ours.input_size});
  const Tensor seed = random64({6, 2, ours.hidden_size});
  const Tensor a = scan(ours, xs, start).outputs;
  const Tensor b = scan(theirs, xs, start).outputs;
  CHECK(max_difference(a, b) < 1e-13);
  std::vector<Tensor> leaves{xs};
  for (const Tensor& parameter : ours.parameters()) leaves.push_back(parameter);
  const auto grads_a = grad({a}, leaves, {.grad_outputs = {seed}});
  const auto grads_b = grad({b}, leaves, {.grad_outputs = {seed}});
  for (std::size_t i = 0; i < leaves.size(); ++i)
    CHECK(max_difference(grads_a[i], grads_b[i]) < 1e-12);
}

}  // namespace

TEST_CASE("recurrent: textbook writings are ours after the matching change of weights") {
  manual_seed(22);
  const Tensor h = random64({2, 4});
  SUBCASE("RNN with one matrix on [h, x]") {
    const auto cell = to_f64(RNNCell(3, 4));
    compare_writings(cell, TextbookRNN{joined(cell, 0), joined_bias(cell, 0)}, h);
  }
  SUBCASE("LSTM with one matrix per gate on [h, x]") {
    const auto cell = to_f64(LSTMCell(3, 4));
    TextbookLSTM textbook;
    for (std::int64_t gate = 0; gate < 4; ++gate) {
      textbook.w[static_cast<std::size_t>(gate)] = joined(cell, gate);
      textbook.b[static_cast<std::size_t>(gate)] = joined_bias(cell, gate);
    }
    compare_writings(cell, textbook, LSTMState{h, random64({2, 4})});
  }
  SUBCASE("GRU on [h, x], z and 1 - z exchanged (W_z negated), no biases") {
    const auto cell = to_f64(GRUCell(3, 4, {.bias = false, .reset_after = false}));
    compare_writings(cell, TextbookGRU{-joined(cell, 1), joined(cell, 0), joined(cell, 2)}, h);
  }
  SUBCASE("a GRU without biases is one whose biases are 0") {
    for (const bool reset_after : {true, false}) {
      const auto cell = to_f64(GRUCell(3, 4, {.bias = false, .reset_after = reset_after}));
      auto biased = to_f64(GRUCell(3, 4, {.reset_after = reset_after}));
      biased.load_state_dict({{"weight_ih", cell.weight_ih.detach()},
                              {"weight_hh", cell.weight_hh.detach()},
                              {"bias_ih", zeros({12})},
                              {"bias_hh", zeros({12})}});
      const Tensor xs = random64({5, 2, 3});
      CHECK(max_difference(scan(cell, xs, h).outputs, scan(biased, xs, h).outputs) == 0.0);
    }
  }
}

// --- gradcheck ----------------------------------------------------------------------------------

TEST_CASE("recurrent: gradcheck of orders 1 and 2 over parameters, inputs and initial states") {
  manual_seed(23);
  const auto check = [](auto module) {
    module.to(DType::f64);
    using CellState = typename decltype(module)::CellState;
    std::vector<Tensor> inputs{random_leaf({3, 2, 2}), random_leaf({2, 2})};
    if constexpr (std::is_same_v<CellState, LSTMState>) inputs.push_back(random_leaf({2, 2}));
    const std::size_t states = inputs.size() - 1;
    for (const Tensor& parameter : module.parameters()) inputs.push_back(parameter);
    const auto f = [&](const std::vector<Tensor>& in) {
      CellState start;
      from_list({in.begin() + 1, in.begin() + 1 + static_cast<std::ptrdiff_t>(states)}, start);
      const auto [outputs, last] = module(in[0], {start});
      const Tensor end = to_list(last[0]).back();
      return concatenate({reshape(outputs, {-1}), reshape(end * end, {-1})});
    };
    CHECK(gradcheck_message(f, inputs, {.order = 1}) == "");
    CHECK(gradcheck_message(f, inputs, {.order = 2}) == "");
  };
  SUBCASE("RNN, tanh") { check(RNN(2, 2)); }
  SUBCASE("RNN, relu") { check(RNN(2, 2, {.nonlinearity = Nonlinearity::relu})); }
  SUBCASE("GRU") { check(GRU(2, 2)); }
  SUBCASE("GRU, reset before") { check(GRU(2, 2, {.reset_after = false})); }
  SUBCASE("GRU, no bias") { check(GRU(2, 2, {.bias = false})); }
  SUBCASE("LSTM") { check(LSTM(2, 2)); }
}

// --- Parameters ---------------------------------------------------------------------------------

TEST_CASE("recurrent: parameters have PyTorch's names, shapes and start") {
  manual_seed(24);
  const LSTM lstm(3, 50);
  const std::vector<std::pair<std::string, Shape>> wanted{{"weight_ih_l0", {200, 3}},
                                                          {"weight_hh_l0", {200, 50}},
                                                          {"bias_ih_l0", {200}},
                                                          {"bias_hh_l0", {200}}};
  REQUIRE(lstm.named_parameters().size() == wanted.size());
  for (std::size_t i = 0; i < wanted.size(); ++i) {
    CHECK(lstm.named_parameters()[i].first == wanted[i].first);
    CHECK(lstm.named_parameters()[i].second.shape() == wanted[i].second);
  }
  const double k = 1.0 / std::sqrt(50.0);
  for (const Tensor& parameter : lstm.parameters()) {
    CHECK(max(abs(parameter)).item() <= k);
    CHECK(max(abs(parameter)).item() > 0.9 * k);
  }
  CHECK(GRU(3, 5, {.bias = false}).parameters().size() == 2);
  CHECK(GRUCell(3, 5).weight_ih.shape() == Shape{15, 3});
  CHECK(RNNCell(3, 5).named_parameters()[0].first == "weight_ih");
}

TEST_CASE("recurrent: the forget gate's bias can be set") {
  const LSTMCell cell(3, 4, {.forget_bias = 1.0});
  const Tensor total = cell.bias_ih + cell.bias_hh;
  CHECK(max_difference(narrow(total, 0, 4, 4), ones({4})) == 0.0);
  CHECK(max(abs(narrow(total, 0, 0, 4))).item() < 1.0 + 1e-6);
  CHECK(cell.bias_ih.requires_grad());
  CHECK_THROWS_WITH_AS(LSTMCell(3, 4, {.bias = false, .forget_bias = 1.0}),
                       "LSTMCell: forget_bias needs bias", ValueError);
}

// --- Properties ---------------------------------------------------------------------------------

TEST_CASE("recurrent: the gradient is linear in the loss") {
  manual_seed(25);
  const GRU gru = to_f64(GRU(3, 4));
  const Tensor xs = random64({5, 2, 3});
  const Tensor s1 = random64({5, 2, 4}), s2 = random64({5, 2, 4});
  const auto gradient = [&](const Tensor& seed) {
    return grad({gru(xs).outputs}, gru.parameters(), {.grad_outputs = {seed}});
  };
  const auto g1 = gradient(s1), g2 = gradient(s2), both = gradient(s1 * 2.0 - s2 * 3.0);
  for (std::size_t i = 0; i < both.size(); ++i)
    CHECK(max_difference(both[i], g1[i] * 2.0 - g2[i] * 3.0) < 1e-12);
}

TEST_CASE("recurrent: gradients of a weight's copies, one per time step, sum to the shared one's") {
  manual_seed(26);
  const auto check = [](auto cell, auto start) {
    const std::int64_t T = 5;
    const Tensor xs = random64({T, 2, 3}), seed = random64({T, 2, 4});
    const auto shared =
        grad({scan(cell, xs, start).outputs}, cell.parameters(), {.grad_outputs = {seed}});

    std::vector<decltype(cell)> cells;
    std::vector<Tensor> outputs;
    auto state = start;
    for (std::int64_t t = 0; t < T; ++t) {
      cells.push_back(clone(cell));
      state = cells.back().step(cells.back().project(xs[t]), state);
      outputs.push_back(to_list(state)[0]);
    }
    std::vector<Tensor> total;
    backward({stack(outputs)}, {seed});
    for (std::size_t i = 0; i < shared.size(); ++i) {
      Tensor sum_over_time = zeros_like(shared[i]);
      for (const auto& one : cells) sum_over_time = sum_over_time + one.parameters()[i].grad();
      CHECK(max_difference(sum_over_time, shared[i]) < 1e-12);
    }
  };
  check(to_f64(RNNCell(3, 4)), random64({2, 4}));
  check(to_f64(GRUCell(3, 4)), random64({2, 4}));
  check(to_f64(LSTMCell(3, 4)), LSTMState{random64({2, 4}), random64({2, 4})});
}

TEST_CASE("recurrent: splitting the batch changes neither outputs nor gradients") {
  manual_seed(27);
  const LSTM lstm = to_f64(LSTM(3, 4));
  const Tensor xs = random64({5, 6, 3}), seed = random64({5, 6, 4});
  const Tensor whole = lstm(xs).outputs;
  const auto g = grad({whole}, lstm.parameters(), {.grad_outputs = {seed}});

  std::vector<Tensor> outputs, sums;
  for (const auto& [first, n] : {std::pair<std::int64_t, std::int64_t>{0, 1}, {1, 2}, {3, 3}}) {
    outputs.push_back(lstm(narrow(xs, 1, first, n)).outputs);
    const auto part =
        grad({outputs.back()}, lstm.parameters(), {.grad_outputs = {narrow(seed, 1, first, n)}});
    for (std::size_t i = 0; i < part.size(); ++i)
      if (i < sums.size())
        sums[i] = sums[i] + part[i];
      else
        sums.push_back(part[i]);
  }
  CHECK(max_difference(concatenate(outputs, 1), whole) < 1e-14);
  for (std::size_t i = 0; i < g.size(); ++i) CHECK(max_difference(sums[i], g[i]) < 1e-12);
}

TEST_CASE("recurrent: a state carried on continues the sequence, and detached the gradient stops") {
  manual_seed(28);
  const GRU gru = to_f64(GRU(3, 4));
  const Tensor xs = random_leaf({6, 2, 3});
  const Tensor seed = random64({6, 2, 4});
  const Tensor whole = gru(xs).outputs;
  const Tensor full = grad(whole, xs, {.grad_outputs = {seed}});

  const auto [first, state] = gru(narrow(xs, 0, 0, 4));
  const Tensor second = gru(narrow(xs, 0, 4, 2), state).outputs;
  CHECK(max_difference(concatenate({first, second}), whole) < 1e-14);
  const auto carried =
      grad({first, second}, {xs},
           {.retain_graph = true, .grad_outputs = {narrow(seed, 0, 0, 4), narrow(seed, 0, 4, 2)}});
  CHECK(max_difference(carried[0], full) < 1e-13);

  const Tensor cut = gru(narrow(xs, 0, 4, 2), detach(state)).outputs;
  CHECK(max_difference(cut, second) == 0.0);
  const Tensor g = grad(cut, xs, {.grad_outputs = {narrow(seed, 0, 4, 2)}});
  CHECK(max_difference(narrow(g, 0, 0, 4), zeros({4, 2, 3}, DType::f64)) == 0.0);
  CHECK(max_difference(narrow(g, 0, 4, 2), narrow(full, 0, 4, 2)) < 1e-13);
}

TEST_CASE("recurrent: streaming step by step gives what the whole sequence gives") {
  manual_seed(29);
  const LSTM lstm(3, 4);
  const Tensor xs = normal({5, 2, 3});
  const auto [whole, last] = lstm(xs);
  LSTM::State state;
  for (std::int64_t t = 0; t < 5; ++t) {
    const auto by_step = lstm.step(xs[t], state);
    const auto by_call = lstm(narrow(xs, 0, t, 1), state);
    CHECK(max_difference(by_step.output, whole[t]) < 1e-6);
    CHECK(max_difference(by_call.outputs[0], whole[t]) < 1e-6);
    state = by_step.state;
  }
  CHECK(max_difference(state[0].c, last[0].c) < 1e-6);
}
