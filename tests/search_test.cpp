// Greedy, beam and exhaustive search, and sampling, over any step function.

#include "modules/search.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>

#include "tests/recurrent.h"

using namespace unroll;
using namespace unroll::test;

namespace {

using Tokens = std::vector<std::int64_t>;

/// A random model with a state of two tensors, so that a state that went to the wrong hypothesis
/// shows.
struct RandomModel {
  explicit RandomModel(std::int64_t classes)
      : embedding(random64({classes, 3})),
        w(random64({3, 3})),
        u(random64({3, classes}) * 1.5),
        bias(random64({classes})) {}

  struct State {
    Tensor h;      // [N, 3]
    Tensor count;  // [N], i64: tokens so far
    auto fields() { return std::tie(h, count); }
  };
  State start(std::int64_t batch) const {
    return {random64({batch, 3}), zeros({batch}, DType::i64)};
  }
  std::pair<Tensor, State> operator()(const Tensor& tokens, const State& s) const {
    const Tensor h = tanh(index_select(embedding, 0, tokens) + matmul(s.h, w));
    const Tensor wave = unsqueeze(sin(s.count.to(DType::f64)), 1);
    return {matmul(h, u) + bias * wave, State{h, s.count + 1.0}};
  }

  Tensor embedding, w, u, bias;
};

RandomModel::State row(const RandomModel::State& s, std::int64_t b) {
  return map_state(s, [&](const Tensor& t) { return narrow(t, 0, b, 1); });
}

/// log P of tokens, one after the other.
double replay(const RandomModel& model, RandomModel::State s, std::int64_t start,
              const Tokens& tokens) {
  double total = 0.0;
  for (const std::int64_t next : tokens) {
    auto [scores, after] = model(indices({start}), s);
    total += log_softmax(scores)[0][next].item();
    s = after;
    start = next;
  }
  return total;
}

/// All hypotheses of one sequence, by recursion, the best first.
void enumerate(const RandomModel& model, const RandomModel::State& s, std::int64_t last,
               const Hypothesis& prefix, std::int64_t max_length, std::int64_t eos, double penalty,
               std::vector<Hypothesis>& all) {
  auto [scores, after] = model(indices({last}), s);
  const Tensor log_probs = log_softmax(scores)[0];
  for (std::int64_t v = 0; v < log_probs.size(0); ++v) {
    Hypothesis h = prefix;
    h.log_prob += log_probs[v].item();
    h.ended = v == eos;
    if (!h.ended) h.tokens.push_back(v);
    const auto length = static_cast<std::int64_t>(h.tokens.size()) + (h.ended ? 1 : 0);
    h.score = h.log_prob / std::pow(static_cast<double>(length), penalty);
    if (h.ended || length == max_length)
      all.push_back(h);
    else
      enumerate(model, after, v, h, max_length, eos, penalty, all);
  }
}

void check_same(const std::vector<Hypothesis>& a, const std::vector<Hypothesis>& b, std::size_t n) {
  REQUIRE(a.size() >= n);
  REQUIRE(b.size() >= n);
  for (std::size_t i = 0; i < n; ++i) {
    CHECK(a[i].tokens == b[i].tokens);
    CHECK(a[i].ended == b[i].ended);
    CHECK(a[i].log_prob == doctest::Approx(b[i].log_prob).epsilon(1e-12));
    CHECK(a[i].score == doctest::Approx(b[i].score).epsilon(1e-12));
  }
}

/// Probabilities that depend on all tokens so far. Tokens A = 0, B = 1, C = 2, <eos> = 3; 9 begins.
std::pair<Tensor, Tensor> textbook(const Tensor& tokens, const Tensor& state) {
  static const std::map<std::int64_t, std::vector<double>> table{
      {9, {0.5, 0.2, 0.2, 0.1}},   {90, {0.1, 0.4, 0.3, 0.2}},   {901, {0.2, 0.2, 0.4, 0.2}},
      {902, {0.1, 0.6, 0.2, 0.1}}, {9012, {0.0, 0.2, 0.2, 0.6}}, {9021, {0.0, 0.2, 0.2, 0.6}}};
  const Tensor prefix = state * 10.0 + tokens;
  std::vector<double> rows;
  for (const std::int64_t p : prefix.to_vector<std::int64_t>()) {
    const auto found = table.find(p);
    const std::vector<double> row =
        found == table.end() ? std::vector<double>{0.2, 0.2, 0.2, 0.4} : found->second;
    rows.insert(rows.end(), row.begin(), row.end());
  }
  return {log(from_vector(rows, {prefix.size(0), 4})), prefix};
}

}  // namespace

TEST_CASE("search: exhaustive search finds what a recursion over all sequences finds") {
  manual_seed(1);
  for (const std::int64_t eos : {-1, 2}) {
    CAPTURE(eos);
    for (const double penalty : {0.0, 0.75, 2.0}) {
      const RandomModel model(3);
      const RandomModel::State start = model.start(2);
      const auto found = exhaustive_search(
          model, start, indices({0, 1}),
          {.max_length = 4, .eos = eos, .length_penalty = penalty, .n_best = 1000});
      REQUIRE(found.size() == 2);
      for (std::int64_t b = 0; b < 2; ++b) {
        std::vector<Hypothesis> all;
        enumerate(model, row(start, b), b, {}, 4, eos, penalty, all);
        std::stable_sort(all.begin(), all.end(), [](const Hypothesis& x, const Hypothesis& y) {
          return x.score > y.score;
        });
        CHECK(all.size() == (eos < 0 ? 81U : 1U + 2U + 4U + 8U * 3U));
        const auto& ours = found[static_cast<std::size_t>(b)];
        CHECK(ours.size() == all.size());
        check_same(ours, all, all.size());
      }
    }
  }
}

TEST_CASE("search: a beam that is never full is exhaustive search") {
  manual_seed(2);
  for (int model_number = 0; model_number < 5; ++model_number) {
    const RandomModel model(4);
    const auto start = model.start(3);
    const Tensor first = indices({0, 1, 2});
    const auto all =
        exhaustive_search(model, start, first, {.max_length = 4, .eos = 3, .n_best = 20});
    const auto beam = beam_search(model, start, first,
                                  {.beam_size = 200, .max_length = 4, .eos = 3, .n_best = 20});
    for (std::size_t b = 0; b < 3; ++b) check_same(beam[b], all[b], 20);
  }
}

TEST_CASE("search: a beam of 1 is greedy search") {
  manual_seed(3);
  for (int model_number = 0; model_number < 20; ++model_number) {
    const RandomModel model(6);
    const auto start = model.start(4);
    const Tensor first = indices({0, 1, 2, 3});
    for (const std::int64_t eos : {-1, 5}) {
      const auto greedy = greedy_search(model, start, first, {.max_length = 8, .eos = eos});
      const auto beam =
          beam_search(model, start, first,
                      {.beam_size = 1, .max_length = 8, .eos = eos, .length_penalty = 0.0});
      for (std::size_t b = 0; b < 4; ++b) {
        REQUIRE(beam[b].size() == 1);
        check_same(beam[b], {greedy[b]}, 1);
      }
    }
  }
}

TEST_CASE("search: the textbook case in which greedy search is not optimal") {
  const Tensor start = indices({9}), state = zeros({1}, DType::i64);
  const Hypothesis greedy = greedy_search(textbook, state, start, {.max_length = 4, .eos = 3})[0];
  CHECK(greedy.tokens == Tokens{0, 1, 2});
  CHECK(greedy.ended);
  CHECK(std::exp(greedy.log_prob) == doctest::Approx(0.048).epsilon(1e-12));

  const Hypothesis best =
      exhaustive_search(textbook, state, start, {.max_length = 4, .eos = 3})[0][0];
  CHECK(best.tokens == Tokens{0, 2, 1});
  CHECK(best.ended);
  CHECK(std::exp(best.log_prob) == doctest::Approx(0.054).epsilon(1e-12));
  CHECK(best.score == doctest::Approx(std::log(0.054) / std::pow(4.0, 0.75)).epsilon(1e-12));

  const auto beam = beam_search(textbook, state, start,
                                {.beam_size = 2, .max_length = 4, .eos = 3, .n_best = 2})[0];
  REQUIRE(beam.size() == 2);
  CHECK(beam[0].tokens == Tokens{0, 2, 1});
  CHECK(beam[1].tokens == Tokens{0, 1, 2});
  // Without a length penalty the shortest wins: P(<eos>) = P(A <eos>) = 0.1.
  const Hypothesis shortest = exhaustive_search(
      textbook, state, start, {.max_length = 4, .eos = 3, .length_penalty = 0.0})[0][0];
  CHECK(shortest.tokens.size() <= 1);
  CHECK(std::exp(shortest.log_prob) == doctest::Approx(0.1).epsilon(1e-12));
}

TEST_CASE("search: a beam's hypotheses end at different lengths, and have the model's scores") {
  manual_seed(4);
  int lengths_differ = 0, cut_off = 0;
  for (int model_number = 0; model_number < 10; ++model_number) {
    const RandomModel model(5);
    const auto start = model.start(3);
    const Tokens first{0, 1, 2};
    const auto found = beam_search(model, start, from_vector(first),
                                   {.beam_size = 4, .max_length = 6, .eos = 4, .n_best = 4});
    for (std::size_t b = 0; b < 3; ++b) {
      REQUIRE(found[b].size() == 4);
      for (std::size_t i = 0; i < 4; ++i) {
        const Hypothesis& h = found[b][i];
        Tokens all = h.tokens;
        if (h.ended) all.push_back(4);
        CHECK(std::find(h.tokens.begin(), h.tokens.end(), 4) == h.tokens.end());
        CHECK((h.ended || all.size() == 6));
        const auto place = static_cast<std::int64_t>(b);
        CHECK(h.log_prob ==
              doctest::Approx(replay(model, row(start, place), first[b], all)).epsilon(1e-12));
        CHECK(h.score ==
              doctest::Approx(h.log_prob / std::pow(static_cast<double>(all.size()), 0.75)));
        if (i > 0) CHECK(h.score <= found[b][i - 1].score);
        if (i > 0 && h.tokens.size() != found[b][0].tokens.size()) ++lengths_differ;
        if (!h.ended) ++cut_off;
      }
      // A batch gives what one sequence alone gives.
      const auto place = static_cast<std::int64_t>(b);
      check_same(found[b],
                 beam_search(model, row(start, place), indices({first[b]}),
                             {.beam_size = 4, .max_length = 6, .eos = 4, .n_best = 4})[0],
                 4);
    }
  }
  CHECK(lengths_differ > 0);
  CHECK(cut_off > 0);
}

TEST_CASE("search: each hypothesis that ends leaves the beam narrower by one") {
  std::vector<std::int64_t> widths;
  const auto counting = [&](const Tensor& tokens, const Tensor& state) {
    widths.push_back(tokens.size(0));
    return textbook(tokens, state);
  };
  // A, B, C; then AB, AC and A <eos>; then ACB and ABC.
  beam_search(counting, zeros({1}, DType::i64), indices({9}),
              {.beam_size = 3, .max_length = 4, .eos = 3, .n_best = 3});
  CHECK(widths == std::vector<std::int64_t>{1, 3, 2, 2});
}

TEST_CASE("search: to end early changes nothing") {
  manual_seed(5);
  for (int model_number = 0; model_number < 20; ++model_number) {
    const RandomModel model(5);
    const auto start = model.start(1);
    // With n_best = beam_size there is always room; with n_best = 1 there soon is none.
    const BeamSearchOptions all{.beam_size = 3, .max_length = 8, .eos = 4, .n_best = 3};
    BeamSearchOptions one = all;
    one.n_best = 1;
    check_same(beam_search(model, start, indices({0}), one)[0],
               beam_search(model, start, indices({0}), all)[0], 1);
  }
}

TEST_CASE("search: a token with score -infinity is never taken") {
  manual_seed(6);
  const RandomModel model(4);
  const auto forbidding = [&](const Tensor& tokens, const RandomModel::State& s) {
    auto [scores, next] = model(tokens, s);
    return std::pair{
        masked_fill(scores, tensor({0, 1, 0, 0}), -std::numeric_limits<double>::infinity()), next};
  };
  const auto start = model.start(1);
  const auto beam = beam_search(forbidding, start, indices({0}),
                                {.beam_size = 500, .max_length = 4, .eos = 3, .n_best = 500})[0];
  CHECK(beam.size() == 1U + 2U + 4U + 8U * 3U);
  const auto all = exhaustive_search(forbidding, start, indices({0}),
                                     {.max_length = 4, .eos = 3, .n_best = 500})[0];
  check_same(beam, all, beam.size());
  for (const Hypothesis& h : all)
    CHECK(std::find(h.tokens.begin(), h.tokens.end(), 1) == h.tokens.end());
}

TEST_CASE("search: sampling at temperature 0 or with top-k 1 is greedy search") {
  manual_seed(7);
  const RandomModel model(6);
  const auto start = model.start(4);
  const Tensor first = indices({0, 1, 2, 3});
  const SearchOptions options{.max_length = 8, .eos = 5};
  const auto greedy = greedy_search(model, start, first, options);
  check_same(sample_search(model, start, first, options, {.temperature = 0.0}), greedy, 4);
  check_same(sample_search(model, start, first, options, {.top_k = 1}), greedy, 4);
}

TEST_CASE("search: sequences are drawn as often as they are probable") {
  constexpr std::int64_t kDraws = 20'000;
  Generator generator(8), again(8);
  const Tensor start = full({kDraws}, 9, DType::i64), state = zeros({kDraws}, DType::i64);
  const SearchOptions options{.max_length = 4, .eos = 3};
  const auto drawn = sample_search(textbook, state, start, options, {}, generator);
  double acb = 0, a = 0;
  for (const Hypothesis& h : drawn) {
    if (h.tokens == Tokens{0, 2, 1} && h.ended) {
      acb += 1;
      CHECK(std::exp(h.log_prob) == doctest::Approx(0.054).epsilon(1e-12));
    }
    if (h.tokens == Tokens{0}) a += 1;
  }
  const auto bound = [](double p) { return 5 * std::sqrt(p * (1 - p) / kDraws); };
  CHECK(std::abs(acb / kDraws - 0.054) < bound(0.054));
  CHECK(std::abs(a / kDraws - 0.1) < bound(0.1));
  check_same(sample_search(textbook, state, start, options, {}, again), drawn, 100);
}

TEST_CASE("search: a module with step() is a model, and nothing is recorded") {
  manual_seed(9);
  const GRU gru(4, 4);
  const Tensor table = normal({4, 4}).requires_grad_();
  bool recorded = false;
  struct Model {
    const GRU& gru;
    const Tensor& table;
    bool& recorded;
    StepResult<GRU::State> step(const Tensor& tokens, const GRU::State& s) const {
      auto next = gru.step(embedding(table, tokens), s);
      recorded = recorded || next.output.requires_grad();
      return {next.output, next.state};
    }
  };
  const Model model{gru, table, recorded};
  const auto found = beam_search(model, gru.initial_state(2), indices({0, 1}),
                                 {.beam_size = 3, .max_length = 5, .n_best = 2});
  CHECK(found[0].size() == 2);
  CHECK(found[1][0].tokens.size() == 5);
  CHECK(!found[1][0].ended);
  CHECK(!recorded);
}

TEST_CASE("search: a tree that is too large is refused, with its size") {
  const Tensor start = indices({9}), state = zeros({1}, DType::i64);
  CHECK_THROWS_WITH_AS(exhaustive_search(textbook, state, start, {.max_length = 12}),
                       "exhaustive_search: 4 tokens and max_length 12 make 16777216 hypotheses, "
                       "more than max_hypotheses = 100000",
                       ValueError);
  // 1 + 3 + 9 + 27 * 4 = 121.
  CHECK_THROWS_WITH_AS(
      exhaustive_search(textbook, state, start, {.max_length = 4, .eos = 3, .max_hypotheses = 120}),
      "exhaustive_search: 4 tokens and max_length 4 make 121 hypotheses, more than "
      "max_hypotheses = 120",
      ValueError);
  CHECK(exhaustive_search(textbook, state, start,
                          {.max_length = 4, .eos = 3, .n_best = 1000, .max_hypotheses = 121})[0]
            .size() == 119);  // two have probability 0
}

TEST_CASE("search: mistakes are named") {
  const Tensor start = indices({9, 9}), state = zeros({2}, DType::i64);
  CHECK_THROWS_WITH_AS(greedy_search(textbook, state, start, {.max_length = 0}),
                       "greedy_search: max_length is at least 1, but is 0", ValueError);
  CHECK_THROWS_WITH_AS(greedy_search(textbook, state, start, {.eos = 4}),
                       "greedy_search: eos is 4, but the tokens are 0 to 3", ValueError);
  CHECK_THROWS_WITH_AS(greedy_search(textbook, state, zeros({2})),
                       "greedy_search: start must be i64, but is f32", DTypeError);
  CHECK_THROWS_WITH_AS(greedy_search(textbook, state, zeros({2, 1}, DType::i64)),
                       "greedy_search: start must be [B] with B >= 1, but is (2, 1)", ShapeError);
  CHECK_THROWS_WITH_AS(beam_search(textbook, zeros({3}, DType::i64), start),
                       "beam_search: each tensor of the state must be [B = 2, ...], but one is (3)",
                       ShapeError);
  CHECK_THROWS_WITH_AS(beam_search(textbook, state, start, {.beam_size = 0}),
                       "beam_search: beam_size is at least 1, but is 0", ValueError);
  CHECK_THROWS_WITH_AS(beam_search(textbook, state, start, {.beam_size = 2, .n_best = 3}),
                       "beam_search: n_best is 3, but beam_size is 2", ValueError);
  CHECK_THROWS_WITH_AS(beam_search(textbook, state, start, {.n_best = 0}),
                       "beam_search: n_best is at least 1, but is 0", ValueError);
  CHECK_THROWS_WITH_AS(beam_search(textbook, state, start, {.length_penalty = -1}),
                       "beam_search: length_penalty is at least 0, but is -1", ValueError);
  const auto wrong = [](const Tensor& scores) {
    return [scores](const Tensor&, const Tensor& s) { return std::pair{scores, s}; };
  };
  CHECK_THROWS_WITH_AS(beam_search(wrong(zeros({3, 4})), state, start),
                       "beam_search: scores must be [N = 2, V] with V >= 1, but are (3, 4)",
                       ShapeError);
  CHECK_THROWS_WITH_AS(beam_search(wrong(zeros({2, 4}, DType::i64)), state, start),
                       "beam_search: scores must be f32 or f64, but are i64", DTypeError);
  CHECK_THROWS_WITH_AS(sample_search(wrong(tensor({{0, 1}, {0, NAN}})), state, start),
                       "sample_search: scores in row 1 of step 0 have NaN or no largest finite one",
                       ValueError);
  CHECK_THROWS_WITH_AS(
      exhaustive_search(wrong(full({2, 2}, -INFINITY)), state, start),
      "exhaustive_search: scores in row 0 of step 0 have NaN or no largest finite one", ValueError);
}
