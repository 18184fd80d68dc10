/// Windows over a corpus: random, sequential, and to evaluate.

#include <doctest/doctest.h>

#include <algorithm>
#include <cstdint>
#include <set>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "data/sequences.h"
#include "framework/check.h"
#include "framework/ops.h"
#include "framework/random.h"
#include "tests/data.h"

using namespace unroll;
using namespace unroll::test;

// A corpus that would be gone after the line is refused when compiled.
template <class C>
concept CutsRandomly = requires(C&& c) {
  random_windows(std::forward<C>(c), WindowOptions{});
};
template <class C>
concept CutsInSequence = requires(C&& c) {
  sequential_windows(std::forward<C>(c), WindowOptions{});
};
template <class C>
concept CutsToEvaluate = requires(C&& c) {
  evaluation_windows(std::forward<C>(c), WindowOptions{});
};
static_assert(CutsRandomly<Indices&> && CutsRandomly<const Indices&> && !CutsRandomly<Indices>);
static_assert(CutsInSequence<Indices&> && !CutsInSequence<Indices>);
static_assert(CutsToEvaluate<Indices&> && !CutsToEvaluate<Indices>);
static_assert(CutsToEvaluate<std::span<const std::int64_t>>);

TEST_CASE("windows: exact small cases, one step at a time") {
  // With T = 1 the random offset is 0.
  const Indices corpus = {10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20};
  std::vector<Indices> xs, ys;
  for (auto& [x, y] : sequential_windows(corpus, {.batch_size = 3, .num_steps = 1})) {
    CHECK(x.shape() == Shape{1, 3});
    CHECK(y.shape() == Shape{1, 3});
    CHECK(x.dtype() == DType::i64);
    CHECK(y.dtype() == DType::i64);
    xs.push_back(values(x));
    ys.push_back(values(y));
  }
  CHECK(xs == std::vector<Indices>{{10, 13, 16}, {11, 14, 17}, {12, 15, 18}});
  CHECK(ys == std::vector<Indices>{{11, 14, 17}, {12, 15, 18}, {13, 16, 19}});

  Indices all;
  for (auto& [x, y] : random_windows(corpus, {.batch_size = 5, .num_steps = 1})) {
    const Indices row = values(x);
    all.insert(all.end(), row.begin(), row.end());
    CHECK(values(y - x) == Indices(5, 1));
  }
  std::sort(all.begin(), all.end());
  CHECK(all == Indices{10, 11, 12, 13, 14, 15, 16, 17, 18, 19});
}

TEST_CASE("windows: time first") {
  const Indices corpus = numbers(9);
  const WindowBatches batches = evaluation_windows(corpus, {.batch_size = 2, .num_steps = 3});
  REQUIRE(batches.size() == 2);
  CHECK(batches[0].x.shape() == Shape{3, 2});
  CHECK(values(batches[0].x) == Indices{0, 4, 1, 5, 2, 6});
  CHECK(values(batches[0].y) == Indices{1, 5, 2, 6, 3, 7});
  CHECK(batches[1].x.shape() == Shape{1, 2});
  CHECK(values(batches[1].x) == Indices{3, 7});
  CHECK(values(batches[1].y) == Indices{4, 8});
}

TEST_CASE("windows: random windows cover the corpus as documented") {
  constexpr std::int64_t kTokens = 47, kBatch = 3, kSteps = 4;
  const Indices corpus = numbers(kTokens);
  std::set<std::int64_t> offsets;
  std::set<Indices> orders;
  for (std::uint64_t seed = 0; seed < 60; ++seed) {
    CAPTURE(seed);
    Generator generator(seed);
    Indices starts;
    const WindowBatches batches =
        random_windows(corpus, {.batch_size = kBatch, .num_steps = kSteps}, generator);
    for (auto& [x, y] : batches) {
      REQUIRE(x.shape() == Shape{kSteps, kBatch});
      REQUIRE(y.shape() == Shape{kSteps, kBatch});
      for (std::int64_t b = 0; b < kBatch; ++b) {
        const std::int64_t start = column(x, b)[0];
        CHECK(column(x, b) == Indices{start, start + 1, start + 2, start + 3});
        CHECK(column(y, b) == Indices{start + 1, start + 2, start + 3, start + 4});
        starts.push_back(start);
      }
    }
    const std::int64_t offset = starts[0] % kSteps;
    offsets.insert(offset);
    orders.insert(starts);
    const std::int64_t windows = (kTokens - offset - 1) / kSteps;
    CHECK(batches.size() == windows / kBatch);
    CHECK(length(starts) == windows / kBatch * kBatch);
    // Each start once, on the grid, inside the corpus.
    CHECK(std::set<std::int64_t>(starts.begin(), starts.end()).size() == starts.size());
    for (std::int64_t start : starts) {
      CHECK(start % kSteps == offset);
      CHECK(start >= 0);
      CHECK(start + kSteps < kTokens);
    }
  }
  CHECK(offsets == std::set<std::int64_t>{0, 1, 2, 3});
  CHECK(orders.size() == 60);
}

TEST_CASE("windows: sequential windows continue each other and cover the rows") {
  constexpr std::int64_t kTokens = 50, kBatch = 3, kSteps = 4;
  const Indices corpus = numbers(kTokens);
  std::set<std::int64_t> offsets;
  for (std::uint64_t seed = 0; seed < 40; ++seed) {
    CAPTURE(seed);
    Generator generator(seed);
    const WindowBatches batches =
        sequential_windows(corpus, {.batch_size = kBatch, .num_steps = kSteps}, generator);
    std::vector<Indices> rows(kBatch);
    for (auto& [x, y] : batches) {
      REQUIRE(x.shape() == Shape{kSteps, kBatch});
      CHECK(values(y - x) == Indices(kBatch * kSteps, 1));
      for (std::int64_t b = 0; b < kBatch; ++b) {
        Indices& row = rows[static_cast<std::size_t>(b)];
        const Indices part = column(x, b);
        row.insert(row.end(), part.begin(), part.end());
      }
    }
    const std::int64_t offset = rows[0][0];
    CHECK(offset < kSteps);
    offsets.insert(offset);
    const std::int64_t row_length = (kTokens - offset - 1) / kBatch;
    CHECK(batches.size() == row_length / kSteps);
    for (std::int64_t b = 0; b < kBatch; ++b) {
      Indices expected = numbers(row_length / kSteps * kSteps);
      for (std::int64_t& value : expected) value += offset + b * row_length;
      CHECK(rows[static_cast<std::size_t>(b)] == expected);
    }
  }
  CHECK(offsets == std::set<std::int64_t>{0, 1, 2, 3});
}

TEST_CASE("windows: an evaluation predicts all tokens but the first and less than B at the end") {
  for (std::int64_t tokens = 2; tokens < 30; ++tokens) {
    for (std::int64_t batch = 1; batch < std::min<std::int64_t>(tokens, 6); ++batch) {
      for (std::int64_t steps : {1, 2, 3, 7, 100}) {
        CAPTURE(tokens);
        CAPTURE(batch);
        CAPTURE(steps);
        const Indices corpus = numbers(tokens);
        std::vector<Indices> rows(static_cast<std::size_t>(batch));
        for (auto& [x, y] : evaluation_windows(corpus, {.batch_size = batch, .num_steps = steps})) {
          CHECK(x.size(0) >= 1);
          CHECK(x.size(0) <= steps);
          CHECK(values(y - x) == Indices(static_cast<std::size_t>(x.numel()), 1));
          for (std::int64_t b = 0; b < batch; ++b) {
            Indices& row = rows[static_cast<std::size_t>(b)];
            const Indices part = column(y, b);
            row.insert(row.end(), part.begin(), part.end());
          }
        }
        Indices predicted;
        for (const Indices& row : rows) predicted.insert(predicted.end(), row.begin(), row.end());
        Indices expected = numbers((tokens - 1) / batch * batch);
        for (std::int64_t& value : expected) ++value;
        CHECK(predicted == expected);
        CHECK(tokens - 1 - length(predicted) < batch);
      }
    }
  }
}

TEST_CASE("windows: a seed repeats, and an epoch can be entered in its middle") {
  const Indices corpus = numbers(200);
  const WindowOptions options{.batch_size = 4, .num_steps = 5};
  using Make = WindowBatches (*)(std::span<const std::int64_t>, const WindowOptions&, Generator&);
  for (Make make : {Make(random_windows), Make(sequential_windows)}) {
    Generator generator(7);
    make(corpus, options, generator);  // the first epoch
    const auto state = generator.state();
    const WindowBatches second = make(corpus, options, generator);
    std::vector<Indices> expected;
    for (auto& [x, y] : second) expected.push_back(values(x));

    Generator resumed;
    resumed.set_state(state);
    const WindowBatches again = make(corpus, options, resumed);
    REQUIRE(again.size() == second.size());
    for (std::int64_t i = again.size() - 1; i >= 0; --i) {
      CHECK(values(again[i].x) == expected[static_cast<std::size_t>(i)]);
    }
    CHECK(resumed.state() == generator.state());
  }
}

TEST_CASE("windows: the default generator is taken where none is given") {
  const Indices corpus = numbers(200);
  manual_seed(3);
  const Indices first = values(random_windows(corpus, {.batch_size = 4, .num_steps = 5})[0].x);
  Generator generator(3);
  CHECK(values(random_windows(corpus, {.batch_size = 4, .num_steps = 5}, generator)[0].x) == first);
}

TEST_CASE("windows: the shortest corpus gives a batch at every offset, a shorter one an error") {
  const WindowOptions options{.batch_size = 3, .num_steps = 4};
  const Indices enough = numbers(16);
  for (std::uint64_t seed = 0; seed < 30; ++seed) {
    Generator generator(seed);
    CHECK(random_windows(enough, options, generator).size() == 1);
    CHECK(sequential_windows(enough, options, generator).size() == 1);
  }
  const Indices shorter = numbers(15);
  CHECK_THROWS_WITH_AS(random_windows(shorter, options),
                       "random_windows: a batch needs (batch_size + 1) * num_steps = (3 + 1) * 4 "
                       "tokens, the corpus has 15",
                       ValueError);
  CHECK_THROWS_WITH_AS(sequential_windows(shorter, options),
                       "sequential_windows: a batch needs (batch_size + 1) * num_steps = (3 + 1) "
                       "* 4 tokens, the corpus has 15",
                       ValueError);
  const Indices three = numbers(3);
  CHECK_THROWS_WITH_AS(
      evaluation_windows(three, options),
      "evaluation_windows: a batch needs batch_size + 1 = 3 + 1 tokens, the corpus has 3",
      ValueError);
  const Indices none;
  CHECK_THROWS_WITH_AS(random_windows(none, {.batch_size = 1, .num_steps = 1}),
                       "random_windows: a batch needs (batch_size + 1) * num_steps = (1 + 1) * 1 "
                       "tokens, the corpus has 0",
                       ValueError);
  CHECK_THROWS_WITH_AS(
      evaluation_windows(none, {.batch_size = 1, .num_steps = 1}),
      "evaluation_windows: a batch needs batch_size + 1 = 1 + 1 tokens, the corpus has 0",
      ValueError);
}

namespace {

/// What random and sequential windows say of a corpus of 100 tokens.
std::string tokens_needed(const WindowOptions& options) {
  return ": a batch needs (batch_size + 1) * num_steps = (" + std::to_string(options.batch_size) +
         " + 1) * " + std::to_string(options.num_steps) + " tokens, the corpus has 100";
}

}  // namespace

TEST_CASE("windows: options and indices out of range") {
  const Indices corpus = numbers(100);
  CHECK_THROWS_WITH_AS(random_windows(corpus, {.batch_size = 0, .num_steps = 5}),
                       "random_windows: batch_size must be 1 or more, got 0", ValueError);
  CHECK_THROWS_WITH_AS(sequential_windows(corpus, {.batch_size = 2, .num_steps = -1}),
                       "sequential_windows: num_steps must be 1 or more, got -1", ValueError);
  CHECK_THROWS_WITH_AS(evaluation_windows(corpus, {.batch_size = 2, .num_steps = 0}),
                       "evaluation_windows: num_steps must be 1 or more, got 0", ValueError);
  for (const WindowOptions& options : {WindowOptions{kHuge, kHuge}, WindowOptions{2, kHuge}}) {
    CHECK_THROWS_WITH_AS(random_windows(corpus, options),
                         ("random_windows" + tokens_needed(options)).c_str(), ValueError);
    CHECK_THROWS_WITH_AS(sequential_windows(corpus, options),
                         ("sequential_windows" + tokens_needed(options)).c_str(), ValueError);
  }
  CHECK_THROWS_WITH_AS(evaluation_windows(corpus, {.batch_size = kHuge, .num_steps = 1}),
                       ("evaluation_windows: a batch needs batch_size + 1 = " +
                        std::to_string(kHuge) + " + 1 tokens, the corpus has 100")
                           .c_str(),
                       ValueError);
  CHECK(evaluation_windows(corpus, {.batch_size = 1, .num_steps = kHuge})[0].x.size(0) == 99);

  const WindowBatches batches = random_windows(corpus, {.batch_size = 2, .num_steps = 5});
  REQUIRE(batches.size() == 9);
  CHECK_THROWS_WITH_AS(batches[9], "WindowBatches: index 9 is out of range for 9 batches",
                       IndexError);
  CHECK_THROWS_WITH_AS(batches[-1], "WindowBatches: index -1 is out of range for 9 batches",
                       IndexError);
}
