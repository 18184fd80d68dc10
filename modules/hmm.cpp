#include "modules/hmm.h"

#include <cmath>

#include "framework/autograd.h"
#include "framework/internal.h"

namespace unroll {

using detail::fail;

namespace {

/// How often things are seen, as rows of doubles.
struct Counts {
  Counts(std::int64_t n, std::int64_t m, double start)
      : rows(n), columns(m), values(static_cast<std::size_t>(n * m), start) {}
  double& at(std::int64_t i, std::int64_t j) {
    return values[static_cast<std::size_t>(i * columns + j)];
  }
  /// log(count / sum of its row).
  Tensor log_frequencies() const {
    const Tensor counts = from_vector(values, {rows, columns});
    return log(counts / sum(counts, 1, true));
  }

  std::int64_t rows, columns;
  std::vector<double> values;
};

void check_index(const char* what, std::int64_t index, std::int64_t size, std::size_t sequence) {
  if (index < 0 || index >= size)
    fail<IndexError>("HMM::fit: {} {} of sequence {} is out of range for {}", what, index, sequence,
                     size);
}

}  // namespace

HMM::HMM(std::int64_t tags, std::int64_t tokens)
    : num_tokens(tokens), chain(child("chain", LinearChainCRF(tags))) {
  if (tokens < 1) fail<ValueError>("HMM: num_tokens is at least 1, but is {}", tokens);
  log_emissions = param("log_emissions", full({tokens, tags}, -std::log(tokens)));
  const NoGrad no_grad;
  chain.start.fill_(-std::log(tags));
  chain.transitions.fill_(-std::log(tags + 1));
  chain.end.fill_(-std::log(tags + 1));
  freeze();
}

void HMM::fit(const std::vector<std::vector<std::int64_t>>& tokens,
              const std::vector<std::vector<std::int64_t>>& tags, double epsilon) {
  const std::int64_t K = chain.num_tags;
  if (!(epsilon > 0)) fail<ValueError>("HMM::fit: epsilon must be above 0, but is {}", epsilon);
  if (tokens.empty() || tokens.size() != tags.size())
    fail<ValueError>("HMM::fit: {} sequences of tokens need as many of tags, got {}, and 1 or more",
                     tokens.size(), tags.size());
  Counts start(1, K, epsilon), next(K, K + 1, epsilon), emissions(K, num_tokens, epsilon);
  for (std::size_t n = 0; n < tokens.size(); ++n) {
    const auto &x = tokens[n], &y = tags[n];
    if (x.empty() || x.size() != y.size())
      fail<ValueError>("HMM::fit: sequence {} has {} tokens and {} tags", n, x.size(), y.size());
    for (std::size_t t = 0; t < x.size(); ++t) {
      check_index("token", x[t], num_tokens, n);
      check_index("tag", y[t], K, n);
      ++emissions.at(y[t], x[t]);
      if (t > 0) ++next.at(y[t - 1], y[t]);
    }
    ++start.at(0, y.front());
    ++next.at(y.back(), K);  // the end
  }
  const NoGrad no_grad;
  const Tensor follow = next.log_frequencies();
  chain.start.copy_(start.log_frequencies()[0]);
  chain.transitions.copy_(narrow(follow, 1, 0, K));
  chain.end.copy_(select(follow, 1, K));
  log_emissions.copy_(transpose(emissions.log_frequencies()));
}

Tensor HMM::log_prob(const Tensor& tokens, const Tensor& lengths) const {
  return chain.log_partition(embedding(log_emissions, tokens), lengths);
}

Tensor HMM::posteriors(const Tensor& tokens, const Tensor& lengths) const {
  return chain.marginals(embedding(log_emissions, tokens), lengths);
}

ViterbiResult HMM::viterbi(const Tensor& tokens, const Tensor& lengths) const {
  return chain.viterbi(embedding(log_emissions, tokens), lengths);
}

}  // namespace unroll
