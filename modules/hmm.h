#pragma once
/// HMM: a hidden Markov model that is counted, not trained by gradients.

#include <cstdint>
#include <vector>

#include "modules/crf.h"

namespace unroll {

/// A hidden Markov model over K tags and V tokens (Rabiner 1989):
///
///   p(x, y) = start[y_1] prod_t emissions[y_t][x_t] prod_t transitions[y_t][y_t+1] end[y_T]
///
/// Its logarithm is the score of a linear-chain CRF, so the forward-backward and the Viterbi
/// algorithm are those of LinearChainCRF: a CRF learns p(y | x) by gradients, an HMM has p(x, y) by
/// counting. Before fit() all tags and tokens are equally probable.
///
/// tokens: [T, B] of i64; lengths: [B] of i64, or undefined for all T. No function is on the tape.
/// The constructor throws ValueError for sizes below 1; the others throw as LinearChainCRF does,
/// and IndexError for a token outside of 0 to V - 1.
class HMM : public Module {
 public:
  /// Over so many tags and tokens. Throws ValueError for less than 1.
  HMM(std::int64_t num_tags, std::int64_t num_tokens);

  /// The relative frequencies in tagged sequences, each count raised by epsilon (1: Laplace), so
  /// that nothing has probability 0:
  ///
  ///   emissions[k][v] = (n(k with v) + epsilon) / (n(k) + epsilon V)
  ///   transitions[j][k] = (n(j before k) + epsilon) / (n(j) + epsilon (K + 1))
  ///
  /// and likewise `start` among the sequences and `end` among what follows a tag. Throws ValueError
  /// for lists of different length, for an empty sequence, for none and for epsilon <= 0;
  /// IndexError for a tag or token that is out of range.
  void fit(const std::vector<std::vector<std::int64_t>>& tokens,
           const std::vector<std::vector<std::int64_t>>& tags, double epsilon = 1.0);

  /// log p(x), [B], by the forward algorithm.
  Tensor log_prob(const Tensor& tokens, const Tensor& lengths = {}) const;
  /// p(y_t = k | x), [T, B, K], by the forward-backward algorithm; 0 in the padding.
  Tensor posteriors(const Tensor& tokens, const Tensor& lengths = {}) const;
  /// The most probable tags, and log p(x, y) as their scores.
  ViterbiResult viterbi(const Tensor& tokens, const Tensor& lengths = {}) const;

  std::int64_t num_tokens;  ///< V
  LinearChainCRF chain;     ///< log start [K], log transitions [K, K], log end [K]
  Tensor log_emissions;     ///< [V, K]
};

}  // namespace unroll
