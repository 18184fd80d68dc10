/// Series and their classical forecasts.

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <numbers>
#include <numeric>
#include <span>
#include <vector>

#include "data/series.h"
#include "framework/autograd.h"
#include "framework/check.h"
#include "framework/ops.h"

using namespace unroll;

namespace {

using Values = std::vector<double>;

double mean(const Values& x) {
  return std::accumulate(x.begin(), x.end(), 0.0) / static_cast<double>(x.size());
}

double squared_error(const Autoregression& ar, const Values& x) {
  double total = 0;
  for (std::size_t t = ar.coefficients.size(); t < x.size(); ++t)
    total += std::pow(ar.forecast(std::span(x).first(t), 1)[0] - x[t], 2);
  return total;
}

}  // namespace

TEST_CASE("a noisy sine has its period and its noise") {
  const Values clean = noisy_sine(9, 8, 0);
  for (std::size_t t = 0; t < clean.size(); ++t)
    CHECK(clean[t] == doctest::Approx(std::sin(std::numbers::pi / 4 * static_cast<double>(t))));
  Generator generator(1);
  Values noise = noisy_sine(4000, 50, 0.2, generator);
  const Values sine = noisy_sine(4000, 50, 0);
  for (std::size_t t = 0; t < noise.size(); ++t) noise[t] = std::pow(noise[t] - sine[t], 2);
  CHECK(std::sqrt(mean(noise)) == doctest::Approx(0.2).epsilon(0.05));
  CHECK(noisy_sine(0, 1, 1).empty());
  CHECK_THROWS_WITH_AS(noisy_sine(-1, 1, 1), "noisy_sine: the length is -1", ValueError);
  CHECK_THROWS_WITH_AS(noisy_sine(1, 0, 1), "noisy_sine: the period must be above 0, not 0",
                       ValueError);
  CHECK_THROWS_WITH_AS(noisy_sine(1, 1, -0.1), "noisy_sine: the noise must be at least 0, not -0.1",
                       ValueError);
}

TEST_CASE("the Mackey-Glass equation: its fixed point, its chaos") {
  // For a short delay x goes to 1, where 0.2 / (1 + 1) = 0.1.
  for (const double x : mackey_glass(20, 2)) CHECK(x == doctest::Approx(1.0).epsilon(1e-6));
  // With a delay of 17 it stays between the known bounds of the attractor and repeats nothing.
  const Values x = mackey_glass(2000);
  CHECK(*std::min_element(x.begin(), x.end()) == doctest::Approx(0.4).epsilon(0.1));
  CHECK(*std::max_element(x.begin(), x.end()) == doctest::Approx(1.33).epsilon(0.05));
  // A value per unit of time holds every sixth one.
  const Values fine = mackey_glass(61, 17, 1), coarse = mackey_glass(11, 17, 6);
  for (std::size_t i = 0; i < coarse.size(); ++i) CHECK(coarse[i] == fine[6 * i]);
  // The equation itself, by central differences.
  for (std::size_t t = 20; t + 1 < fine.size(); ++t) {
    const double delayed = fine[t - 17];
    const double slope = 0.2 * delayed / (1 + std::pow(delayed, 10)) - 0.1 * fine[t];
    CHECK((fine[t + 1] - fine[t - 1]) / 2 == doctest::Approx(slope).epsilon(0.02).scale(0.05));
  }
  CHECK_THROWS_WITH_AS(mackey_glass(-1), "mackey_glass: the length is -1", ValueError);
  CHECK_THROWS_WITH_AS(mackey_glass(1, 0), "mackey_glass: the delay must be at least 1, not 0",
                       ValueError);
  CHECK_THROWS_WITH_AS(mackey_glass(1, 17, 0),
                       "mackey_glass: the interval must be at least 1, not 0", ValueError);
}

TEST_CASE("an autoregression is found again") {
  Generator generator(2);
  Values exact{1, 2, -1}, noisy{0, 0};
  for (int t = 0; t < 40; ++t)
    exact.push_back(0.5 + 0.6 * exact.rbegin()[0] - 0.9 * exact.rbegin()[1] +
                    0.3 * exact.rbegin()[2]);
  const Autoregression found = fit_autoregression(exact, 3);
  CHECK(found.intercept == doctest::Approx(0.5));
  CHECK(found.coefficients[0] == doctest::Approx(0.6));
  CHECK(found.coefficients[1] == doctest::Approx(-0.9));
  CHECK(found.coefficients[2] == doctest::Approx(0.3));
  const std::span known(exact.data(), 30);
  const Values next = found.forecast(known, 5);
  for (std::size_t k = 0; k < next.size(); ++k) CHECK(next[k] == doctest::Approx(exact[30 + k]));

  for (int t = 0; t < 500; ++t)
    noisy.push_back(0.2 + 0.7 * noisy.rbegin()[0] - 0.2 * noisy.rbegin()[1] + generator.normal());
  const Autoregression best = fit_autoregression(noisy, 2);
  CHECK(best.coefficients[0] == doctest::Approx(0.7).epsilon(0.2));
  for (int i = 0; i < 3; ++i)  // no other weights near by have a smaller error
    for (const double change : {-0.01, 0.01}) {
      Autoregression other = best;
      (i < 2 ? other.coefficients[static_cast<std::size_t>(i)] : other.intercept) += change;
      CHECK(squared_error(other, noisy) > squared_error(best, noisy));
    }
}

TEST_CASE("an autoregression of values that leave it open") {
  const Autoregression constant = fit_autoregression(Values(20, 3.0), 4);
  CHECK(constant.forecast(Values(4, 3.0), 2) == Values{3.0, 3.0});
  const Autoregression zero = fit_autoregression(Values(20, 0.0), 2);
  CHECK(zero.forecast(Values{0, 0}, 1) == Values{0.0});
  CHECK(zero.forecast(Values{0, 0}, 0).empty());
  CHECK_THROWS_WITH_AS(zero.forecast(Values{0}, 1),
                       "Autoregression: a history of 1 values for order 2", ValueError);
  CHECK_THROWS_WITH_AS(zero.forecast(Values{0, 0}, -1), "Autoregression: -1 steps", ValueError);
  CHECK_THROWS_WITH_AS(fit_autoregression(Values(8, 1.0), 4),
                       "fit_autoregression: order 4 needs more than 8 values, not 8", ValueError);
  CHECK_THROWS_WITH_AS(fit_autoregression(Values(8, 1.0), 0),
                       "fit_autoregression: the order must be at least 1, not 0", ValueError);
}

TEST_CASE("a Markov chain counts transitions") {
  const Values x{0, 1, 0, 1, 1, 0};  // 0 -> 1 twice; 1 -> 0 twice, 1 -> 1 once
  const MarkovChain chain(x, 2, 0.5);
  REQUIRE(chain.states() == 2);
  CHECK(chain.state(-5) == 0);
  CHECK(chain.state(0.9) == 0);
  CHECK(chain.state(1) == 1);
  CHECK(chain.state(9) == 1);
  CHECK(chain.transitions() == std::vector<Values>{{0.5 / 3, 2.5 / 3}, {2.5 / 4, 1.5 / 4}});
  const double up = 2.5 / 3, stay = 1.5 / 4;  // P(1 | 0), P(1 | 1)
  const Values two = chain.forecast(0, 2);
  CHECK(two[0] == doctest::Approx(up));
  CHECK(two[1] == doctest::Approx((1 - up) * up + up * stay));
  CHECK(chain.forecast(1, 0).empty());

  const MarkovChain equal(Values{1, 2, 3, 4, 5, 6}, 3, 0.1);
  CHECK(equal.state(2) == 0);
  CHECK(equal.state(3) == 1);
  CHECK(equal.state(5) == 2);
  CHECK(MarkovChain(Values{7, 7, 7}, 5, 0.1).states() == 1);
  CHECK(MarkovChain(Values{7, 7, 7}, 5, 0.1).forecast(7, 1) == Values{7});
  CHECK(MarkovChain(Values{0, 0, 0, 0, 0, 0, 1, 2}, 4, 0.1).states() == 2);

  CHECK_THROWS_WITH_AS(MarkovChain(Values{1}, 2, 0.1),
                       "MarkovChain: the series has 1 values, and needs 2", ValueError);
  CHECK_THROWS_WITH_AS(MarkovChain(x, 0, 0.1), "MarkovChain: 0 states", ValueError);
  CHECK_THROWS_WITH_AS(MarkovChain(x, 2, 0), "MarkovChain: epsilon must be above 0, not 0",
                       ValueError);
  CHECK_THROWS_WITH_AS(chain.forecast(0, -1), "MarkovChain: -1 steps", ValueError);
}

TEST_CASE("a series is brought to mean 0 and standard deviation 1, and back") {
  const Values x{1, 3, 1, 3, 7};
  const StandardScaler scaler{std::span(x).first(4)};
  CHECK(scaler.mean == doctest::Approx(2));
  CHECK(scaler.std == doctest::Approx(1));
  const Values z = scaler.transform(x);
  for (std::size_t t = 0; t < x.size(); ++t) {
    CHECK(z[t] == doctest::Approx(x[t] - 2));
    CHECK(scaler.inverse(z[t]) == doctest::Approx(x[t]));
  }
  CHECK(scaler.inverse(from_vector(z))[4].item() == doctest::Approx(7));
  CHECK(StandardScaler().transform(x) == x);
  CHECK_THROWS_WITH_AS(StandardScaler(Values{}), "StandardScaler: the series has no values",
                       ValueError);
  CHECK_THROWS_WITH_AS(StandardScaler(Values(10, 0.1)),
                       "StandardScaler: the 10 values are all the same", ValueError);
  CHECK_THROWS_WITH_AS(StandardScaler(Values{-1e200, 1e200}),
                       "StandardScaler: the standard deviation of the values is inf", ValueError);
}

TEST_CASE("windows that slide over a series") {
  const Values x{1, 2, 3, 4, 5};
  const Tensor windows = sliding_windows(x, 3);
  CHECK(windows.shape() == Shape{3, 3});
  CHECK(windows.to_vector<float>() == std::vector<float>{1, 2, 3, 2, 3, 4, 3, 4, 5});
  CHECK(sliding_windows(x, 5).shape() == Shape{5, 1});
  CHECK(sliding_windows(x, 1).shape() == Shape{1, 5});
  CHECK_THROWS_WITH_AS(sliding_windows(x, 0),
                       "sliding_windows: the length must be at least 1, not 0", ValueError);
  CHECK_THROWS_WITH_AS(sliding_windows(x, 6),
                       "sliding_windows: windows of 6 values in a series of 5", ValueError);
}

TEST_CASE("forecasts from a rolling origin, and their errors") {
  const Values x{1, 2, 4, 8, 16, 32};
  const auto persistence = [](std::span<const double> known) { return Values(2, known.back()); };
  const Tensor forecasts = rolling_forecasts(std::span(x).first(5), 1, persistence);
  CHECK(forecasts.dtype() == DType::f64);
  CHECK(forecasts.shape() == Shape{4, 2});
  CHECK(forecasts.to_vector<double>() == Values{2, 2, 4, 4, 8, 8, 16, 16});
  // The targets are 8, 16 and 32; one step before them there was 4, 8, 16, two steps 2, 4, 8.
  const Values errors = rolling_rmse(x, forecasts);
  REQUIRE(errors.size() == 2);
  CHECK(errors[0] == doctest::Approx(std::sqrt((16. + 64 + 256) / 3)));
  CHECK(errors[1] == doctest::Approx(std::sqrt((36. + 144 + 576) / 3)));

  // The same by a model of windows: its last row is what it knows last.
  const auto last_row = [](const Tensor& windows) {
    CHECK(windows.size(0) == 2);
    CHECK_FALSE(grad_enabled());
    return stack({windows[-1], windows[-1]}, 1);
  };
  const Tensor same = rolling_forecasts(std::span(x).first(5), 1, 2, last_row);
  CHECK(same.dtype() == DType::f64);
  CHECK(same.to_vector<double>() == forecasts.to_vector<double>());
  // More of them than one batch has.
  const Tensor many = rolling_forecasts(Values(2500, 1.0), 1, 2, last_row);
  CHECK(many.shape() == Shape{2499, 2});

  CHECK_THROWS_WITH_AS(rolling_forecasts(x, 6, persistence),
                       "rolling_forecasts: the first time must be in [0, 6), not 6", ValueError);
  CHECK_THROWS_WITH_AS(rolling_forecasts(x, -1, persistence),
                       "rolling_forecasts: the first time must be in [0, 6), not -1", ValueError);
  CHECK_THROWS_WITH_AS(rolling_forecasts(x, 0, 2, last_row),
                       "rolling_forecasts: the first time must be in [1, 6), not 0", ValueError);
  CHECK_THROWS_WITH_AS(rolling_forecasts(x, 0, 0, last_row),
                       "rolling_forecasts: windows of 0 values", ValueError);
  CHECK_THROWS_WITH_AS(
      rolling_forecasts(x, 0, [](std::span<const double> known) { return Values(known.size()); }),
      "rolling_forecasts: forecast 1 is of 2 values, those before it are of 1", ValueError);
  CHECK_THROWS_WITH_AS(rolling_forecasts(x, 1, 2, [](const Tensor& windows) { return windows; }),
                       "rolling_forecasts: 5 windows have forecasts of shape (2, 5)", ShapeError);
  CHECK_THROWS_WITH_AS(rolling_rmse(x, zeros({4, 2})), "rolling_rmse: the forecasts are of f32",
                       DTypeError);
  CHECK_THROWS_WITH_AS(rolling_rmse(x, zeros({2, 3}, DType::f64)),
                       "rolling_rmse: forecasts [N, horizon] with N >= horizon >= 1, not (2, 3)",
                       ShapeError);
  CHECK_THROWS_WITH_AS(rolling_rmse(x, zeros({6, 2}, DType::f64)),
                       "rolling_rmse: 6 forecasts for a series of 6 values", ValueError);
}
