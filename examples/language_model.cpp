// Learns to write like a text, character by character or word by word; evaluates, generates, scores.
//
//   language_model                                       learns the bundled story in about a minute
//   language_model train --text FILE --hidden 512        learns a text of yours
//   language_model train --load FILE                     goes on where it was interrupted
//   language_model generate --prefix "The ferry"         continues a text with the saved model
//   language_model eval --text FILE                      the perplexity of a text
//   language_model score "Is this English?"              how probable is a line?
//
// docs/examples/language_model.md has the equations and all options.

#include <fmt/format.h>
#include <unroll/unroll.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cmath>
#include <iostream>
#include <limits>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "common/interrupt.h"
#include "common/json_log.h"
#include "common/plot.h"
#include "common/program.h"
#include "common/progress.h"

using namespace unroll;
using examples::Json;

namespace {

// --- Options ------------------------------------------------------------------------------------

/// What a model is and how it learns. A saved model carries it.
struct Config {
  std::string text, valid, test;
  std::string level = "char", clean = "none";
  std::int64_t max_tokens = 0;
  std::string cell = "gru";
  std::int64_t layers = 1, hidden = 256, embed = 0;
  std::int64_t batch = 32, steps = 35;
  std::string sampling = "sequential";
  std::string optimizer = "adam";
  std::optional<double> lr;
  double momentum = 0, clip = 1, dropout = 0;
  std::string init;
  std::optional<double> forget_bias;
  double lr_decay = 1;
  std::int64_t lr_decay_after = 0;
  std::int64_t epochs = 30;
  std::uint64_t seed = 0;
  std::string log, plot = "language_model.svg";

  /// Names every option once: for the command line, --help and the saved model.
  template <class F>
  void each(F&& option) {
    using CLI::IsMember, CLI::NonNegativeNumber, CLI::PositiveNumber;
    option("text", text, "text to learn (default: the bundled story)");
    option("valid", valid, "text to measure the perplexity on after each epoch");
    option("test", test, "text to measure the perplexity on at the end");
    option("level", level, "what a token is", IsMember({"char", "word"}));
    option("clean", clean, "letters: only a-z and spaces stay", IsMember({"none", "letters"}));
    option("max-tokens", max_tokens, "use only so many tokens of the text; 0: all",
           NonNegativeNumber);
    option("cell", cell, "kind of recurrent network", IsMember({"rnn", "gru", "lstm"}));
    option("layers", layers, "recurrent layers (one so far)", PositiveNumber);
    option("hidden", hidden, "size of the hidden state", PositiveNumber);
    option("embed", embed, "size of the token embedding; 0: one-hot vectors", NonNegativeNumber);
    option("batch", batch, "windows side by side", PositiveNumber);
    option("steps", steps, "tokens per window", PositiveNumber);
    option("sampling", sampling, "windows in random order, or in sequence with the state carried",
           IsMember({"random", "sequential"}));
    option("optimizer", optimizer, "", IsMember({"sgd", "adam"}));
    option("lr", lr, "learning rate (default: 0.003 for adam, 1 for sgd)", NonNegativeNumber);
    option("momentum", momentum, "of sgd", NonNegativeNumber);
    option("clip", clip, "largest norm of the gradient; 0: any", NonNegativeNumber);
    option("dropout", dropout, "on the input and the output of the recurrent network",
           NonNegativeNumber);
    option("init", init, "start of all parameters: uniform:A in (-A, A), normal:S (default: PyTorch's)");
    option("forget-bias", forget_bias, "start of the LSTM's forget bias");
    option("lr-decay", lr_decay, "factor on the learning rate per epoch ...", NonNegativeNumber);
    option("lr-decay-after", lr_decay_after, "... after this one", NonNegativeNumber);
    option("epochs", epochs, "times through the text", NonNegativeNumber);
    option("seed", seed, "of all random numbers");
    option("log", log, "file for one JSON object per epoch");
    option("plot", plot, "SVG file for the perplexity curve; \"\": none");
  }
};

/// What belongs to one call of the program only.
struct Call {
  std::string load, save;
  int threads = 0;
  bool quiet = false;
};

struct Continuation {
  std::string prefix;
  std::int64_t length = 300;
  SamplingOptions sampling{.temperature = 0.7};
  std::uint64_t seed = 0;
};

// --- Text and tokens ----------------------------------------------------------------------------

/// The token that stands for the end of a line; with only letters there is none.
std::string line_end(const Config& config) {
  if (config.clean == "letters") return "";
  return config.level == "word" ? "<eos>" : "\n";
}

std::vector<std::string> tokenize_line(const std::string& line, const Config& config) {
  const std::string text = config.clean == "letters" ? letters_only(line) : line;
  return config.level == "word" ? split_words(text) : split_characters(text);
}

std::vector<std::string> tokenize(const std::string& text, const Config& config) {
  std::vector<std::string> tokens;
  for (const std::string& line : split_lines(text)) {
    for (std::string& token : tokenize_line(line, config)) tokens.push_back(std::move(token));
    if (const std::string end = line_end(config); !end.empty()) tokens.push_back(end);
  }
  return tokens;
}

std::string to_text(const std::vector<std::string>& tokens, const Config& config) {
  if (config.level == "char") return join(tokens);
  std::string text;
  for (const std::string& token : tokens) {
    if (!text.empty() && text.back() != '\n' && token != "<eos>") text += ' ';
    text += token == "<eos>" ? "\n" : token;
  }
  return text;
}

/// The numbers of the tokens; says so when some are unknown.
std::vector<std::int64_t> encode(const std::vector<std::string>& tokens, const Vocab& vocab,
                                 const std::string& where) {
  const auto unknown = [&](const std::string& token) { return !vocab.contains(token); };
  if (const auto count = std::count_if(tokens.begin(), tokens.end(), unknown); count > 0)
    examples::warn(fmt::format(
        "{}: {} of {} tokens are not in the vocabulary, the first one is '{}'; they count as {}",
        where, count, tokens.size(), *std::find_if(tokens.begin(), tokens.end(), unknown),
        vocab.token(0)));
  return vocab.encode(tokens);
}

std::vector<std::int64_t> encode_file(const std::string& path, const Vocab& vocab,
                                      const Config& config) {
  return encode(tokenize(read_text(path), config), vocab, path);
}

/// What a line or a text is read after: the end of a line before it, or a space. Empty where the
/// vocabulary has neither.
std::vector<std::int64_t> line_start(const Vocab& vocab, const Config& config) {
  for (const std::string& token : {line_end(config), std::string(" ")})
    if (vocab.contains(token)) return {vocab.index(token)};
  return {};
}

// --- The model ----------------------------------------------------------------------------------

/// p(next token | all tokens so far) = softmax(W_out h_t + b_out), where h_t is the state of a
/// recurrent network that has read them (Mikolov et al. 2010).
struct LanguageModel : Module {
  using Network = std::variant<RNN, GRU, LSTM>;
  /// What the network remembers, h or h and c; empty before the first token.
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
    const auto run = [&](const auto& layers) {
      auto start = layers.initial_state(tokens.size(1));
      std::size_t i = 0;
      if (!state.empty()) for_each_tensor(start, [&](Tensor& t) { t = state.at(i++); });
      auto [hs, last] = layers(xs, start);
      state.clear();
      for_each_tensor(last, [&](Tensor& t) { state.push_back(t); });
      return hs;
    };
    return output(dropout(std::visit(run, network)));
  }

 private:
  Network make_network(const Config& config) {
    if (config.layers != 1)
      throw ValueError(fmt::format("--layers {}: only one layer so far", config.layers));
    if (config.forget_bias && config.cell != "lstm")
      throw ValueError(fmt::format("--forget-bias is for --cell lstm, not {}", config.cell));
    const std::int64_t inputs = config.embed > 0 ? config.embed : vocab_size;
    if (config.cell == "rnn") return child("network", RNN(inputs, config.hidden));
    if (config.cell == "gru") return child("network", GRU(inputs, config.hidden));
    return child("network", LSTM(inputs, config.hidden));
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
            .fill_(name.find("bias_ih") != name.npos ? *config.forget_bias : 0.0);
    }
  }

  std::int64_t vocab_size;
  std::optional<Embedding> embedding;
  Network network;
  Linear output;
  Dropout dropout;
};

/// Tokens as a batch of one: [T, 1].
Tensor column(const std::vector<std::int64_t>& tokens) {
  return from_vector(tokens, {static_cast<std::int64_t>(tokens.size()), 1});
}

// --- Saving and loading -------------------------------------------------------------------------

/// How far a training run is. With the tensors, all that it takes to go on as if nothing had
/// happened.
struct Position {
  std::int64_t epoch = 0;      ///< complete epochs
  std::int64_t batch = 0;      ///< complete batches of the next one,
  double loss = 0;             ///< the sum over their tokens,
  std::int64_t tokens = 0;     ///< how many these are,
  double seconds = 0;          ///< and what they took
  double total_seconds = 0;    ///< of all complete epochs, evaluation not counted
  std::size_t corpus = 0;      ///< length of the text in tokens
  std::vector<double> train, valid;  ///< perplexities so far
  std::array<std::uint64_t, 6> generator{};
  LanguageModel::State state;  ///< where the windows are in sequence

  template <class F>
  void each(F&& field) {
    field("epoch", epoch), field("batch", batch), field("loss", loss), field("tokens", tokens);
    field("seconds", seconds), field("total_seconds", total_seconds), field("corpus", corpus);
    field("train", train), field("valid", valid), field("generator", generator);
  }
  void start_epoch() { batch = tokens = 0, loss = seconds = 0, state.clear(); }
};

template <class T>
Json to_json(T values) {
  Json json;
  values.each([&](const char* name, auto& value, auto&&...) { json[name] = value; });
  return json;
}

template <class T>
T from_json(const Json& json) {
  T values;
  values.each([&](const char* name, auto& value, auto&&...) {
    value = json.at(name).get<std::remove_cvref_t<decltype(value)>>();
  });
  return values;
}

void add(NamedTensors& all, const std::string& prefix, const NamedTensors& tensors) {
  for (const auto& [name, tensor] : tensors) all.emplace_back(prefix + name, tensor);
}

NamedTensors part(const NamedTensors& all, const std::string& prefix) {
  NamedTensors tensors;
  for (const auto& [name, tensor] : all)
    if (name.compare(0, prefix.size(), prefix) == 0)
      tensors.emplace_back(name.substr(prefix.size()), tensor);
  return tensors;
}

void save(const std::string& path, const Config& config, const Vocab& vocab,
          const LanguageModel& model, const Optimizer& optimizer, const Position& position) {
  NamedTensors tensors;
  add(tensors, "model.", model.state_dict());
  add(tensors, "optimizer.", optimizer.state_dict());
  for (std::size_t i = 0; i < position.state.size(); ++i)
    tensors.emplace_back(fmt::format("state.{}", i), position.state[i]);
  save_safetensors(path, tensors,
                   {{"config", to_json(config).dump()},
                    {"vocabulary", vocab.to_text()},
                    {"position", to_json(position).dump()}});
}

/// What save() wrote.
struct Saved {
  std::string path;
  Config config;
  Vocab vocab;
  Position position;
  NamedTensors tensors;

  LanguageModel model() const {
    LanguageModel model(config, vocab.size());
    model.load_state_dict(part(tensors, "model."));
    return model;
  }
};

Saved load(const std::string& path) {
  TensorFile file = load_safetensors(path);
  const auto parse = [&](const char* key) {
    const auto found = file.metadata.find(key);
    if (found == file.metadata.end())
      throw FileError(fmt::format("{} is no model that language_model saved: it has no {}", path,
                                  key));
    return Json::parse(found->second);
  };
  try {
    Saved saved{path, from_json<Config>(parse("config")),
                Vocab::from_text(file.metadata["vocabulary"], path),
                from_json<Position>(parse("position")), std::move(file.tensors)};
    for (const auto& [name, tensor] : part(saved.tensors, "state."))
      saved.position.state.push_back(tensor);
    return saved;
  } catch (const Json::exception& error) {
    throw FileError(fmt::format("{}: damaged metadata: {}", path, error.what()));
  }
}

// --- Using a model ------------------------------------------------------------------------------

/// exp(mean of -log p(token | those before)) over all tokens but the first. A long text is read in
/// several rows at once, each of 1,000 tokens or more, so that their cold starts weigh little.
double perplexity(LanguageModel& model, const std::vector<std::int64_t>& corpus,
                  const Config& config) {
  const NoGrad no_grad;
  model.eval();
  const auto rows = std::clamp<std::int64_t>(static_cast<std::int64_t>(corpus.size()) / 1000, 1, 32);
  double loss = 0;
  std::int64_t tokens = 0;
  LanguageModel::State state;
  for (const auto& [x, y] : evaluation_windows(corpus, {rows, config.steps})) {
    loss += cross_entropy(model(x, state), y, {.reduction = Reduction::sum}).item();
    tokens += y.numel();
  }
  return std::exp(loss / static_cast<double>(tokens));
}

/// The prefix and what the model writes after it.
std::string continue_text(LanguageModel& model, const Vocab& vocab, const Config& config,
                          const Continuation& options) {
  const NoGrad no_grad;
  model.eval();
  std::vector<std::string> tokens = tokenize_line(options.prefix, config);
  std::vector<std::int64_t> context = line_start(vocab, config);
  for (std::int64_t token : encode(tokens, vocab, "--prefix")) context.push_back(token);
  if (context.empty()) throw ValueError("--prefix: this model has to be given some words");

  Generator generator(options.seed);
  const Tensor unknown = one_hot(tensor(0, DType::i64), vocab.size());
  LanguageModel::State state;
  Tensor logits = model(column(context), state);  // warm-up: reads the prefix
  for (std::int64_t i = 0; i < options.length; ++i) {
    const double never = -std::numeric_limits<double>::infinity();
    const Tensor next =
        sample(masked_fill(logits[-1][0], unknown, never), options.sampling, generator);
    const auto token = static_cast<std::int64_t>(next.item());
    tokens.push_back(vocab.token(token));
    logits = model(column({token}), state);
  }
  return to_text(tokens, config);
}

/// Prints log p(line) = sum of log p(token | those before), the perplexity and the line.
void score_line(LanguageModel& model, const Vocab& vocab, const Config& config,
                const std::string& line, std::int64_t number) {
  const NoGrad no_grad;
  model.eval();
  std::vector<std::int64_t> tokens = line_start(vocab, config);
  for (std::int64_t token :
       encode(tokenize_line(line, config), vocab, fmt::format("line {}", number)))
    tokens.push_back(token);
  double loss = 0;
  const auto scored = static_cast<std::int64_t>(tokens.size()) - 1;
  if (scored > 0) {
    LanguageModel::State state;
    const Tensor all = column(tokens);
    loss = cross_entropy(model(narrow(all, 0, 0, scored), state), narrow(all, 0, 1, scored),
                         {.reduction = Reduction::sum})
               .item();
  }
  fmt::print("{:10.2f} {:10.2f}  {}\n", 0.0 - loss,
             scored > 0 ? std::exp(loss / static_cast<double>(scored)) : 1.0, line);
  std::fflush(stdout);
}

// --- Training -----------------------------------------------------------------------------------

std::unique_ptr<Optimizer> make_optimizer(const Config& config, const LanguageModel& model) {
  if (config.optimizer == "sgd")
    return std::make_unique<SGD>(model.parameters(),
                                 SGDOptions{.lr = *config.lr, .momentum = config.momentum});
  if (config.momentum != 0)
    throw ValueError("--momentum is for --optimizer sgd; adam has its own");
  return std::make_unique<Adam>(model.parameters(), AdamOptions{.lr = *config.lr});
}

/// What a model that goes on learning must have in common with the saved one.
void check_same_model(const Saved& saved, const Config& config) {
  const Json before = to_json(saved.config), now = to_json(config);
  for (const char* name : {"level", "clean", "cell", "layers", "hidden", "embed", "optimizer"})
    if (before[name] != now[name])
      throw ValueError(fmt::format("--{} {} does not fit {}, which was trained with {}", name,
                                   now[name].dump(), saved.path, before[name].dump()));
}

bool same_windows(const Saved& saved, const Config& config, std::size_t corpus) {
  const Json before = to_json(saved.config), now = to_json(config);
  for (const char* name : {"text", "max-tokens", "batch", "steps", "sampling", "seed"})
    if (before[name] != now[name]) return false;
  return saved.position.corpus == corpus;
}

/// One epoch of windows. Each epoch has a generator of its own, so that one that goes on in the
/// middle has the same windows.
WindowBatches make_windows(const std::vector<std::int64_t>& corpus, const Config& config,
                           std::int64_t epoch) {
  Generator generator(config.seed + 1'000'003 * static_cast<std::uint64_t>(epoch + 1));
  const WindowOptions options{config.batch, config.steps};
  return config.sampling == "random" ? random_windows(corpus, options, generator)
                                     : sequential_windows(corpus, options, generator);
}

int train(Config config, const Call& call, Continuation continuation,
          const std::optional<Saved>& saved, const std::string& program) {
  using Clock = std::chrono::steady_clock;
  const auto seconds_since = [](Clock::time_point start) {
    return std::chrono::duration<double>(Clock::now() - start).count();
  };
  const bool bundled = config.text.empty();
  const std::string text = bundled ? examples::bundled("english.txt") : config.text;
  const std::string prefix = continuation.prefix.empty() && bundled ? "The ferry" : continuation.prefix;

  // The vocabulary is that of the whole text, also where --max-tokens cuts it.
  const std::vector<std::string> tokens = tokenize(read_text(text), config);
  const Vocab vocab = saved ? saved->vocab : Vocab(tokens);
  std::vector<std::int64_t> corpus = encode(tokens, vocab, text);
  if (config.max_tokens > 0 && config.max_tokens < std::ssize(corpus))
    corpus.resize(static_cast<std::size_t>(config.max_tokens));
}
