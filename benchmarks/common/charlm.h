#pragma once
/// The character language model that all sides train: its sizes and its text.

#include <cstddef>
#include <cstdint>
#include <random>
#include <vector>

namespace bench {

inline constexpr int kVocabulary = 65, kEmbedding = 128, kHidden = 256, kSteps = 64, kBatch = 32;
inline constexpr double kLearningRate = 3e-3;

/// A made-up text that can be learned: four times of five, a token follows from the two before it.
/// Sequence b of the batch reads its own stretch of it, and goes on where it stopped.
class Windows {
 public:
  Windows() : tokens_(1 << 20) {
    std::mt19937 random(7);
    std::int64_t before = 0, last = 1;
    for (std::int64_t& token : tokens_) {
      const auto draw = static_cast<std::int64_t>(random());
      token = (draw % 5 == 0 ? draw / 5 : 11 * last + 5 * before + 3) % kVocabulary;
      before = last;
      last = token;
    }
  }

  /// The next window, [kSteps, kBatch]: the tokens and those that follow them.
  void next(std::int64_t* inputs, std::int64_t* targets) {
    const std::size_t stretch = tokens_.size() / kBatch;
    if (position_ + kSteps + 1 > stretch) position_ = 0;
    for (std::size_t t = 0; t < kSteps; ++t) {
      for (std::size_t b = 0; b < kBatch; ++b) {
        const std::int64_t* token = &tokens_[b * stretch + position_ + t];
        inputs[t * kBatch + b] = token[0];
        targets[t * kBatch + b] = token[1];
      }
    }
    position_ += kSteps;
  }

 private:
  std::vector<std::int64_t> tokens_;
  std::size_t position_ = 0;
};

}  // namespace bench
