#pragma once
/// Sequences of different length side by side in one tensor.

#include <cstdint>
#include <vector>

#include "data/batch_iterator.h"
#include "framework/random.h"
#include "framework/tensor.h"

namespace unroll {

/// Sequences of token indices.
using Sequences = std::vector<std::vector<std::int64_t>>;

/// Sequences side by side, one per column.
struct PaddedBatch {
  Tensor x;                           ///< i64 [T, B], T the longest length; padding behind the rest
  Tensor lengths;                     ///< i64 [B]
  std::vector<std::int64_t> indices;  ///< [B], which sequences these are: to find their labels
};

/// The sequences with these indices, one per column, filled up with `padding` at the end. Throws
/// IndexError.
PaddedBatch pad_sequences(const Sequences& sequences, const std::vector<std::int64_t>& indices,
                          std::int64_t padding);
/// All sequences.
PaddedBatch pad_sequences(const Sequences& sequences, std::int64_t padding);

/// How sequences are put together.
struct BucketOptions {
  std::int64_t batch_size = 32;  ///< B, sequences side by side
  std::int64_t padding = 0;      ///< the index that fills up short sequences
  /// Batches per bucket: with 1 a batch holds sequences of nearly one length and the least padding,
  /// with more its sequences are more of a mixture.
  std::int64_t bucket_batches = 8;
};

/// Padded batches. Refers to the sequences, which have to live as long.
class PaddedBatches {
 public:
  /// What the iterator gives.
  using Batch = PaddedBatch;

  /// Number of batches.
  std::int64_t size() const { return static_cast<std::int64_t>(batches_.size()); }
  /// Batch i. Throws IndexError.
  PaddedBatch operator[](std::int64_t i) const;

  /// The first batch, for a loop over all.
  BatchIterator<PaddedBatches> begin() const { return {*this, 0}; }
  /// Behind the last batch.
  BatchIterator<PaddedBatches> end() const { return {*this, size()}; }

 private:
  friend PaddedBatches bucketed_batches(const Sequences&, const BucketOptions&, Generator&);
  friend PaddedBatches ordered_batches(const Sequences&, std::int64_t, std::int64_t);

  PaddedBatches(const Sequences& sequences, std::int64_t padding)
      : sequences_(&sequences), padding_(padding) {}

  const Sequences* sequences_;
  std::int64_t padding_;
  std::vector<std::vector<std::int64_t>> batches_;  ///< which sequences each batch holds
};

/// All sequences in their order, batch_size side by side: to measure, not to learn. The last batch
/// may hold fewer. Throws ValueError if batch_size is below 1.
PaddedBatches ordered_batches(const Sequences& sequences, std::int64_t batch_size,
                              std::int64_t padding);
PaddedBatches ordered_batches(Sequences&& sequences, std::int64_t batch_size,
                              std::int64_t padding) = delete;

/// Prepares one epoch: every sequence once, beside others of similar length. The sequences are
/// sorted by length (equal ones in random order), cut into buckets of bucket_batches * batch_size,
/// shuffled inside each bucket and cut into batches; the batches come in random order. One batch
/// holds fewer than batch_size if the sequences don't divide evenly; no sequences give no batch.
/// Throws ValueError if batch_size or bucket_batches is below 1.
PaddedBatches bucketed_batches(const Sequences& sequences, const BucketOptions& options,
                               Generator& generator = default_generator());
PaddedBatches bucketed_batches(Sequences&& sequences, const BucketOptions& options,
                               Generator& generator = default_generator()) = delete;

}  // namespace unroll
