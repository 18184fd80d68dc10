// The hidden Markov model: counts by hand, and all that it computes against enumeration.

#include <doctest/doctest.h>

#include <cmath>
#include <string>
#include <vector>

#include "modules/hmm.h"
#include "tests/support.h"

using namespace unroll;

namespace {

using Sequence = std::vector<std::int64_t>;

constexpr std::int64_t kTags = 3, kTokens = 4;

HMM counted() {
  HMM hmm(kTags, kTokens);
  hmm.to(DType::f64);
  hmm.fit({{0, 1, 2, 3, 0}, {1, 1, 2}, {3}, {2, 0, 1, 1}},
          {{0, 1, 1, 2, 0}, {1, 0, 2}, {2}, {2, 1, 0, 1}}, 0.5);
  return hmm;
}

/// p(x, y), factor by factor.
double joint(const HMM& hmm, const Sequence& x, const Sequence& y) {
  double log_p = hmm.chain.start[y[0]].item() + hmm.chain.end[y.back()].item();
  for (std::size_t t = 0; t < x.size(); ++t) {
    log_p += hmm.log_emissions[x[t]][y[t]].item();
    if (t > 0) log_p += hmm.chain.transitions[y[t - 1]][y[t]].item();
  }
  return std::exp(log_p);
}

/// Every sequence of that length over that many symbols.
std::vector<Sequence> all_sequences(std::int64_t symbols, std::size_t length) {
  std::vector<Sequence> result{{}};
  for (std::size_t t = 0; t < length; ++t) {
    std::vector<Sequence> longer;
    for (const Sequence& start : result)
      for (std::int64_t s = 0; s < symbols; ++s) {
        longer.push_back(start);
        longer.back().push_back(s);
      }
    result = longer;
  }
  return result;
}

bool near(double a, double b) { return std::abs(a - b) < 1e-12; }

}  // namespace

TEST_CASE("HMM: the tables are counts with epsilon") {
  HMM hmm(2, 3);
  hmm.to(DType::f64);
  hmm.fit({{0, 1, 0}, {2, 0}}, {{0, 1, 1}, {0, 0}}, 0.5);
  // Tag 0 is seen with the tokens 0, 2, 0, tag 1 with 1, 0.
  const double emissions[2][3] = {{2.5 / 4.5, 0.5 / 4.5, 1.5 / 4.5},
                                  {1.5 / 3.5, 1.5 / 3.5, 0.5 / 3.5}};
  for (std::int64_t k = 0; k < 2; ++k)
    for (std::int64_t v = 0; v < 3; ++v)
      CHECK(near(std::exp(hmm.log_emissions[v][k].item()), emissions[k][v]));
  // Behind 0 stand 1, 0 and the end, behind 1 stand 1 and the end.
  CHECK(near(std::exp(hmm.chain.start[0].item()), 2.5 / 3));
  CHECK(near(std::exp(hmm.chain.transitions[0][1].item()), 1.5 / 4.5));
  CHECK(near(std::exp(hmm.chain.transitions[0][0].item()), 1.5 / 4.5));
  CHECK(near(std::exp(hmm.chain.end[0].item()), 1.5 / 4.5));
  CHECK(near(std::exp(hmm.chain.transitions[1][0].item()), 0.5 / 3.5));
  CHECK(near(std::exp(hmm.chain.end[1].item()), 1.5 / 3.5));
}

TEST_CASE("HMM: log p(x), posteriors and Viterbi equal enumeration, in a padded batch") {
  const HMM hmm = counted();
  const std::vector<Sequence> sequences{{0, 1, 3, 2, 2}, {3}, {2, 2, 0}, {1, 0, 1, 3, 0}};
  std::vector<std::int64_t> lengths;
  Tensor tokens = zeros({5, 4}, DType::i64);
  for (std::int64_t b = 0; b < 4; ++b) {
    const Sequence& x = sequences[static_cast<std::size_t>(b)];
    lengths.push_back(std::ssize(x));
    for (std::int64_t t = 0; t < std::ssize(x); ++t)
      tokens[t][b].fill_(static_cast<double>(x[static_cast<std::size_t>(t)]));
  }
  const Tensor log_p = hmm.log_prob(tokens, from_vector(lengths));
  const Tensor posteriors = hmm.posteriors(tokens, from_vector(lengths));
  const ViterbiResult best = hmm.viterbi(tokens, from_vector(lengths));
  CHECK(log_p.dtype() == DType::f64);
  CHECK(!log_p.requires_grad());
  for (std::size_t b = 0; b < 4; ++b) {
    const Sequence& x = sequences[b];
    const auto row = static_cast<std::int64_t>(b);
    double total = 0, largest = 0;
    Sequence most;
    std::vector<std::vector<double>> mass(x.size(), std::vector<double>(kTags, 0.0));
    for (const Sequence& y : all_sequences(kTags, x.size())) {
      const double p = joint(hmm, x, y);
      total += p;
      for (std::size_t t = 0; t < x.size(); ++t) mass[t][static_cast<std::size_t>(y[t])] += p;
      if (p > largest) largest = p, most = y;
    }
    CHECK(near(log_p[row].item(), std::log(total)));
    CHECK(best.tags[b] == most);
    CHECK(near(best.scores[b], std::log(largest)));
    for (std::int64_t t = 0; t < 5; ++t)
      for (std::int64_t k = 0; k < kTags; ++k) {
        const auto s = static_cast<std::size_t>(t);
        const double wanted = s < x.size() ? mass[s][static_cast<std::size_t>(k)] / total : 0.0;
        CHECK(near(posteriors[t][row][k].item(), wanted));
      }
  }
}

TEST_CASE("HMM: p(x) adds up to p(length), also before it is counted") {
  HMM hmm(2, 2);
  hmm.to(DType::f64);
  // Uniform: the end comes with probability 1 / 3 each time.
  double total = 0;
  for (const Sequence& x : all_sequences(2, 4))
    total += std::exp(hmm.log_prob(from_vector(x, {4, 1})).item());
  CHECK(std::abs(total - 8.0 / 81) < 1e-7);  // the tables were made in f32
}

TEST_CASE("HMM: what it refuses") {
  HMM hmm(2, 3);
  CHECK_THROWS_WITH_AS(HMM(2, 0), "HMM: num_tokens is at least 1, but is 0", ValueError);
  CHECK_THROWS_WITH_AS(HMM(0, 2), "LinearChainCRF: num_tags is at least 1, but is 0", ValueError);
  CHECK_THROWS_WITH_AS(hmm.fit({{0}}, {{0}}, 0), "HMM::fit: epsilon must be above 0, but is 0",
                       ValueError);
  CHECK_THROWS_WITH_AS(hmm.fit({{0}}, {}),
                       "HMM::fit: 1 sequences of tokens need as many of tags, got 0, and 1 or more",
                       ValueError);
  CHECK_THROWS_WITH_AS(hmm.fit({}, {}),
                       "HMM::fit: 0 sequences of tokens need as many of tags, got 0, and 1 or more",
                       ValueError);
  CHECK_THROWS_WITH_AS(hmm.fit({{0, 1}}, {{0}}), "HMM::fit: sequence 0 has 2 tokens and 1 tags",
                       ValueError);
  CHECK_THROWS_WITH_AS(hmm.fit({{0}, {3}}, {{0}, {0}}),
                       "HMM::fit: token 3 of sequence 1 is out of range for 3", IndexError);
  CHECK_THROWS_WITH_AS(hmm.fit({{0}}, {{-1}}),
                       "HMM::fit: tag -1 of sequence 0 is out of range for 2", IndexError);
  CHECK_THROWS_WITH_AS(hmm.viterbi(from_vector<std::int64_t>({3}, {1, 1})),
                       "embedding: index 3 at position (0, 0) is out of range [0, 3)", IndexError);
}
