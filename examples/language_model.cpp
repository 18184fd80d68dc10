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
#include <cmath>
#include <cstdio>
#include <limits>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "common/program.h"
#include "common/tokenizer.h"
#include "common/training.h"
#include "language_model/model.h"
#include "language_model/score.h"

using namespace unroll;
using examples::Call, examples::Tokenizer, examples::encode;
using language_model::column, language_model::Config, language_model::LanguageModel,
    language_model::log_prob, language_model::perplexity;

namespace {

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

/// The tokens of a file, by the model's vocabulary.
std::vector<std::int64_t> read(const Config& config, const std::string& path, const Vocab& vocab) {
  const Tokenizer tokenizer(config.level, config.clean);
  std::vector<std::int64_t> tokens = encode(tokenizer.text(read_text(path)), vocab, path);
  if (tokens.size() < 2) throw ValueError(path + " has less than two tokens");
  return tokens;
}

std::unique_ptr<Optimizer> make_optimizer(const Config& config, const LanguageModel& model,
                                          double lr) {
  if (config.optimizer == "sgd")
    return std::make_unique<SGD>(model.parameters(),
                                 SGDOptions{.lr = lr, .momentum = config.momentum});
  if (config.momentum != 0) throw ValueError("--momentum is for --optimizer sgd; adam has its own");
  return std::make_unique<Adam>(model.parameters(), AdamOptions{.lr = lr});
}

/// Returns the exit code.
int train(const Config& config, const Call& call, const examples::Checkpoint* saved,
          const Continuation& continuation) {
  const std::string path = config.text.empty() ? examples::bundled("english.txt") : config.text;
  // The vocabulary is that of the whole text, also where --max-tokens cuts it.
  const Vocab vocab = saved ? Vocab::from_text(saved->text("vocabulary"), call.load)
                            : Vocab(Tokenizer(config.level, config.clean).text(read_text(path)));
  std::vector<std::int64_t> corpus = read(config, path, vocab), valid, test;
  if (config.max_tokens > 0 && config.max_tokens < std::ssize(corpus))
    corpus.resize(static_cast<std::size_t>(config.max_tokens));
  if (!config.valid.empty()) valid = read(config, config.valid, vocab);
  if (!config.test.empty()) test = read(config, config.test, vocab);

  manual_seed(config.seed);
  LanguageModel model(config, vocab.size());
  const examples::TrainingOptions options = config.training();
  const auto optimizer = make_optimizer(config, model, options.lr);
  LanguageModel::State state;  // where the last window ended
  examples::Training training(
      options, call, model, *optimizer,
      [&](examples::Checkpoint& file) {
        NamedTensors states;
        for (const Tensor& t : state) states.emplace_back(std::to_string(states.size()), t);
        file.add("state", states);
        file.add_text("vocabulary", vocab.to_text());
        file.add_number("corpus", std::ssize(corpus));
        file.add_values("config", config);
      },
      "tokens");
  if (saved) {
    training.go_on_from(*saved);
    if (config.same_windows(saved->values<Config>("config")) &&
        saved->number("corpus") == std::ssize(corpus))
      for (const auto& [name, tensor] : saved->part("state")) state.push_back(tensor);
    else
      training.restart_epoch("the text or its windows changed");
  }
  const auto show = [&](const char* when) {
    if (call.quiet) return;
    fmt::print("\n{}:\n\n{}\n\n", when, continue_text(model, vocab, config, continuation));
    std::fflush(stdout);
  };
  if (!call.quiet)
    fmt::print("{}: {} parameters. {} tokens of {} kinds.\n", config.network(),
               examples::grouped(model.parameter_count()), examples::grouped(std::ssize(corpus)),
               vocab.size());
  if (!saved) show("Before training");

  const auto windows = [&](Generator& generator) {
    const auto later = static_cast<double>(training.epochs() + 1 - config.lr_decay_after);
    optimizer->set_lr(options.lr * std::pow(config.lr_decay, std::max(later, 0.0)));
    const WindowOptions size{config.batch, config.steps};
    try {
      return config.sampling == "random" ? random_windows(corpus, size, generator)
                                         : sequential_windows(corpus, size, generator);
    } catch (const ValueError& error) {  // too short
      throw ValueError(fmt::format("{}: {}: try a smaller --batch or --steps", path, error.what()));
    }
  };
  const auto loss = [&](const WindowBatch& window) {
    // In sequence a window goes on where the one before it ended, but no gradient flows from one to
    // the other: truncated backpropagation through time.
    state = config.sampling == "sequential" ? detach(state) : LanguageModel::State();
    return examples::TrainingLoss{cross_entropy(model(window.x, state), window.y),
                                  window.y.numel()};
  };
  const auto metrics = [&] {
    state.clear();  // the next epoch begins somewhere else
    examples::Metrics all{{"train_perplexity", std::exp(training.curve("train_loss").back())}};
    if (!valid.empty())
      all.emplace_back("valid_perplexity", perplexity(model, valid, config.steps));
    return all;
  };
  const bool complete = training.run(windows, loss, metrics);
  std::vector<std::pair<std::string, std::string>> curves{{"train_perplexity", "training"}};
  if (!valid.empty()) curves.emplace_back("valid_perplexity", "validation");
  training.plot(
      {.title = config.network(), .x_label = "epoch", .y_label = "perplexity", .log_scale = true},
      curves);
  if (!complete) return training.exit_code();

  examples::Metrics results;
  for (const auto& [name, title] : curves) results.emplace_back(name, training.curve(name).back());
  if (!test.empty()) results.emplace_back("test_perplexity", perplexity(model, test, config.steps));
  training.log_final(results);
  fmt::print("After {} epochs: ", training.epochs());
  for (const auto& [name, value] : results)
    fmt::print("{} perplexity {:.3f}, ", name.substr(0, name.find('_')), value);
  fmt::print("{:.1f} s.{}\n", training.seconds(),
             call.save.empty() ? "" : " Saved " + call.save + ".");
  show("After training");
  return 0;
}

// --- Commands -----------------------------------------------------------------------------------

/// eval, generate and score: what a saved model is for.
void use(const std::string& command, const examples::Checkpoint& saved,
         const Continuation& continuation, std::string text,
         const std::vector<std::string>& lines) {
  const auto config = saved.values<Config>("config");
  const Vocab vocab = Vocab::from_text(saved.text("vocabulary"), saved.path());
  LanguageModel model(config, vocab.size());
  saved.load("model", model);

  if (command == "generate") {
    fmt::print("{}\n", continue_text(model, vocab, config, continuation));
  } else if (command == "eval") {
    if (text.empty()) text = config.text;
    if (text.empty()) text = examples::bundled("english.txt");
    const std::vector<std::int64_t> corpus = read(config, text, vocab);
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
  Config config;
  Continuation continuation;
  std::string text;
  std::vector<std::string> lines;
  examples::TrainingProgram program("A recurrent language model.", "language_model", argc, argv);
  CLI::App& generate = program.add_command("generate", "continue a text");
  continuation.add_options(program.train());
  continuation.add_options(generate);
  generate.add_option("--seed", continuation.seed, "of the random numbers")
      ->capture_default_str()
      ->check(examples::at_least(0));
  program.add_command("eval", "print the perplexity of a text")
      .add_option("--text", text, "the text (default: the one that it learned)");
  program
      .add_command("score",
                   "print the log-probability and the perplexity of each line, given or on "
                   "stdin")
      .add_option("lines", lines, "lines to score");
  return program.run(
      config, {"level", "clean", "cell", "layers", "hidden", "embed", "optimizer"},
      [&](const Config&, const Call& call, const examples::Checkpoint* saved) {
        if (config.text.empty() && continuation.prefix.empty()) continuation.prefix = "The ferry";
        continuation.seed = config.seed;
        return train(config, call, saved, continuation);
      },
      [&](const CLI::App& command, const examples::Checkpoint& saved) {
        use(command.get_name(), saved, continuation, text, lines);
      });
}
