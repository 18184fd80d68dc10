#include "modules/language_model.h"

#include <limits>
#include <string>
#include <utility>

#include "framework/autograd.h"
#include "framework/ops.h"
#include "modules/search.h"

namespace unroll {

RecurrentLanguageModel::RecurrentLanguageModel(std::int64_t vocab_size,
                                               const LanguageModelOptions& o)
    : network(child(
          "network",
          Recurrent<AnyCell>(o.embedding_dim > 0 ? o.embedding_dim : vocab_size, o.hidden_size,
                             {.num_layers = o.num_layers, .dropout = o.dropout}, o.cell))),
      output(child("output", Linear(o.hidden_size, vocab_size))),
      dropout(child("dropout", Dropout(o.dropout))) {
  if (o.embedding_dim != 0) embedding = child("embedding", Embedding(vocab_size, o.embedding_dim));
}

ScanResult<RecurrentLanguageModel::State> RecurrentLanguageModel::operator()(
    const Tensor& tokens, const State& state) const {
  const Scope here = scope();
  const Tensor xs =
      embedding ? dropout((*embedding)(tokens)) : one_hot(tokens, output.out_features);
  auto [hs, last] = network(xs, state);
  return {output(dropout(hs)), std::move(last)};
}

StepResult<RecurrentLanguageModel::State> RecurrentLanguageModel::step(const Tensor& tokens,
                                                                       const State& state) const {
  auto [logits, last] = (*this)(unsqueeze(tokens, 0), state);
  return {squeeze(logits, 0), std::move(last)};
}

double RecurrentLanguageModel::log_prob(const std::vector<std::int64_t>& tokens) const {
  const std::int64_t scored = std::ssize(tokens) - 1;
  if (scored < 1) return 0;
  const NoGrad no_grad;
  const Tensor all = from_vector(tokens, {scored + 1, 1});
  const Tensor logits = (*this)(narrow(all, 0, 0, scored)).outputs;
  return -cross_entropy(logits, narrow(all, 0, 1, scored), {.reduction = Reduction::sum}).item();
}

std::vector<std::int64_t> RecurrentLanguageModel::generate(
    const std::vector<std::int64_t>& tokens, std::int64_t length, const SamplingOptions& sampling,
    Generator& generator, const std::vector<std::int64_t>& never) const {
  if (tokens.empty()) throw ValueError("generate: needs a token or more to go on from");
  if (length < 0)
    throw ValueError("generate: length must be 0 or more, but is " + std::to_string(length));
  if (length == 0) return {};
  const NoGrad no_grad;
  State state;  // after all tokens but the last
  const std::int64_t last = std::ssize(tokens) - 1;
  if (last > 0) state = (*this)(narrow(from_vector(tokens, {last + 1, 1}), 0, 0, last)).state;
  Tensor forbidden;
  if (!never.empty()) forbidden = sum(one_hot(from_vector(never), output.out_features), {0});
  const auto next = [&](const Tensor& token, const State& now) {
    auto scores = step(token, now);
    if (forbidden.defined())
      scores.output =
          masked_fill(scores.output, forbidden, -std::numeric_limits<double>::infinity());
    return scores;
  };
  return sample_search(next, state, from_vector<std::int64_t>({tokens.back()}),
                       {.max_length = length}, sampling, generator)
      .at(0)
      .tokens;
}

}  // namespace unroll
