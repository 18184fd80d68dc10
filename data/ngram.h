#pragma once
/// Counts of n-grams, and the language models that they make.

#include <cstdint>
#include <map>
#include <span>
#include <vector>

namespace unroll {

/// Runs of n tokens, and how often each is seen.
template <class Token>
using NgramCounts = std::map<std::vector<Token>, std::int64_t>;

/// All runs of n tokens of a text; none if it is shorter. n is at least 1.
template <class Token>
NgramCounts<Token> count_ngrams(const std::vector<Token>& tokens, std::int64_t n) {
  NgramCounts<Token> counts;
  for (auto first = tokens.begin(); tokens.end() - first >= n; ++first)
    ++counts[std::vector<Token>(first, first + n)];
  return counts;
}

/// Markov models of all orders up to a largest one. In order k a token depends on the k tokens
/// before it (order 1: a bigram model), with add-epsilon smoothing over V tokens:
///
///   P(w | c) = (count(c w) + epsilon) / (count(c) + epsilon V),   c the last k tokens
///
/// where count(c) counts the places where a token follows. At the beginning of a text, c is what
/// there is.
class NgramModel {
 public:
  /// Throws ValueError for an order below 0, a token outside of [0, vocab_size), and unless epsilon
  /// is above 0.
  NgramModel(std::span<const std::int64_t> text, std::int64_t max_order, std::int64_t vocab_size,
             double epsilon);

  /// P(token | context), in the order of the context's length or the largest one.
  double probability(std::span<const std::int64_t> context, std::int64_t token) const;
  /// The sum of log P(token | those before it) in this order, over all tokens but the first one,
  /// which is only read. Throws ValueError for an order outside of [0, max_order].
  double log_prob(std::span<const std::int64_t> tokens, std::int64_t order) const;
  /// exp(-log_prob / number of tokens but the first). Throws ValueError for less than two tokens.
  double perplexity(std::span<const std::int64_t> tokens, std::int64_t order) const;

 private:
  /// What was seen behind a context.
  struct Next {
    std::int64_t total = 0;
    std::map<std::int64_t, std::int64_t> counts;
  };

  std::int64_t max_order_, vocab_size_;
  double epsilon_;
  std::map<std::vector<std::int64_t>, Next> contexts_;  ///< of 0 .. max_order tokens
};

}  // namespace unroll
