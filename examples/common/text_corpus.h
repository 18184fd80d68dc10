#pragma once
/// The texts of a language model: options, tokens, and how probable they are.

#include <CLI/CLI.hpp>
#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "data/sequences.h"
#include "data/vocab.h"
#include "examples/common/options.h"
#include "examples/common/tokenizer.h"
#include "framework/random.h"
#include "modules/language_model.h"

namespace examples {

/// Which texts, and what their tokens are, for a configuration.
struct TextOptions {
  std::string text{}, valid{}, test{};
  std::string level = "char", clean = "none";
  std::int64_t max_tokens = 0;

  template <class F>
  void each(F&& option) {
    option("text", text, "text to learn (default: the bundled story)");
    option("valid", valid, "text to measure the perplexity on after each epoch");
    option("test", test, "text to measure the perplexity on at the end");
    option("level", level, "what a token is", CLI::IsMember({"char", "word"}));
    option("clean", clean, "letters: only a-z and single spaces stay",
           CLI::IsMember({"none", "letters"}));
    option("max-tokens", max_tokens, "learn only the first so many tokens of the text; 0: all",
           at_least(0));
  }
  Tokenizer tokenizer() const { return {level, clean}; }
};

/// The network of a language model, for a configuration.
struct NetworkOptions {
  std::string cell = "gru";
  std::int64_t layers = 1, hidden = 256, embed = 0;
  double dropout = 0;
  std::string init{};
  std::optional<double> forget_bias{};

  template <class F>
  void each(F&& option) {
    option("cell", cell, "kind of recurrent network", CLI::IsMember({"rnn", "gru", "lstm"}));
    option("layers", layers, "recurrent layers, one on top of the other", at_least(1));
    option("hidden", hidden, "size of the hidden state", at_least(1));
    option("embed", embed, "size of the token embedding; 0: one-hot", at_least(0));
    option("dropout", dropout, "on embeddings and on what comes out of each layer", at_least(0));
    option("init", init,
           "all parameters from uniform:A, in (-A, A), or normal:S (default: PyTorch's)");
    option("forget-bias", forget_bias, "what the bias of an LSTM's forget gates starts with");
  }
  /// For so many tokens. Throws ValueError for an `init` that does not exist, and for a forget bias
  /// of another cell than an LSTM.
  unroll::RecurrentLanguageModel make(std::int64_t vocab_size) const;
  /// "gru, hidden size 256".
  std::string name() const;
};

/// The texts as tokens.
struct TextCorpus {
  using Tokens = std::vector<std::int64_t>;

  std::string path;  ///< of what is learned
  unroll::Vocab vocab;
  Tokens train;
  std::vector<std::pair<std::string, Tokens>> others;  ///< "valid" and "test", as far as given

  /// Without a vocabulary it is that of the whole text, also where max_tokens cuts it. `held_out`
  /// is the part of the text that is its end and becomes "valid" where no other text is given.
  /// Throws FileError as read_text, ValueError for a text of less than two tokens.
  explicit TextCorpus(const TextOptions& options, const std::optional<unroll::Vocab>& known = {},
                      double held_out = 0);

  /// Batches of windows of what is learned: "random" or "sequential". Throws ValueError, naming the
  /// path, for a text that is too short.
  unroll::WindowBatches windows(const unroll::WindowOptions& options, const std::string& sampling,
                                unroll::Generator& generator) const;

  /// The tokens of "train", "valid" or "test"; none if there is no such text.
  const Tokens& part(const std::string& name) const;
};

/// The tokens of a line, with what is read before it. Unknown ones get a warning that begins with
/// `where`.
std::vector<std::int64_t> read_line(const TextOptions& options, const unroll::Vocab& vocab,
                                    const std::string& line, const std::string& where);

/// exp(mean of -log p(token | those before)) over all tokens but the first. A long text is read in
/// several rows at once, each of 1,000 tokens or more, so that their cold starts weigh little.
double perplexity(unroll::RecurrentLanguageModel& model, const std::vector<std::int64_t>& corpus);

}  // namespace examples
