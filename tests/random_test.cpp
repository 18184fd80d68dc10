#include "framework/random.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <limits>
#include <thread>
#include <vector>

#include "framework/autograd.h"
#include "framework/check.h"
#include "framework/gradcheck.h"
#include "framework/ops.h"

using namespace unroll;

namespace {

/// xoshiro256++ as its authors' paper defines it (Blackman and Vigna 2019, figure 5), for
/// comparison.
struct Reference {
  std::uint64_t s[4];

  static std::uint64_t rotate(std::uint64_t x, int k) { return (x << k) | (x >> (64 - k)); }
  std::uint64_t next() {
    const std::uint64_t result = rotate(s[0] + s[3], 23) + s[0];
    const std::uint64_t t = s[1] << 17;
    s[2] ^= s[0];
    s[3] ^= s[1];
    s[1] ^= s[2];
    s[0] ^= s[3];
    s[2] ^= t;
    s[3] = rotate(s[3], 45);
    return result;
  }
};

struct Moments {
  double mean, variance, skewness, kurtosis;
};

template <class Draw>
Moments moments(int n, Draw draw) {
  std::vector<double> values;
  for (int i = 0; i < n; ++i) values.push_back(draw());
  double mean = 0.0;
  for (double x : values) mean += x / n;
  double m2 = 0.0, m3 = 0.0, m4 = 0.0;
  for (double x : values) {
    const double d = x - mean;
    m2 += d * d / n;
    m3 += d * d * d / n;
    m4 += d * d * d * d / n;
  }
  return {mean, m2, m3 / std::pow(m2, 1.5), m4 / (m2 * m2)};
}

/// Pearson's statistic of counts that should be in proportion to `weights`.
double chi_squared(const std::vector<std::int64_t>& counts, const std::vector<double>& weights) {
  double total = 0.0, draws = 0.0;
  for (double w : weights) total += w;
  for (std::int64_t c : counts) draws += static_cast<double>(c);
  double statistic = 0.0;
  for (std::size_t i = 0; i < counts.size(); ++i) {
    const double expected = draws * weights[i] / total;
    if (expected == 0.0) {
      CHECK(counts[i] == 0);
    } else {
      statistic += std::pow(static_cast<double>(counts[i]) - expected, 2) / expected;
    }
  }
  return statistic;
}

}  // namespace

// --- Generator ----------------------------------------------------------------------------------

TEST_CASE("random: the generator is xoshiro256++") {
  // The numbers that follow from the state 1, 2, 3, 4, computed by hand and by Reference.
  Generator generator;
  generator.set_state({1, 2, 3, 4, 0, 0});
  CHECK(generator.next() == 41943041);  // ((1 + 4) << 23) + 1
  generator.set_state({1, 2, 3, 4, 0, 0});
  Reference reference{{1, 2, 3, 4}};
  for (int i = 0; i < 1000; ++i) REQUIRE(generator.next() == reference.next());
}

TEST_CASE("random: a seed is spread by splitmix64") {
  // The first outputs of splitmix64 for the seed 1234567, as published with its reference code.
  CHECK(Generator(1234567).state() ==
        std::array<std::uint64_t, 6>{6457827717110365317u, 3203168211198807973u,
                                     9817491932198370423u, 4593380528125082431u, 0, 0});
  CHECK(Generator(0).next() != Generator(1).next());
}

TEST_CASE("random: the same seed gives the same numbers, a copy goes its own way") {
  Generator a(7), b(7);
  for (int i = 0; i < 10; ++i) REQUIRE(a.next() == b.next());
  Generator fork = a;
  const std::uint64_t expected = b.next();
  CHECK(fork.next() == expected);
  CHECK(a.next() == expected);
}

TEST_CASE("random: a saved state continues as if nothing had been, a normal in stock included") {
  for (int drawn = 0; drawn < 4; ++drawn) {
    CAPTURE(drawn);
    Generator a(3);
    for (int i = 0; i < drawn; ++i) a.normal();
    Generator b(99);
    b.normal();
    b.set_state(a.state());
    CHECK(a.state() == b.state());
    for (int i = 0; i < 5; ++i) REQUIRE(a.normal() == b.normal());
    REQUIRE(a.next() == b.next());
  }
  Generator seeded(3);
  seeded.normal();
  seeded.seed(3);
  CHECK(seeded.normal() == Generator(3).normal());
}

TEST_CASE("random: a state that no generator has is refused") {
  Generator generator(1);
  const auto before = generator.state();
  CHECK_THROWS_WITH_AS(generator.set_state({0, 0, 0, 0, 0, 0}),
                       "set_state: no generator has this state", ValueError);
  CHECK_THROWS_WITH_AS(generator.set_state({1, 2, 3, 4, 2, 0}),
                       "set_state: no generator has this state", ValueError);
  CHECK(generator.state() == before);
}

TEST_CASE("random: uniform numbers lie between 0 and 1, all alike") {
  Generator generator(11);
  const int n = 200'000;
  std::vector<std::int64_t> counts(64);
  const Moments m = moments(n, [&] {
    const double u = generator.uniform();
    REQUIRE(u >= 0.0);
    REQUIRE(u < 1.0);
    ++counts[static_cast<std::size_t>(u * 64)];
    return u;
  });
  // Four standard errors of each estimate.
  CHECK(std::abs(m.mean - 0.5) < 4 * std::sqrt(1.0 / 12 / n));
  CHECK(std::abs(m.variance - 1.0 / 12) < 4 * std::sqrt(1.0 / 180 / n));
  // The 99.9 % point of chi squared with 63 degrees of freedom.
  CHECK(chi_squared(counts, std::vector<double>(64, 1.0)) < 103.4);
}

TEST_CASE("random: normal numbers are normal and independent of each other") {
  Generator generator(12);
  const int n = 200'000;
  double previous = generator.normal(), correlation = 0.0;
  const Moments m = moments(n, [&] {
    const double z = generator.normal();
    correlation += z * previous / n;
    previous = z;
    return z;
  });
  CHECK(std::abs(m.mean) < 4 * std::sqrt(1.0 / n));
  CHECK(std::abs(m.variance - 1.0) < 4 * std::sqrt(2.0 / n));
  CHECK(std::abs(m.skewness) < 4 * std::sqrt(6.0 / n));
  CHECK(std::abs(m.kurtosis - 3.0) < 4 * std::sqrt(24.0 / n));
  CHECK(std::abs(correlation) < 4 * std::sqrt(1.0 / n));
}

TEST_CASE("random: below is unbiased, in small ranges and in those that do not divide 2^64") {
  Generator generator(13);
  std::vector<std::int64_t> counts(7);
  for (int i = 0; i < 70'000; ++i) ++counts[static_cast<std::size_t>(generator.below(7))];
  CHECK(chi_squared(counts, std::vector<double>(7, 1.0)) < 22.5);  // 99.9 %, 6 degrees

  // 2^64 is 8 * 2^61: simple remainders would favour the first two thirds 3 : 3 : 2.
  const std::int64_t third = std::int64_t{1} << 61;
  std::vector<std::int64_t> thirds(3);
  for (int i = 0; i < 30'000; ++i) {
    const std::int64_t x = generator.below(3 * third);
    REQUIRE(x >= 0);
    REQUIRE(x < 3 * third);
    ++thirds[static_cast<std::size_t>(x / third)];
  }
  CHECK(chi_squared(thirds, {1.0, 1.0, 1.0}) < 13.8);  // 99.9 %, 2 degrees

  CHECK(generator.below(1) == 0);
  CHECK(generator.below(std::numeric_limits<std::int64_t>::max()) >= 0);
  CHECK_THROWS_WITH_AS(generator.below(0), "below: n must be 1 or more, got 0", ValueError);
  CHECK_THROWS_WITH_AS(generator.below(-5), "below: n must be 1 or more, got -5", ValueError);
}

TEST_CASE("random: each thread has a default generator of its own") {
  manual_seed(5);
  const Tensor first = uniform({4});
  Tensor other;
  std::thread([&] {
    manual_seed(5);
    other = uniform({4});
    uniform({100});
  }).join();
  CHECK(other.to_vector<float>() == first.to_vector<float>());
  const Tensor second = uniform({4});
  manual_seed(5);
  uniform({4});
  CHECK(uniform({4}).to_vector<float>() == second.to_vector<float>());
}

// --- Tensors ------------------------------------------------------------------------------------

TEST_CASE("random: a seed gives the same numbers in f32 and f64, up to rounding") {
  for (auto draw : {+[](DType dtype, Generator&g) { return uniform({50}, -2.0, 3.0, dtype, g); },
                    +[](DType dtype, Generator&g) { return normal({50}, 1.0, 2.0, dtype, g); }}) {
    Generator a(21), b(21);
    const std::vector<float> x = draw(DType::f32, a).to_vector<float>();
    const std::vector<double> y = draw(DType::f64, b).to_vector<double>();
    for (std::size_t i = 0; i < y.size(); ++i) REQUIRE(x[i] == static_cast<float>(y[i]));
    CHECK(a.state() == b.state());
  }
}

TEST_CASE("random: uniform and normal have the asked shape, range and moments") {
  Generator generator(22);
  const Tensor u = uniform({40, 50}, -3.0, 5.0, DType::f64, generator);
  CHECK(u.shape() == Shape{40, 50});
  CHECK(min(u).item() >= -3.0);
  CHECK(max(u).item() < 5.0);
  CHECK(std::abs(mean(u).item() - 1.0) < 4 * std::sqrt(64.0 / 12 / 2000));
  CHECK(std::abs(var(u).item() - 64.0 / 12) < 4 * std::sqrt(64.0 * 64.0 / 180 / 2000));

  const Tensor z = normal({2000}, 10.0, 0.5, DType::f64, generator);
  CHECK(std::abs(mean(z).item() - 10.0) < 4 * 0.5 / std::sqrt(2000));
  CHECK(std::abs(var(z).item() - 0.25) < 4 * 0.25 * std::sqrt(2.0 / 2000));

  CHECK(uniform({3}).dtype() == DType::f32);
  CHECK(normal({3}).dtype() == DType::f32);
  CHECK(uniform({}).shape() == Shape{});
  CHECK(normal({0, 4}).numel() == 0);
  CHECK(uniform({2}, 1.5, 1.5).to_vector<float>() == std::vector<float>{1.5f, 1.5f});
  CHECK(normal({2}, 1.5, 0.0).to_vector<float>() == std::vector<float>{1.5f, 1.5f});
}

TEST_CASE("random: bad ranges and dtypes are errors") {
  const double inf = std::numeric_limits<double>::infinity(), nan = std::nan("");
  CHECK_THROWS_WITH_AS(uniform({2}, 1.0, 0.5), "uniform: low must not be above high, got 1 and 0.5",
                       ValueError);
  CHECK_THROWS_WITH_AS(uniform({2}, nan, 0.5),
                       "uniform: low must not be above high, got nan and 0.5", ValueError);
  CHECK_THROWS_WITH_AS(uniform({2}, 0.0, inf), "uniform: low must not be above high, got 0 and inf",
                       ValueError);
  CHECK_THROWS_WITH_AS(normal({2}, 0.0, -1.0), "normal: std must not be negative, got -1",
                       ValueError);
  CHECK_THROWS_WITH_AS(normal({2}, 0.0, nan), "normal: std must not be negative, got nan",
                       ValueError);
  CHECK_THROWS_WITH_AS(uniform({2}, 0.0, 1.0, DType::i64),
                       "uniform: dtype must be f32 or f64, got i64", DTypeError);
  CHECK_THROWS_WITH_AS(normal({2}, 0.0, 1.0, DType::i64),
                       "normal: dtype must be f32 or f64, got i64", DTypeError);
}

TEST_CASE("random: randint draws all values of its range alike") {
  Generator generator(23);
  const Tensor x = randint(-2, 3, {50, 100}, generator);
  CHECK(x.dtype() == DType::i64);
  CHECK(x.shape() == Shape{50, 100});
  std::vector<std::int64_t> counts(5);
  for (std::int64_t value : x.to_vector<std::int64_t>()) {
    ++counts.at(static_cast<std::size_t>(value + 2));
  }
  CHECK(chi_squared(counts, std::vector<double>(5, 1.0)) < 18.5);  // 99.9 %, 4 degrees

  using Limits = std::numeric_limits<std::int64_t>;
  bool negative = false, positive = false;
  for (std::int64_t value :
       randint(Limits::min(), Limits::max(), {64}, generator).to_vector<std::int64_t>()) {
    (value < 0 ? negative : positive) = true;
  }
  CHECK(negative);
  CHECK(positive);
  CHECK_THROWS_WITH_AS(randint(3, 3, {2}), "randint: low must be below high, got 3 and 3",
                       ValueError);
}

TEST_CASE("random: randperm is a permutation, and each is as likely") {
  Generator generator(24);
  std::vector<std::int64_t> sorted = randperm(100, generator).to_vector<std::int64_t>();
  CHECK(!std::is_sorted(sorted.begin(), sorted.end()));
  std::sort(sorted.begin(), sorted.end());
  CHECK(sorted == arange(100).to_vector<std::int64_t>());

  std::vector<std::int64_t> counts(27);  // by the digits of the permutation in base 3
  std::vector<double> weights(27, 0.0);
  for (int i : {5, 7, 11, 15, 19, 21}) weights[static_cast<std::size_t>(i)] = 1.0;
  for (int i = 0; i < 6000; ++i) {
    const std::vector<std::int64_t> p = randperm(3, generator).to_vector<std::int64_t>();
    ++counts.at(static_cast<std::size_t>(9 * p[0] + 3 * p[1] + p[2]));
  }
  CHECK(chi_squared(counts, weights) < 20.5);  // 99.9 %, 5 degrees

  CHECK(randperm(0).shape() == Shape{0});
  CHECK(randperm(1).to_vector<std::int64_t>() == std::vector<std::int64_t>{0});
  CHECK_THROWS_WITH_AS(randperm(-1), "randperm: n must not be negative, got -1", ValueError);
}

TEST_CASE("random: multinomial draws in proportion to the weights, row by row") {
  Generator generator(25);
  const std::vector<double> first{1.0, 0.0, 3.0, 6.0}, second{0.0, 0.5, 0.0, 0.0};
  for (DType dtype : {DType::f32, DType::f64}) {
    const Tensor weights =
        tensor({{1.0, 0.0, 3.0, 6.0}, {0.0, 0.5, 0.0, 0.0}}, dtype).requires_grad_();
    std::vector<std::int64_t> counts(4);
    for (int i = 0; i < 5000; ++i) {
      const Tensor drawn = multinomial(weights, generator);
      REQUIRE(drawn.shape() == Shape{2});
      const std::vector<std::int64_t> choice = drawn.to_vector<std::int64_t>();
      ++counts.at(static_cast<std::size_t>(choice[0]));
      REQUIRE(choice[1] == 1);
    }
    CHECK(chi_squared(counts, first) < 13.8);  // 99.9 %, 2 degrees
  }
  const Tensor one = multinomial(tensor({0, 2, 0}, DType::i64), generator);
  CHECK(one.shape() == Shape{});
  CHECK(one.item() == 1);
  CHECK(multinomial(transpose(tensor({{0.0, 1.0}, {1.0, 0.0}})), generator)
            .to_vector<std::int64_t>() == std::vector<std::int64_t>{1, 0});
  CHECK(multinomial(zeros({0, 3}), generator).shape() == Shape{0});
}

TEST_CASE("random: weights that multinomial cannot draw by are errors") {
  const double inf = std::numeric_limits<double>::infinity();
  CHECK_THROWS_WITH_AS(multinomial(tensor({{1.0, 2.0}, {3.0, -0.5}})),
                       "multinomial: weight (1, 1) is -0.5, must be finite and not negative",
                       ValueError);
  CHECK_THROWS_WITH_AS(multinomial(tensor({1.0, std::nan("")})),
                       "multinomial: weight (1) is nan, must be finite and not negative",
                       ValueError);
  CHECK_THROWS_WITH_AS(multinomial(tensor({1.0, inf})),
                       "multinomial: weight (1) is inf, must be finite and not negative",
                       ValueError);
  CHECK_THROWS_WITH_AS(multinomial(tensor({{1.0, 0.0}, {0.0, 0.0}})),
                       "multinomial: the weights of row 1 sum to 0, must be above 0 and finite",
                       ValueError);
  CHECK_THROWS_WITH_AS(multinomial(zeros({3})),
                       "multinomial: the weights sum to 0, must be above 0 and finite", ValueError);
  CHECK_THROWS_WITH_AS(multinomial(zeros({0})),
                       "multinomial: the weights sum to 0, must be above 0 and finite", ValueError);
  CHECK_THROWS_WITH_AS(multinomial(zeros({2, 2, 2})),
                       "multinomial: weights must be (n) or (B, n), got (2, 2, 2)", ShapeError);
}

TEST_CASE("random: dropout zeroes with probability p and keeps the expectation") {
  Generator generator(26);
  const double p = 0.3;
  const int n = 20'000;
  const Tensor y = dropout(full({n}, 2.0, DType::f64), p, generator);
  int zeroed = 0;
  for (double value : y.to_vector<double>()) {
    if (value == 0.0) {
      ++zeroed;
    } else {
      REQUIRE(value == doctest::Approx(2.0 / (1.0 - p)).epsilon(1e-15));
    }
  }
  CHECK(std::abs(zeroed - n * p) < 4 * std::sqrt(n * p * (1.0 - p)));
  CHECK(std::abs(mean(y).item() - 2.0) < 4 * 2.0 * std::sqrt(p / (1.0 - p) / n));

  const Tensor x = normal({5}, 0.0, 1.0, DType::f32, generator);
  CHECK(dropout(x, 0.0, generator).to_vector<float>() == x.to_vector<float>());
}

TEST_CASE("random: dropout takes the same mask in f32 and f64, and in its gradient") {
  for (DType dtype : {DType::f32, DType::f64}) {
    Generator generator(27);
    Tensor x = ones({4, 6}, dtype).requires_grad_();
    const Tensor y = dropout(x, 0.5, generator);
    sum(y).backward();
    // With x = 1 the result is the mask, and so is the gradient of the sum.
    CHECK(x.grad().to(DType::f64).to_vector<double>() ==
          y.detach().to(DType::f64).to_vector<double>());
    Generator again(27);
    CHECK(y.detach().to(DType::f64).to_vector<double>() ==
          dropout(ones({4, 6}, DType::f64), 0.5, again).to_vector<double>());
  }
  CHECK(gradcheck(
      [](const auto& in) {
        Generator generator(28);
        return square(dropout(in[0], 0.4, generator));
      },
      {uniform({3, 5}, -1.0, 1.0, DType::f64).requires_grad_()}, {.order = 2}));
}

TEST_CASE("random: a dropout that drops all, and one of i64, are errors") {
  CHECK_THROWS_WITH_AS(dropout(ones({2}), 1.0), "dropout: p must be in [0, 1), got 1", ValueError);
  CHECK_THROWS_WITH_AS(dropout(ones({2}), -0.1), "dropout: p must be in [0, 1), got -0.1",
                       ValueError);
  CHECK_THROWS_WITH_AS(dropout(ones({2}), std::nan("")), "dropout: p must be in [0, 1), got nan",
                       ValueError);
  CHECK_THROWS_WITH_AS(dropout(arange(3), 0.5), "dropout: dtype must be f32 or f64, got i64",
                       DTypeError);
}
