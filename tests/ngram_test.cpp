/// Counts of n-grams and Markov language models.

#include <doctest/doctest.h>

#include <cmath>
#include <cstdint>
#include <string>
#include <vector>

#include "data/ngram.h"
#include "framework/check.h"

using namespace unroll;

namespace {

using Tokens = std::vector<std::int64_t>;

const Tokens kText{0, 1, 0, 1, 2, 0};

}  // namespace

TEST_CASE("n-grams are counted with overlaps") {
  const std::vector<std::string> text{"a", "a", "a", "b"};
  CHECK(count_ngrams(text, 1) == NgramCounts<std::string>{{{"a"}, 3}, {{"b"}, 1}});
  CHECK(count_ngrams(text, 2) == NgramCounts<std::string>{{{"a", "a"}, 2}, {{"a", "b"}, 1}});
  CHECK(count_ngrams(text, 4).size() == 1);
  CHECK(count_ngrams(text, 5).empty());
}

TEST_CASE("probabilities of an n-gram model are smoothed counts") {
  const NgramModel model(kText, 2, 4, 0.5);
  CHECK(model.probability({}, 0) == doctest::Approx(3.5 / 8));
  CHECK(model.probability({}, 3) == doctest::Approx(0.5 / 8));
  CHECK(model.probability(Tokens{0}, 1) == doctest::Approx(2.5 / 4));  // the last 0 has no follower
  CHECK(model.probability(Tokens{0, 1}, 2) == doctest::Approx(1.5 / 4));
  CHECK(model.probability(Tokens{3, 0, 1}, 2) == model.probability(Tokens{0, 1}, 2));
  CHECK(model.probability(Tokens{2, 2}, 1) == doctest::Approx(1.0 / 4));  // never seen
  for (const Tokens& context : {Tokens{}, Tokens{1}, Tokens{0, 1}, Tokens{3, 3}}) {
    double sum = 0;
    for (std::int64_t w = 0; w < 4; ++w) sum += model.probability(context, w);
    CHECK(sum == doctest::Approx(1.0));
  }
}

TEST_CASE("the log-probability of a text is the sum over its tokens but the first") {
  const NgramModel model(kText, 2, 4, 0.5);
  const auto p = [&](const Tokens& context, std::int64_t w) {
    return std::log(model.probability(context, w));
  };
  const Tokens text{1, 2, 0, 3};
  CHECK(model.log_prob(text, 0) == doctest::Approx(p({}, 2) + p({}, 0) + p({}, 3)));
  CHECK(model.log_prob(text, 1) == doctest::Approx(p({1}, 2) + p({2}, 0) + p({0}, 3)));
  CHECK(model.log_prob(text, 2) == doctest::Approx(p({1}, 2) + p({1, 2}, 0) + p({2, 0}, 3)));
  CHECK(model.perplexity(text, 1) == doctest::Approx(std::exp(-model.log_prob(text, 1) / 3)));
  CHECK(model.log_prob(Tokens{}, 1) == 0.0);
  // A model that saw nothing hesitates among all tokens.
  CHECK(NgramModel(Tokens{}, 3, 7, 1).perplexity(text, 3) == doctest::Approx(7.0));
}

TEST_CASE("a higher order learns a text by heart") {
  Tokens text;
  for (int i = 0; i < 200; ++i) text.push_back(i % 3 == 2 ? 1 : i % 3 == 1 ? 0 : i / 3 % 2);
  const NgramModel model(text, 5, 2, 1e-3);
  CHECK(model.perplexity(text, 0) > 1.9);
  for (std::int64_t order = 1; order <= 4; ++order)
    CHECK(model.perplexity(text, order) < model.perplexity(text, order - 1) * 1.0001);
  CHECK(model.perplexity(text, 5) < 1.02);
}

TEST_CASE("an n-gram model refuses what it cannot count") {
  CHECK_THROWS_WITH_AS(NgramModel(kText, -1, 3, 1), "NgramModel: order -1 is below 0", ValueError);
  CHECK_THROWS_WITH_AS(NgramModel(kText, 1, 3, 0), "NgramModel: epsilon must be above 0, not 0",
                       ValueError);
  CHECK_THROWS_WITH_AS(NgramModel(kText, 1, 2, 1), "NgramModel: token 2 at 4 is not in [0, 2)",
                       ValueError);
  const NgramModel model(kText, 1, 3, 1);
  CHECK_THROWS_WITH_AS(model.log_prob(kText, 2), "NgramModel: order 2 of 0 to 1", ValueError);
  CHECK_THROWS_WITH_AS(model.perplexity(Tokens{1}, 1), "NgramModel: the perplexity of 1 tokens",
                       ValueError);
}
