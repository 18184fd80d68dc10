// LinearChainCRF against enumeration of all sequences of tags.

#include "modules/crf.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>

#include "tests/recurrent.h"

using namespace unroll;
using namespace unroll::test;

namespace {

using Tags = std::vector<std::int64_t>;

std::size_t as_size(std::int64_t i) { return static_cast<std::size_t>(i); }

/// Calls f for every sequence of `length` tags out of K.
void for_each_sequence(std::int64_t length, std::int64_t K,
                       const std::function<void(const Tags&)>& f) {
  Tags tags(as_size(length), 0);
  while (true) {
    f(tags);
    std::size_t i = 0;
    while (i < tags.size() && ++tags[i] == K) tags[i++] = 0;
    if (i == tags.size()) return;
  }
}

/// The score of one sequence, in plain numbers.
double written_out(const LinearChainCRF& crf, const Tensor& emissions, std::int64_t b,
                   const Tags& tags) {
  double score = crf.start[tags[0]].item() + crf.end[tags.back()].item();
  for (std::size_t t = 0; t < tags.size(); ++t) {
    score += emissions[static_cast<std::int64_t>(t)][b][tags[t]].item();
    if (t > 0) score += crf.transitions[tags[t - 1]][tags[t]].item();
  }
  return score;
}

struct Enumerated {
  double log_partition = 0.0;
  std::vector<std::vector<double>> marginals;
  Tags best;
  double best_score = -std::numeric_limits<double>::infinity();
};

Enumerated enumerate(
    const LinearChainCRF& crf, const Tensor& emissions, std::int64_t b, std::int64_t length,
    const std::function<bool(const Tags&)>& allowed = [](const Tags&) { return true; }) {
  const std::int64_t K = crf.num_tags;
  Enumerated all;
  all.marginals.assign(as_size(length), std::vector<double>(as_size(K), 0.0));
  double Z = 0.0;
  for_each_sequence(length, K, [&](const Tags& tags) {
    if (!allowed(tags)) return;
    const double score = written_out(crf, emissions, b, tags);
    Z += std::exp(score);
    for (std::size_t t = 0; t < tags.size(); ++t)
      all.marginals[t][as_size(tags[t])] += std::exp(score);
    if (score > all.best_score) {
      all.best_score = score;
      all.best = tags;
    }
  });
  all.log_partition = std::log(Z);
  for (auto& row : all.marginals)
    for (double& p : row) p /= Z;
  return all;
}

LinearChainCRF random_crf(std::int64_t K, const CRFConstraints& constraints = {}) {
  const LinearChainCRF crf = to_f64(LinearChainCRF(K, constraints));
  const NoGrad no_grad;
  for (Tensor p : crf.parameters()) p.copy_(random64(p.shape()));
  return crf;
}

Tensor with_nan(const Tensor& x, const std::vector<std::int64_t>& lengths) {
  Tensor copy = x.detach().clone();
  for (std::int64_t b = 0; b < x.size(1); ++b) {
    const std::int64_t n = lengths[as_size(b)];
    if (n < x.size(0)) narrow(select(copy, 1, b), 0, n, x.size(0) - n).fill_(std::nan(""));
  }
  return copy;
}

const std::vector<std::string> kBio{"O", "B-PER", "I-PER", "I-LOC", "B-LOC"};

bool keeps_bio(const Tags& tags) {
  for (std::size_t t = 0; t < tags.size(); ++t) {
    const std::int64_t before = t == 0 ? 0 : tags[t - 1];
    if (tags[t] == 2 && before != 1 && before != 2) return false;
    if (tags[t] == 3 && before != 3 && before != 4) return false;
  }
  return true;
}

}  // namespace

TEST_CASE("crf: partition, scores, marginals and the best tags are those of an enumeration") {
  manual_seed(1);
  for (const std::int64_t K : {1, 2, 3}) {
    CAPTURE(K);
    const LinearChainCRF crf = random_crf(K);
    const std::vector<std::int64_t> lengths{4, 1, 3};
    const Tensor emissions = with_nan(random64({4, 3, K}), lengths);
    const Tensor n = indices(lengths);
    const Tensor log_z = crf.log_partition(emissions, n), p = crf.marginals(emissions, n);
    const ViterbiResult best = crf.viterbi(emissions, n);
    CHECK(log_z.shape() == Shape{3});
    CHECK(p.shape() == Shape{4, 3, K});
    for (std::int64_t b = 0; b < 3; ++b) {
      const Enumerated all = enumerate(crf, emissions, b, lengths[as_size(b)]);
      CHECK(std::abs(log_z[b].item() - all.log_partition) < 1e-12);
      CHECK(best.tags[as_size(b)] == all.best);
      CHECK(std::abs(best.scores[as_size(b)] - all.best_score) < 1e-12);
      for (std::int64_t t = 0; t < 4; ++t)
        for (std::int64_t k = 0; k < K; ++k) {
          const double expected =
              t < lengths[as_size(b)] ? all.marginals[as_size(t)][as_size(k)] : 0.0;
          CHECK(std::abs(p[t][b][k].item() - expected) < 1e-12);
        }
      for_each_sequence(lengths[as_size(b)], K, [&](const Tags& tags) {
        Tensor padded = full({4, 3}, -100, DType::i64);  // what stands in the padding is not read
        for (std::int64_t other = 0; other < 3; ++other)
          narrow(select(padded, 1, other), 0, 0, lengths[as_size(other)]).zero_();
        for (std::size_t t = 0; t < tags.size(); ++t)
          padded[static_cast<std::int64_t>(t)][b].fill_(static_cast<double>(tags[t]));
        const double score = crf.score(emissions, padded, n)[b].item();
        CHECK(std::abs(score - written_out(crf, emissions, b, tags)) < 1e-12);
      });
    }
  }
}

TEST_CASE("crf: the gradient of the loss is marginals minus indicators") {
  manual_seed(2);
  const std::int64_t T = 5, B = 3, K = 4;
  const LinearChainCRF crf = random_crf(K);
  const std::vector<std::int64_t> lengths{5, 2, 4};
  const Tensor emissions = with_nan(random64({T, B, K}), lengths).requires_grad_();
  const Tensor tags = randint(0, K, {T, B}), n = indices(lengths);
  const Tensor g = grad(crf.loss(emissions, tags, n, Reduction::sum), emissions);
  const Tensor p = crf.marginals(emissions, n).detach();
  Tensor expected = p - one_hot(tags, K, DType::f64);
  for (std::int64_t b = 0; b < B; ++b)
    for (std::int64_t t = lengths[as_size(b)]; t < T; ++t) expected[t][b].zero_();
  CHECK(max_difference(g, expected) < 1e-12);
}

TEST_CASE("crf: gradients of loss and marginals pass gradcheck") {
  manual_seed(3);
  for (const bool constrained : {false, true}) {
    CAPTURE(constrained);
    const LinearChainCRF crf =
        constrained ? random_crf(3, bio_constraints({"O", "B-X", "I-X"})) : random_crf(3);
    const Tensor emissions = random_leaf({4, 2, 3});
    const Tensor tags = from_vector<std::int64_t>({1, 0, 2, 1, 2, 0, 0, 0}, {4, 2});
    const Tensor lengths = indices({4, 2});
    std::vector<Tensor> inputs = crf.parameters();
    inputs.push_back(emissions);
    CHECK(gradcheck_message(
              [&](const auto&) { return crf.loss(emissions, tags, lengths, Reduction::none); },
              inputs, {.order = 2}) == "");
    CHECK(gradcheck_message([&](const auto&) { return crf.marginals(emissions, lengths); },
                            inputs) == "");
  }
}

TEST_CASE("crf: NaN in the padding does not reach gradients") {
  manual_seed(6);
  const LinearChainCRF crf = random_crf(3);
  const std::vector<std::int64_t> lengths{4, 2};
  const Tensor clean = random64({4, 2, 3}), tags = randint(0, 3, {4, 2}),
               seed = random64({4, 2, 3}), n = indices(lengths);
  std::vector<std::vector<Tensor>> gradients;
  for (Tensor emissions : {clean.clone(), with_nan(clean, lengths)}) {
    emissions.requires_grad_();
    std::vector<Tensor> wanted = crf.parameters();
    wanted.push_back(emissions);
    gradients.push_back(
        grad({crf.loss(emissions, tags, n) + sum(crf.marginals(emissions, n) * seed)}, wanted));
  }
  for (std::size_t i = 0; i < gradients[0].size(); ++i)
    CHECK(max_difference(gradients[0][i], gradients[1][i]) < 1e-14);
}

TEST_CASE("crf: what the constraints forbid has probability 0 and is never chosen") {
  manual_seed(4);
  const LinearChainCRF crf = random_crf(5, bio_constraints(kBio));
  const Tensor emissions = random64({4, 3, 5});
  const std::vector<std::int64_t> lengths{4, 2, 3};
  const Tensor n = indices(lengths);
  const Tensor log_z = crf.log_partition(emissions, n), p = crf.marginals(emissions, n);
  const ViterbiResult best = crf.viterbi(emissions, n);
  for (std::int64_t b = 0; b < 3; ++b) {
    const Enumerated all = enumerate(crf, emissions, b, lengths[as_size(b)], keeps_bio);
    CHECK(std::abs(log_z[b].item() - all.log_partition) < 1e-12);
    CHECK(best.tags[as_size(b)] == all.best);
    for (std::int64_t t = 0; t < lengths[as_size(b)]; ++t)
      for (std::int64_t k = 0; k < 5; ++k)
        CHECK(std::abs(p[t][b][k].item() - all.marginals[as_size(t)][as_size(k)]) < 1e-12);
  }
  CHECK(p[0][0][2].item() == 0.0);
  CHECK(p[0][0][3].item() == 0.0);
}

TEST_CASE("crf: losses may be a mean, a sum, or one per sequence, and training lowers them") {
  manual_seed(5);
  LinearChainCRF crf(3);
  const Tensor emissions = normal({4, 2, 3}), tags = randint(0, 3, {4, 2});
  const Tensor each = crf.loss(emissions, tags, {}, Reduction::none);
  CHECK(each.shape() == Shape{2});
  CHECK(max_difference(crf.loss(emissions, tags), mean(each)) < 1e-6);
  CHECK(max_difference(crf.loss(emissions, tags, {}, Reduction::sum), sum(each)) < 1e-6);
  const double before = crf.loss(emissions, tags).item();
  for (int i = 0; i < 100; ++i) {
    crf.zero_grad();
    crf.loss(emissions, tags).backward();
    const NoGrad no_grad;
    for (Tensor p : crf.parameters()) p.add_(p.grad(), -0.1);
  }
  CHECK(crf.loss(emissions, tags).item() < 0.9 * before);
  CHECK(crf.loss(emissions, tags).item() > 0.0);
}

TEST_CASE("crf: mistakes are named") {
  CHECK_THROWS_WITH_AS(LinearChainCRF(0), "LinearChainCRF: num_tags is at least 1, but is 0",
                       ValueError);
  CHECK_THROWS_WITH_AS(LinearChainCRF(3, bio_constraints({"O", "B-X"})),
                       "LinearChainCRF: constraints.start must be (3), but is (2)", ShapeError);
  CHECK_THROWS_WITH_AS(bio_constraints({"O", "S-X"}),
                       "bio_constraints: tags[1] is 'S-X', but must be O, B-... or I-...",
                       ValueError);
  const LinearChainCRF crf(3, bio_constraints({"O", "B-X", "I-X"}));
  CHECK_THROWS_WITH_AS(crf.log_partition(zeros({2, 3})),
                       "LinearChainCRF: emissions must be [T, B, num_tags = 3], but are (2, 3)",
                       ShapeError);
  CHECK_THROWS_WITH_AS(crf.log_partition(zeros({2, 1, 3}, DType::f64)),
                       "LinearChainCRF: emissions must be f32, as the parameters, but are f64",
                       DTypeError);
  CHECK_THROWS_WITH_AS(crf.viterbi(zeros({2, 1, 3}), indices({3})),
                       "LinearChainCRF: lengths must be from 1 to T = 2, but lengths[0] is 3",
                       ValueError);
  const Tensor x = zeros({2, 1, 3});
  const auto loss = [&](const std::vector<std::int64_t>& tags) {
    return crf.loss(x, from_vector(tags, {static_cast<std::int64_t>(tags.size()), 1}));
  };
  CHECK_THROWS_WITH_AS(loss({0}), "LinearChainCRF: tags must be [T, B] = (2, 1), but are (1, 1)",
                       ShapeError);
  CHECK_THROWS_WITH_AS(crf.loss(x, zeros({2, 1})), "LinearChainCRF: tags must be i64, but are f32",
                       DTypeError);
  CHECK_THROWS_WITH_AS(loss({0, 3}), "LinearChainCRF: tags[1, 0] is 3, but the tags are 0 to 2",
                       IndexError);
  CHECK_THROWS_WITH_AS(
      loss({2, 0}), "LinearChainCRF: tags[0, 0] is 2: no sequence may begin with it", ValueError);
  CHECK_THROWS_WITH_AS(loss({0, 2}), "LinearChainCRF: tags[1, 0] is 2: it may not follow 0",
                       ValueError);
  const LinearChainCRF no_end(2, {.end = tensor({1, 0})});
  CHECK_THROWS_WITH_AS(no_end.loss(zeros({1, 1, 2}), full({1, 1}, 1, DType::i64)),
                       "LinearChainCRF: tags[0, 0] is 1: no sequence may end with it", ValueError);
}
