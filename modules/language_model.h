#pragma once
/// How probable the next token is, by a recurrent network.

#include <cstdint>
#include <optional>
#include <vector>

#include "framework/random.h"
#include "modules/any_cell.h"
#include "modules/dropout.h"
#include "modules/embedding.h"
#include "modules/linear.h"
#include "modules/recurrent.h"
#include "modules/sampling.h"

namespace unroll {

/// Options of RecurrentLanguageModel.
struct LanguageModelOptions {
  CellType cell = CellType::gru;   ///< of all layers
  std::int64_t embedding_dim = 0;  ///< of the tokens; 0: they go in as one-hot vectors
  std::int64_t hidden_size = 256;  ///< of each layer
  std::int64_t num_layers = 1;     ///< one on top of the other
  double dropout = 0.0;            ///< on embeddings and on what comes out of each layer
};

/// p(next token | all tokens so far) = softmax(W h + b), where h is the state of a recurrent
/// network that has read them (Mikolov et al. 2010).
///
///   RecurrentLanguageModel model(vocab.size(), {.cell = CellType::lstm});
///   auto [logits, state] = model(tokens);
struct RecurrentLanguageModel : Module {
  /// What the network remembers, per layer; empty before the first token.
  using State = Recurrent<AnyCell>::State;

  /// For so many tokens. Throws ValueError for sizes and options out of range.
  explicit RecurrentLanguageModel(std::int64_t vocab_size,
                                  const LanguageModelOptions& options = {});

  /// tokens: [T, B] of i64; outputs: the logits [T, B, V] of what follows each.
  ScanResult<State> operator()(const Tensor& tokens, const State& state = {}) const;
  /// One token each, [B] of i64, to the logits [B, V]: what the searches want (search.h).
  StepResult<State> step(const Tensor& tokens, const State& state) const;

  /// log p(tokens[1], tokens[2], ... | tokens[0]), off the tape; 0 for less than two tokens. The
  /// model has to be in evaluation mode.
  double log_prob(const std::vector<std::int64_t>& tokens) const;
  /// So many tokens that it writes after these, drawn as sample() does; none of them is one of
  /// `never`. Off the tape; the model has to be in evaluation mode. Throws ValueError for no token
  /// to go on from, a negative length, and options out of range.
  std::vector<std::int64_t> generate(const std::vector<std::int64_t>& tokens, std::int64_t length,
                                     const SamplingOptions& sampling = {},
                                     Generator& generator = default_generator(),
                                     const std::vector<std::int64_t>& never = {}) const;

  std::optional<Embedding> embedding;  ///< none: one-hot
  Recurrent<AnyCell> network;          ///< the layers
  Linear output;                       ///< W and b
  Dropout dropout;                     ///< LanguageModelOptions::dropout
};

}  // namespace unroll
