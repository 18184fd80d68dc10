#include "data/padded.h"

#include <algorithm>
#include <cstddef>
#include <numeric>

#include "framework/check.h"
#include "framework/format.h"

namespace unroll {
namespace {

std::size_t as_size(std::int64_t i) { return static_cast<std::size_t>(i); }

/// 0 .. n - 1
std::vector<std::int64_t> numbers_below(std::size_t n) {
  std::vector<std::int64_t> numbers(n);
  std::iota(numbers.begin(), numbers.end(), 0);
  return numbers;
}

/// Brings [first, last) into random order.
template <class Iterator>
void shuffle(Iterator first, Iterator last, Generator& generator) {
  for (auto n = last - first; n > 1; --n) std::iter_swap(first + n - 1, first + generator.below(n));
}

}  // namespace

PaddedBatch pad_sequences(const Sequences& sequences, const std::vector<std::int64_t>& indices,
                          std::int64_t padding) {
  std::int64_t longest = 0;
  std::vector<std::int64_t> lengths;
  for (std::int64_t index : indices) {
    if (index < 0 || index >= static_cast<std::int64_t>(sequences.size())) {
      detail::fail<IndexError>("pad_sequences: index {} is out of range for {} sequences", index,
                               sequences.size());
    }
    lengths.push_back(static_cast<std::int64_t>(sequences[as_size(index)].size()));
    longest = std::max(longest, lengths.back());
  }

  const auto width = static_cast<std::int64_t>(indices.size());
  Tensor x = empty({longest, width}, DType::i64);
  auto values = x.write<std::int64_t>();
  std::fill(values.begin(), values.end(), padding);
  for (std::int64_t b = 0; b < width; ++b) {
    std::int64_t t = 0;
    for (std::int64_t value : sequences[as_size(indices[as_size(b)])]) {
      values[t++ * width + b] = value;
    }
  }
  return {x, from_vector(lengths), indices};
}

PaddedBatch pad_sequences(const Sequences& sequences, std::int64_t padding) {
  return pad_sequences(sequences, numbers_below(sequences.size()), padding);
}

PaddedBatch PaddedBatches::operator[](std::int64_t i) const {
  if (i < 0 || i >= size()) {
    detail::fail<IndexError>("PaddedBatches: index {} is out of range for {} batches", i, size());
  }
  return pad_sequences(*sequences_, batches_[as_size(i)], padding_);
}

PaddedBatches ordered_batches(const Sequences& sequences, std::int64_t batch_size,
                              std::int64_t padding) {
  if (batch_size < 1)
    detail::fail<ValueError>("ordered_batches: batch_size must be 1 or more, got {}", batch_size);
  const std::vector<std::int64_t> order = numbers_below(sequences.size());
  PaddedBatches batches(sequences, padding);
  for (auto first = order.begin(); first != order.end();) {
    const auto last = first + std::min(order.end() - first, batch_size);
    batches.batches_.emplace_back(first, last);
    first = last;
  }
  return batches;
}

PaddedBatches bucketed_batches(const Sequences& sequences, const BucketOptions& options,
                               Generator& generator) {
  if (options.batch_size < 1) {
    detail::fail<ValueError>("bucketed_batches: batch_size must be 1 or more, got {}",
                             options.batch_size);
  }
  if (options.bucket_batches < 1) {
    detail::fail<ValueError>("bucketed_batches: bucket_batches must be 1 or more, got {}",
                             options.bucket_batches);
  }

  std::vector<std::int64_t> order = numbers_below(sequences.size());
  shuffle(order.begin(), order.end(), generator);
  std::stable_sort(order.begin(), order.end(), [&](std::int64_t a, std::int64_t b) {
    return sequences[as_size(a)].size() < sequences[as_size(b)].size();
  });

  PaddedBatches epoch(sequences, options.padding);
  const auto end = order.end();
  for (auto bucket = order.begin(); bucket != end;) {
    // Compared by division, so that large options don't overflow.
    const auto bucket_end = (end - bucket) / options.batch_size < options.bucket_batches
                                ? end
                                : bucket + options.batch_size * options.bucket_batches;
    shuffle(bucket, bucket_end, generator);
    while (bucket != bucket_end) {
      const auto batch_end = bucket + std::min(bucket_end - bucket, options.batch_size);
      epoch.batches_.emplace_back(bucket, batch_end);
      bucket = batch_end;
    }
  }
  shuffle(epoch.batches_.begin(), epoch.batches_.end(), generator);
  return epoch;
}

}  // namespace unroll
