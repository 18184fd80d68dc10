#pragma once
/// Learning to write a sequence: at each step the model is given the right token before it.

#include <cstdint>
#include <vector>

#include "data/padded.h"
#include "examples/common/training.h"
#include "framework/ops.h"

namespace examples {

/// {a, b} as {begin, a, b, end}.
inline std::vector<std::int64_t> with_marks(std::vector<std::int64_t> tokens, std::int64_t begin,
                                            std::int64_t end) {
  tokens.insert(tokens.begin(), begin);
  tokens.push_back(end);
  return tokens;
}

/// The mean of -log p(target_t | target_0 ... target_t-1, source) over all t from 1 on, with the
/// padding masked out, for an EncoderDecoder; targets have marks.
template <class Model>
TrainingLoss teacher_forcing(const Model& model, const unroll::Tensor& source,
                             const unroll::Tensor& lengths, const unroll::PaddedBatch& target,
                             std::int64_t padding) {
  const std::int64_t steps = target.x.size(0) - 1;
  const unroll::Tensor logits = model(source, narrow(target.x, 0, 0, steps), lengths);
  return {cross_entropy(logits, narrow(target.x, 0, 1, steps), {.ignore_index = padding}),
          static_cast<std::int64_t>(sum(target.lengths - 1).item())};
}

}  // namespace examples
