#pragma once
/// The model of examples/language_model.cpp, and its options.

#include <fmt/format.h>
#include <unroll/unroll.h>

#include <algorithm>
#include <cstdint>
#include <optional>
#include <string>
#include <tuple>
#include <variant>
#include <vector>

#include "examples/common/options.h"
#include "examples/common/training_program.h"

namespace language_model {

using namespace unroll;

/// What a model is and how it learns. A saved model carries it.
struct Config {
  std::string text, valid, test;
  std::string level = "char", clean = "none";
  std::int64_t max_tokens = 0;
  std::string cell = "gru";
  std::int64_t layers = 1, hidden = 256, embed = 0;
  double dropout = 0;
  std::string init;
  std::optional<double> forget_bias;
  std::int64_t batch = 16, steps = 35;
  std::string sampling = "sequential";
  std::string optimizer = "adam";
  std::optional<double> lr;
  double momentum = 0, clip = 1, lr_decay = 1;
  std::int64_t lr_decay_after = 0;
  std::int64_t epochs = 80;
  std::uint64_t seed = 0;
  std::string log, plot = "language_model.svg";

  template <class F>
  void each(F&& option) {
    using CLI::IsMember, examples::above, examples::at_least;
    option("text", text, "text to learn (default: the bundled story)");
    option("valid", valid, "text to measure the perplexity on after each epoch");
    option("test", test, "text to measure the perplexity on at the end");
    option("level", level, "what a token is", IsMember({"char", "word"}));
    option("clean", clean, "letters: only a-z and single spaces stay",
           IsMember({"none", "letters"}));
    option("max-tokens", max_tokens, "learn only the first so many tokens of the text; 0: all",
           at_least(0));
    option("cell", cell, "kind of recurrent network", IsMember({"rnn", "gru", "lstm"}));
    option("layers", layers, "recurrent layers, one on top of the other", at_least(1));
    option("hidden", hidden, "size of the hidden state", at_least(1));
    option("embed", embed, "size of the token embedding; 0: one-hot", at_least(0));
    option("dropout", dropout, "on embeddings and on what comes out of each layer", at_least(0));
    option("init", init,
           "all parameters from uniform:A, in (-A, A), or normal:S (default: PyTorch's)");
    option("forget-bias", forget_bias, "what the bias of an LSTM's forget gates starts with");
    option("batch", batch, "windows side by side", at_least(1));
    option("steps", steps, "tokens per window", at_least(1));
    option("sampling", sampling, "windows at random, or in sequence with the state carried on",
           IsMember({"random", "sequential"}));
    option("optimizer", optimizer, "", IsMember({"sgd", "adam"}));
    option("lr", lr, "learning rate (default: 0.002 for adam, 1 for sgd)", above(0));
    option("momentum", momentum, "of sgd", at_least(0));
    option("clip", clip, "largest norm of the gradient; 0: any", at_least(0));
    option("lr-decay", lr_decay, "factor on the learning rate for each epoch ...", at_least(0));
    option("lr-decay-after", lr_decay_after, "... after this one", at_least(0));
    option("epochs", epochs, "times through the text", at_least(1));
    option("seed", seed, "of all random numbers", at_least(0));
    option("log", log, "file for one JSON object per epoch");
    option("plot", plot, "SVG file for the perplexity curve; \"\": none");
  }

  examples::TrainingOptions training() const {
    return {epochs, batch, lr.value_or(optimizer == "adam" ? 0.002 : 1.0), clip, seed, log, plot};
  }
  /// Whether a text is cut into windows in the same way.
  bool same_windows(const Config& other) const {
    const auto all = [](const Config& c) {
      return std::tie(c.text, c.max_tokens, c.batch, c.steps, c.sampling, c.seed);
    };
    return all(*this) == all(other);
  }
  /// "gru, hidden size 256", for people.
  std::string network() const {
    const std::string more = layers > 1 ? fmt::format(", {} layers", layers) : std::string();
    return fmt::format("{}{}, hidden size {}", cell, more, hidden);
  }
};

/// p(next token | all tokens so far) = softmax(W h + b), where h is the state of a recurrent
/// network that has read them (Mikolov et al. 2010).
struct LanguageModel : Module {
  using Network = std::variant<RNN, GRU, LSTM>;
  /// What the network remembers, h or h and c of each layer; empty before the first token.
  using State = std::vector<Tensor>;

  LanguageModel(const Config& config, std::int64_t classes)
      : vocab_size(classes),
        network(make_network(config)),
        output(child("output", Linear(config.hidden, classes))),
        dropout(child("dropout", Dropout(config.dropout))) {
    if (config.embed > 0) embedding = child("embedding", Embedding(classes, config.embed));
    initialise(config);
  }

  /// tokens: i64 [T, B]; returns the logits [T, B, V]. The state goes in and comes out.
  Tensor operator()(const Tensor& tokens, State& state) const {
    const Tensor xs = embedding ? dropout((*embedding)(tokens)) : one_hot(tokens, vocab_size);
    const auto run = [&](const auto& net) {
      auto start = net.initial_state(tokens.size(1));
      std::size_t i = 0;
      if (!state.empty()) for_each_tensor(start, [&](Tensor& t) { t = state.at(i++); });
      auto [hs, last] = net(xs, start);
      state.clear();
      for_each_tensor(last, [&](Tensor& t) { state.push_back(t); });
      return hs;
    };
    return output(dropout(std::visit(run, network)));
  }

 private:
  Network make_network(const Config& config) {
    if (config.forget_bias && config.cell != "lstm")
      throw ValueError(fmt::format("--forget-bias is for --cell lstm, not {}", config.cell));
    const std::int64_t inputs = config.embed > 0 ? config.embed : vocab_size;
    const RecurrentOptions layers{.num_layers = config.layers, .dropout = config.dropout};
    if (config.cell == "rnn") return child("network", RNN(inputs, config.hidden, layers));
    if (config.cell == "gru") return child("network", GRU(inputs, config.hidden, layers));
    return child("network", LSTM(inputs, config.hidden, layers));
  }

  /// --init, then --forget-bias on top of it.
  void initialise(const Config& config) {
    const NoGrad no_grad;
    const std::size_t colon = std::min(config.init.find(':'), config.init.size());
    const std::string kind = config.init.substr(0, colon);
    double scale = 0;
    if (!config.init.empty() &&
        ((kind != "uniform" && kind != "normal") || colon == config.init.size() ||
         !CLI::detail::lexical_cast(config.init.substr(colon + 1), scale) || !(scale >= 0)))
      throw ValueError(fmt::format("--init {}: expected uniform:A or normal:S", config.init));

    for (const auto& [name, parameter] : named_parameters()) {
      if (kind == "uniform") init::uniform_(parameter, -scale, scale);
      if (kind == "normal") init::normal_(parameter, 0, scale);
      // An LSTM has two biases per gate, which are added; the gates stand in the order i f g o.
      if (config.forget_bias && name.find("network.bias") == 0)
        narrow(parameter, 0, config.hidden, config.hidden)
            .fill_(name.find("network.bias_ih") == 0 ? *config.forget_bias : 0.0);
    }
  }

  std::int64_t vocab_size;
  std::optional<Embedding> embedding;
  Network network;
  Linear output;
  Dropout dropout;
};

}  // namespace language_model
