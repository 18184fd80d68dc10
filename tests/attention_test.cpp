// Attention: the four scores against the written-out formulas, lengths, gradients.

#include "modules/attention.h"

#include <cmath>

#include "tests/recurrent.h"

using namespace unroll;
using namespace unroll::test;

namespace {

constexpr std::int64_t kPlaces = 4, kBatch = 3, kQuery = 3, kKey = 5, kHidden = 4, kValue = 2;

Attention make(AttentionScore score) {
  const bool square = score == AttentionScore::dot || score == AttentionScore::scaled_dot;
  return to_f64(Attention(score, square ? kKey : kQuery, kKey,
                          score == AttentionScore::additive ? kHidden : 0));
}

constexpr AttentionScore kScores[] = {AttentionScore::additive, AttentionScore::general,
                                      AttentionScore::dot, AttentionScore::scaled_dot};

double at(const Tensor& x, std::int64_t i) { return x[i].item(); }
double at(const Tensor& x, std::int64_t i, std::int64_t j) { return x[i][j].item(); }

/// The score of one query and one key, in plain numbers.
double written_out(const Attention& attention, const Tensor& q, const Tensor& k) {
  double result = 0.0;
  switch (attention.score) {
    case AttentionScore::additive:
      for (std::int64_t h = 0; h < kHidden; ++h) {
        double inner = 0.0;
        for (std::int64_t i = 0; i < q.size(0); ++i)
          inner += at(attention.query->weight, h, i) * at(q, i);
        for (std::int64_t i = 0; i < k.size(0); ++i)
          inner += at(attention.key->weight, h, i) * at(k, i);
        result += at(attention.v, h) * std::tanh(inner);
      }
      return result;
    case AttentionScore::general:
      for (std::int64_t i = 0; i < q.size(0); ++i)
        for (std::int64_t j = 0; j < k.size(0); ++j)
          result += at(q, i) * at(attention.key->weight, i, j) * at(k, j);
      return result;
    default:
      for (std::int64_t i = 0; i < q.size(0); ++i) result += at(q, i) * at(k, i);
      if (attention.score == AttentionScore::scaled_dot) result /= std::sqrt(5.0);
      return result;
  }
}

}  // namespace

TEST_CASE("attention: every score is the written-out formula, and the context the weighted mean") {
  manual_seed(1);
  for (const AttentionScore score : kScores) {
    CAPTURE(static_cast<int>(score));
    const Attention attention = make(score);
    const Tensor keys = random64({kPlaces, kBatch, kKey}),
                 values = random64({kPlaces, kBatch, kValue}),
                 queries = random64({2, kBatch, attention.query_size});
    const std::vector<std::int64_t> lengths{4, 2, 3};
    const auto [context, weights] =
        attention(queries, attention.memory(keys, values, indices(lengths)));
    CHECK(context.shape() == Shape{2, kBatch, kValue});
    CHECK(weights.shape() == Shape{2, kBatch, kPlaces});
    for (std::int64_t t = 0; t < 2; ++t)
      for (std::int64_t b = 0; b < kBatch; ++b) {
        const std::int64_t n = lengths[static_cast<std::size_t>(b)];
        double total = 0.0;
        std::vector<double> expected(kPlaces, 0.0);
        for (std::int64_t s = 0; s < n; ++s)
          total += expected[static_cast<std::size_t>(s)] =
              std::exp(written_out(attention, queries[t][b], keys[s][b]));
        for (double& e : expected) e /= total;
        CHECK(max_difference(weights[t][b], from_vector(expected)) < 1e-14);
        for (std::int64_t i = 0; i < kValue; ++i) {
          double mean = 0.0;
          for (std::int64_t s = 0; s < n; ++s)
            mean += expected[static_cast<std::size_t>(s)] * at(values[s][b], i);
          CHECK(std::abs(at(context[t][b], i) - mean) < 1e-14);
        }
      }
  }
}

TEST_CASE("attention: one query gives what it gives among many, and keys may be the values") {
  manual_seed(2);
  for (const AttentionScore score : kScores) {
    const Attention attention = make(score);
    const Tensor keys = random64({kPlaces, kBatch, kKey}),
                 queries = random64({2, kBatch, attention.query_size});
    const AttentionMemory memory = attention.memory(keys);
    const auto all = attention(queries, memory), one = attention(queries[1], memory),
               named = attention(queries[1], attention.memory(keys, keys.clone(), Tensor()));
    CHECK(one.context.shape() == Shape{kBatch, kKey});
    CHECK(one.weights.shape() == Shape{kBatch, kPlaces});
    CHECK(max_difference(one.context, all.context[1]) < 1e-14);
    CHECK(max_difference(one.weights, all.weights[1]) < 1e-14);
    CHECK(max_difference(one.context, named.context) < 1e-14);
  }
}

TEST_CASE("attention: NaN in the padding reaches neither values nor gradients") {
  manual_seed(3);
  for (const AttentionScore score : kScores) {
    CAPTURE(static_cast<int>(score));
    const Attention attention = make(score);
    const Tensor clean = random64({kPlaces, 2, kKey});
    const Tensor query = random_leaf({2, attention.query_size});
    Tensor dirty = clean.clone();
    narrow(select(dirty, 1, 1), 0, 2, 2).fill_(std::nan(""));
    const Tensor lengths = indices({4, 2});
    std::vector<std::vector<Tensor>> gradients;
    std::vector<Tensor> contexts;
    for (Tensor keys : {clean.clone(), dirty}) {
      keys.requires_grad_();
      std::vector<Tensor> wanted = attention.parameters();
      wanted.push_back(keys);
      wanted.push_back(query);
      const auto [context, weights] = attention(query, attention.memory(keys, lengths));
      contexts.push_back(context);
      gradients.push_back(grad({sum(square(context)) + sum(square(weights))}, wanted));
    }
    CHECK(max_difference(contexts[0], contexts[1]) < 1e-14);
    for (std::size_t i = 0; i < gradients[0].size(); ++i)
      CHECK(max_difference(gradients[0][i], gradients[1][i]) < 1e-14);
  }
}

TEST_CASE("attention: gradients of query, keys, values and parameters pass gradcheck") {
  manual_seed(4);
  for (const AttentionScore score : kScores) {
    CAPTURE(static_cast<int>(score));
    const Attention attention = make(score);
    const Tensor keys = random_leaf({3, 2, kKey}), values = random_leaf({3, 2, kValue}),
                 query = random_leaf({2, 2, attention.query_size});
    std::vector<Tensor> inputs{keys, values, query};
    for (const Tensor& p : attention.parameters()) inputs.push_back(p);
    const auto f = [&](const std::vector<Tensor>&) {
      const auto [context, weights] =
          attention(query, attention.memory(keys, values, indices({3, 2})));
      return concatenate({reshape(context, {-1}), reshape(weights, {-1})});
    };
    CHECK(gradcheck_message(f, inputs, {.order = 2}) == "");
  }
}

TEST_CASE("attention: parameters have names") {
  const auto names = [](const Attention& attention) {
    std::string list;
    for (const auto& [name, value] : attention.named_parameters())
      list += name + to_string(value.shape()) + " ";
    return list;
  };
  CHECK(names(Attention(AttentionScore::additive, 3, 5, 4)) ==
        "v(4) query.weight(4, 3) key.weight(4, 5) ");
  CHECK(names(Attention(AttentionScore::general, 3, 5)) == "key.weight(3, 5) ");
  CHECK(names(Attention(AttentionScore::dot, 5, 5)) == "");
  const Attention original(AttentionScore::additive, 3, 5, 4), copy = clone(original);
  CHECK(!copy.key->weight.is(original.key->weight));
}

TEST_CASE("attention: mistakes are named") {
  CHECK_THROWS_WITH_AS(Attention(AttentionScore::general, 0, 3),
                       "Attention: sizes are at least 1, but query_size is 0 and key_size is 3",
                       ValueError);
  CHECK_THROWS_WITH_AS(Attention(AttentionScore::additive, 2, 3),
                       "Attention: additive needs a hidden_size, but it is 0", ValueError);
  CHECK_THROWS_WITH_AS(Attention(AttentionScore::general, 2, 3, 4),
                       "Attention: general has no hidden_size, but it is 4", ValueError);
  CHECK_THROWS_WITH_AS(Attention(AttentionScore::scaled_dot, 2, 3),
                       "Attention: scaled_dot needs query_size = key_size, but they are 2 and 3",
                       ValueError);
  const Attention attention(AttentionScore::general, 2, 3);
  CHECK_THROWS_WITH_AS(attention.memory(zeros({4, 2, 2})),
                       "Attention: keys must be [S, B, key_size = 3], but are (4, 2, 2)",
                       ShapeError);
  CHECK_THROWS_WITH_AS(attention.memory(zeros({4, 2, 3}), zeros({4, 1, 3}), Tensor()),
                       "Attention: values must be [S = 4, B = 2, V], but are (4, 1, 3)",
                       ShapeError);
  CHECK_THROWS_WITH_AS(attention.memory(zeros({4, 2, 3}), indices({5, 1})),
                       "Attention: lengths must be from 1 to T = 4, but lengths[0] is 5",
                       ValueError);
  CHECK_THROWS_WITH_AS(attention.memory(zeros({4, 2, 3}), indices({4})),
                       "Attention: lengths must be [B] = (2), but are (1)", ShapeError);
  CHECK_THROWS_WITH_AS(attention.memory(zeros({4, 2, 3}), zeros({2})),
                       "Attention: lengths must be i64, but are f32", DTypeError);
  const AttentionMemory memory = attention.memory(zeros({4, 2, 3}));
  CHECK_THROWS_WITH_AS(
      attention(zeros({3, 2}), memory),
      "Attention: query must be [B = 2, query_size = 2] or [T, B, query_size], but is (3, 2)",
      ShapeError);
}

TEST_CASE("attention: scores by their names") {
  CHECK(attention_score_from_name("additive") == AttentionScore::additive);
  CHECK(attention_score_from_name("general") == AttentionScore::general);
  CHECK(attention_score_from_name("dot") == AttentionScore::dot);
  CHECK(attention_score_from_name("scaled_dot") == AttentionScore::scaled_dot);
  CHECK_THROWS_WITH_AS(
      attention_score_from_name("loud"),
      "there is no attention score 'loud', only additive, general, dot and scaled_dot", ValueError);
}
