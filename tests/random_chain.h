#pragma once
/// Random chains of elementwise operations and pieces, for fused() and equations.

#include <algorithm>
#include <cstdint>
#include <vector>

#include "framework/ops.h"
#include "framework/random.h"

namespace unroll::test {

/// Tensors of `width` and of 4 * width columns, and random operations on them. Values stay of the
/// order of one.
class RandomChain {
 public:
  RandomChain(std::uint64_t seed, std::int64_t width) : random_(seed), width_(width) {}

  /// Puts x among the tensors, and its quarters if it has 4 * width columns. The first one has as
  /// many rows as there are.
  void add(const Tensor& x) {
    if (pool_.empty()) whole_ = narrow(x, -1, 0, width_);
    pool_.push_back(x);
    if (x.size(-1) == 4 * width_)
      for (const Tensor& piece : chunk(x, 4, -1)) pool_.push_back(piece);
  }
  /// One of so many columns, new ones more often.
  Tensor pick(std::int64_t columns) {
    std::vector<Tensor> fitting;
    for (const Tensor& x : pool_)
      if (x.size(-1) == columns) fitting.push_back(x);
    const auto count = static_cast<std::int64_t>(fitting.size());
    return fitting[static_cast<std::size_t>(std::max(below(count), below(count)))];
  }
  const Tensor& newest() const { return pool_.back(); }
  std::int64_t below(std::int64_t n) { return random_.below(n); }

  /// So many operations more.
  void grow(int operations) {
    for (int i = 0; i < operations; ++i) {
      const std::int64_t columns = below(3) == 0 ? 4 * width_ : width_;
      const Tensor x = pick(columns), y = pick(columns);
      switch (below(20)) {
        case 0: pool_.push_back(x + y); break;
        case 1: pool_.push_back(x - y * 0.5); break;
        case 2: pool_.push_back(sigmoid(x) * y); break;
        case 3: pool_.push_back(x / (square(y) + 1.0)); break;
        case 4: pool_.push_back(tanh(x)); break;
        case 5: pool_.push_back(exp(-square(x))); break;
        case 6: pool_.push_back(log(square(x) + 0.5)); break;
        case 7: pool_.push_back(sqrt(square(x) + 0.1)); break;
        case 8: pool_.push_back(sin(x) + cos(y)); break;
        case 9: pool_.push_back(softplus(x) - relu(y)); break;
        case 10: pool_.push_back(clamp(x, -0.4, 0.6) * y); break;
        case 11: pool_.push_back(minimum(x, y) + maximum(tanh(x), 0.3 * y)); break;
        case 12: pool_.push_back(where(x > y, tanh(x), y)); break;
        case 13: pool_.push_back((x <= 0.2) * y + abs(x)); break;
        case 14: pool_.push_back(sign(x) * tanh(y)); break;
        case 15: pool_.push_back(pow(sigmoid(x), sigmoid(y))); break;
        case 16: pool_.push_back(x * y + x * sigmoid(y)); break;
        case 17: pool_.push_back(masked_fill(x, y < 0.0, 0.25)); break;
        case 18: {
          std::vector<Tensor> parts;
          for (int k = 0; k < 4; ++k) parts.push_back(pick(width_) * whole_);
          pool_.push_back(concatenate(parts, -1));
          break;
        }
        default:
          for (const Tensor& piece : split(pick(4 * width_), width_, -1)) pool_.push_back(piece);
      }
    }
  }

 private:
  Generator random_;
  std::int64_t width_;
  std::vector<Tensor> pool_;
  Tensor whole_;
};

}  // namespace unroll::test
