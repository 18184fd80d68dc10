#pragma once
/// Looking for a probable sequence, token by token: greedy, beam and exhaustive search, and
/// sampling, for any model and any state.
///
/// The model is a step: from the last tokens and a state to scores of the next tokens and the new
/// state, for N hypotheses at once. It is a function or a module with a function `step`:
///
///   StepResult<State> step(const Tensor& tokens, const State& state)      or a std::pair of both
///
///     tokens  [N] of i64
///     state   whatever the model carries: a Tensor, or a value of tensors (cell_state.h). Each is
///             [N, ...], so that hypotheses can be chosen with index_select along dimension 0
///     output  [N, V] of f32 or f64: the scores of the V tokens. log_softmax turns them into
///             log-probabilities, and leaves log-probabilities as they are. -infinity forbids a
///             token
///
/// All searches work on a batch: `start` [B] of i64 has the first token of each sequence, `state`
/// belongs to the same B. They are not recorded on the tape.

#include <cstdint>
#include <functional>
#include <type_traits>
#include <utility>
#include <vector>

#include "framework/random.h"
#include "framework/tensor.h"
#include "modules/cell_state.h"
#include "modules/recurrent.h"
#include "modules/sampling.h"

namespace unroll {

/// A sequence that a search has found.
struct Hypothesis {
  std::vector<std::int64_t> tokens;  ///< without `start` and without `eos`
  double log_prob = 0.0;             ///< log P(tokens), with that of `eos` if it ended
  double score = 0.0;                ///< log_prob / L^length_penalty, L factors of P
  bool ended = false;                ///< by `eos`, and not by max_length
};

/// Options of greedy search and of sampling.
struct SearchOptions {
  std::int64_t max_length = 100;  ///< tokens at most, `eos` included
  std::int64_t eos = -1;          ///< the token that ends a sequence; -1: none does
};

/// Options of beam_search.
struct BeamSearchOptions {
  std::int64_t beam_size = 4;     ///< hypotheses that go on at each step
  std::int64_t max_length = 100;  ///< tokens at most, `eos` included
  std::int64_t eos = -1;          ///< the token that ends a sequence; -1: none does
  /// Hypotheses are ranked by log P / L^length_penalty, where L counts `eos`, too; 0: by log P.
  double length_penalty = 0.75;
  std::int64_t n_best = 1;  ///< how many are returned at most; not above beam_size
};

/// Options of exhaustive_search.
struct ExhaustiveSearchOptions {
  std::int64_t max_length = 100;          ///< tokens at most, `eos` included
  std::int64_t eos = -1;                  ///< the token that ends a sequence; -1: none does
  double length_penalty = 0.75;           ///< as in BeamSearchOptions
  std::int64_t n_best = 1;                ///< how many are returned at most
  std::int64_t max_hypotheses = 100'000;  ///< a larger tree is refused
};

/// Whether a search can go on from a state of this type with the model.
template <class Model, class State>
concept StepFor = requires(const Model& model, const Tensor& tokens, const State& state) {
  detail::as_step<State>(model.step(tokens, state));
}
|| requires(const Model& model, const Tensor& tokens, const State& state) {
  detail::as_step<State>(model(tokens, state));
};

namespace detail {

/// A model and its state without their types: the searches are compiled once (search.cpp).
class Stepper {
 public:
  /// Scores [N, V] of what follows `tokens` [N].
  virtual Tensor step(const Tensor& tokens) = 0;
  /// Puts f(tensor) in place of each tensor of the state.
  virtual void map(const std::function<Tensor(const Tensor&)>& f) = 0;

 protected:
  ~Stepper() = default;
};

template <class Model, class State>
class ModelStepper final : public Stepper {
 public:
  static_assert(
      StepFor<Model, State>,
      "a search needs a function (const Tensor& tokens, const State& state), or an object "
      "with such a `step`, that returns {scores, state} as a StepResult<State> or a "
      "std::pair<Tensor, State>, where State is the type of `state`");

  ModelStepper(const Model& model, State state) : model_(model), state_(std::move(state)) {}
  Tensor step(const Tensor& tokens) override {
    StepResult<State> next = call(tokens);
    state_ = std::move(next.state);
    return std::move(next.output);
  }
  void map(const std::function<Tensor(const Tensor&)>& f) override {
    for_each_tensor(state_, [&](Tensor& t) { t = f(t); });
  }

 private:
  StepResult<State> call(const Tensor& tokens) const {
    if constexpr (requires { model_.step(tokens, state_); })
      return as_step<State>(model_.step(tokens, state_));
    else
      return as_step<State>(model_(tokens, state_));
  }

  const Model& model_;
  State state_;
};

std::vector<Hypothesis> greedy_search(Stepper& model, const Tensor& start,
                                      const SearchOptions& options);
std::vector<Hypothesis> sample_search(Stepper& model, const Tensor& start,
                                      const SearchOptions& options, const SamplingOptions& sampling,
                                      Generator& generator);
std::vector<std::vector<Hypothesis>> beam_search(Stepper& model, const Tensor& start,
                                                 const BeamSearchOptions& options);
std::vector<std::vector<Hypothesis>> exhaustive_search(Stepper& model, const Tensor& start,
                                                       const ExhaustiveSearchOptions& options);

}  // namespace detail

/// The most probable token at each step: quick, but not always the most probable sequence. Of equal
/// ones the first. Returns a hypothesis per sequence; `score` is log_prob.
///
/// All searches throw ShapeError for `start`, a state or scores that are not [B], [B, ...] and
/// [N, V]; DTypeError for a start that is not i64 and for scores that are; ValueError for options
/// outside of their range, an `eos` that the model does not have, and for scores with NaN or
/// without a largest finite one.
template <class Model, class State>
std::vector<Hypothesis> greedy_search(const Model& model, State state, const Tensor& start,
                                      const SearchOptions& options = {}) {
  detail::ModelStepper<Model, State> stepper(model, std::move(state));
  return detail::greedy_search(stepper, start, options);
}

/// A token drawn at each step, as sample() does. `log_prob` and `score` are those of the model,
/// without temperature, top-k and top-p.
template <class Model, class State>
std::vector<Hypothesis> sample_search(const Model& model, State state, const Tensor& start,
                                      const SearchOptions& options = {},
                                      const SamplingOptions& sampling = {},
                                      Generator& generator = default_generator()) {
  detail::ModelStepper<Model, State> stepper(model, std::move(state));
  return detail::sample_search(stepper, start, options, sampling, generator);
}

/// Beam search: of all continuations of the hypotheses that go on, the beam_size most probable
/// stay; each that ends is put aside and leaves the beam narrower by one. What was put aside and
/// what max_length cuts off is ranked by log P / L^length_penalty (Wu et al. 2016 have a similar
/// one). With a beam of 1 it is greedy search, with one that is never full exhaustive search. Ends
/// early where nothing that goes on could still come among the n best. Returns up to n_best
/// hypotheses per sequence, the best first.
template <class Model, class State>
std::vector<std::vector<Hypothesis>> beam_search(const Model& model, State state,
                                                 const Tensor& start,
                                                 const BeamSearchOptions& options = {}) {
  detail::ModelStepper<Model, State> stepper(model, std::move(state));
  return detail::beam_search(stepper, start, options);
}

/// All sequences of up to max_length tokens: the true optimum, for models with few tokens and short
/// sequences. Returns as beam_search. Throws ValueError, with their number, if there are more than
/// max_hypotheses.
template <class Model, class State>
std::vector<std::vector<Hypothesis>> exhaustive_search(
    const Model& model, State state, const Tensor& start,
    const ExhaustiveSearchOptions& options = {}) {
  detail::ModelStepper<Model, State> stepper(model, std::move(state));
  return detail::exhaustive_search(stepper, start, options);
}

}  // namespace unroll
