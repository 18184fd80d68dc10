/// Padded batches: sequences side by side, in buckets or in order.

#include "data/padded.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <cstdint>
#include <set>
#include <utility>
#include <vector>

#include "framework/check.h"
#include "framework/random.h"
#include "framework/tensor.h"
#include "tests/data.h"

using namespace unroll;
using namespace unroll::test;

// Sequences that would be gone after the line are refused when compiled.
template <class C>
concept Buckets = requires(C&& c) {
  bucketed_batches(std::forward<C>(c), BucketOptions{});
};
static_assert(Buckets<const Sequences&> && !Buckets<Sequences>);

TEST_CASE("padded: sequences side by side, time first") {
  const Sequences sequences = {{1, 2, 3}, {4}, {}, {5, 6}};
  const PaddedBatch all = pad_sequences(sequences, -7);
  CHECK(all.x.dtype() == DType::i64);
  CHECK(all.x.shape() == Shape{3, 4});
  CHECK(values(all.x) == Indices{1, 4, -7, 5, 2, -7, -7, 6, 3, -7, -7, -7});
  CHECK(all.lengths.dtype() == DType::i64);
  CHECK(all.lengths.shape() == Shape{4});
  CHECK(values(all.lengths) == Indices{3, 1, 0, 2});
  CHECK(all.indices == Indices{0, 1, 2, 3});

  const PaddedBatch some = pad_sequences(sequences, {3, 1, 3}, 0);
  CHECK(some.x.shape() == Shape{2, 3});
  CHECK(values(some.x) == Indices{5, 4, 5, 6, 0, 6});
  CHECK(values(some.lengths) == Indices{2, 1, 2});
  CHECK(some.indices == Indices{3, 1, 3});

  // A padding that a double can't hold.
  CHECK(values(pad_sequences({{1}, {}}, kHuge).x) == Indices{1, kHuge});
}

TEST_CASE("padded: nothing to pad") {
  const PaddedBatch none = pad_sequences({}, 0);
  CHECK(none.x.shape() == Shape{0, 0});
  CHECK(none.lengths.shape() == Shape{0});
  const PaddedBatch empty_ones = pad_sequences({{}, {}}, 0);
  CHECK(empty_ones.x.shape() == Shape{0, 2});
  CHECK(values(empty_ones.lengths) == Indices{0, 0});
}

TEST_CASE("padded: indices out of range") {
  const Sequences sequences = {{1}, {2}};
  CHECK_THROWS_WITH_AS(pad_sequences(sequences, {0, 2}, 0),
                       "pad_sequences: index 2 is out of range for 2 sequences", IndexError);
  CHECK_THROWS_WITH_AS(pad_sequences(sequences, {-1}, 0),
                       "pad_sequences: index -1 is out of range for 2 sequences", IndexError);
}

TEST_CASE("padded: buckets hold every sequence once, beside others of similar length") {
  constexpr std::int64_t kPadding = -1;
  for (std::int64_t count : {0, 1, 4, 5, 37, 40}) {
    for (std::int64_t batch_size : {1, 4, 50}) {
      for (std::int64_t bucket_batches : {1, 2, 3, 100}) {
        CAPTURE(count);
        CAPTURE(batch_size);
        CAPTURE(bucket_batches);
        Sequences sequences;
        Indices sorted_lengths;
        for (std::int64_t i = 0; i < count; ++i) {
          sequences.push_back(Indices(static_cast<std::size_t>(i * 17 % 11), i));
          sorted_lengths.push_back(length(sequences.back()));
        }
        std::sort(sorted_lengths.begin(), sorted_lengths.end());

        Generator generator(static_cast<std::uint64_t>(count));
        const PaddedBatches batches = bucketed_batches(
            sequences,
            {.batch_size = batch_size, .padding = kPadding, .bucket_batches = bucket_batches},
            generator);
        CHECK(batches.size() == (count + batch_size - 1) / batch_size);
        Indices seen;
        std::int64_t short_batches = 0;
        for (auto& [x, lengths, indices] : batches) {
          const Indices sizes = values(lengths);
          REQUIRE(length(sizes) == length(indices));
          short_batches += length(indices) < batch_size ? 1 : 0;
          const std::int64_t longest = *std::max_element(sizes.begin(), sizes.end());
          REQUIRE(x.shape() == Shape{longest, length(indices)});
          for (std::int64_t b = 0; b < length(indices); ++b) {
            const std::int64_t index = indices[static_cast<std::size_t>(b)];
            Indices expected = sequences[static_cast<std::size_t>(index)];
            CHECK(sizes[static_cast<std::size_t>(b)] == length(expected));
            expected.resize(static_cast<std::size_t>(longest), kPadding);
            CHECK(column(x, b) == expected);
            seen.push_back(index);
          }
          // One of the buckets has room for all lengths of the batch.
          const std::int64_t shortest = *std::min_element(sizes.begin(), sizes.end());
          bool fits = false;
          for (std::int64_t i = 0; i < count; i += batch_size * bucket_batches) {
            const std::int64_t last = std::min(count, i + batch_size * bucket_batches) - 1;
            fits = fits || (sorted_lengths[static_cast<std::size_t>(i)] <= shortest &&
                            longest <= sorted_lengths[static_cast<std::size_t>(last)]);
          }
          CHECK(fits);
        }
        std::sort(seen.begin(), seen.end());
        CHECK(seen == numbers(count));
        CHECK(short_batches == (count % batch_size == 0 ? 0 : 1));
      }
    }
  }
}

TEST_CASE("padded: one batch per bucket means the least padding") {
  Sequences sequences;
  for (std::int64_t i = 0; i < 32; ++i) {
    sequences.push_back(Indices(static_cast<std::size_t>(i * 5 % 32), i));
  }
  std::set<std::int64_t> widths;
  for (auto& [x, lengths, indices] :
       bucketed_batches(sequences, {.batch_size = 8, .bucket_batches = 1})) {
    Indices sizes = values(lengths);
    std::sort(sizes.begin(), sizes.end());
    CHECK(sizes.back() - sizes.front() == 7);
    widths.insert(x.size(0));
  }
  CHECK(widths == std::set<std::int64_t>{7, 15, 23, 31});
}

TEST_CASE("padded: order and company are random, and a seed repeats them") {
  Sequences sequences;
  for (std::int64_t i = 0; i < 24; ++i) {
    sequences.push_back(Indices(static_cast<std::size_t>(1 + i / 12), i));
  }
  std::set<Indices> orders;
  std::set<std::int64_t> first_widths;
  for (std::uint64_t seed = 0; seed < 40; ++seed) {
    Generator generator(seed), same(seed);
    const BucketOptions options{.batch_size = 6, .bucket_batches = 2};
    const PaddedBatches batches = bucketed_batches(sequences, options, generator);
    const PaddedBatches again = bucketed_batches(sequences, options, same);
    Indices order;
    for (std::int64_t i = 0; i < batches.size(); ++i) {
      const Indices indices = batches[i].indices;
      CHECK(again[i].indices == indices);
      order.insert(order.end(), indices.begin(), indices.end());
      // A bucket holds the twelve sequences of one length.
      CHECK(values(batches[i].lengths) == Indices(6, batches[i].x.size(0)));
    }
    orders.insert(order);
    first_widths.insert(batches[0].x.size(0));
  }
  CHECK(orders.size() == 40);
  CHECK(first_widths == std::set<std::int64_t>{1, 2});  // the batches come in random order
}

TEST_CASE("padded: who shares a batch changes within a bucket, also among equal lengths") {
  Sequences different, equal;
  for (std::int64_t i = 0; i < 12; ++i) {
    different.push_back(Indices(static_cast<std::size_t>(i), i));
    equal.push_back(Indices(3, i));
  }
  // The sequences that share a batch with number 0.
  const auto company = [](const Sequences& sequences, const BucketOptions& options,
                          std::uint64_t seed) {
    Generator generator(seed);
    for (auto& [x, lengths, indices] : bucketed_batches(sequences, options, generator)) {
      const std::set<std::int64_t> members(indices.begin(), indices.end());
      if (members.count(0) != 0) return members;
    }
    return std::set<std::int64_t>();
  };
  std::set<std::set<std::int64_t>> of_different, of_equal;
  for (std::uint64_t seed = 0; seed < 20; ++seed) {
    of_different.insert(company(different, {.batch_size = 3, .bucket_batches = 2}, seed));
    of_equal.insert(company(equal, {.batch_size = 3, .bucket_batches = 1}, seed));
  }
  CHECK(of_different.size() > 5);  // of 10 pairs from the bucket of lengths 0 to 5
  CHECK(of_equal.size() > 10);     // of 55
}

TEST_CASE("batches in order: each sequence once, as they stand") {
  const Sequences sequences{{1}, {2, 3}, {}, {4, 5, 6}, {7}};
  const PaddedBatches batches = ordered_batches(sequences, 2, 9);
  REQUIRE(batches.size() == 3);
  CHECK(batches[0].x.to_vector<std::int64_t>() == std::vector<std::int64_t>{1, 2, 9, 3});
  CHECK(batches[1].lengths.to_vector<std::int64_t>() == std::vector<std::int64_t>{0, 3});
  CHECK(batches[2].indices == std::vector<std::int64_t>{4});
  CHECK(ordered_batches(sequences, kHuge, 0).size() == 1);
  const Sequences none;
  CHECK(ordered_batches(none, 4, 0).size() == 0);
}

TEST_CASE("padded: options and batch indices out of range") {
  const Sequences sequences = {{1}, {2}, {3}};
  CHECK_THROWS_WITH_AS(ordered_batches(sequences, 0, 0),
                       "ordered_batches: batch_size must be 1 or more, got 0", ValueError);
  CHECK_THROWS_WITH_AS(bucketed_batches(sequences, {.batch_size = 0}),
                       "bucketed_batches: batch_size must be 1 or more, got 0", ValueError);
  CHECK_THROWS_WITH_AS(bucketed_batches(sequences, {.bucket_batches = 0}),
                       "bucketed_batches: bucket_batches must be 1 or more, got 0", ValueError);
  CHECK(bucketed_batches(sequences, {.batch_size = kHuge, .bucket_batches = kHuge}).size() == 1);
  const PaddedBatches batches = bucketed_batches(sequences, {.batch_size = 2});
  CHECK_THROWS_WITH_AS(batches[2], "PaddedBatches: index 2 is out of range for 2 batches",
                       IndexError);
  CHECK_THROWS_WITH_AS(batches[-1], "PaddedBatches: index -1 is out of range for 2 batches",
                       IndexError);
}
