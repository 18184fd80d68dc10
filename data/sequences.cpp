#include "data/sequences.h"

#include <algorithm>
#include <utility>

#include "framework/check.h"
#include "framework/format.h"

namespace unroll {
namespace {

using Corpus = std::span<const std::int64_t>;

void check_options(const char* op, const WindowOptions& options) {
  if (options.batch_size < 1) {
    detail::fail<ValueError>("{}: batch_size must be 1 or more, got {}", op, options.batch_size);
  }
  if (options.num_steps < 1) {
    detail::fail<ValueError>("{}: num_steps must be 1 or more, got {}", op, options.num_steps);
  }
}

std::int64_t length_of(Corpus corpus) { return static_cast<std::int64_t>(corpus.size()); }

/// One batch of any offset below num_steps needs B * T tokens, and one more as the last target.
void check_corpus(const char* op, Corpus corpus, const WindowOptions& options) {
  const std::int64_t n = length_of(corpus);
  // Divided, not multiplied, so that large options don't overflow.
  if (options.batch_size >= n || n / (options.batch_size + 1) < options.num_steps) {
    detail::fail<ValueError>(
        "{}: a batch needs (batch_size + 1) * num_steps = ({} + 1) * {} tokens, the "
        "corpus has {}",
        op, options.batch_size, options.num_steps, n);
  }
}

/// The windows of `batches` batches on `rows` of a corpus that starts at `offset`.
std::vector<std::int64_t> starts_along_rows(std::int64_t offset, std::int64_t row_length,
                                            std::int64_t batches, const WindowOptions& options) {
  std::vector<std::int64_t> starts;
  starts.reserve(static_cast<std::size_t>(batches * options.batch_size));
  for (std::int64_t i = 0; i < batches; ++i) {
    for (std::int64_t b = 0; b < options.batch_size; ++b) {
      starts.push_back(offset + b * row_length + i * options.num_steps);
    }
  }
  return starts;
}

}  // namespace

WindowBatches::WindowBatches(Corpus corpus, std::vector<std::int64_t> starts,
                             const WindowOptions& options, std::int64_t last_steps)
    : corpus_(corpus), starts_(std::move(starts)), options_(options), last_steps_(last_steps) {}

WindowBatch WindowBatches::operator[](std::int64_t i) const {
  if (i < 0 || i >= size()) {
    detail::fail<IndexError>("WindowBatches: index {} is out of range for {} batches", i, size());
  }
  const std::int64_t steps = i == size() - 1 ? last_steps_ : options_.num_steps;
  const std::int64_t width = options_.batch_size;
  WindowBatch batch{empty({steps, width}, DType::i64), empty({steps, width}, DType::i64)};
  auto x = batch.x.write<std::int64_t>();
  auto y = batch.y.write<std::int64_t>();
  for (std::int64_t b = 0; b < width; ++b) {
    const std::int64_t start = starts_[static_cast<std::size_t>(i * width + b)];
    const std::int64_t* window = corpus_.data() + start;
    for (std::int64_t t = 0; t < steps; ++t) {
      x[t * width + b] = window[t];
      y[t * width + b] = window[t + 1];
    }
  }
  return batch;
}

WindowBatches random_windows(Corpus corpus, const WindowOptions& options, Generator& generator) {
  check_options("random_windows", options);
  check_corpus("random_windows", corpus, options);
  const std::int64_t offset = generator.below(options.num_steps);
  const std::int64_t windows = (length_of(corpus) - offset - 1) / options.num_steps;

  std::vector<std::int64_t> starts = randperm(windows, generator).to_vector<std::int64_t>();
  starts.resize(static_cast<std::size_t>(windows - windows % options.batch_size));
  for (std::int64_t& start : starts) start = offset + start * options.num_steps;
  return {corpus, std::move(starts), options, options.num_steps};
}

WindowBatches sequential_windows(Corpus corpus, const WindowOptions& options,
                                 Generator& generator) {
  check_options("sequential_windows", options);
  check_corpus("sequential_windows", corpus, options);
  const std::int64_t offset = generator.below(options.num_steps);
  const std::int64_t row_length = (length_of(corpus) - offset - 1) / options.batch_size;
  const std::int64_t batches = row_length / options.num_steps;
  return {corpus, starts_along_rows(offset, row_length, batches, options), options,
          options.num_steps};
}

WindowBatches evaluation_windows(Corpus corpus, const WindowOptions& options) {
  check_options("evaluation_windows", options);
  if (options.batch_size >= length_of(corpus)) {
    detail::fail<ValueError>(
        "evaluation_windows: a batch needs batch_size + 1 = {} + 1 tokens, the corpus "
        "has {}",
        options.batch_size, corpus.size());
  }
  const std::int64_t row_length = (length_of(corpus) - 1) / options.batch_size;
  const std::int64_t full_batches = (row_length - 1) / options.num_steps;
  return {corpus, starts_along_rows(0, row_length, full_batches + 1, options), options,
          row_length - full_batches * options.num_steps};
}

}  // namespace unroll
