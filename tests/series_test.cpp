/// Series and their classical forecasts.

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <numbers>
#include <numeric>
#include <span>
#include <vector>

#include "data/series.h"
#include "framework/check.h"

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
