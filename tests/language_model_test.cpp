// RecurrentLanguageModel: against its layers, step by step, and what it says of a text.

#include "modules/language_model.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "tests/recurrent.h"

using namespace unroll;
using namespace unroll::test;

TEST_CASE("language model: is its layers, with one-hot vectors or embeddings") {
  manual_seed(80);
  const Tensor tokens = randint(0, 7, {5, 2});
  const RecurrentLanguageModel plain(7,
                                     {.cell = CellType::lstm, .hidden_size = 4, .num_layers = 2});
  const auto [logits, state] = plain(tokens);
  CHECK(logits.shape() == Shape{5, 2, 7});
  const auto [hs, last] = plain.network(one_hot(tokens, 7));
  CHECK(max_difference(logits, plain.output(hs)) == 0.0);
  CHECK(max_difference(state[1][1], last[1][1]) == 0.0);
  CHECK_FALSE(plain.embedding);

  const RecurrentLanguageModel embedded(7, {.embedding_dim = 3, .hidden_size = 4});
  const Tensor xs = (*embedded.embedding)(tokens);
  CHECK(max_difference(embedded(tokens).outputs, embedded.output(embedded.network(xs).outputs)) ==
        0.0);
  std::vector<std::string> names;
  for (const auto& [name, value] : embedded.named_parameters()) names.push_back(name);
  CHECK(names == std::vector<std::string>{"network.weight_ih_l0", "network.weight_hh_l0",
                                          "network.bias_ih_l0", "network.bias_hh_l0",
                                          "output.weight", "output.bias", "embedding.weight"});
}

TEST_CASE("language model: goes on from a state, token by token") {
  manual_seed(81);
  const RecurrentLanguageModel model(7, {.hidden_size = 4, .num_layers = 2});
  const Tensor tokens = randint(0, 7, {5, 2});
  const Tensor whole = model(tokens).outputs;
  const auto [first, middle] = model(narrow(tokens, 0, 0, 3));
  const Tensor second = model(narrow(tokens, 0, 3, 2), middle).outputs;
  CHECK(max_difference(concatenate({first, second}), whole) < 1e-6);
  RecurrentLanguageModel::State state;
  for (std::int64_t t = 0; t < 5; ++t) {
    auto [logits, next] = model.step(tokens[t], state);
    CHECK(max_difference(logits, whole[t]) < 1e-6);
    state = std::move(next);
  }
  // The searches take it as it is.
  const auto found = greedy_search(model, model.network.initial_state(1),
                                   from_vector<std::int64_t>({3}), {.max_length = 4});
  CHECK(found[0].tokens.size() == 4);
}

TEST_CASE("language model: log p of a text is the sum over its tokens but the first") {
  manual_seed(82);
  RecurrentLanguageModel model(7, {.embedding_dim = 3, .hidden_size = 4, .dropout = 0.5});
  model.eval();
  const std::vector<std::int64_t> text{3, 1, 6, 0};
  double sum = 0;
  RecurrentLanguageModel::State state;
  for (std::size_t t = 0; t + 1 < text.size(); ++t) {
    auto [logits, next] = model.step(from_vector<std::int64_t>({text[t]}), state);
    sum += log_softmax(logits)[0][text[t + 1]].item();
    state = std::move(next);
  }
  CHECK(std::abs(model.log_prob(text) - sum) < 1e-5);
  CHECK(model.log_prob({3}) == 0.0);
  CHECK(model.log_prob({}) == 0.0);
}

TEST_CASE("language model: writes on from tokens, without those that it must not") {
  manual_seed(83);
  RecurrentLanguageModel model(7, {.hidden_size = 4});
  model.eval();
  const std::vector<std::int64_t> text{3, 1, 6};
  std::vector<std::int64_t> best = text;  // by arg-max, from all tokens so far
  for (int i = 0; i < 5; ++i) {
    const Tensor logits =
        model(from_vector(best, {static_cast<std::int64_t>(best.size()), 1})).outputs[-1];
    best.push_back(static_cast<std::int64_t>(argmax(logits, 1).item()));
  }
  CHECK(model.generate(text, 5, {.temperature = 0}) ==
        std::vector<std::int64_t>(best.begin() + 3, best.end()));

  Generator one(4), same(4), other(5);
  const auto drawn = model.generate({2}, 200, {}, one, {0, 5});
  CHECK(drawn.size() == 200);
  CHECK(drawn == model.generate({2}, 200, {}, same, {0, 5}));
  CHECK(drawn != model.generate({2}, 200, {}, other, {0, 5}));
  for (const std::int64_t token : {0, 1, 2, 3, 4, 5, 6})
    CHECK((std::count(drawn.begin(), drawn.end(), token) > 0) == (token != 0 && token != 5));
  CHECK(model.generate({2}, 0).empty());
}

TEST_CASE("language model: mistakes are named") {
  const RecurrentLanguageModel model(7, {.hidden_size = 4});
  CHECK_THROWS_WITH_AS(model.generate({}, 3), "generate: needs a token or more to go on from",
                       ValueError);
  CHECK_THROWS_WITH_AS(model.generate({2}, -1), "generate: length must be 0 or more, but is -1",
                       ValueError);
  CHECK_THROWS_WITH_AS(RecurrentLanguageModel(7, {.hidden_size = 0}),
                       "GRUCell: sizes are at least 1, but input_size is 7 and hidden_size is 0",
                       ValueError);
}
