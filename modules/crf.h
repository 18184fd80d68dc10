#pragma once
/// LinearChainCRF: the probability of a whole sequence of tags.

#include <cstdint>
#include <string>
#include <vector>

#include "framework/ops.h"
#include "framework/tensor.h"
#include "modules/module.h"

namespace unroll {

/// Which tags may begin, follow each other and end: 1 allowed, 0 forbidden.
struct CRFConstraints {
  Tensor start{};        ///< [K]; undefined, as each of them: all are allowed
  Tensor transitions{};  ///< [K, K], from row to column
  Tensor end{};          ///< [K]
};

/// Those of the scheme BIO, for tags with these names ("O", "B-PER", "I-PER", ...): I-X stands only
/// behind B-X or I-X. Throws ValueError for a name that is neither O nor begins with B or I.
CRFConstraints bio_constraints(const std::vector<std::string>& tags);

/// The best sequence of tags and its score, for each sequence of a batch.
struct ViterbiResult {
  std::vector<std::vector<std::int64_t>> tags;  ///< [B][length]
  std::vector<double> scores;                   ///< [B], as score() gives them
};

/// A conditional random field over K tags (Lafferty et al. 2001), on top of a network that gives
/// each tag a score at each time step (Huang et al. 2015; Lample et al. 2016):
///
///   score(x, y) = start[y_1] + sum_t x_t[y_t] + sum_t transitions[y_t][y_t+1] + end[y_T]
///   p(y | x)    = exp(score(x, y)) / Z(x)        Z(x) = sum over all y of exp(score(x, y))
///
/// emissions x: [T, B, K], f32 or f64; tags y: [T, B] of i64; lengths: [B] of i64, 1 to T, or
/// undefined for all T. What stands behind the lengths has no influence, not even NaN. What the
/// constraints forbid has probability 0.
///
/// Parameters start uniform in (-0.1, 0.1). The constructor throws ValueError for no tags, and
/// ShapeError for constraints that don't fit. All functions throw ShapeError and DTypeError for
/// arguments that don't fit, and ValueError for lengths outside of 1 to T.
class LinearChainCRF : public Module {
 public:
  /// Throws ValueError for no tags, ShapeError for constraints of another number of them.
  explicit LinearChainCRF(std::int64_t num_tags, const CRFConstraints& constraints = {});

  /// -log p(tags | emissions): the mean over the sequences, their sum, or, with Reduction::none, of
  /// each one [B]. Throws as score().
  Tensor loss(const Tensor& emissions, const Tensor& tags, const Tensor& lengths = {},
              Reduction reduction = Reduction::mean) const;
  /// The score above, [B]. Throws IndexError for a tag outside of 0 to K - 1, ValueError for one
  /// that the constraints forbid where it stands.
  Tensor score(const Tensor& emissions, const Tensor& tags, const Tensor& lengths = {}) const;
  /// log Z, [B], by the forward algorithm.
  Tensor log_partition(const Tensor& emissions, const Tensor& lengths = {}) const;
  /// p(y_t = k | emissions), [T, B, K], by the forward and backward algorithms; 0 in the padding.
  Tensor marginals(const Tensor& emissions, const Tensor& lengths = {}) const;
  /// The most probable tags (Viterbi 1967); of equal ones, the first tags at the last steps where
  /// they differ. Off the tape.
  ViterbiResult viterbi(const Tensor& emissions, const Tensor& lengths = {}) const;

  std::int64_t num_tags;  ///< K
  Tensor start;           ///< [K]
  Tensor transitions;     ///< [K, K], from row to column
  Tensor end;             ///< [K]

 private:
  /// The parameters, with -infinity where something is forbidden.
  struct Scores {
    Tensor start, transitions, end;
  };
  Scores allowed() const;
  /// Emissions with 0 in the padding, and where it is.
  struct Input {
    Tensor emissions;
    Tensor padding;  ///< [T, B, 1]; undefined: none
    std::vector<std::int64_t> lengths;
  };
  Input checked(const Tensor& emissions, const Tensor& lengths) const;
  void check_tags(const Input& input, const Tensor& tags) const;
  std::vector<Tensor> forward(const Input& input, const Scores& scores) const;

  CRFConstraints constraints_;
};

}  // namespace unroll
