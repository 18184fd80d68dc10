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
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "common/program.h"
#include "common/text_corpus.h"
#include "common/training.h"

using namespace unroll;
using examples::Call, examples::perplexity, examples::TextCorpus;

namespace {

/// What a model is and how it learns. A saved model carries it.
struct Config {
  examples::TextOptions texts;
  examples::NetworkOptions network;
  std::string sampling = "sequential", optimizer = "adam";
  std::optional<double> lr;
  std::int64_t steps = 35, lr_decay_after = 0;
  double lr_decay = 1;
  examples::TrainingOptions training{.epochs = 80, .batch = 16, .plot = "language_model.svg"};

  template <class F>
  void each(F&& option) {
    using CLI::IsMember, examples::above, examples::at_least;
    texts.each(option), network.each(option);
    option("steps", steps, "tokens per window", at_least(1));
    option("sampling", sampling, "windows at random, or in sequence with the state carried on",
           IsMember({"random", "sequential"}));
    option("optimizer", optimizer, "", IsMember({"sgd", "adam"}));
    option("lr-decay", lr_decay, "factor on the learning rate for each epoch ...", at_least(0));
    option("lr-decay-after", lr_decay_after, "... after this one", at_least(0));
    training.each([&](const std::string& name, auto& value, const auto&... rest) {
      if (name != "lr") option(name.c_str(), value, rest...);
    });
    option("lr", lr, "learning rate (default: 0.002 for adam, 1 for sgd)", above(0));
  }
  /// Whether a text is cut into windows in the same way.
  bool same_windows(const Config& other) const {
    const auto all = [](const Config& c) {
      return std::tie(c.texts.text, c.texts.max_tokens, c.training.batch, c.steps, c.sampling,
                      c.training.seed);
    };
    return all(*this) == all(other);
  }
};

/// How a text is continued.
struct Continuation {
  std::string prefix;
  std::int64_t length = 400;
  SamplingOptions sampling{.temperature = 0.5};
  std::uint64_t seed = 0;

  template <class F>
  void each(F&& option) {
    using examples::at_least;
    option("prefix", prefix, "text to continue (default: the start of a line)");
    option("length", length, "tokens to write", at_least(0));
    option("temperature", sampling.temperature, "below 1 bolder, above 1 wilder; 0: arg-max",
           at_least(0));
    option("top-k", sampling.top_k, "choose among the k most probable tokens; 0: all", at_least(0));
    option("top-p", sampling.top_p, "choose among the most probable that reach p together",
           examples::above(0));
  }
};

/// The prefix and what the model writes after it.
std::string continue_text(RecurrentLanguageModel& model, const Vocab& vocab, const Config& config,
                          const Continuation& options) {
  model.eval();
  const auto context = examples::read_line(config.texts, vocab, options.prefix, "--prefix");
  if (context.empty()) throw ValueError("--prefix: this model has to be given a word or more");
  Generator generator(options.seed);
  const auto written =
      model.generate(context, options.length, options.sampling, generator, {0});  // no <unk>
  const examples::Tokenizer tokenizer = config.texts.tokenizer();
  std::vector<std::string> tokens = tokenizer.line(options.prefix);
  for (std::string& token : vocab.decode(written)) tokens.push_back(std::move(token));
  return tokenizer.join(tokens);
}

// --- Training -----------------------------------------------------------------------------------

std::unique_ptr<Optimizer> make_optimizer(const Config& config,
                                          const RecurrentLanguageModel& model) {
  if (config.optimizer == "sgd")
    return std::make_unique<SGD>(model.parameters(), SGDOptions{.lr = config.lr.value_or(1)});
  return std::make_unique<Adam>(model.parameters(), AdamOptions{.lr = config.lr.value_or(0.002)});
}

/// Returns the exit code.
int train(const Config& config, const Call& call, const examples::Checkpoint* saved,
          const Continuation& continuation) {
  const TextCorpus corpus(config.texts,
                          saved ? std::optional(saved->vocab("vocabulary")) : std::nullopt);
  manual_seed(config.training.seed);
  RecurrentLanguageModel model = config.network.make(corpus.vocab.size());
  const auto optimizer = make_optimizer(config, model);
  const double lr = optimizer->lr();
  RecurrentLanguageModel::State state;  // where the last window ended
  examples::Training training(
      config.training, call, model, *optimizer,
      [&](examples::Checkpoint& file) {
        file.add_state("state", state);
        file.add_text("vocabulary", corpus.vocab.to_text());
        file.add_number("corpus", std::ssize(corpus.train));
        file.add_values("config", config);
      },
      "tokens");
  if (saved) {
    training.go_on_from(*saved);
    if (!config.same_windows(saved->values<Config>("config")) ||
        saved->number("corpus") != std::ssize(corpus.train)) {
      training.restart_epoch("the text or its windows changed");
    } else if (!saved->part("state").empty()) {  // in the middle of an epoch
      state = model.network.initial_state(config.training.batch);
      saved->load_state("state", state);
    }
  }
  const auto show = [&](const char* when) {
    if (call.quiet) return;
    fmt::print("\n{}:\n\n{}\n\n", when, continue_text(model, corpus.vocab, config, continuation));
  };
  if (!call.quiet)
    fmt::print("{}: {} parameters. {} tokens of {} kinds.\n", config.network.name(),
               examples::grouped(model.parameter_count()),
               examples::grouped(std::ssize(corpus.train)), corpus.vocab.size());
  if (!saved) show("Before training");

  const auto windows = [&](Generator& generator) {
    const auto later = static_cast<double>(training.epochs() + 1 - config.lr_decay_after);
    optimizer->set_lr(lr * std::pow(config.lr_decay, std::max(later, 0.0)));
    return corpus.windows({config.training.batch, config.steps}, config.sampling, generator);
  };
  const auto loss = [&](const WindowBatch& window) {
    // In sequence a window goes on where the one before it ended, but no gradient flows from one to
    // the other: truncated backpropagation through time.
    state = config.sampling == "sequential" ? detach(state) : RecurrentLanguageModel::State();
    auto [logits, next] = model(window.x, state);
    state = std::move(next);
    return examples::TrainingLoss{cross_entropy(logits, window.y), window.y.numel()};
  };
  const auto& valid = corpus.part("valid");
  const auto metrics = [&] {
    state.clear();  // the next epoch begins somewhere else
    examples::Metrics all{{"train_perplexity", std::exp(training.curve("train_loss").back())}};
    if (!valid.empty()) all.emplace_back("valid_perplexity", perplexity(model, valid));
    return all;
  };
  const bool complete = training.run(windows, loss, metrics);
  training.plot({.title = config.network.name(), .y_label = "perplexity", .log_scale = true},
                {{"train_perplexity", "training"}, {"valid_perplexity", "validation"}});
  if (!complete) return training.exit_code();

  const NgramModel frequencies(corpus.train, 0, corpus.vocab.size(), 0.01);
  examples::Metrics results;
  std::string own, beside;
  for (const std::string part : {"train", "valid", "test"}) {
    const auto& tokens = corpus.part(part);
    if (tokens.empty()) continue;
    const std::string key = part + "_perplexity";
    const double p = part == "test" ? perplexity(model, tokens) : training.curve(key).back();
    results.insert(results.end(),
                   {{key, p}, {key + "_unigram", frequencies.perplexity(tokens, 0)}});
    own += fmt::format("{} perplexity {:.3f}, ", part, p);
    beside += fmt::format("{} {:.3f}, ", part, results.back().second);
  }
  results.emplace_back("guess_perplexity", static_cast<double>(corpus.vocab.size()));
  training.log_final(results);
  fmt::print("After {} epochs: {}{:.1f} s.{}\n", training.epochs(), own, training.seconds(),
             call.save.empty() ? "" : " Saved " + call.save + ".");
  fmt::print("By the frequency of each token: {}by a guess: {}.\n", beside, corpus.vocab.size());
  show("After training");
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  Config config;
  Continuation continuation;
  std::string text;
  std::vector<std::string> lines;
  examples::TrainingProgram program("A recurrent language model.", "language_model", argc, argv);
  CLI::App& generate = program.add_command("generate", "continue a text");
  examples::add_options(program.train(), continuation);
  examples::add_options(generate, continuation);
  generate.add_option("--seed", continuation.seed, "of the random numbers")
      ->capture_default_str()
      ->check(examples::at_least(0));
  CLI::App& eval = program.add_command("eval", "print the perplexity of a text");
  eval.add_option("--text", text, "the text (default: the one that it learned)");
  program.add_command("score", "print log p and perplexity of lines, given or on stdin")
      .add_option("lines", lines, "lines to score");
  return program.run(
      config, {"level", "clean", "cell", "layers", "hidden", "embed", "optimizer"},
      [&](const Config&, const Call& call, const examples::Checkpoint* saved) {
        if (config.texts.text.empty() && continuation.prefix.empty())
          continuation.prefix = "The ferry";
        continuation.seed = config.training.seed;
        return train(config, call, saved, continuation);
      },
      [&](const CLI::App&, const examples::Checkpoint& saved) {
        const Vocab vocab = saved.vocab("vocabulary");
        RecurrentLanguageModel model = config.network.make(vocab.size());
        saved.load("model", model);
        if (generate.parsed()) {
          fmt::print("{}\n", continue_text(model, vocab, config, continuation));
        } else if (eval.parsed()) {
          const examples::TextOptions one{.text = text.empty() ? config.texts.text : text,
                                          .level = config.texts.level,
                                          .clean = config.texts.clean};
          const auto tokens = TextCorpus(one, vocab).train;
          const double result = perplexity(model, tokens);
          fmt::print("perplexity {:.3f} ({:.3f} bits per token, {} tokens)\n", result,
                     std::log2(result), examples::grouped(std::ssize(tokens)));
        } else {
          model.eval();
          examples::for_each_line(lines, [&](const std::string& line, const std::string& where) {
            const auto tokens = examples::read_line(config.texts, vocab, line, where);
            if (tokens.size() < 2) return fmt::print("{:>10} {:>10}  {}\n", "-", "-", line);
            const double log_p = model.log_prob(tokens);
            fmt::print("{:10.2f} {:10.2f}  {}\n", log_p,
                       std::exp(-log_p / static_cast<double>(tokens.size() - 1)), line);
          });
        }
      });
}
