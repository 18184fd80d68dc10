#pragma once
/// The model of examples/translate.cpp, and its options.

#include <unroll/unroll.h>

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "examples/common/options.h"
#include "examples/common/training.h"

namespace translate {

using namespace unroll;

/// The same in both vocabularies; <unk> has index 0.
constexpr std::int64_t kPad = 1, kBos = 2, kEos = 3;
inline const std::vector<std::string> kReserved{"<pad>", "<bos>", "<eos>"};

/// What is learned and how. A saved model carries it.
struct Config {
  std::string bundled = "numbers";
  std::string pairs, source, target;
  std::string valid_pairs, valid_source, valid_target, test_pairs, test_source, test_target;
  std::int64_t max_pairs = 0, max_length = 50, min_freq = 1;
  double hold_out = 0.1;
  std::string level = "word";
  bool keep_case = false;
  std::string cell = "gru", attention = "additive";
  std::int64_t layers = 1, hidden = 128, embed = 64;
  bool bidirectional = false;
  double dropout = 0;
  std::int64_t beam = 4;
  double length_penalty = 0.75;
  examples::TrainingOptions training{
      .epochs = 60, .batch = 64, .lr = 0.003, .plot = "translate.svg"};
  std::string heatmap = "translate_attention.svg";

  template <class F>
  void each(F&& option) {
    using CLI::IsMember, examples::above, examples::at_least;
    option("bundled", bundled, "what to learn without a file: number words, or a phrase book",
           IsMember({"numbers", "phrases"}));
    option("pairs", pairs, "file of pairs, a line each: source, tab, target");
    option("source", source, "file with a source sentence per line ...");
    option("target", target, "... and one with their translations");
    option("valid-pairs", valid_pairs, "pairs to measure on after each epoch");
    option("valid-source", valid_source, "or two files ...");
    option("valid-target", valid_target, "... of them");
    option("test-pairs", test_pairs, "pairs to translate at the end");
    option("test-source", test_source, "or two files ...");
    option("test-target", test_target, "... of them");
    option("hold-out", hold_out,
           "part of the pairs that is not learned, to measure on instead of "
           "--valid-pairs",
           CLI::Range(0.0, 0.9));
    option("max-pairs", max_pairs, "take only the first so many pairs; 0: all", at_least(0));
    option("max-length", max_length, "longer pairs (tokens) are not learned", at_least(1));
    option("min-freq", min_freq, "words seen less often are <unk>", at_least(1));
    option("level", level, "what a token is", IsMember({"word", "char"}));
    option("keep-case", keep_case, "do not turn text into lower case");
    option("cell", cell, "kind of recurrent network", IsMember({"rnn", "gru", "lstm"}));
    option("attention", attention, "how a decoder's state is compared with the encoder's outputs",
           IsMember({"none", "additive", "general", "dot"}));
    option("layers", layers, "recurrent layers, in the encoder and in the decoder", at_least(1));
    option("bidirectional", bidirectional, "the encoder reads from both ends");
    option("hidden", hidden, "size of the hidden states", at_least(1));
    option("embed", embed, "size of the embeddings", at_least(1));
    option("dropout", dropout, "between layers", CLI::Range(0.0, 0.99));
    option("beam", beam, "width of the beam search, which is shown beside greedy search",
           at_least(1));
    option("length-penalty", length_penalty, "a beam is ranked by log p / length^this",
           at_least(0));
    option("heatmap", heatmap, "SVG file for what attention looks at; \"\": none");
    training.each(option);
  }
};

/// Encoder and decoder of one kind of cell.
template <class Cell, class Layers>
auto make_model(const Config& config, std::int64_t source_size, std::int64_t target_size) {
  const bool dot = config.attention == "dot";
  DecoderOptions options;
  if (dot) options.attention = AttentionScore::dot;
  if (config.attention == "general") options.attention = AttentionScore::general;
  if (config.attention == "additive")
    options = {.attention = AttentionScore::additive, .attention_size = config.hidden};

  // A dot product wants outputs of the size of the decoder's state: both directions are added.
  RecurrentEncoder<Cell> encoder(Embedding(source_size, config.embed),
                                 Layers(config.embed, config.hidden,
                                        {.num_layers = config.layers,
                                         .dropout = config.dropout,
                                         .bidirectional = config.bidirectional,
                                         .merge = dot ? Merge::sum : Merge::concatenate}));
  const std::int64_t context = options.attention ? encoder.output_size() : encoder.context_size();
  RecurrentDecoder<Cell> decoder(encoder, Embedding(target_size, config.embed),
                                 Layers(config.embed + context, config.hidden,
                                        {.num_layers = config.layers, .dropout = config.dropout}),
                                 options);
  return EncoderDecoder(std::move(encoder), std::move(decoder));
}

/// p(target | source), token by token.
struct Translator : Module {
  Translator(const Config& config, std::int64_t source_size, std::int64_t target_size)
      : model_(make(config, source_size, target_size)) {}

  /// source: [S, B], lengths: [B], target: [T, B], all i64; returns the logits [T, B, V] of the
  /// token that follows each of the target.
  Tensor operator()(const Tensor& source, const Tensor& lengths, const Tensor& target) const {
    return std::visit([&](const auto& m) { return m(source, target, lengths); }, model_);
  }

  /// The tokens of the best translation of each column; a beam of 0 is greedy search.
  Sequences search(const Tensor& source, const Tensor& lengths, std::int64_t beam,
                   double length_penalty) const {
    const Tensor start = full({source.size(1)}, kBos, DType::i64);
    const std::int64_t longest = 2 * source.size(0) + 10;
    Sequences found;
    std::visit(
        [&](const auto& m) {
          const auto state = m.encode(source, lengths);
          if (beam == 0) {
            for (auto& best :
                 greedy_search(m.decoder, state, start, {.max_length = longest, .eos = kEos}))
              found.push_back(std::move(best.tokens));
          } else {
            for (auto& best : beam_search(m.decoder, state, start,
                                          {.beam_size = beam,
                                          .max_length = longest,
                                          .eos = kEos,
                                          .length_penalty = length_penalty}))
              found.push_back(std::move(best.at(0).tokens));
          }
        },
        model_);
    return found;
  }

  /// What each step looks at: [T, B, S]. Throws ValueError without attention.
  Tensor attention_weights(const Tensor& source, const Tensor& lengths,
                           const Tensor& target) const {
    return std::visit(
        [&](const auto& m) {
          return m.decoder.attention_weights(target, m.encode(source, lengths));
        },
        model_);
  }

 private:
  using Model =
      std::variant<EncoderDecoder<RNNEncoder, RNNDecoder>, EncoderDecoder<GRUEncoder, GRUDecoder>,
                   EncoderDecoder<LSTMEncoder, LSTMDecoder>>;

  Model make(const Config& config, std::int64_t source_size, std::int64_t target_size) {
    const auto sized = [&](auto of_cell) {
      return Model(absorb(of_cell(config, source_size, target_size), ""));
    };
    if (config.cell == "rnn") return sized(make_model<RNNCell, RNN>);
    if (config.cell == "gru") return sized(make_model<GRUCell, GRU>);
    return sized(make_model<LSTMCell, LSTM>);
  }

  Model model_;
};

}  // namespace translate
