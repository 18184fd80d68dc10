#pragma once
/// From one sequence to another: encoder, decoder, and both together (Sutskever et al. 2014; Cho et
/// al. 2014).
///
/// An encoder is a Module that reads a source:
///
///   Encoded operator()(const Tensor& source, const Tensor& lengths) const;
///
/// source [S, B, ...] (for those here: tokens [S, B] of i64), lengths [B] of i64 or undefined;
/// Encoded is any type. A decoder is a Module that makes a target of it, one token at a time:
///
///   State initial_state(const Encoded& encoded) const;
///   StepResult<State> step(const Tensor& tokens, const State& state) const;    or std::pair of
///   both
///
/// tokens [B] of i64; output [B, V], the scores (logits) of the next tokens; State is a value of
/// tensors [B, ...] (cell_state.h). That is all that greedy_search() and the others (search.h)
/// need. A decoder that knows a quicker way through a whole target has also
///
///   Tensor operator()(const Tensor& tokens, const State& state) const;   [T, B] -> [T, B, V]

#include <cstdint>
#include <optional>
#include <string>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>

#include "framework/random.h"
#include "framework/tensor.h"
#include "modules/any_cell.h"
#include "modules/attention.h"
#include "modules/embedding.h"
#include "modules/module.h"
#include "modules/recurrent.h"
#include "modules/search.h"

namespace unroll {

/// What can be the encoder of an EncoderDecoder.
template <class E>
concept Encoder = std::is_base_of_v<Module, E> &&
    requires(const E& encoder, const Tensor& source, const Tensor& lengths) {
  encoder(source, lengths);
};

/// What can be its decoder.
template <class D, class Encoded>
concept DecoderFor = std::is_base_of_v<Module, D> &&
    requires(const D& decoder, const Encoded& encoded, const Tensor& tokens) {
  decoder.step(tokens, decoder.initial_state(encoded));
};

namespace detail {

/// Teacher forcing, step by step. tokens: [T, B]; returns the scores [T, B, V].
Tensor decode(Stepper& decoder, const Tensor& tokens, double sampling_probability,
              Generator& generator);

}  // namespace detail

/// An encoder and a decoder:
///
///   EncoderDecoder model(encoder, decoder);
///   Tensor logits = model(source, narrow(target, 0, 0, T), lengths);         // to learn
///   Tensor loss = cross_entropy(logits, narrow(target, 0, 1, T), {.ignore_index = pad});
///   auto found = beam_search(model.decoder, model.encode(source, lengths), start, {.eos = eos});
///
/// target [T + 1, B] begins with the token that all sequences begin with and ends with `eos`.
template <Encoder E, class D>
struct EncoderDecoder : Module {
  /// What the encoder returns.
  using Encoded = decltype(std::declval<const E&>()(std::declval<const Tensor&>(),
                                                    std::declval<const Tensor&>()));
  static_assert(
      DecoderFor<D, Encoded>,
      "EncoderDecoder: the decoder is a Module with `State initial_state(const Encoded& "
      "encoded) const`, where Encoded is what the encoder returns, and `StepResult<State> "
      "step(const Tensor& tokens, const State& state) const`");
  /// What the decoder goes on with.
  using State = std::decay_t<decltype(std::declval<const D&>().initial_state(
      std::declval<const Encoded&>()))>;

  /// Takes both over as its children.
  EncoderDecoder(E e, D d)
      : encoder(child("encoder", std::move(e))), decoder(child("decoder", std::move(d))) {}

  /// What the decoder starts from: what a search wants.
  State encode(const Tensor& source, const Tensor& lengths = {}) const {
    return decoder.initial_state(encoder(source, lengths));
  }

  /// The scores [T, B, V] of what follows each token of the target [T, B] (teacher forcing).
  ///
  /// Scheduled sampling (Bengio et al. 2015): with a sampling_probability above 0, each token but
  /// the first is with this probability replaced by one that is drawn from the model's own scores
  /// of the step before. Throws ValueError for one outside of [0, 1], and what encoder and decoder
  /// throw.
  Tensor operator()(const Tensor& source, const Tensor& target, const Tensor& lengths = {},
                    double sampling_probability = 0.0,
                    Generator& generator = default_generator()) const {
    State state = encode(source, lengths);
    if constexpr (requires { Tensor(decoder(target, state)); })
      if (sampling_probability == 0.0) return decoder(target, state);
    detail::ModelStepper<D, State> stepper(decoder, std::move(state));
    return detail::decode(stepper, target, sampling_probability, generator);
  }

  E encoder;  ///< reads the source
  D decoder;  ///< writes the target
};

// --- Recurrent encoder and decoder --------------------------------------------------------------

/// What a recurrent encoder gives.
template <class CellState>
struct EncoderResult {
  Tensor outputs;                ///< [S, B, output_size]
  std::vector<CellState> state;  ///< after the last token, one per layer and direction
  Tensor lengths;                ///< [B], or undefined
};

namespace detail {

/// What there is to say of a Recurrent<Cell> without its type.
struct RecurrentSizes {
  std::int64_t input_size, cell_output_size, num_layers;
  bool bidirectional, batch_first, sum;
};
void check_encoder(std::int64_t embedding_dim, const RecurrentSizes& rnn);
void check_decoder(std::int64_t embedding_dim, std::int64_t context_size, const RecurrentSizes& rnn,
                   std::int64_t encoder_layers, bool tied);
/// Throws ShapeError unless they are [T, B].
void check_tokens(const char* what, const Tensor& tokens);

template <class Cell>
RecurrentSizes sizes_of(const Recurrent<Cell>& rnn) {
  static_assert(
      requires(const Cell& cell) { cell.input_size, cell.output_size; },
      "RecurrentEncoder and RecurrentDecoder: the cell needs the members input_size and "
      "output_size");
  const RecurrentOptions& options = rnn.options();
  return {rnn.cell().input_size, rnn.cell(options.num_layers - 1).output_size,
          options.num_layers,    options.bidirectional,
          options.batch_first,   options.merge == Merge::sum};
}

}  // namespace detail

/// Tokens, their embedding, and layers of any cell in one or two directions:
///
///   RecurrentEncoder encoder(Embedding(1000, 32), GRU(32, 64, {.bidirectional = true}));
///
/// Padding behind the lengths changes nothing. Throws ValueError unless the rnn's input_size is the
/// embedding's dimension, and for a batch_first rnn.
template <class Cell>
struct RecurrentEncoder : Module {
  /// The state of one cell.
  using CellState = typename Recurrent<Cell>::CellState;

  /// Takes both over as its children.
  RecurrentEncoder(Embedding e, Recurrent<Cell> r);

  /// source: [S, B] of i64; lengths: [B] of i64, 1 to S, or undefined.
  EncoderResult<CellState> operator()(const Tensor& source, const Tensor& lengths = {}) const;

  /// Numbers per token that come out.
  std::int64_t output_size() const;
  /// Numbers of the last layer's final state (both directions).
  std::int64_t context_size() const;

  Embedding embedding;  ///< of the tokens
  Recurrent<Cell> rnn;  ///< the layers
};

/// What a recurrent decoder goes on with.
template <class CellState>
struct DecoderState {
  std::vector<CellState> rnn;  ///< one per layer
  Tensor context;              ///< [B, C], of the step before under attention
  /// Under attention what is looked at, and the weights [B, S] of the step before; else empty.
  std::vector<AttentionMemory> memory;
  std::vector<Tensor> weights;  ///< see memory
  /// What it holds (for_each_tensor.h).
  auto fields() { return std::tie(rnn, context, memory, weights); }
};

/// Options of RecurrentDecoder.
struct DecoderOptions {
  /// The context of each step is made of all outputs of the encoder.
  std::optional<AttentionScore> attention{};
  std::int64_t attention_size = 0;  ///< hidden_size of an additive one
  /// The output layer has the weights of the embedding (Press and Wolf 2017).
  bool tied = false;
};

/// Layers of a cell that read the last token and a context, and give scores of the next token:
///
///   h_t = rnn([embedding(y_t-1), c_t], h_t-1)        logits_t = W h_t + b
///
/// Without attention c_t is the final state h of the encoder's last layer, the same at every step
/// (Cho et al. 2014). With attention it is the mean of the encoder's outputs that h_t-1 of the last
/// layer asks for (Bahdanau et al. 2014).
///
/// The layers start from the encoder's final state, layer by layer, with both directions side by
/// side: as it is where the sizes are equal, else through tanh(W s + b), `bridge0`, `bridge1`, ...
/// for each tensor of it.
///
///   RecurrentDecoder decoder(encoder, Embedding(800, 32), GRU(32 + encoder.context_size(), 64));
///
/// Throws ValueError unless the rnn's input_size is that of embedding and context (encoder's
/// output_size() under attention, else its context_size()), it has one direction and as many layers
/// as the encoder and is not batch_first; for `tied` unless its output_size is the embedding's
/// dimension; and as Attention does.
template <class Cell>
struct RecurrentDecoder : Module {
  /// The state of one cell.
  using CellState = typename Recurrent<Cell>::CellState;
  /// What goes from step to step.
  using State = DecoderState<CellState>;

  /// Takes embedding and layers over as its children.
  RecurrentDecoder(const RecurrentEncoder<Cell>& encoder, Embedding e, Recurrent<Cell> r,
                   const DecoderOptions& options = {});

  /// What the first step begins with.
  State initial_state(const EncoderResult<CellState>& encoded) const;
  /// tokens: [B] of i64; returns {logits [B, V], state}.
  StepResult<State> step(const Tensor& tokens, const State& state) const;
  /// tokens: [T, B] of i64; returns the logits [T, B, V].
  Tensor operator()(const Tensor& tokens, const State& state) const;
  /// What the steps look at: tokens [T, B] of i64, such as a target or what a search has found;
  /// returns [T, B, S]. Throws ValueError without attention.
  Tensor attention_weights(const Tensor& tokens, const State& state) const;

  Embedding embedding;                 ///< of the tokens
  Recurrent<Cell> rnn;                 ///< the layers
  std::optional<Attention> attention;  ///< undefined without
  std::vector<Linear> bridges;         ///< none where states are carried over as they are
  Tensor output_weight;                ///< [V, output_size]; that of the embedding if tied
  Tensor output_bias;                  ///< [V]

 private:
  /// One step without the output layer. x: [B, E]; returns {h [B, output_size], state}.
  StepResult<State> advance(const Tensor& x, const State& state) const;

  std::int64_t directions_;  ///< of the encoder
};

/// An encoder of RNN layers.
using RNNEncoder = RecurrentEncoder<RNNCell>;
/// An encoder of GRU layers.
using GRUEncoder = RecurrentEncoder<GRUCell>;
/// An encoder of LSTM layers.
using LSTMEncoder = RecurrentEncoder<LSTMCell>;
/// A decoder of RNN layers.
using RNNDecoder = RecurrentDecoder<RNNCell>;
/// A decoder of GRU layers.
using GRUDecoder = RecurrentDecoder<GRUCell>;
/// A decoder of LSTM layers.
using LSTMDecoder = RecurrentDecoder<LSTMCell>;

// --- Chosen while the program runs ---------------------------------------------------------------

/// Options of Seq2Seq.
struct Seq2SeqOptions {
  CellType cell = CellType::gru;              ///< of both sides
  std::int64_t embedding_dim = 64;            ///< of both vocabularies
  std::int64_t hidden_size = 128;             ///< of both sides, and of an additive attention
  std::int64_t num_layers = 1;                ///< in the encoder and in the decoder
  double dropout = 0.0;                       ///< RecurrentOptions::dropout, of both sides
  bool bidirectional = false;                 ///< the encoder reads from both ends
  std::optional<AttentionScore> attention{};  ///< DecoderOptions::attention
};

/// RecurrentEncoder and RecurrentDecoder of a cell and a size that options say:
///
///   Seq2Seq model(1000, 800, {.cell = CellType::lstm, .attention = AttentionScore::additive});
///
/// A dot product wants outputs of the encoder that are as long as the decoder's state: under `dot`
/// and `scaled_dot` those of both directions are added.
struct Seq2Seq : EncoderDecoder<RecurrentEncoder<AnyCell>, RecurrentDecoder<AnyCell>> {
  /// For so many source and target tokens. Throws ValueError for sizes and options out of range.
  Seq2Seq(std::int64_t source_size, std::int64_t target_size, const Seq2SeqOptions& options = {});
};

// --- Definitions --------------------------------------------------------------------------------

template <class Cell>
RecurrentEncoder<Cell>::RecurrentEncoder(Embedding e, Recurrent<Cell> r)
    : embedding(child("embedding", std::move(e))), rnn(child("rnn", std::move(r))) {
  detail::check_encoder(embedding.embedding_dim, detail::sizes_of(rnn));
}

template <class Cell>
auto RecurrentEncoder<Cell>::operator()(const Tensor& source, const Tensor& lengths) const
    -> EncoderResult<CellState> {
  const Scope here = scope();
  detail::check_tokens("RecurrentEncoder: source", source);
  auto [outputs, state] = rnn(embedding(source), {}, lengths);
  return {std::move(outputs), std::move(state), lengths};
}

template <class Cell>
std::int64_t RecurrentEncoder<Cell>::context_size() const {
  const detail::RecurrentSizes sizes = detail::sizes_of(rnn);
  return sizes.cell_output_size * (sizes.bidirectional ? 2 : 1);
}

template <class Cell>
std::int64_t RecurrentEncoder<Cell>::output_size() const {
  const detail::RecurrentSizes sizes = detail::sizes_of(rnn);
  return sizes.cell_output_size * (sizes.bidirectional && !sizes.sum ? 2 : 1);
}

template <class Cell>
RecurrentDecoder<Cell>::RecurrentDecoder(const RecurrentEncoder<Cell>& encoder, Embedding e,
                                         Recurrent<Cell> r, const DecoderOptions& options)
    : embedding(child("embedding", std::move(e))), rnn(child("rnn", std::move(r))) {
  const detail::RecurrentSizes sizes = detail::sizes_of(rnn),
                               source = detail::sizes_of(encoder.rnn);
  const std::int64_t context = options.attention ? encoder.output_size() : encoder.context_size();
  detail::check_decoder(embedding.embedding_dim, context, sizes, source.num_layers, options.tied);
  if (options.attention)
    attention = child("attention", Attention(*options.attention, sizes.cell_output_size, context,
                                             options.attention_size));
  directions_ = source.bidirectional ? 2 : 1;
  const auto from = detail::tensors_of(encoder.rnn.initial_state(1)),
             to = detail::tensors_of(rnn.initial_state(1));
  const std::size_t parts = to.size() / static_cast<std::size_t>(sizes.num_layers);
  bool same = true;
  for (std::size_t i = 0; i < to.size(); ++i) {
    const std::size_t layer = i / parts, part = i % parts;
    const Tensor& t = from[layer * parts * static_cast<std::size_t>(directions_) + part];
    same = same && t.size(-1) * directions_ == to[i].size(-1);
  }
  for (std::size_t i = 0; i < to.size() && !same; ++i) {
    const std::size_t layer = i / parts, part = i % parts;
    const Tensor& t = from[layer * parts * static_cast<std::size_t>(directions_) + part];
    bridges.push_back(
        child("bridge" + std::to_string(i), Linear(t.size(-1) * directions_, to[i].size(-1))));
  }
  const std::int64_t V = embedding.num_embeddings;
  const Linear out(sizes.cell_output_size, V);  // for its start
  output_weight = options.tied ? embedding.weight : param("output_weight", out.weight);
  output_bias = param("output_bias", out.bias);
}

template <class Cell>
auto RecurrentDecoder<Cell>::initial_state(const EncoderResult<CellState>& encoded) const -> State {
  const auto directions = static_cast<std::size_t>(directions_);
  State state;
  std::size_t bridge = 0;
  for (std::size_t layer = 0; layer * directions < encoded.state.size(); ++layer) {
    CellState begin = encoded.state[layer * directions];
    const auto reverse = detail::tensors_of(encoded.state[(layer + 1) * directions - 1]);
    std::size_t part = 0;
    for_each_tensor(begin, [&](Tensor& t) {
      if (directions == 2) t = concatenate({t, reverse[part++]}, -1);
      if (&t == &detail::first_tensor(begin)) state.context = t;
      if (!bridges.empty()) t = tanh(bridges[bridge++](t));
    });
    state.rnn.push_back(std::move(begin));
  }
  if (attention) {
    state.memory.push_back(attention->memory(encoded.outputs, encoded.lengths));
    const AttentionMemory& memory = state.memory[0];
    state.context = zeros_like(select(memory.values, 1, 0).detach());
    state.weights.push_back(zeros_like(squeeze(memory.mask, 1)));
  }
  return state;
}

template <class Cell>
auto RecurrentDecoder<Cell>::advance(const Tensor& x, const State& state) const
    -> StepResult<State> {
  const Scope here = scope();
  State next = state;
  if (attention) {
    CellState top = state.rnn.back();
    auto [context, weights] = (*attention)(detail::first_tensor(top), state.memory[0]);
    next.context = std::move(context);
    next.weights = {std::move(weights)};
  }
  auto [h, rnn_state] = rnn.step(concatenate({x, next.context}, -1), state.rnn);
  next.rnn = std::move(rnn_state);
  return {std::move(h), std::move(next)};
}

template <class Cell>
auto RecurrentDecoder<Cell>::step(const Tensor& tokens, const State& state) const
    -> StepResult<State> {
  auto [h, next] = advance(embedding(tokens), state);
  return {linear(h, output_weight, output_bias), std::move(next)};
}

template <class Cell>
Tensor RecurrentDecoder<Cell>::operator()(const Tensor& tokens, const State& state) const {
  const Scope here = scope();
  detail::check_tokens("RecurrentDecoder: tokens", tokens);
  const Tensor xs = embedding(tokens);
  Tensor hs;
  if (attention) {
    std::vector<Tensor> list;
    StepResult<State> now{{}, state};
    for (std::int64_t t = 0; t < xs.size(0); ++t) {
      const Step time(t);
      now = advance(xs[t], now.state);
      list.push_back(now.output);
    }
    hs = stack(list);
  } else {
    const Tensor& c = state.context;
    const Tensor contexts = broadcast_to(c, {xs.size(0), c.size(0), c.size(1)});
    hs = rnn(concatenate({xs, contexts}, -1), state.rnn).outputs;
  }
  return linear(hs, output_weight, output_bias);
}

template <class Cell>
Tensor RecurrentDecoder<Cell>::attention_weights(const Tensor& tokens, const State& state) const {
  if (!attention) throw ValueError("RecurrentDecoder: attention_weights: there is no attention");
  detail::check_tokens("RecurrentDecoder: tokens", tokens);
  const Tensor xs = embedding(tokens);
  std::vector<Tensor> list;
  State now = state;
  for (std::int64_t t = 0; t < xs.size(0); ++t) {
    now = advance(xs[t], now).state;
    list.push_back(now.weights[0]);
  }
  return stack(list);
}

extern template struct RecurrentEncoder<RNNCell>;
extern template struct RecurrentEncoder<GRUCell>;
extern template struct RecurrentEncoder<LSTMCell>;
extern template struct RecurrentEncoder<AnyCell>;
extern template struct RecurrentDecoder<RNNCell>;
extern template struct RecurrentDecoder<GRUCell>;
extern template struct RecurrentDecoder<LSTMCell>;
extern template struct RecurrentDecoder<AnyCell>;

}  // namespace unroll
