#pragma once
/// Random numbers: a seeded generator of our own, so that a seed gives the same run everywhere.

#include <array>
#include <cstdint>

#include "framework/tensor.h"

namespace unroll {

/// xoshiro256++ (Blackman and Vigna 2019, "Scrambled linear pseudorandom number generators"),
/// seeded through splitmix64. A value: copying it forks the sequence; the state can be saved.
class Generator {
 public:
  /// The sequence of that seed, from its beginning.
  explicit Generator(std::uint64_t seed = 0) { this->seed(seed); }
  /// Goes to the beginning of the sequence of that seed.
  void seed(std::uint64_t seed);
  /// 64 random bits.
  std::uint64_t next();
  /// Uniform in [0, 1), 53 random bits.
  double uniform();
  /// Standard normal (Box-Muller).
  double normal();
  /// Uniform in [0, n), without bias; n >= 1 (ValueError).
  std::int64_t below(std::int64_t n);

  /// The whole state: four words, and a fifth and sixth for a normal number in stock.
  std::array<std::uint64_t, 6> state() const;
  /// Throws ValueError for what state() never gives.
  void set_state(const std::array<std::uint64_t, 6>& state);

 private:
  std::array<std::uint64_t, 4> words_{};
  bool has_spare_ = false;
  double spare_ = 0.0;
};

/// This thread's generator, used wherever none is given. It starts with seed 0 in every thread.
Generator& default_generator();
/// Seeds this thread's generator.
void manual_seed(std::uint64_t seed);

/// Values are drawn in double and rounded, so a seed gives the same numbers in f32 and f64.
/// Uniform in [low, high), but for values that rounding lifts to high. Throws ValueError when low
/// is above high, DTypeError for i64.
Tensor uniform(const Shape& shape, double low = 0.0, double high = 1.0, DType dtype = DType::f32,
               Generator& generator = default_generator());
/// Throws ValueError for a negative std, DTypeError for i64.
Tensor normal(const Shape& shape, double mean = 0.0, double std = 1.0, DType dtype = DType::f32,
              Generator& generator = default_generator());
/// i64 values in [low, high). Throws ValueError when there is none.
Tensor randint(std::int64_t low, std::int64_t high, const Shape& shape,
               Generator& generator = default_generator());
/// The numbers 0 .. n - 1 in random order, i64.
Tensor randperm(std::int64_t n, Generator& generator = default_generator());
/// One index per row, drawn with probability proportional to the row: weights [n] -> [] or
/// [B, n] -> [B], i64. Throws ValueError for a weight that is negative, infinite or NaN, and for a
/// row of zeros.
Tensor multinomial(const Tensor& weights, Generator& generator = default_generator());
/// Each element is zeroed with probability p, the others are divided by 1 - p, so that the
/// expectation stays. Throws ValueError unless 0 <= p < 1. Differentiable with respect to x.
Tensor dropout(const Tensor& x, double p, Generator& generator = default_generator());

}  // namespace unroll
