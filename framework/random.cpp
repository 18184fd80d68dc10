#include "framework/random.h"

#include <bit>
#include <cmath>
#include <numbers>
#include <numeric>
#include <utility>

#include "framework/autograd.h"
#include "framework/format.h"
#include "framework/ops.h"

namespace unroll {
namespace {

/// Uniform in [0, n), n >= 1. Of the 2^64 values of next() the lowest 2^64 mod n are drawn again,
/// so that each remainder stands for the same number of the others.
std::uint64_t below_unsigned(Generator& generator, std::uint64_t n) {
  const std::uint64_t rejected = -n % n;
  std::uint64_t bits = generator.next();
  while (bits < rejected) bits = generator.next();
  return bits % n;
}

template <class T, class Draw>
Tensor filled(const Shape& shape, Draw draw) {
  Tensor result = empty(shape, dtype_of<T>());
  for (T& value : result.write<T>()) value = draw();
  return result;
}

/// A tensor of f32 or f64 whose elements `draw`, a function of nothing, gives in double.
template <class Draw>
Tensor filled(const Shape& shape, DType dtype, const char* where, Draw draw) {
  if (dtype == DType::f32) {
    return filled<float>(shape, [&] { return static_cast<float>(draw()); });
  }
  if (dtype == DType::f64) return filled<double>(shape, draw);
  detail::fail<DTypeError>("{}: dtype must be f32 or f64, got {}", where, to_string(dtype));
}

}  // namespace

// --- Generator ----------------------------------------------------------------------------------

void Generator::seed(std::uint64_t seed) {
  // splitmix64 (Steele, Lea and Flood 2014), as the authors of xoshiro advise.
  for (std::uint64_t& word : words_) {
    seed += 0x9e3779b97f4a7c15;
    std::uint64_t z = seed;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
    z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
    word = z ^ (z >> 31);
  }
  has_spare_ = false;
}

std::uint64_t Generator::next() {
  const std::uint64_t result = std::rotl(words_[0] + words_[3], 23) + words_[0];
  const std::uint64_t shifted = words_[1] << 17;
  words_[2] ^= words_[0];
  words_[3] ^= words_[1];
  words_[1] ^= words_[2];
  words_[0] ^= words_[3];
  words_[2] ^= shifted;
  words_[3] = std::rotl(words_[3], 45);
  return result;
}

double Generator::uniform() { return static_cast<double>(next() >> 11) * 0x1p-53; }

double Generator::normal() {
  if (std::exchange(has_spare_, false)) return spare_;
  // Box and Muller 1958: with u, v uniform, sqrt(-2 log u) (cos 2 pi v, sin 2 pi v) are two
  // independent standard normals. 1 - uniform() is never 0.
  const double radius = std::sqrt(-2.0 * std::log(1.0 - uniform()));
  const double angle = 2.0 * std::numbers::pi * uniform();
  spare_ = radius * std::sin(angle);
  has_spare_ = true;
  return radius * std::cos(angle);
}

std::int64_t Generator::below(std::int64_t n) {
  if (n < 1) detail::fail<ValueError>("below: n must be 1 or more, got {}", n);
  return static_cast<std::int64_t>(below_unsigned(*this, static_cast<std::uint64_t>(n)));
}

std::array<std::uint64_t, 6> Generator::state() const {
  const std::uint64_t spare = has_spare_ ? std::bit_cast<std::uint64_t>(spare_) : 0;
  return {words_[0], words_[1], words_[2], words_[3], has_spare_, spare};
}

void Generator::set_state(const std::array<std::uint64_t, 6>& state) {
  if ((state[0] | state[1] | state[2] | state[3]) == 0 || state[4] > 1) {
    throw ValueError("set_state: no generator has this state");
  }
  words_ = {state[0], state[1], state[2], state[3]};
  has_spare_ = state[4] == 1;
  spare_ = std::bit_cast<double>(state[5]);
}

Generator& default_generator() {
  thread_local Generator generator;
  return generator;
}

void manual_seed(std::uint64_t seed) { default_generator().seed(seed); }

// --- Tensors ------------------------------------------------------------------------------------

Tensor uniform(const Shape& shape, double low, double high, DType dtype, Generator& generator) {
  const double width = high - low;
  if (!(width >= 0.0 && std::isfinite(width))) {
    detail::fail<ValueError>("uniform: low must not be above high, got {} and {}", low, high);
  }
  return filled(shape, dtype, "uniform", [&] { return low + width * generator.uniform(); });
}

Tensor normal(const Shape& shape, double mean, double std, DType dtype, Generator& generator) {
  if (!(std >= 0.0)) {
    detail::fail<ValueError>("normal: std must not be negative, got {}", std);
  }
  return filled(shape, dtype, "normal", [&] { return mean + std * generator.normal(); });
}

Tensor randint(std::int64_t low, std::int64_t high, const Shape& shape, Generator& generator) {
  if (low >= high) {
    detail::fail<ValueError>("randint: low must be below high, got {} and {}", low, high);
  }
  const auto base = static_cast<std::uint64_t>(low);
  const std::uint64_t width = static_cast<std::uint64_t>(high) - base;
  return filled<std::int64_t>(
      shape, [&] { return static_cast<std::int64_t>(base + below_unsigned(generator, width)); });
}

Tensor randperm(std::int64_t n, Generator& generator) {
  if (n < 0) detail::fail<ValueError>("randperm: n must not be negative, got {}", n);
  Tensor result = arange(n);
  auto values = result.write<std::int64_t>();
  // Fisher and Yates: the last place gets any of the numbers, and so on downwards.
  for (std::int64_t i = n; i > 1; --i) std::swap(values[i - 1], values[generator.below(i)]);
  return result;
}

Tensor multinomial(const Tensor& weights, Generator& generator) {
  if (weights.dim() != 1 && weights.dim() != 2) {
    detail::fail<ShapeError>("multinomial: weights must be (n) or (B, n), got {}",
                             to_string(weights.shape()));
  }
  const Tensor w = weights.detach().to(DType::f64).contiguous();
  const bool batched = w.dim() == 2;
  const std::int64_t n = w.size(-1);
  Tensor result = empty(batched ? Shape{w.size(0)} : Shape{}, DType::i64);

  const double* row = w.data<double>();
  std::int64_t b = 0;
  for (std::int64_t& choice : result.write<std::int64_t>()) {
    for (std::int64_t i = 0; i < n; ++i) {
      if (row[i] >= 0.0 && std::isfinite(row[i])) continue;
      detail::fail<ValueError>("multinomial: weight {} is {}, must be finite and not negative",
                               to_string(batched ? Shape{b, i} : Shape{i}), row[i]);
    }
    const double total = std::accumulate(row, row + n, 0.0);
    if (!(total > 0.0 && std::isfinite(total))) {
      detail::fail<ValueError>("multinomial: the weights{} sum to {}, must be above 0 and finite",
                               batched ? detail::format(" of row {}", b) : "", total);
    }
    // The first index at which the running sum passes the drawn share of the total. Rounding may
    // lift the share to the total itself: then the last index with any weight.
    const double share = generator.uniform() * total;
    double passed = 0.0;
    for (std::int64_t i = 0; i < n && passed <= share; ++i) {
      if (row[i] == 0.0) continue;
      passed += row[i];
      choice = i;
    }
    row += n;
    ++b;
  }
  return result;
}

Tensor dropout(const Tensor& x, double p, Generator& generator) {
  if (!(p >= 0.0 && p < 1.0)) {
    detail::fail<ValueError>("dropout: p must be in [0, 1), got {}", p);
  }
  const double kept = 1.0 / (1.0 - p);
  Tensor mask =
      filled(x.shape(), x.dtype(), "dropout", [&] { return generator.uniform() < p ? 0.0 : kept; });
  // dx = g * mask
  Tensor value = x.detach() * mask;
  return record("dropout", {x}, value, Keep::none, [mask](Back& b) { b.add(0, b.grad * mask); });
}

}  // namespace unroll
