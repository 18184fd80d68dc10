// Truncated backpropagation through time: at fixed links, and at random ones.

#include <doctest/doctest.h>

#include <cmath>
#include <vector>

#include "tests/recurrent.h"

using namespace unroll;
using namespace unroll::test;

namespace {

/// d(sum of seeds_t h_t) / d(w, u, b, h_0) of h_t = tanh(w x_t + u h_{t-1} + b), with the link
/// between the time steps t - 1 and t cut where t is a multiple of k:
///
///   dL/dtheta = sum over t, sum over s <= t with no cut between, of
///               seed_t * (product over r = s + 1 .. t of u (1 - h_r^2)) * (1 - h_s^2) * in_s
///
/// where in_s is x_s for w, h_{s-1} for u and 1 for b.
std::vector<double> truncated_sum(const std::vector<double>& x, const std::vector<double>& seed,
                                  double w, double u, double b, double h0, std::size_t k) {
  std::vector<double> h{h0};
  for (const double value : x) h.push_back(std::tanh(w * value + u * h.back() + b));
  const auto slope = [&](std::size_t t) { return 1.0 - h[t + 1] * h[t + 1]; };
  double dw = 0, du = 0, db = 0, dh0 = 0;
  for (std::size_t t = 0; t < x.size(); ++t) {
    double path = seed[t];
    for (std::size_t s = t;; --s) {
      const double local = path * slope(s);
      dw += local * x[s];
      du += local * h[s];
      db += local;
      if (s == 0) dh0 += local * u;
      if (s % k == 0) break;
      path = local * u;
    }
  }
  return {dw, du, db, dh0};
}

template <class M>
std::vector<Tensor> gradient(const M& module, const Tensor& xs, const typename M::State& state,
                             const Tensor& seed) {
  return grad({module(xs, state).outputs}, leaves(xs, state, module), {.grad_outputs = {seed}});
}

/// A module like `module` with other options.
template <class M>
M with(const M& module, const RecurrentOptions& options, std::int64_t in, std::int64_t hidden) {
  M other = to_f64(M(in, hidden, options));
  other.load_state_dict(module.state_dict());
  return other;
}

}  // namespace

TEST_CASE("truncation: the k-step gradient is the truncated sum derived by hand") {
  manual_seed(70);
  const std::int64_t T = 11;
  const Tensor xs = random_leaf({T, 1, 1}), seed = random64({T, 1, 1});
  const RNN full = to_f64(RNN(1, 1));
  const auto state = random_state(full, 1);
  const double w = full.cell().weight_ih.item(), u = full.cell().weight_hh.item();
  const double b = full.cell().bias_ih.item() + full.cell().bias_hh.item();
  for (const std::int64_t k : {1, 2, 3, 4, 10, 11, 12}) {
    CAPTURE(k);
    const auto expected = truncated_sum(xs.detach().to_vector<double>(), seed.to_vector<double>(),
                                        w, u, b, state[0].item(), static_cast<std::size_t>(k));
    const RNN rnn = with(full, {.truncate = k}, 1, 1);
    const auto g = gradient(rnn, xs, state, seed);  // xs, h0, w_ih, w_hh, b_ih, b_hh
    CHECK(g[2].item() == doctest::Approx(expected[0]).epsilon(1e-12));
    CHECK(g[3].item() == doctest::Approx(expected[1]).epsilon(1e-12));
    CHECK(g[4].item() == doctest::Approx(expected[2]).epsilon(1e-12));
    CHECK(g[5].item() == doctest::Approx(expected[2]).epsilon(1e-12));
    CHECK(g[1].item() == doctest::Approx(expected[3]).epsilon(1e-12));
  }
}

TEST_CASE("truncation: k = T is the whole gradient, and no k changes what comes out") {
  manual_seed(71);
  const RecurrentOptions deep{.num_layers = 2, .bidirectional = true};
  const LSTM full = to_f64(LSTM(3, 4, deep));
  const Tensor xs = random_leaf({6, 2, 3}), seed = random64({6, 2, 8});
  const auto state = random_state(full, 2);
  const auto whole = gradient(full, xs, state, seed);
  for (const std::int64_t k : {1, 2, 5, 6, 7}) {
    CAPTURE(k);
    RecurrentOptions options = deep;
    options.truncate = k;
    const LSTM lstm = with(full, options, 3, 4);
    CHECK(max_difference(lstm(xs, state).outputs, full(xs, state).outputs) < 1e-14);
    const auto g = gradient(lstm, xs, state, seed);
    double difference = 0.0;
    for (std::size_t i = 0; i < g.size(); ++i)
      difference = std::max(difference, max_difference(g[i], whole[i]));
    if (k < 6)
      CHECK(difference > 1e-3);
    else
      CHECK(difference < 1e-12);
  }
}

TEST_CASE("truncation: within a sequence it is what segments with a detached state give") {
  manual_seed(72);
  const GRU full = to_f64(GRU(3, 4, {.num_layers = 2}));
  const GRU gru = with(full, {.num_layers = 2, .truncate = 3}, 3, 4);
  const Tensor xs = random_leaf({7, 2, 3}), seed = random64({7, 2, 4});
  const auto state = random_state(full, 2);
  const auto g = gradient(gru, xs, state, seed);

  // In a stack each layer is cut at the same places, so its segments are those of the stack.
  std::vector<Tensor> outputs;
  auto carried = state;
  for (std::int64_t t = 0; t < 7; t += 3) {
    auto [ys, last] = full(slice(xs, 0, t, t + 3), carried);
    outputs.push_back(ys);
    carried = detach(last);
  }
  const auto expected =
      grad({concatenate(outputs)}, leaves(xs, state, full), {.grad_outputs = {seed}});
  for (std::size_t i = 0; i < g.size(); ++i) CHECK(max_difference(g[i], expected[i]) < 1e-12);
}

TEST_CASE("truncation: at random links, the expectation is the whole gradient") {
  manual_seed(73);
  const RecurrentOptions plain{.bidirectional = true};
  RecurrentOptions cut = plain;
  cut.random_truncate = 0.3;
  const LSTM full = to_f64(LSTM(2, 3, plain));
  const LSTM lstm = with(full, cut, 2, 3);
  const Tensor xs = random_leaf({6, 2, 2}), seed = random64({6, 2, 6});
  const auto state = random_state(full, 2);
  CHECK(max_difference(lstm(xs, state).outputs, full(xs, state).outputs) < 1e-14);

  const auto flat_gradient = [&](const LSTM& module) {
    std::vector<Tensor> parts;
    for (const Tensor& g : gradient(module, xs, state, seed)) parts.push_back(reshape(g, {-1}));
    return concatenate(parts);
  };
  const int draws = 3000;
  const Tensor whole = flat_gradient(full);
  Tensor total = zeros_like(whole), squares = zeros_like(whole);
  for (int i = 0; i < draws; ++i) {
    const Tensor g = flat_gradient(lstm);
    total.add_(g);
    squares.add_(g * g);
  }
  const std::vector<double> m = (total / draws).to_vector<double>();
  const std::vector<double> v = (squares / draws - square(total / draws)).to_vector<double>();
  const std::vector<double> w = whole.to_vector<double>();
  double worst = 0.0, sum_of_squares = 0.0;
  int varying = 0;
  for (std::size_t i = 0; i < w.size(); ++i) {
    if (v[i] < 1e-20) {  // no link lies between: always the same
      CHECK(std::abs(m[i] - w[i]) < 1e-9);
      continue;
    }
    const double z = (m[i] - w[i]) / std::sqrt(v[i] / draws);  // in standard errors
    worst = std::max(worst, std::abs(z));
    sum_of_squares += z * z;
    ++varying;
  }
  CHECK(varying > 100);
  CHECK(worst < 4.5);
  CHECK(std::sqrt(sum_of_squares / varying) < 1.6);

  // Without the new weights the mean would be off: the test can tell.
  RecurrentOptions fixed = plain;
  fixed.truncate = 3;
  const std::vector<double> biased = flat_gradient(with(full, fixed, 2, 3)).to_vector<double>();
  double off = 0.0;
  for (std::size_t i = 0; i < w.size(); ++i)
    if (v[i] >= 1e-20) off = std::max(off, std::abs(biased[i] - w[i]) / std::sqrt(v[i] / draws));
  CHECK(off > 10.0);
}

TEST_CASE("truncation: random links draw nothing when no gradient is recorded") {
  manual_seed(74);
  const GRU gru(3, 4, {.random_truncate = 0.5});
  const auto before = default_generator().state();
  const NoGrad no_grad;
  gru(zeros({5, 2, 3}));
  CHECK(default_generator().state() == before);
}

TEST_CASE("truncation: scan takes it for any cell") {
  struct Sum {
    Tensor step(const Tensor& x, const Tensor& h) const { return h + x; }
  };
  const Tensor xs = ones({6}).requires_grad_();
  const Tensor end = scan(Sum{}, xs, tensor(0.0), {.truncate = 4}).state;
  CHECK(end.item() == 6.0);
  CHECK(max_difference(grad(end, xs), tensor({0, 0, 0, 0, 1, 1})) == 0.0);
  const Tensor start = scan(Sum{}, xs, tensor(0.0), {.reverse = true, .truncate = 4}).state;
  CHECK(max_difference(grad(start, xs), tensor({1, 1, 0, 0, 0, 0})) == 0.0);
}
