#include "modules/seq2seq.h"

#include "framework/autograd.h"
#include "framework/internal.h"
#include "framework/ops.h"

namespace unroll {
namespace detail {

Tensor decode(Stepper& decoder, const Tensor& tokens, double sampling_probability,
              Generator& generator) {
  if (!(sampling_probability >= 0.0 && sampling_probability <= 1.0))
    fail<ValueError>("EncoderDecoder: sampling_probability must be in [0, 1], but is {}",
                     sampling_probability);
  check_tokens("EncoderDecoder: target", tokens);
  std::vector<Tensor> scores;
  for (std::int64_t t = 0; t < tokens.size(0); ++t) {
    const Step time(t);
    Tensor input = tokens[t];
    if (t > 0 && sampling_probability > 0.0) {
      const Tensor own = sample(scores.back().detach(), {}, generator);
      const Tensor chosen =
          uniform(input.shape(), 0.0, 1.0, DType::f64, generator) < sampling_probability;
      input = where(chosen, own, input);
    }
    scores.push_back(decoder.step(input));
  }
  return stack(scores);
}

void check_tokens(const char* what, const Tensor& tokens) {
  if (tokens.dim() != 2 || tokens.size(0) == 0)
    fail<ShapeError>("{} must be [T, B] with T >= 1, but is {}", what, tokens.shape());
}

void check_encoder(std::int64_t embedding_dim, const RecurrentSizes& rnn) {
  if (rnn.batch_first) fail<ValueError>("RecurrentEncoder: the rnn must not be batch_first");
  if (rnn.input_size != embedding_dim)
    fail<ValueError>(
        "RecurrentEncoder: the rnn's input_size is {}, but the embedding's dimension {}",
        rnn.input_size, embedding_dim);
}

void check_decoder(std::int64_t embedding_dim, std::int64_t context_size, const RecurrentSizes& rnn,
                   std::int64_t encoder_layers, bool tied) {
  if (rnn.batch_first) fail<ValueError>("RecurrentDecoder: the rnn must not be batch_first");
  if (rnn.bidirectional) fail<ValueError>("RecurrentDecoder: the rnn must not be bidirectional");
  if (rnn.num_layers != encoder_layers)
    fail<ValueError>("RecurrentDecoder: the rnn's num_layers is {}, but the encoder's {}",
                     rnn.num_layers, encoder_layers);
  if (rnn.input_size != embedding_dim + context_size)
    fail<ValueError>(
        "RecurrentDecoder: the rnn's input_size must be {} (embedding) + {} (context), but is {}",
        embedding_dim, context_size, rnn.input_size);
  if (tied && rnn.cell_output_size != embedding_dim)
    fail<ValueError>(
        "RecurrentDecoder: tied: the rnn's output has {} numbers, but the embedding's dimension is "
        "{}",
        rnn.cell_output_size, embedding_dim);
}

}  // namespace detail

namespace {

using AnyEncoder = RecurrentEncoder<AnyCell>;
using AnyDecoder = RecurrentDecoder<AnyCell>;

bool is_dot(const std::optional<AttentionScore>& score) {
  return score == AttentionScore::dot || score == AttentionScore::scaled_dot;
}

AnyEncoder make_encoder(std::int64_t tokens, const Seq2SeqOptions& o) {
  Recurrent<AnyCell> layers(o.embedding_dim, o.hidden_size,
                            {.num_layers = o.num_layers,
                             .dropout = o.dropout,
                             .bidirectional = o.bidirectional,
                             .merge = is_dot(o.attention) ? Merge::sum : Merge::concatenate},
                            o.cell);
  return {Embedding(tokens, o.embedding_dim), std::move(layers)};
}

AnyDecoder make_decoder(const AnyEncoder& encoder, std::int64_t tokens, const Seq2SeqOptions& o) {
  const std::int64_t context = o.attention ? encoder.output_size() : encoder.context_size();
  Recurrent<AnyCell> layers(o.embedding_dim + context, o.hidden_size,
                            {.num_layers = o.num_layers, .dropout = o.dropout}, o.cell);
  const bool additive = o.attention == AttentionScore::additive;
  return {encoder,
          Embedding(tokens, o.embedding_dim),
          std::move(layers),
          {.attention = o.attention, .attention_size = additive ? o.hidden_size : 0}};
}

EncoderDecoder<AnyEncoder, AnyDecoder> make_both(std::int64_t source_size, std::int64_t target_size,
                                                 const Seq2SeqOptions& options) {
  AnyEncoder encoder = make_encoder(source_size, options);
  AnyDecoder decoder = make_decoder(encoder, target_size, options);
  return {std::move(encoder), std::move(decoder)};
}

}  // namespace

Seq2Seq::Seq2Seq(std::int64_t source_size, std::int64_t target_size, const Seq2SeqOptions& options)
    : EncoderDecoder(make_both(source_size, target_size, options)) {}

template struct RecurrentEncoder<RNNCell>;
template struct RecurrentEncoder<GRUCell>;
template struct RecurrentEncoder<LSTMCell>;
template struct RecurrentEncoder<AnyCell>;
template struct RecurrentDecoder<RNNCell>;
template struct RecurrentDecoder<GRUCell>;
template struct RecurrentDecoder<LSTMCell>;
template struct RecurrentDecoder<AnyCell>;

}  // namespace unroll
