#pragma once
/// How probable a text is to a model of examples/language_model.cpp.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

#include "examples/language_model/model.h"

namespace language_model {

/// Tokens as a batch of one: [T, 1].
inline Tensor column(const std::vector<std::int64_t>& tokens) {
  return from_vector(tokens, {std::ssize(tokens), 1});
}

/// The sum of log p(token | those before) over all tokens but the first, which is only read.
inline double log_prob(LanguageModel& model, const std::vector<std::int64_t>& tokens) {
  const std::int64_t scored = std::ssize(tokens) - 1;
  if (scored < 1) return 0;
  const NoGrad no_grad;
  model.eval();
  LanguageModel::State state;
  const Tensor all = column(tokens);
  const Tensor logits = model(narrow(all, 0, 0, scored), state);
  return -cross_entropy(logits, narrow(all, 0, 1, scored), {.reduction = Reduction::sum}).item();
}

/// exp(mean of -log p(token | those before)) over all tokens but the first. A long text is read in
/// several rows at once, each of 1,000 tokens or more, so that their cold starts weigh little.
inline double perplexity(LanguageModel& model, const std::vector<std::int64_t>& corpus,
                         std::int64_t steps) {
  const NoGrad no_grad;
  model.eval();
  const auto rows = std::clamp<std::int64_t>(std::ssize(corpus) / 1000, 1, 32);
  double loss = 0;
  std::int64_t tokens = 0;
  LanguageModel::State state;
  for (const auto& [x, y] : evaluation_windows(corpus, {rows, steps})) {
    loss += cross_entropy(model(x, state), y, {.reduction = Reduction::sum}).item();
    tokens += y.numel();
  }
  return std::exp(loss / static_cast<double>(tokens));
}

}  // namespace language_model
