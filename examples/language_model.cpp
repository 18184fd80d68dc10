// Learns to write like a text, by characters or words; generates, evaluates and scores text.
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
#include <limits>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "common/checkpoint.h"
#include "common/interrupt.h"
#include "common/json_log.h"
#include "common/options.h"
#include "common/plot.h"
#include "common/program.h"
#include "common/progress.h"
#include "common/tokenizer.h"
#include "language_model/model.h"
#include "language_model/score.h"

using namespace unroll;
using examples::Json, examples::Tokenizer, examples::encode, examples::to_json;
using language_model::column, language_model::Config, language_model::LanguageModel,
    language_model::log_prob, language_model::perplexity;

namespace {

constexpr const char* kDefaultFile = "language_model.safetensors";

/// What belongs to one call of the program; the model carries the rest (Config).
struct Call {
  std::string load, save, program;
  int threads = 0;
  bool quiet = false;
};

// --- Using a model ------------------------------------------------------------------------------

/// How a text is continued.
struct Continuation {
  std::string prefix;
  std::int64_t length = 400;
  SamplingOptions sampling{.temperature = 0.5};
  std::uint64_t seed = 0;

  void add_options(CLI::App& app) {
    const auto add = [&](const char* name, auto& value, const char* help) {
      return app.add_option(name, value, help)->capture_default_str();
    };
    app.add_option("--prefix", prefix, "text to continue (default: the start of a line)");
    add("--length", length, "tokens to write")->check(examples::at_least(0));
    add("--temperature", sampling.temperature, "below 1 bolder, above 1 wilder; 0: arg-max")
        ->check(examples::at_least(0));
    add("--top-k", sampling.top_k, "choose among the k most probable tokens; 0: all")
        ->check(examples::at_least(0));
    add("--top-p", sampling.top_p, "choose among the most probable that reach p together")
        ->check(examples::above(0));
  }
};

/// The prefix and what the model writes after it.
std::string continue_text(LanguageModel& model, const Vocab& vocab, const Config& config,
                          const Continuation& options) {
  const NoGrad no_grad;
  model.eval();
  const Tokenizer tokenizer(config.level, config.clean);
  std::vector<std::string> tokens = tokenizer.line(options.prefix);
  std::vector<std::int64_t> context = tokenizer.line_start(vocab);
  for (std::int64_t token : encode(tokens, vocab, "--prefix")) context.push_back(token);
  if (context.empty()) throw ValueError("--prefix: this model has to be given a word or more");

  Generator generator(options.seed);
  const Tensor unknown = one_hot(full({}, 0, DType::i64), vocab.size());
  constexpr double never = -std::numeric_limits<double>::infinity();
  LanguageModel::State state;
  Tensor logits = model(column(context), state);  // warm-up: the model reads the prefix
  for (std::int64_t i = 0; i < options.length; ++i) {
    const Tensor scores = masked_fill(logits[-1][0], unknown, never);
    const auto token =
        static_cast<std::int64_t>(sample(scores, options.sampling, generator).item());
    tokens.push_back(vocab.token(token));
    logits = model(column({token}), state);
  }
  return tokenizer.join(tokens);
}

/// log p(line), the sum of log p(token | those before), and the perplexity.
void print_score(LanguageModel& model, const Vocab& vocab, const Config& config,
                 const std::string& line, const std::string& where) {
  const Tokenizer tokenizer(config.level, config.clean);
  std::vector<std::int64_t> tokens = tokenizer.line_start(vocab);
  for (std::int64_t token : encode(tokenizer.line(line), vocab, where)) tokens.push_back(token);
  const std::int64_t scored = std::ssize(tokens) - 1;
  if (scored < 1) {
    fmt::print("{:>10} {:>10}  {}\n", "-", "-", line);
    return;
  }
  const double log_p = log_prob(model, tokens);
  fmt::print("{:10.2f} {:10.2f}  {}\n", log_p, std::exp(-log_p / static_cast<double>(scored)),
             line);
}

// --- Training -----------------------------------------------------------------------------------

/// How far a training is. With model, optimizer and state, all that it takes to go on as if nothing
/// had happened.
struct Position {
  std::int64_t epoch = 0;            ///< complete epochs
  std::int64_t batch = 0;            ///< complete batches of the next one,
  double loss = 0;                   ///< the sum over their tokens,
  std::int64_t tokens = 0;           ///< how many these are,
  double seconds = 0;                ///< and what they took
  double total_seconds = 0;          ///< of all complete epochs, evaluation not counted
  std::int64_t corpus = 0;           ///< length of the text in tokens
  std::vector<double> train, valid;  ///< perplexities of the complete epochs
  std::array<std::uint64_t, 6> generator{};

  template <class F>
  void each(F&& field) {
    field("epoch", epoch), field("batch", batch), field("loss", loss), field("tokens", tokens);
    field("seconds", seconds), field("total_seconds", total_seconds), field("corpus", corpus);
    field("train", train), field("valid", valid), field("generator", generator);
  }
  void start_epoch() { batch = tokens = 0, loss = seconds = 0; }
};

class Training {
 public:
  Training(const Config& wanted, const Call& this_call,
           const std::optional<examples::Checkpoint>& saved)
      : config(wanted), call(this_call) {
    for (const std::string& path : {call.save, config.plot})
      if (!path.empty()) examples::require_writable(path);
    if (!config.lr) config.lr = config.optimizer == "adam" ? 0.002 : 1.0;
    if (config.optimizer == "adam" && config.momentum != 0)
      throw ValueError("--momentum is for --optimizer sgd; adam has its own");

    // The vocabulary is that of the whole text, also where --max-tokens cuts it.
    const Tokenizer tokenizer(config.level, config.clean);
    const std::string path = config.text.empty() ? examples::bundled("english.txt") : config.text;
    const std::vector<std::string> tokens = tokenizer.text(read_text(path));
    vocab = saved ? Vocab::from_text(saved->text("vocabulary"), call.load) : Vocab(tokens);
    corpus = encode(tokens, vocab, path);
    if (config.max_tokens > 0 && config.max_tokens < std::ssize(corpus))
      corpus.resize(static_cast<std::size_t>(config.max_tokens));
    try {
      windows();
    } catch (const ValueError& error) {  // too short
      throw ValueError(fmt::format("{}: {}: try a smaller --batch or --steps", path, error.what()));
    }
    const auto read = [&](const std::string& file) {
      std::vector<std::int64_t> other = encode(tokenizer.text(read_text(file)), vocab, file);
      if (other.size() < 2) throw ValueError(file + " has less than two tokens");
      return other;
    };
    if (!config.valid.empty()) valid = read(config.valid);
    if (!config.test.empty()) test = read(config.test);

    manual_seed(config.seed);
    model.emplace(config, vocab.size());
    if (config.optimizer == "adam")
      optimizer = std::make_unique<Adam>(model->parameters(), AdamOptions{.lr = *config.lr});
    else
      optimizer = std::make_unique<SGD>(model->parameters(),
                                        SGDOptions{.lr = *config.lr, .momentum = config.momentum});
    if (saved) go_on_from(*saved);
    at.corpus = std::ssize(corpus);
  }

  /// Returns the exit code.
  int run(const Continuation& continuation) {
    const bool fresh = at.epoch == 0 && at.batch == 0;
    if (at.epoch >= config.epochs)
      throw ValueError(fmt::format("{} has had its {} epochs; a larger number for --epochs goes on",
                                   call.load, at.epoch));
    examples::JsonLog log(config.log, !fresh);
    const auto show = [&](const char* when) {
      if (call.quiet) return;
      fmt::print("\n{}:\n\n{}\n\n", when, continue_text(*model, vocab, config, continuation));
      std::fflush(stdout);
    };
    if (!call.quiet)
      fmt::print("{}: {} parameters. {} tokens of {} kinds.\n", network(),
                 examples::grouped(model->parameter_count()), examples::grouped(at.corpus),
                 vocab.size());
    if (fresh) show("Before training");

    learn(log);
    save();
    plot();
    if (at.epoch < config.epochs) {
      fmt::print("Interrupted after {} epochs and {} batches.\n", at.epoch, at.batch);
      if (!call.save.empty())
        fmt::print("Saved {}. To go on:\n\n  {} train --load {}\n", call.save, call.program,
                   call.save);
      return interrupt.exit_code();
    }
    report(log);
    show("After training");
    return 0;
  }

 private:
  void go_on_from(const examples::Checkpoint& saved) {
    const Json before = to_json(saved.values<Config>("config")), now = to_json(config);
    for (const char* name : {"level", "clean", "cell", "layers", "hidden", "embed", "optimizer"})
      if (before[name] != now[name])
        throw ValueError(fmt::format("--{} {} does not fit {}, which has {}", name,
                                     now[name].dump(), call.load, before[name].dump()));
    model->load_state_dict(saved.part("model"));
    optimizer->load_state_dict(saved.part("optimizer"));
    at = saved.values<Position>("position");
    default_generator().set_state(at.generator);

    bool same_windows = at.corpus == std::ssize(corpus);
    for (const char* name : {"text", "max-tokens", "batch", "steps", "sampling", "seed"})
      same_windows = same_windows && before[name] == now[name];
    if (same_windows) {
      for (const auto& [name, tensor] : saved.part("state")) state.push_back(tensor);
    } else if (at.batch > 0) {
      examples::warn(
          fmt::format("the text or its windows changed: epoch {} starts again", at.epoch + 1));
      at.start_epoch();
    }
  }

  /// "gru, hidden size 256", for people.
  std::string network() const {
    const std::string layers =
        config.layers > 1 ? fmt::format(", {} layers", config.layers) : std::string();
    return fmt::format("{}{}, hidden size {}", config.cell, layers, config.hidden);
  }

  /// One epoch of windows. Each has a generator of its own, so that a training that goes on in the
  /// middle of an epoch has the same windows.
  WindowBatches windows() const {
    Generator generator(config.seed + 1'000'003 * static_cast<std::uint64_t>(at.epoch + 1));
    const WindowOptions options{config.batch, config.steps};
    return config.sampling == "random" ? random_windows(corpus, options, generator)
                                       : sequential_windows(corpus, options, generator);
  }

  /// All epochs, or until interrupted.
  void learn(examples::JsonLog& log) {
    const std::int64_t per_epoch =  // about: each starts at an offset of its own
        windows().size() * config.batch * config.steps;
    examples::Progress progress({.total = config.epochs * per_epoch,
                                 .first = at.epoch * per_epoch + at.tokens,
                                 .quiet = call.quiet});
    std::string status;
    while (at.epoch < config.epochs) {
      const auto start = Clock::now();
      const double seconds_before = at.seconds;
      const WindowBatches batches = windows();
      const std::int64_t decays = std::max<std::int64_t>(at.epoch + 1 - config.lr_decay_after, 0);
      optimizer->set_lr(*config.lr * std::pow(config.lr_decay, static_cast<double>(decays)));
      model->train();
      while (at.batch < batches.size() && !interrupt.requested()) {
        const auto [x, y] = batches[at.batch];
        at.loss += learn(x, y) * static_cast<double>(y.numel());
        at.tokens += y.numel();
        at.seconds = seconds_before + since(start);
        ++at.batch;
        const double mean = at.loss / static_cast<double>(at.tokens);
        status = fmt::format("epoch {}/{}  loss {:.3f}  perplexity {:.2f}", at.epoch + 1,
                             config.epochs, mean, std::exp(mean));
        if (!at.valid.empty()) status += fmt::format("  valid {:.2f}", at.valid.back());
        progress.update(at.epoch * per_epoch + at.tokens, status);
        if (since(last_save) > 60) save();
      }
      if (at.batch < batches.size()) break;
      finish_epoch(log);
    }
    progress.finish(at.epoch * per_epoch + at.tokens, status);
  }

  /// One step on one batch of windows; returns the loss.
  double learn(const Tensor& x, const Tensor& y) {
    // In sequence a window goes on where the one before it ended, but no gradient flows from one to
    // the other: truncated backpropagation through time.
    state = config.sampling == "sequential" ? detach(state) : LanguageModel::State();
    const Tensor loss = cross_entropy((*model)(x, state), y);
    if (!std::isfinite(std::exp(loss.item())))
      throw ValueError(fmt::format("the loss is {} in epoch {}: try a smaller --lr or --clip",
                                   loss.item(), at.epoch + 1));
    optimizer->zero_grad();
    loss.backward();
    if (config.clip > 0) clip_grad_norm(optimizer->parameters(), config.clip);
    optimizer->step();
    return loss.item();
  }

  void finish_epoch(examples::JsonLog& log) {
    at.total_seconds += at.seconds;
    at.train.push_back(std::exp(at.loss / static_cast<double>(at.tokens)));
    if (!valid.empty()) at.valid.push_back(perplexity(*model, valid, config.steps));
    ++at.epoch;
    log.write({{"epoch", at.epoch},
               {"train_perplexity", at.train.back()},
               {"valid_perplexity", valid.empty() ? Json() : Json(at.valid.back())},
               {"tokens_per_second", static_cast<double>(at.tokens) / at.seconds},
               {"seconds", at.total_seconds},
               {"learning_rate", optimizer->lr()}});
    at.start_epoch();
    state.clear();
  }

  void save() {
    last_save = Clock::now();
    if (call.save.empty()) return;
    at.generator = default_generator().state();
    NamedTensors states;
    for (const Tensor& tensor : state) states.emplace_back(std::to_string(states.size()), tensor);
    examples::Checkpoint file;
    file.add_text("vocabulary", vocab.to_text());
    file.add_values("config", config);
    file.add_values("position", at);
    file.add("model", model->state_dict());
    file.add("optimizer", optimizer->state_dict());
    file.add("state", states);
    file.save(call.save);
  }

  void plot() const {
    if (config.plot.empty() || at.train.empty()) return;
    std::vector<examples::Curve> curves{{"training", at.train}};
    if (!at.valid.empty()) curves.push_back({"validation", at.valid});
    examples::plot_svg(
        config.plot,
        {.title = network(), .x_label = "epoch", .y_label = "perplexity", .log_scale = true},
        curves);
  }

  void report(examples::JsonLog& log) {
    Json line{{"final", true}, {"parameters", model->parameter_count()}, {"epochs", at.epoch}};
    std::string text;
    const auto add = [&](const char* name, double value) {
      line[fmt::format("{}_perplexity", name)] = value;
      text += fmt::format("{} perplexity {:.3f}, ", name, value);
    };
    add("train", at.train.back());
    if (!valid.empty()) add("valid", at.valid.back());
    if (!test.empty()) add("test", perplexity(*model, test, config.steps));
    line["seconds"] = at.total_seconds;
    log.write(line);
    fmt::print("After {} epochs: {}{:.1f} s.{}\n", at.epoch, text, at.total_seconds,
               call.save.empty() ? "" : " Saved " + call.save + ".");
  }

  using Clock = std::chrono::steady_clock;
  static double since(Clock::time_point start) {
    return std::chrono::duration<double>(Clock::now() - start).count();
  }

  Config config;
  Call call;
  Vocab vocab;
  std::vector<std::int64_t> corpus, valid, test;
  std::optional<LanguageModel> model;
  std::unique_ptr<Optimizer> optimizer;
  LanguageModel::State state;  ///< where the last window ended
  Position at;
  Clock::time_point last_save = Clock::now();
  examples::Interrupt interrupt;
};

// --- Commands -----------------------------------------------------------------------------------

/// eval, generate and score: what a saved model is for.
void use(const CLI::App& command, const Call& call, const Continuation& continuation,
         std::string text, const std::vector<std::string>& lines) {
  const examples::Checkpoint saved(call.load);
  const auto config = saved.values<Config>("config");
  const Vocab vocab = Vocab::from_text(saved.text("vocabulary"), call.load);
  LanguageModel model(config, vocab.size());
  model.load_state_dict(saved.part("model"));

  if (command.get_name() == "generate") {
    fmt::print("{}\n", continue_text(model, vocab, config, continuation));
  } else if (command.get_name() == "eval") {
    if (text.empty()) text = config.text;
    if (text.empty()) text = examples::bundled("english.txt");
    const Tokenizer tokenizer(config.level, config.clean);
    const auto corpus = encode(tokenizer.text(read_text(text)), vocab, text);
    const double result = perplexity(model, corpus, config.steps);
    fmt::print("perplexity {:.3f} ({:.3f} bits per token, {} tokens)\n", result, std::log2(result),
               examples::grouped(std::ssize(corpus)));
  } else {
    examples::for_each_line(lines, [&](const std::string& line, const std::string& where) {
      print_score(model, vocab, config, line, where);
    });
  }
}

}  // namespace

int main(int argc, char** argv) {
  std::vector<std::string> arguments(argv + 1, argv + argc);
  const std::string first = arguments.empty() ? "-" : arguments[0];
  if (first[0] == '-' && first != "--help" && first != "-h")
    arguments.insert(arguments.begin(), "train");

  CLI::App app("A recurrent language model. Without a command it trains.", "language_model");
  app.require_subcommand(1);
  CLI::App& train = *app.add_subcommand("train", "learn a text");
  CLI::App& generate = *app.add_subcommand("generate", "continue a text");
  CLI::App& eval = *app.add_subcommand("eval", "print the perplexity of a text");
  CLI::App& score = *app.add_subcommand(
      "score", "print the log-probability and the perplexity of each line, given or on stdin");

  Config config;
  Continuation continuation;
  Call call;
  call.program = argv[0];
  std::string text;
  std::vector<std::string> lines;
  examples::add_options(train, config);
  train.add_option("--load", call.load, "saved model to go on from, with its options");
  train.add_option("--save", call.save,
                   fmt::format("file for the model; \"\": none (default: that of --load, else {})",
                               kDefaultFile));
  train.add_flag("--quiet", call.quiet, "print the results only");
  for (CLI::App* command : {&generate, &eval, &score})
    command->add_option("--load", call.load,
                        fmt::format("saved model (default: {})", kDefaultFile));
  continuation.add_options(train);
  continuation.add_options(generate);
  generate.add_option("--seed", continuation.seed, "of the random numbers")->capture_default_str();
  eval.add_option("--text", text, "the text (default: the one that it learned)");
  score.add_option("lines", lines, "lines to score");
  for (CLI::App* command : {&train, &generate, &eval, &score})
    command->add_option("--threads", call.threads, "0: one per core")->check(examples::at_least(0));

  return examples::run(app, arguments, [&] {
    if (call.threads > 0) set_num_threads(call.threads);
    if (!train.parsed()) {
      if (call.load.empty()) call.load = kDefaultFile;
      use(*app.get_subcommands().front(), call, continuation, text, lines);
      return 0;
    }
    std::optional<examples::Checkpoint> saved;
    if (!call.load.empty()) {
      saved.emplace(call.load);
      config = saved->values<Config>("config");
      examples::parse(app, arguments);  // options that are given count more
    }
    if (train.count("--save") == 0) call.save = saved ? call.load : kDefaultFile;
    if (config.text.empty() && continuation.prefix.empty()) continuation.prefix = "The ferry";
    continuation.seed = config.seed;
    return Training(config, call, saved).run(continuation);
  });
}
