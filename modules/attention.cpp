#include "modules/attention.h"

#include <cmath>
#include <limits>

#include "framework/internal.h"
#include "framework/ops.h"
#include "framework/random.h"
#include "modules/lengths.h"

namespace unroll {

using detail::fail;

namespace {

const char* name_of(AttentionScore score) {
  switch (score) {
    case AttentionScore::additive: return "additive";
    case AttentionScore::general: return "general";
    case AttentionScore::dot: return "dot";
    default: return "scaled_dot";
  }
}

}  // namespace

AttentionScore attention_score_from_name(const std::string& name) {
  for (const AttentionScore score : {AttentionScore::additive, AttentionScore::general,
                                     AttentionScore::dot, AttentionScore::scaled_dot})
    if (name == name_of(score)) return score;
  fail<ValueError>("there is no attention score '{}', only additive, general, dot and scaled_dot",
                   name);
}

Attention::Attention(AttentionScore how, std::int64_t queries, std::int64_t keys,
                     std::int64_t hidden)
    : score(how), query_size(queries), key_size(keys), hidden_size(hidden) {
  const bool additive = how == AttentionScore::additive;
  if (queries < 1 || keys < 1)
    fail<ValueError>("Attention: sizes are at least 1, but query_size is {} and key_size is {}",
                     queries, keys);
  if (additive ? hidden < 1 : hidden != 0)
    fail<ValueError>("Attention: {} hidden_size, but it is {}",
                     additive ? "additive needs a" : std::string(name_of(how)) + " has no", hidden);
  if (additive) {
    query = child("query", Linear(queries, hidden, false));
    key = child("key", Linear(keys, hidden, false));
    const double k = 1.0 / std::sqrt(static_cast<double>(hidden));
    v = param("v", uniform({hidden}, -k, k));
  } else if (how == AttentionScore::general) {
    key = child("key", Linear(keys, queries, false));
  } else if (queries != keys) {
    fail<ValueError>("Attention: {} needs query_size = key_size, but they are {} and {}",
                     name_of(how), queries, keys);
  }
}

AttentionMemory Attention::memory(const Tensor& keys, const Tensor& values,
                                  const Tensor& lengths) const {
  const Scope here = scope();
  if (keys.dim() != 3 || keys.size(-1) != key_size || keys.size(0) == 0)
    fail<ShapeError>("Attention: keys must be [S, B, key_size = {}], but are {}", key_size,
                     keys.shape());
  const std::int64_t S = keys.size(0), B = keys.size(1);
  if (values.dim() != 3 || values.size(0) != S || values.size(1) != B)
    fail<ShapeError>("Attention: values must be [S = {}, B = {}, V], but are {}", S, B,
                     values.shape());
  const bool same = values.is(keys);
  Tensor k = transpose(keys, 0, 1), v0 = same ? k : transpose(values, 0, 1);  // [B, S, ...]
  Tensor mask = zeros({B, 1, S}, keys.dtype());
  if (const Tensor padding = detail::padding_mask("Attention", lengths, S, B); padding.defined()) {
    const Tensor of_batch = transpose(padding, 0, 1);  // [B, S]
    mask = masked_fill(mask, unsqueeze(of_batch, 1), -std::numeric_limits<double>::infinity());
    // A weight of 0 does not keep NaN out of a sum, nor out of its gradient.
    k = masked_fill(k, unsqueeze(of_batch, 2), 0.0);
    v0 = same ? k : masked_fill(v0, unsqueeze(of_batch, 2), 0.0);
  }
  if (same) v0 = v0.contiguous();
  return {key ? (*key)(k) : same ? v0 : k.contiguous(), same ? v0 : v0.contiguous(), mask};
}

AttentionMemory Attention::memory(const Tensor& keys, const Tensor& lengths) const {
  return memory(keys, keys, lengths);
}

AttentionResult Attention::operator()(const Tensor& q, const AttentionMemory& memory) const {
  const Scope here = scope();
  const std::int64_t B = memory.values.size(0);
  if (q.dim() < 2 || q.dim() > 3 || q.size(-1) != query_size || q.size(-2) != B)
    fail<ShapeError>(
        "Attention: query must be [B = {}, query_size = {}] or [T, B, query_size], but is {}", B,
        query_size, q.shape());
  const bool one = q.dim() == 2;
  const Tensor rows = one ? unsqueeze(q, 1) : transpose(q, 0, 1);  // [B, T, Q]
  Tensor scores;                                                   // [B, T, S]
  if (score == AttentionScore::additive)
    scores = matmul(tanh(unsqueeze((*query)(rows), 2) + unsqueeze(memory.keys, 1)), v);
  else
    scores = matmul(rows, transpose(memory.keys));
  if (score == AttentionScore::scaled_dot)
    scores = scores / std::sqrt(static_cast<double>(query_size));
  const Tensor weights = softmax(scores + memory.mask);
  const Tensor context = matmul(weights, memory.values);  // [B, T, V]
  if (one) return {squeeze(context, 1), squeeze(weights, 1)};
  return {transpose(context, 0, 1), transpose(weights, 0, 1)};
}

}  // namespace unroll
