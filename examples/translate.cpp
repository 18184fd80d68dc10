// Translates: number words, a phrase book or pairs of yours, with or without attention.
//
//   translate                                    learns English and French number words
//   translate train --bundled phrases            learns a phrase book
//   translate train --pairs FILE                 learns your own pairs: source, tab, target
//   translate train --load FILE                  goes on where it was interrupted
//   translate translate "forty-two thousand"     translates lines, given or on stdin
//   translate eval --pairs FILE                  how good are its translations?
//
// docs/examples/translate.md has the equations and all options.

#include <fmt/format.h>
#include <unroll/unroll.h>

#include <algorithm>
#include <cmath>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "common/heatmap.h"
#include "common/program.h"
#include "common/tokenizer.h"
#include "common/training.h"
#include "translate/model.h"
#include "translate/sentences.h"

using namespace unroll;
using namespace translate;
using examples::Metrics;

namespace {

std::vector<std::int64_t> with_end(std::vector<std::int64_t> tokens) {
  tokens.push_back(kEos);
  return tokens;
}

/// A model with its vocabularies and options: all that it takes to translate.
struct System {
  Config config;
  Vocab source, target;
  Translator model;

  System(const Config& c, Vocab s, Vocab t)
      : config(c),
        source(std::move(s)),
        target(std::move(t)),
        model(config, source.size(), target.size()) {}
  System(const Config& c, const examples::Checkpoint& saved)
      : System(c, Vocab::from_text(saved.text("source"), saved.path()),
               Vocab::from_text(saved.text("target"), saved.path())) {}

  std::string join(const Tokens& tokens) const {
    return unroll::join(tokens, config.level == "word" ? " " : "");
  }

  /// Translations of sources, each with its end mark. A beam of 0 is greedy search.
  std::vector<Tokens> operator()(const Sequences& sources, std::int64_t beam) {
    const NoGrad no_grad;
    model.eval();
    std::vector<Tokens> found;
    for (auto first = sources.begin(); first != sources.end();) {
      const auto last =
          first + std::min<std::ptrdiff_t>(sources.end() - first, config.training.batch);
      const PaddedBatch columns = pad_sequences(Sequences(first, last), kPad);
      for (const auto& best : model.search(columns.x, columns.lengths, beam, config.length_penalty))
        found.push_back(target.decode(best));
      first = last;
    }
    return found;
  }

  /// Draws what the decoder looks at while it writes the translation.
  void draw_attention(const std::vector<std::int64_t>& sentence, const std::string& path) {
    if (config.attention == "none") throw ValueError("--heatmap: this model has no attention");
    const Tokens found = (*this)({sentence}, 0).at(0);
    std::vector<std::int64_t> tokens = target.encode(found);
    tokens.insert(tokens.begin(), kBos);  // a row is what is looked at for the token after it
    const NoGrad no_grad;
    const Tensor weights = model.attention_weights(pad_sequences({sentence}, kPad).x, {},
                                                   pad_sequences({tokens}, kPad).x);
    examples::HeatmapOptions options{.title = "attention weights",
                                     .x_label = "source",
                                     .y_label = "translation",
                                     .columns = source.decode(sentence),
                                     .rows = found,
                                     .low = 0,
                                     .high = 1};
    options.rows.push_back("<eos>");
    std::vector<std::vector<double>> rows;
    for (std::int64_t t = 0; t < weights.size(0); ++t)
      rows.push_back(weights[t][0].to(DType::f64).to_vector<double>());
    examples::heatmap_svg(path, options, rows);
  }
};

/// Pairs as the model learns them: source and end mark; begin mark, target and end mark.
struct Examples {
  Sequences source, target;
  std::int64_t tokens = 0;  ///< to predict

  Examples(const System& system, const std::vector<Sentence>& sentences) {
    for (const Sentence& sentence : sentences)
      for (const Tokens& translation : sentence.targets) {
        source.push_back(with_end(system.source.encode(sentence.source)));
        target.push_back(with_end(system.target.encode(translation)));
        target.back().insert(target.back().begin(), kBos);
        tokens += std::ssize(target.back()) - 1;
      }
  }

  /// -log p of the target's tokens, given those before them and the source: teacher forcing, with
  /// the padding masked out.
  examples::TrainingLoss loss(const Translator& model, const PaddedBatch& x) const {
    const PaddedBatch y = pad_sequences(target, x.indices, kPad);
    const std::int64_t steps = y.x.size(0) - 1;
    const Tensor logits = model(x.x, x.lengths, narrow(y.x, 0, 0, steps));
    return {cross_entropy(logits, narrow(y.x, 0, 1, steps), {.ignore_index = kPad}),
            static_cast<std::int64_t>(sum(y.lengths - 1).item())};
  }

  double mean_loss(const Translator& model, std::int64_t batch) const {
    const NoGrad no_grad;
    Generator generator(0);
    double sum = 0;
    for (const PaddedBatch& x : bucketed_batches(source, {batch, kPad}, generator)) {
      const auto [mean, count] = loss(model, x);
      sum += mean.item() * static_cast<double>(count);
    }
    return sum / static_cast<double>(tokens);
  }
};

// --- Commands -----------------------------------------------------------------------------------

/// Greedy search and beam search on the same sentences, and the dictionary beside them if it is
/// given; returns the figures.
Metrics report(System& system, const std::vector<Sentence>& sentences, const std::string& name,
               const WordForWord* dictionary = nullptr) {
  Sequences sources;
  std::vector<Tokens> words;
  for (const Sentence& sentence : sentences) {
    sources.push_back(with_end(system.source.encode(sentence.source)));
    if (dictionary) words.push_back((*dictionary)(sentence.source));
  }
  const auto greedy = system(sources, 0), beam = system(sources, system.config.beam);
  fmt::print("\n{:<24} {:>11} {:>8} {:>17}\n",
             fmt::format("{} {} sentences", sentences.size(), name), "exact match", "BLEU-4",
             "sentence BLEU-2");
  Metrics metrics;
  const auto show = [&](const std::string& how, const std::string& key,
                        const std::vector<Tokens>& found) {
    const Quality q = quality(found, sentences);
    fmt::print("{:<24} {:>9.1f} % {:>8.1f} {:>17.3f}\n", how, 100 * q.exact, 100 * q.bleu4,
               q.bleu2);
    metrics.insert(
        metrics.end(),
        {{key + "_exact", q.exact}, {key + "_bleu4", q.bleu4}, {key + "_bleu2", q.bleu2}});
  };
  if (dictionary) show("word for word", "word_for_word", words);
  show("greedy search", "greedy", greedy);
  show(fmt::format("beam search, {} wide", system.config.beam), "beam", beam);

  for (std::size_t i = 0; i < std::min<std::size_t>(sentences.size(), 4); ++i)
    fmt::print("\n  {}\n    -> {}\n     = {}\n", system.join(sentences[i].source),
               system.join(beam[i]), system.join(sentences[i].targets[0]));
  return metrics;
}

int train(const Config& config, const examples::Call& call, const examples::Checkpoint* saved) {
  const Corpus corpus(config);
  manual_seed(config.training.seed);
  System system = [&] {
    if (saved) return System(config, *saved);
    Tokens source, target;
    for (const Sentence& sentence : corpus.train)
      for (const Tokens& translation : sentence.targets) {
        source.insert(source.end(), sentence.source.begin(), sentence.source.end());
        target.insert(target.end(), translation.begin(), translation.end());
      }
    const VocabOptions options{.min_freq = config.min_freq, .reserved_tokens = kReserved};
    return System(config, Vocab(source, options), Vocab(target, options));
  }();
  const Examples learned(system, corpus.train), valid(system, corpus.valid);
  Adam optimizer(system.model.parameters(), {.lr = config.training.lr});
  examples::Training training(
      config.training, call, system.model, optimizer,
      [&](examples::Checkpoint& file) {
        file.add_values("config", config);
        file.add_text("source", system.source.to_text());
        file.add_text("target", system.target.to_text());
      },
      "tokens");
  if (saved) training.go_on_from(*saved);
  if (!config.heatmap.empty()) examples::require_writable(config.heatmap);
  if (!call.quiet)
    fmt::print("{}, attention {}: {} parameters. {} pairs to learn, {} and {} kinds of tokens.\n",
               config.cell, config.attention, examples::grouped(system.model.parameter_count()),
               examples::grouped(std::ssize(learned.source)),
               examples::grouped(system.source.size()), examples::grouped(system.target.size()));

  const bool complete = training.run(
      [&](Generator& generator) {
        return bucketed_batches(learned.source, {config.training.batch, kPad}, generator);
      },
      [&](const PaddedBatch& batch) { return learned.loss(system.model, batch); },
      [&] {
        if (corpus.valid.empty()) return Metrics{};
        return Metrics{{"valid_loss", valid.mean_loss(system.model, config.training.batch)}};
      });
  std::vector<std::pair<std::string, std::string>> curves{{"train_loss", "training"}};
  if (!corpus.valid.empty()) curves.emplace_back("valid_loss", "validation");
  training.plot({.title = fmt::format("{}, attention {}", config.cell, config.attention),
                 .x_label = "epoch",
                 .y_label = "loss per token"},
                curves);
  if (!complete) return training.exit_code();

  Metrics metrics;
  fmt::print("After {} epochs, {:.1f} s:", training.epochs(), training.seconds());
  for (const auto& [key, name] : curves) {
    metrics.emplace_back(key, training.curve(key).back());
    fmt::print(" {} loss {:.3f} per token (perplexity {:.3f}).", name, metrics.back().second,
               std::exp(metrics.back().second));
  }
  fmt::print("\n");
  const bool tested = !corpus.test.empty(), held = !corpus.valid.empty();
  const auto& sentences = tested ? corpus.test : held ? corpus.valid : corpus.train;
  const WordForWord dictionary(corpus.train);
  const Metrics more = report(system, sentences,
                              tested ? "test"
                              : held ? "held-out"
                                     : "training",
                              &dictionary);
  metrics.insert(metrics.end(), more.begin(), more.end());
  training.log_final(metrics);
  if (!config.heatmap.empty() && config.attention != "none") {
    const auto last = sentences.begin() + std::min<std::ptrdiff_t>(20, std::ssize(sentences));
    const auto longest = std::max_element(
        sentences.begin(), last,
        [](const Sentence& a, const Sentence& b) { return a.source.size() < b.source.size(); });
    system.draw_attention(with_end(system.source.encode(longest->source)), config.heatmap);
  }
  return 0;
}

/// Prints the translation of each line.
void translate_lines(System& system, const std::vector<std::string>& lines, std::string heatmap) {
  examples::for_each_line(lines, [&](const std::string& line, const std::string& where) {
    const Tokens tokens = tokenize(system.config, line);
    if (tokens.empty()) {
      fmt::print("\n");
      return;
    }
    const auto source = with_end(examples::encode(tokens, system.source, where));
    fmt::print("{}\n", system.join(system({source}, system.config.beam).at(0)));
    if (!heatmap.empty()) system.draw_attention(source, std::exchange(heatmap, ""));
  });
}

}  // namespace

int main(int argc, char** argv) {
  Config config, given;
  std::optional<std::int64_t> beam;
  std::optional<double> length_penalty;
  std::vector<std::string> lines;
  examples::TrainingProgram program("Encoder and decoder that translate.", "translate", argc, argv);
  CLI::App& use = program.add_command("translate", "translate lines, given or on stdin");
  CLI::App& eval = program.add_command("eval", "measure the translations of a file of pairs");
  for (CLI::App* command : {&use, &eval}) {
    command->add_option("--beam", beam, "width of the beam search (default: the model's)")
        ->check(examples::at_least(1));
    command
        ->add_option("--length-penalty", length_penalty,
                     "a beam is ranked by log p / length^this (default: the model's)")
        ->check(examples::at_least(0));
  }
  use.add_option("lines", lines, "lines to translate");
  use.add_option("--heatmap", given.heatmap,
                 "SVG file for what attention looks at in the first line");
  eval.add_option("--pairs", given.pairs, "file of pairs, a line each: source, tab, target");
  eval.add_option("--source", given.source, "or a file with a source sentence per line ...");
  eval.add_option("--target", given.target, "... and one with their translations");

  return program.run(
      config,
      {"level", "keep-case", "cell", "attention", "layers", "bidirectional", "hidden", "embed"},
      train, [&](const CLI::App&, const examples::Checkpoint& saved) {
        if (beam) config.beam = *beam;
        if (length_penalty) config.length_penalty = *length_penalty;
        System system(config, saved);
        saved.load("model", system.model);
        if (use.parsed()) {
          translate_lines(system, lines, use.count("--heatmap") > 0 ? given.heatmap : "");
          return;
        }
        given.level = config.level, given.keep_case = config.keep_case;
        const auto sentences = read(given, "", given.pairs, given.source, given.target);
        if (sentences.empty()) throw ValueError("eval: --pairs, or --source and --target");
        const double loss =
            Examples(system, sentences).mean_loss(system.model, config.training.batch);
        fmt::print("Loss {:.3f} per token (perplexity {:.3f}).\n", loss, std::exp(loss));
        report(system, sentences, "given");
      });
}
