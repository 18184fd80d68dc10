#pragma once
/// The options of examples/ngram.cpp, and the texts that it counts.

#include <fmt/format.h>
#include <unroll/unroll.h>

#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "examples/common/program.h"
#include "examples/common/tokenizer.h"
#include "examples/common/training.h"
#include "examples/language_model/model.h"

namespace ngram {

using namespace unroll;
using examples::Tokenizer;

/// What is counted, and what the network is beside it. A saved model carries it.
struct Config {
  std::string text, valid, network, level = "char", clean = "none", count = "word";
  double held_out = 0.1, epsilon = 0.01;
  std::int64_t max_tokens = 0, order = 5, hidden = 128, steps = 35;
  examples::TrainingOptions training{.epochs = 20, .batch = 16, .lr = 0.004, .plot = "ngram.svg"};

  template <class F>
  void each(F&& option) {
    using CLI::IsMember, examples::above, examples::at_least;
    option("text", text, "text to learn (default: the bundled story)");
    option("valid", valid, "text to measure the perplexity on (default: the end of --text)");
    option("held-out", held_out, "part of --text that is its end, where there is no --valid",
           CLI::Range(0.0, 0.9));
    option("network", network,
           "model that language_model saved, to take with its text and split instead of learning");
    option("level", level, "what a token is", IsMember({"char", "word"}));
    option("clean", clean, "letters: only a-z and single spaces stay",
           IsMember({"none", "letters"}));
    option("max-tokens", max_tokens, "only the first so many tokens of the text; 0: all",
           at_least(0));
    option("order", order, "largest order of the Markov models", at_least(0));
    option("epsilon", epsilon, "what is added to each count", above(0));
    option("count", count, "what the most frequent n-grams are of", IsMember({"char", "word"}));
    option("hidden", hidden, "size of the network's hidden state", at_least(1));
    option("steps", steps, "tokens per window of the network's training", at_least(1));
    training.each(option);
  }
  /// The network that it learns, as language_model has it.
  language_model::Config network_config() const {
    language_model::Config config;
    config.text = text, config.valid = valid, config.level = level, config.clean = clean;
    config.max_tokens = max_tokens, config.hidden = hidden, config.steps = steps;
    return config;
  }
};

/// The text as language_model reads and splits it.
struct Corpus {
  std::string path;
  Vocab vocab;
  std::vector<std::int64_t> train;
  std::vector<std::pair<std::string, std::vector<std::int64_t>>> others;  ///< not learned

  Corpus(const language_model::Config& config, double held_out, const std::string& vocabulary = "",
         const std::string& source = "") {
    const Tokenizer tokenizer(config.level, config.clean);
    path = config.text.empty() ? examples::bundled("english.txt") : config.text;
    const std::vector<std::string> tokens = tokenizer.text(read_text(path));
    vocab = vocabulary.empty() ? Vocab(tokens) : Vocab::from_text(vocabulary, source);
    train = examples::encode(tokens, vocab, path);
    if (config.max_tokens > 0 && config.max_tokens < std::ssize(train))
      train.resize(static_cast<std::size_t>(config.max_tokens));
    for (const auto& [name, file] : {std::pair{"valid", config.valid}, {"test", config.test}})
      if (!file.empty())
        others.emplace_back(name, examples::encode(tokenizer.text(read_text(file)), vocab, file));
    if (others.empty() && held_out > 0) {
      const auto kept = static_cast<double>(train.size()) * (1 - held_out);
      const auto cut = train.begin() + static_cast<std::ptrdiff_t>(kept);
      others.emplace_back("valid", std::vector<std::int64_t>(cut, train.end()));
      train.erase(cut, train.end());
    }
    for (const auto& [name, part] : others)
      if (part.size() < 2)
        throw ValueError(fmt::format("{}: the {} text has less than two tokens", path, name));
    if (train.size() < 2) throw ValueError(path + " has less than two tokens to learn");
  }
};

}  // namespace ngram
