// Markov language models by counting n-grams, beside a recurrent one on the same text and split.
//
//   ngram                                                 the bundled story
//   ngram --text FILE --valid FILE --level word           texts of yours
//   ngram --network language_model.safetensors            beside a model of language_model
//   ngram score "recognize speech" "wreck a nice beach"   which one is more probable?
//
// docs/examples/ngram.md has the equations and all options.

#include <fmt/format.h>
#include <unroll/unroll.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "common/plot.h"
#include "common/program.h"
#include "common/text_corpus.h"
#include "common/training.h"

using namespace unroll;
using examples::Metrics, examples::TextCorpus;

namespace {

/// What is counted, and what the network is beside it. A saved model carries it.
struct Config {
  examples::TextOptions texts;
  examples::NetworkOptions network{.hidden = 128};
  std::string file, count = "word";
  double held_out = 0.1, epsilon = 0.01;
  std::int64_t order = 5, steps = 35;
  examples::TrainingOptions training{.epochs = 20, .batch = 16, .lr = 0.004, .plot = "ngram.svg"};

  template <class F>
  void each(F&& option) {
    using CLI::IsMember, examples::above, examples::at_least;
    texts.each(option), network.each(option);
    option("held-out", held_out, "part of --text that is its end, where there is no --valid",
           CLI::Range(0.0, 0.9));
    option("network", file,
           "model that language_model saved, to take with its text and split instead of learning");
    option("order", order, "largest order of the Markov models", at_least(0));
    option("epsilon", epsilon, "what is added to each count", above(0));
    option("count", count, "what the most frequent n-grams are of", IsMember({"char", "word"}));
    option("steps", steps, "tokens per window of the network's training", at_least(1));
    training.each(option);
  }
};

std::string title(std::int64_t order) {
  static const char* const names[] = {"unigram", "bigram", "trigram"};
  if (order < 3) return fmt::format("order {} ({})", order, names[order]);
  return fmt::format("order {} ({}-gram)", order, order + 1);
}

/// The perplexities of all Markov models and of the network, as a table; returns them.
Metrics compare(const NgramModel& counts, RecurrentLanguageModel& network, const Config& config,
                const TextCorpus& corpus) {
  std::vector<std::pair<std::string, std::vector<std::int64_t>>> parts{{"train", corpus.train}};
  parts.insert(parts.end(), corpus.others.begin(), corpus.others.end());
  fmt::print("\n{:20}", "perplexity");
  for (const auto& [name, tokens] : parts) fmt::print("{:>10}", name);
  Metrics all;
  const auto row = [&](const std::string& name, const std::string& key, const auto& perplexity) {
    fmt::print("\n{:20}", name);
    for (const auto& [part, tokens] : parts) {
      all.emplace_back(fmt::format("{}_perplexity_{}", part, key), perplexity(tokens));
      fmt::print("{:10.2f}", all.back().second);
    }
  };
  for (std::int64_t order = 0; order <= config.order; ++order)
    row(title(order), std::to_string(order),
        [&](const auto& tokens) { return counts.perplexity(tokens, order); });
  row(fmt::format("{}, {} units", config.network.cell, config.network.hidden), config.network.cell,
      [&](const auto& tokens) { return examples::perplexity(network, tokens); });
  fmt::print("\n");
  return all;
}

/// A table of the most frequent n-grams, and a picture of how often all of them are seen against
/// their rank: by Zipf's law a straight line of slope -1 where both axes are logarithmic.
void show_frequencies(const Config& config, const std::string& path) {
  const examples::Tokenizer tokenizer(config.count, config.texts.clean);
  std::vector<std::string> tokens;
  for (const std::string& line : read_lines(path))
    for (std::string& token : tokenizer.line(line)) tokens.push_back(std::move(token));

  constexpr std::size_t shown = 10;
  std::vector<examples::Curve> curves;
  std::vector<std::vector<std::string>> columns;
  for (std::int64_t n = 1; n <= 3; ++n) {
    const auto counts = count_ngrams(tokens, n);
    std::vector<std::pair<std::int64_t, std::string>> sorted;
    for (const auto& [ngram, count] : counts)
      sorted.emplace_back(-count, join(ngram, config.count == "word" ? " " : ""));
    std::sort(sorted.begin(), sorted.end());
    std::vector<std::string>& column = columns.emplace_back();
    examples::Curve& curve =
        curves.emplace_back(examples::Curve{.name = fmt::format("{}-grams", n)});
    for (std::size_t rank = 0; rank < sorted.size(); ++rank) {
      const auto& [count, ngram] = sorted[rank];
      if (rank < shown) column.push_back(fmt::format("{:>6} '{}'", -count, ngram));
      // Equal numbers make flat pieces: their ends are enough.
      const bool inside = rank > 0 && rank + 1 < sorted.size() && sorted[rank - 1].first == count &&
                          sorted[rank + 1].first == count;
      if (inside) continue;
      curve.x.push_back(static_cast<double>(rank + 1));
      curve.y.push_back(static_cast<double>(-count));
    }
  }
  fmt::print("\nThe most frequent n-grams of {}s:\n\n", config.count);
  for (std::size_t rank = 0; rank < shown; ++rank) {
    const auto cell = [&](std::size_t n) {
      return rank < columns[n].size() ? columns[n][rank] : std::string();
    };
    fmt::print("{:<24} {:<28} {}\n", cell(0), cell(1), cell(2));
  }
  if (!config.training.plot.empty() && !tokens.empty())
    examples::plot_svg(config.training.plot,
                       {.title = "How often the n-grams of a text are seen",
                        .x_label = "rank",
                        .y_label = "number",
                        .log_scale = true,
                        .log_x = true,
                        .log_base = 10},
                       curves);
}

/// log p of lines, given or on stdin, by each model.
void score(const NgramModel& counts, RecurrentLanguageModel& network, const Config& config,
           const Vocab& vocab, const std::vector<std::string>& lines) {
  network.eval();
  for (std::int64_t order = 0; order <= config.order; ++order)
    fmt::print("{:>9} ", title(order).substr(0, 7));
  fmt::print("{:>9}  log p of\n", config.network.cell);
  examples::for_each_line(lines, [&](const std::string& line, const std::string& where) {
    const auto tokens = examples::read_line(config.texts, vocab, line, where);
    for (std::int64_t order = 0; order <= config.order; ++order)
      fmt::print("{:9.2f} ", counts.log_prob(tokens, order));
    fmt::print("{:9.2f}  {}\n", network.log_prob(tokens), line);
  });
}

/// Returns the exit code.
int train(Config config, const examples::Call& call, const examples::Checkpoint* saved) {
  std::optional<examples::Checkpoint> given;
  std::optional<Vocab> vocab;
  if (saved) vocab = saved->vocab("vocabulary");
  if (!config.file.empty()) {
    given.emplace(config.file);
    given->require_program("language_model");
    vocab = given->vocab("vocabulary");
    config.texts = given->values<examples::TextOptions>("config");
    config.network = given->values<examples::NetworkOptions>("config");
    config.held_out = 0;  // it learned the whole text
  }
  const TextCorpus corpus(config.texts, vocab, config.held_out);
  fmt::print("{} tokens of {} kinds to learn.\n", examples::grouped(std::ssize(corpus.train)),
             corpus.vocab.size());
  show_frequencies(config, corpus.path);
  const NgramModel counts(corpus.train, config.order, corpus.vocab.size(), config.epsilon);

  manual_seed(config.training.seed);
  RecurrentLanguageModel network = config.network.make(corpus.vocab.size());
  const auto describe = [&](examples::Checkpoint& file) {
    file.add_values("config", config);
    file.add_text("vocabulary", corpus.vocab.to_text());
  };
  if (given) {
    given->load("model", network);
    examples::Checkpoint file;
    file.add_program(call.name);
    describe(file);
    file.add("model", network);
    if (!call.save.empty()) file.save(call.save);
    compare(counts, network, config, corpus);
    return 0;
  }
  Adam optimizer(network.parameters(), {.lr = config.training.lr});
  examples::Training training(config.training, call, network, optimizer, describe, "tokens");
  if (saved) training.go_on_from(*saved);
  const auto batches = [&](Generator& generator) {
    return corpus.windows({config.training.batch, config.steps}, "random", generator);
  };
  const auto loss = [&](const WindowBatch& batch) {
    return examples::TrainingLoss{cross_entropy(network(batch.x).outputs, batch.y),
                                  batch.y.numel()};
  };
  const auto metrics = [&] {
    Metrics all;
    for (const auto& [name, tokens] : corpus.others)
      all.emplace_back(name + "_perplexity", examples::perplexity(network, tokens));
    return all;
  };
  if (!training.run(batches, loss, metrics)) return training.exit_code();
  training.log_final(compare(counts, network, config, corpus));
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  Config config;
  std::vector<std::string> lines;
  examples::TrainingProgram program("Markov language models beside a recurrent one.", "ngram", argc,
                                    argv);
  program.add_command("score", "print log p of lines, given or on stdin, by each model")
      .add_option("lines", lines, "lines to score");
  return program.run(
      config, {"level", "clean", "cell", "layers", "hidden", "embed"}, train,
      [&](const CLI::App&, const examples::Checkpoint& saved) {
        const TextCorpus corpus(config.texts, saved.vocab("vocabulary"), config.held_out);
        RecurrentLanguageModel network = config.network.make(corpus.vocab.size());
        saved.load("model", network);
        const NgramModel counts(corpus.train, config.order, corpus.vocab.size(), config.epsilon);
        score(counts, network, config, corpus.vocab, lines);
      });
}
