// sample() and the probabilities that it draws from.

#include "modules/sampling.h"

#include <doctest/doctest.h>

#include <cmath>
#include <limits>
#include <vector>

#include "framework/check.h"
#include "framework/ops.h"

using namespace unroll;

namespace {

/// Probabilities 0.4, 0.3, 0.2, 0.1, out of order.
const std::vector<double> kProbabilities{0.2, 0.4, 0.1, 0.3};

Tensor logits() {
  std::vector<double> values;
  for (const double p : kProbabilities) values.push_back(std::log(p) + 5);
  return from_vector(values);
}

void check_probabilities(const SamplingOptions& options, const std::vector<double>& expected) {
  const std::vector<double> actual = sampling_probabilities(logits(), options).to_vector<double>();
  REQUIRE(actual.size() == expected.size());
  for (std::size_t i = 0; i < expected.size(); ++i)
    CHECK(actual[i] == doctest::Approx(expected[i]).epsilon(1e-12));
}

}  // namespace

TEST_CASE("sampling: without options the probabilities are the softmax") {
  check_probabilities({}, kProbabilities);
}

TEST_CASE("sampling: temperature raises the probabilities to the power 1 / temperature") {
  const double total = 0.04 + 0.16 + 0.01 + 0.09;
  check_probabilities({.temperature = 0.5},
                      {0.04 / total, 0.16 / total, 0.01 / total, 0.09 / total});
  check_probabilities({.temperature = 0}, {0, 1, 0, 0});
}

TEST_CASE("sampling: top-k keeps the k most probable") {
  check_probabilities({.top_k = 2}, {0, 0.4 / 0.7, 0, 0.3 / 0.7});
  check_probabilities({.top_k = 1}, {0, 1, 0, 0});
  check_probabilities({.top_k = 9}, kProbabilities);
}

TEST_CASE("sampling: top-p keeps the most probable until they reach p together") {
  check_probabilities({.top_p = 0.39}, {0, 1, 0, 0});
  check_probabilities({.top_p = 0.41}, {0, 0.4 / 0.7, 0, 0.3 / 0.7});
  check_probabilities({.top_p = 0.69}, {0, 0.4 / 0.7, 0, 0.3 / 0.7});
  check_probabilities({.top_p = 0.71}, {0.2 / 0.9, 0.4 / 0.9, 0, 0.3 / 0.9});
  check_probabilities({.top_p = 1}, kProbabilities);
}

TEST_CASE("sampling: top-p counts what top-k left, after the temperature") {
  // Of 0.4 and 0.3 at temperature 0.5: 0.16 / 0.25 = 0.64.
  check_probabilities({.temperature = 0.5, .top_k = 2, .top_p = 0.63}, {0, 1, 0, 0});
  check_probabilities({.temperature = 0.5, .top_k = 2, .top_p = 0.65}, {0, 0.64, 0, 0.36});
}

TEST_CASE("sampling: of equal logits the first ones rank higher") {
  const Tensor equal = zeros({4}, DType::f64);
  CHECK(sampling_probabilities(equal, {.top_k = 2}).to_vector<double>() ==
        std::vector<double>{0.5, 0.5, 0, 0});
  CHECK(sample(equal, {.temperature = 0}).item() == 0);
}

TEST_CASE("sampling: a class with logit -infinity is never drawn") {
  const Tensor x =
      masked_fill(logits(), tensor({0, 1, 0, 0}), -std::numeric_limits<double>::infinity());
  const std::vector<double> p = sampling_probabilities(x, {}).to_vector<double>();
  CHECK(p[1] == 0);
  CHECK(p[3] == doctest::Approx(0.5).epsilon(1e-12));
}

TEST_CASE("sampling: rows of a batch are drawn one by one, as often as they are probable") {
  const Tensor rows = stack({logits(), flip(logits(), 0)}).to(DType::f32);
  const Tensor p = sampling_probabilities(rows, {.top_k = 3});
  CHECK(p.dtype() == DType::f32);
  CHECK(p.shape() == Shape{2, 4});

  Generator generator(1);
  std::vector<std::vector<double>> counts(2, std::vector<double>(4, 0.0));
  constexpr int kDraws = 20'000;
  for (int i = 0; i < kDraws; ++i) {
    const auto drawn = sample(rows, {.top_k = 3}, generator).to_vector<std::int64_t>();
    REQUIRE(drawn.size() == 2);
    for (std::size_t row = 0; row < 2; ++row)
      counts[row][static_cast<std::size_t>(drawn[row])] += 1;
  }
  for (std::size_t i = 0; i < 4; ++i) {
    const double expected = i == 2 ? 0 : kProbabilities[i] / 0.9;
    // Five standard deviations of a share.
    const double bound = 5 * std::sqrt(expected * (1 - expected) / kDraws);
    CHECK(std::abs(counts[0][i] / kDraws - expected) <= bound);
    CHECK(std::abs(counts[1][3 - i] / kDraws - expected) <= bound);
  }
}

TEST_CASE("sampling: the generator decides, and temperature 0 leaves it alone") {
  Generator a(3), b(3), untouched(3);
  for (int i = 0; i < 10; ++i)
    CHECK(sample(logits(), {}, a).item() == sample(logits(), {}, b).item());
  sample(logits(), {.temperature = 0}, untouched);
  CHECK(untouched.state() == Generator(3).state());
  CHECK(sample(logits(), {}, a).shape() == Shape{});
}

TEST_CASE("sampling: mistakes are named") {
  CHECK_THROWS_WITH_AS(sample(logits(), {.temperature = -1}),
                       "sample: temperature must be at least 0, but is -1", ValueError);
  CHECK_THROWS_WITH_AS(sample(logits(), {.top_k = -1}),
                       "sample: top_k must be at least 0, but is -1", ValueError);
  CHECK_THROWS_WITH_AS(sample(logits(), {.top_p = 0}),
                       "sample: top_p must be above 0 and at most 1, but is 0", ValueError);
  CHECK_THROWS_WITH_AS(sample(logits(), {.top_p = std::nan("")}),
                       "sample: top_p must be above 0 and at most 1, but is nan", ValueError);
  CHECK_THROWS_WITH_AS(sample(zeros({2, 3, 4})),
                       "sample: logits must be [V] or [B, V] with V >= 1, but are (2, 3, 4)",
                       ShapeError);
  CHECK_THROWS_WITH_AS(sample(zeros({2, 0})),
                       "sample: logits must be [V] or [B, V] with V >= 1, but are (2, 0)",
                       ShapeError);
  CHECK_THROWS_WITH_AS(sample(arange(3)), "sample: logits must be f32 or f64, but are i64",
                       DTypeError);
  CHECK_THROWS_WITH_AS(sample(tensor({0, NAN})), "sample: the logit of class 1 is NaN", ValueError);
  CHECK_THROWS_WITH_AS(sample(full({2}, -INFINITY)), "sample: the largest logit is -inf",
                       ValueError);
  CHECK_THROWS_WITH_AS(sample(tensor({0, INFINITY})), "sample: the largest logit is inf",
                       ValueError);
}
