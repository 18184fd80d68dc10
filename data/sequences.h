#pragma once
/// A long text as batches of short windows, to predict each token from those before it.
///
///     for (auto& [x, y] : random_windows(corpus, {.batch_size = 32, .num_steps = 35}, generator))
///       ...
///
/// Each call prepares one epoch.

#include <cstdint>
#include <span>
#include <vector>

#include "data/batch_iterator.h"
#include "framework/random.h"
#include "framework/tensor.h"

namespace unroll {

/// Windows of a text, one per column, and for each token the one after it.
struct WindowBatch {
  Tensor x;  ///< i64 [T, B]
  Tensor y;  ///< i64 [T, B]; y[t] is x[t + 1], and in the last row the token behind the window
};

/// The size of a batch of windows.
struct WindowOptions {
  std::int64_t batch_size = 32;  ///< B, windows side by side
  std::int64_t num_steps = 35;   ///< T, tokens per window
};

/// One epoch of windows. Knows where each window starts and makes a batch when it is asked for it,
/// so a training run that goes on in the middle of an epoch makes the epoch again, from a generator
/// in the state that it had then, and starts at batch i. Refers to the corpus, which has to live as
/// long.
class WindowBatches {
 public:
  /// What the iterator gives.
  using Batch = WindowBatch;

  /// Number of batches.
  std::int64_t size() const {
    return static_cast<std::int64_t>(starts_.size()) / options_.batch_size;
  }
  /// Batch i. Throws IndexError.
  WindowBatch operator[](std::int64_t i) const;

  /// The first batch, for a loop over all.
  BatchIterator<WindowBatches> begin() const { return {*this, 0}; }
  /// Behind the last batch.
  BatchIterator<WindowBatches> end() const { return {*this, size()}; }

 private:
  friend WindowBatches random_windows(std::span<const std::int64_t>, const WindowOptions&,
                                      Generator&);
  friend WindowBatches sequential_windows(std::span<const std::int64_t>, const WindowOptions&,
                                          Generator&);
  friend WindowBatches evaluation_windows(std::span<const std::int64_t>, const WindowOptions&);

  WindowBatches(std::span<const std::int64_t> corpus, std::vector<std::int64_t> starts,
                const WindowOptions& options, std::int64_t last_steps);

  std::span<const std::int64_t> corpus_;
  std::vector<std::int64_t> starts_;  ///< first token of each window, batch after batch
  WindowOptions options_;
  std::int64_t last_steps_;  ///< steps of the last batch
};

/// Cuts the corpus, from a random offset in [0, T), into windows of T tokens that don't overlap,
/// and deals them out in random order. No token is x twice in an epoch. Left out are the tokens
/// before the offset, those behind the last whole window (of them, the first one is a y), and the
/// windows, less than B, that fill no whole batch.
/// Throws ValueError if batch_size or num_steps is below 1 or if the corpus has less than (B + 1) T
/// tokens.
WindowBatches random_windows(std::span<const std::int64_t> corpus, const WindowOptions& options,
                             Generator& generator = default_generator());

/// Cuts the corpus, from a random offset in [0, T), into B rows of equal length and goes along them
/// in step: column b of a batch continues column b of the batch before, so that a recurrent state
/// can be carried from one batch to the next. Left out are the tokens before the offset, the last
/// ones of each row, less than T, and less than B at the end of the corpus.
/// Throws as random_windows.
WindowBatches sequential_windows(std::span<const std::int64_t> corpus, const WindowOptions& options,
                                 Generator& generator = default_generator());

/// sequential_windows for an evaluation: the same each time, from offset 0, and with a shorter last
/// batch where the rows don't end with a window, so that all tokens but the first one are predicted
/// and less than B at the end (none with B = 1).
/// Throws ValueError if batch_size or num_steps is below 1 or if the corpus has less than B + 1
/// tokens.
WindowBatches evaluation_windows(std::span<const std::int64_t> corpus,
                                 const WindowOptions& options);

// The corpus has to outlive the batches: a temporary one would not.
WindowBatches random_windows(std::vector<std::int64_t>&& corpus, const WindowOptions& options,
                             Generator& generator = default_generator()) = delete;
WindowBatches sequential_windows(std::vector<std::int64_t>&& corpus, const WindowOptions& options,
                                 Generator& generator = default_generator()) = delete;
WindowBatches evaluation_windows(std::vector<std::int64_t>&& corpus,
                                 const WindowOptions& options) = delete;

}  // namespace unroll
