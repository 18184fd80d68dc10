#pragma once
/// Choosing a class, such as the next token of a text, by the scores that a model gives them.

#include <cstdint>

#include "framework/random.h"
#include "framework/tensor.h"

namespace unroll {

/// How a token is drawn.
struct SamplingOptions {
  double temperature = 1.0;  ///< divides the logits: below 1 bolder, above 1 wilder; 0: arg-max
  std::int64_t top_k = 0;    ///< only the k most probable (Fan et al. 2018); 0: all
  double top_p = 1.0;  ///< only the most probable that reach p together (Holtzman et al. 2020)
};

/// The probabilities that sample() draws from. logits: [V] or [B, V], f32 or f64; same shape and
/// dtype. Classes are ranked by their logits, equal ones by their index; the first top_k stay, and
/// of these, as long as the probability of those before does not reach top_p (the first one
/// always); the rest gets 0, and what stays adds up to 1. Temperature 0 gives 1 to the first. Off
/// the tape. Throws ShapeError for another rank or no classes, DTypeError for i64, ValueError for a
/// negative temperature or top_k, for top_p outside (0, 1], and for a row with NaN or without a
/// largest finite logit.
Tensor sampling_probabilities(const Tensor& logits, const SamplingOptions& options);

/// One class per row: logits [V] -> [] or [B, V] -> [B], i64. Draws nothing from the generator for
/// temperature 0. Throws as sampling_probabilities.
Tensor sample(const Tensor& logits, const SamplingOptions& options = {},
              Generator& generator = default_generator());

}  // namespace unroll
