// gradient_reach: against the Jacobians of a linear recurrence, and against .grad of each state.

#include "modules/gradient_reach.h"

#include <cmath>

#include "modules/recurrent.h"
#include "tests/recurrent.h"

using namespace unroll;
using namespace unroll::test;

TEST_CASE("gradient_reach: is what backward() leaves in the states") {
  manual_seed(90);
  const LSTM lstm = to_f64(LSTM(3, 4, {.num_layers = 2}));
  const Tensor xs = random64({6, 5, 3});
  Generator one(7), same(7);
  const std::vector<double> reach = gradient_reach(lstm, xs, one);

  std::vector<Tensor> hs;
  LSTM::State state;
  for (std::int64_t t = 0; t < 6; ++t) {
    auto [h, next] = lstm.step(xs[t], state);
    h.retain_grad();
    hs.push_back(h);
    state = next;
  }
  const Tensor direction = normal({5, 4}, 0, 1, DType::f64, same);
  sum(hs[5] * direction / norm(direction, 2, {1}, true)).backward();
  REQUIRE(reach.size() == 6);
  for (std::size_t d = 0; d < 6; ++d)
    CHECK(reach[d] == doctest::Approx(mean(norm(hs[5 - d].grad(), 2, {1})).item()));
  CHECK(reach[0] == doctest::Approx(1));
}

TEST_CASE(
    "gradient_reach: a scaled rotation shrinks or grows by its radius, and no .grad changes") {
  for (const double radius : {0.5, 1.0, 1.5}) {
    const RNN rnn = to_f64(RNN(2, 3));
    const auto& cell = rnn.cell();
    init::orthogonal_(cell.weight_hh.detach(), radius);
    cell.bias_ih.detach().zero_(), cell.bias_hh.detach().zero_();
    // So small that tanh(x) is x.
    const std::vector<double> reach = gradient_reach(rnn, 1e-12 * random64({8, 4, 2}));
    for (std::size_t d = 0; d < 8; ++d)
      CHECK(reach[d] == doctest::Approx(std::pow(radius, static_cast<double>(d))));
    CHECK_FALSE(cell.weight_hh.grad().defined());
  }
  CHECK_THROWS_WITH_AS(gradient_reach(RNN(2, 3), zeros({0, 4, 2})),
                       "gradient_reach: needs a time step or more", ShapeError);
}
