#pragma once
/// Attention: a weighted mean of the rows of a memory, with weights that depend on a query.
///
///   e_s = score(query, keys_s)        a = softmax(e)        context = sum_s a_s values_s

#include <cstdint>
#include <optional>
#include <string>
#include <tuple>

#include "framework/tensor.h"
#include "modules/linear.h"
#include "modules/module.h"

namespace unroll {

/// How a query q [Q] and a key k [K] are compared.
enum class AttentionScore {
  additive,    ///< v' tanh(W_q q + W_k k)      (Bahdanau et al. 2014, A.1.2)
  general,     ///< q' W k                      (Luong et al. 2015, eq. 8)
  dot,         ///< q' k                        (Luong et al. 2015, eq. 8)
  scaled_dot,  ///< q' k / sqrt(Q)              (Vaswani et al. 2017, eq. 1)
};

/// The score with such a name: "additive", "general", "dot" or "scaled_dot". Throws ValueError for
/// another name.
AttentionScore attention_score_from_name(const std::string& name);

/// What is looked at, with all that does not depend on the query done once: made by
/// Attention::memory(). The batch is the first dimension of each tensor, so that it can be part of
/// the state of a decoder. [B, S, ...] for S places.
struct AttentionMemory {
  Tensor keys;    ///< [B, S, K], [B, S, Q] for `general`, [B, S, hidden_size] for `additive`
  Tensor values;  ///< [B, S, V]
  Tensor mask;    ///< [B, 1, S]: added to the scores: 0, or -infinity in the padding
  /// What it holds (for_each_tensor.h).
  auto fields() { return std::tie(keys, values, mask); }
};

/// The mean and its weights.
struct AttentionResult {
  Tensor context;  ///< [B, V] or [T, B, V]
  Tensor weights;  ///< [B, S] or [T, B, S]; each row adds up to 1
};

/// Attention with one of the scores above:
///
///   Attention attention(AttentionScore::additive, 16, 32, 24);
///   AttentionMemory memory = attention.memory(outputs, lengths);   // once per sequence
///   auto [context, weights] = attention(h, memory);                // at every step
///
/// Parameters start as those of Linear. Throws ValueError for sizes below 1, for a hidden_size that
/// is missing for `additive` or given for another score, and for `dot` and `scaled_dot` unless
/// query_size = key_size.
class Attention : public Module {
 public:
  /// hidden_size: of `additive` alone.
  Attention(AttentionScore score, std::int64_t query_size, std::int64_t key_size,
            std::int64_t hidden_size = 0);

  /// keys: [S, B, key_size], such as the outputs of an encoder; values: [S, B, V]; lengths: [B] of
  /// i64, how many places of each sequence count, 1 to S; undefined: all. What stands behind them
  /// has weight 0 and no influence, not even NaN. Throws ShapeError; DTypeError for lengths that
  /// are not i64; ValueError for one outside of 1 to S.
  AttentionMemory memory(const Tensor& keys, const Tensor& values, const Tensor& lengths) const;
  /// The keys are the values, too.
  AttentionMemory memory(const Tensor& keys, const Tensor& lengths = {}) const;

  /// query: [B, query_size], or [T, B, query_size] for T queries at once. Throws ShapeError.
  AttentionResult operator()(const Tensor& query, const AttentionMemory& memory) const;

  AttentionScore score;         ///< how query and key are compared
  std::int64_t query_size;      ///< Q
  std::int64_t key_size;        ///< K
  std::int64_t hidden_size;     ///< of `additive`, else 0
  std::optional<Linear> query;  ///< W_q [hidden_size, query_size], of `additive`
  std::optional<Linear> key;    ///< W_k [hidden_size, key_size] of `additive`, W [query_size,
                                ///< key_size] of `general`
  Tensor v;                     ///< [hidden_size], of `additive`
};

}  // namespace unroll
