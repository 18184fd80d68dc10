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
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "common/heatmap.h"
#include "common/program.h"
#include "common/teacher_forcing.h"
#include "common/tokenizer.h"
#include "common/training.h"
#include "data/number_words.h"

using namespace unroll;
using examples::Metrics;

namespace {

using Tokens = std::vector<std::string>;
using Sentences = std::vector<TranslatedSentence>;

constexpr std::int64_t kPad = 1, kBos = 2, kEos = 3;  // behind <unk>, in both vocabularies

/// Pairs in one file or in two, as options.
struct PairFiles {
  std::string prefix, use, pairs{}, source{}, target{};

  template <class F>
  void each(F&& option) {
    option((prefix + "pairs").c_str(), pairs,
           ("pairs to " + use + ", a line each: source, tab, target").c_str());
    option((prefix + "source").c_str(), source, "or a file with a source sentence per line ...");
    option((prefix + "target").c_str(), target, "... and one with their translations");
  }
  bool given() const { return !pairs.empty() || !source.empty() || !target.empty(); }
};

/// What is learned and how. A saved model carries it.
struct Config {
  PairFiles learn{"", "learn"}, valid{"valid-", "measure on after each epoch"},
      test{"test-", "translate at the end"};
  std::string bundled = "numbers", level = "word", cell = "gru", attention = "additive";
  std::int64_t max_pairs = 0, max_length = 50, min_freq = 1;
  std::int64_t layers = 1, hidden = 128, embed = 64, beam = 4;
  bool keep_case = false, bidirectional = false;
  double hold_out = 0.1, dropout = 0, length_penalty = 0.75;
  examples::TrainingOptions training{
      .epochs = 60, .batch = 64, .lr = 0.003, .plot = "translate.svg"};
  std::string heatmap = "translate_attention.svg";

  template <class F>
  void each(F&& option) {
    using CLI::IsMember, examples::at_least;
    option("bundled", bundled, "what to learn without files", IsMember({"numbers", "phrases"}));
    learn.each(option), valid.each(option), test.each(option);
    option("hold-out", hold_out, "part to measure on, without --valid-pairs", CLI::Range(0.0, 0.9));
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
    option("beam", beam, "width of the beam search, shown beside greedy search", at_least(1));
    option("length-penalty", length_penalty, "beams rank by log p / length^this", at_least(0));
    option("heatmap", heatmap, "SVG file for what attention looks at; \"\": none");
    training.each(option);
  }
  Seq2SeqOptions model_options() const {
    Seq2SeqOptions options{.cell = cell_type_from_name(cell),
                           .embedding_dim = embed,
                           .hidden_size = hidden,
                           .num_layers = layers,
                           .dropout = dropout,
                           .bidirectional = bidirectional};
    if (attention != "none") options.attention = attention_score_from_name(attention);
    return options;
  }
};

// --- Sentences ----------------------------------------------------------------------------------

/// Words and punctuation marks, or characters.
Tokens tokenize(const Config& config, const std::string& text) {
  const std::string cased = config.keep_case ? text : lower_case(text);
  return config.level == "word" ? split_punctuation(cased) : split_characters(cased);
}

/// The first `count` pairs, or all if it is 0; pairs of the same source become one sentence.
Sentences make_sentences(const Config& config, std::vector<TextPair> pairs,
                         std::int64_t count = 0) {
  if (count > 0) pairs.resize(std::min(pairs.size(), static_cast<std::size_t>(count)));
  return group_by_source(pairs, [&](const std::string& text) { return tokenize(config, text); });
}

/// The sentences of the files; none if no file is given.
Sentences read(const Config& config, const PairFiles& files, std::int64_t count = 0) {
  if (!files.given()) return {};
  if (files.source.empty() != files.target.empty())
    throw ValueError(fmt::format("--{0}source and --{0}target go together", files.prefix));
  if (!files.pairs.empty() && !files.source.empty())
    throw ValueError(
        fmt::format("--{0}pairs or --{0}source and --{0}target, not both", files.prefix));
  const bool two = files.pairs.empty();
  auto pairs = two ? read_pairs(files.source, files.target) : read_pairs(files.pairs);
  if (pairs.empty()) throw FileError((two ? files.source : files.pairs) + " has no pair");
  return make_sentences(config, std::move(pairs), count);
}

struct Corpus {
  Sentences train, valid, test;
};

/// What is learned, and what is not: files, the bundled data, or a part of what there is.
Corpus read_corpus(const Config& config) {
  PairFiles learn = config.learn;
  if (!learn.given() && config.bundled == "phrases") learn.pairs = examples::bundled("phrases.tsv");
  Corpus corpus{read(config, learn, config.max_pairs), read(config, config.valid),
                read(config, config.test)};
  if (!learn.given()) {
    const auto numbers = examples::number_pairs(2500);
    const auto valid = numbers.begin() + 1400, test = numbers.begin() + 1500;
    corpus.train = make_sentences(config, {numbers.begin(), valid}, config.max_pairs);
    if (!config.valid.given()) corpus.valid = make_sentences(config, {valid, test});
    if (!config.test.given()) corpus.test = make_sentences(config, {test, numbers.end()});
  }
  if (corpus.valid.empty()) {  // a source is learned with all its translations, or not at all
    Generator generator(config.training.seed);
    auto split = random_split(std::move(corpus.train), config.hold_out, generator);
    corpus.train = std::move(split.train), corpus.valid = std::move(split.held_out);
  }
  const auto longer = [&](const Tokens& t) { return std::ssize(t) > config.max_length; };
  const auto too_long = std::erase_if(corpus.train, [&](TranslatedSentence& sentence) {
    std::erase_if(sentence.targets, longer);
    return sentence.targets.empty() || longer(sentence.source);
  });
  if (corpus.train.empty())
    throw ValueError("there is nothing to learn: try a larger --max-length");
  if (too_long > 0)
    examples::warn(fmt::format("{} sentences have more than {} tokens and are not learned",
                               too_long, config.max_length));
  return corpus;
}

// --- Learning -----------------------------------------------------------------------------------

std::vector<std::int64_t> with_end(std::vector<std::int64_t> tokens) {
  tokens.push_back(kEos);
  return tokens;
}

/// A model with its vocabularies and options: all that it takes to translate.
struct System {
  Config config;
  Vocab source, target;
  Seq2Seq model;

  System(const Config& c, Vocab s, Vocab t)
      : config(c),
        source(std::move(s)),
        target(std::move(t)),
        model(source.size(), target.size(), config.model_options()) {}

  std::string join(const Tokens& tokens) const {
    return unroll::join(tokens, config.level == "word" ? " " : "");
  }

  /// Translations of sources, each with its end mark. A beam of 1 is greedy search.
  std::vector<Tokens> translate(const Sequences& sources, std::int64_t beam) {
    const NoGrad no_grad;
    model.eval();
    std::vector<Tokens> found;
    for (const PaddedBatch& batch : ordered_batches(sources, config.training.batch, kPad))
      for (const auto& best : beam_search(model.decoder, model.encode(batch.x, batch.lengths),
                                          full(batch.lengths.shape(), kBos, DType::i64),
                                          {.beam_size = beam,
                                          .max_length = 2 * batch.x.size(0) + 10,
                                          .eos = kEos,
                                          .length_penalty = config.length_penalty}))
        found.push_back(target.decode(best.at(0).tokens));
    return found;
  }

  /// Draws what the decoder looks at while it writes the translation.
  void draw_attention(const std::vector<std::int64_t>& sentence, const std::string& path) {
    if (config.attention == "none") throw ValueError("--heatmap: this model has no attention");
    Tokens found = translate({sentence}, 1).at(0);
    std::vector<std::int64_t> tokens = target.encode(found);
    tokens.insert(tokens.begin(), kBos);  // a row is what is looked at for the token after it
    found.push_back("<eos>");
    const NoGrad no_grad;
    const Tensor weights = model.decoder.attention_weights(
        pad_sequences({tokens}, kPad).x, model.encode(pad_sequences({sentence}, kPad).x));
    const examples::HeatmapOptions options{.title = "attention weights",
                                           .x_label = "source",
                                           .y_label = "translation",
                                           .columns = source.decode(sentence),
                                           .rows = found,
                                           .low = 0,
                                           .high = 1};
    std::vector<std::vector<double>> rows;
    for (std::int64_t t = 0; t < weights.size(0); ++t)
      rows.push_back(weights[t][0].to(DType::f64).to_vector<double>());
    examples::heatmap_svg(path, options, rows);
  }
};

/// Pairs as the model learns them: source and end mark; begin mark, target and end mark.
struct Examples {
  Sequences source, target;

  Examples(const System& system, const Sentences& sentences) {
    for (const TranslatedSentence& sentence : sentences)
      for (const Tokens& translation : sentence.targets) {
        source.push_back(with_end(system.source.encode(sentence.source)));
        target.push_back(examples::with_marks(system.target.encode(translation), kBos, kEos));
      }
  }

  examples::TrainingLoss loss(const Seq2Seq& model, const PaddedBatch& x) const {
    return examples::teacher_forcing(model, x.x, x.lengths, pad_sequences(target, x.indices, kPad),
                                     kPad);
  }

  double mean_loss(System& system) const {
    system.model.eval();
    return examples::mean_loss(ordered_batches(source, system.config.training.batch, kPad),
                               [&](const PaddedBatch& batch) { return loss(system.model, batch); });
  }
};

/// Greedy search and beam search on the same sentences, and the dictionary beside them if it is
/// given; returns the figures.
Metrics report(System& system, const Sentences& sentences, const std::string& name,
               const WordDictionary* dictionary = nullptr) {
  Sequences sources;
  std::vector<Tokens> words;
  std::vector<std::vector<Tokens>> right;
  for (const TranslatedSentence& sentence : sentences) {
    sources.push_back(with_end(system.source.encode(sentence.source)));
    right.push_back(sentence.targets);
    if (dictionary) words.push_back(dictionary->translate(sentence.source));
  }
  fmt::print("\n{:<24} {:>11} {:>8} {:>17}\n",
             fmt::format("{} {} sentences", sentences.size(), name), "exact match", "BLEU-4",
             "sentence BLEU-2");
  Metrics metrics;
  const auto show = [&](const std::string& how, const std::string& key,
                        const std::vector<Tokens>& found) {
    const double exact = exact_match(found, right), bleu4 = corpus_bleu(found, right).score,
                 bleu2 = mean_sentence_bleu(found, right);
    fmt::print("{:<24} {:>9.1f} % {:>8.1f} {:>17.3f}\n", how, 100 * exact, 100 * bleu4, bleu2);
    metrics.insert(metrics.end(),
                   {{key + "_exact", exact}, {key + "_bleu4", bleu4}, {key + "_bleu2", bleu2}});
  };
  const auto beam = system.translate(sources, system.config.beam);
  if (dictionary) show("word for word", "word_for_word", words);
  show("greedy search", "greedy", system.translate(sources, 1));
  show(fmt::format("beam search, {} wide", system.config.beam), "beam", beam);
  for (std::size_t i = 0; i < std::min<std::size_t>(sentences.size(), 4); ++i)
    fmt::print("\n  {}\n    -> {}\n     = {}\n", system.join(sentences[i].source),
               system.join(beam[i]), system.join(sentences[i].targets[0]));
  return metrics;
}

int train(const Config& config, const examples::Call& call, const examples::Checkpoint* saved) {
  const Corpus corpus = read_corpus(config);
  manual_seed(config.training.seed);
  Tokens source, target;
  for (const TranslatedSentence& sentence : corpus.train)
    for (const Tokens& translation : sentence.targets) {
      source.insert(source.end(), sentence.source.begin(), sentence.source.end());
      target.insert(target.end(), translation.begin(), translation.end());
    }
  const VocabOptions options{.min_freq = config.min_freq,
                             .reserved_tokens = {"<pad>", "<bos>", "<eos>"}};
  System system(config, saved ? saved->vocab("source") : Vocab(source, options),
                saved ? saved->vocab("target") : Vocab(target, options));
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

  const bool tested = !corpus.test.empty(), held = !corpus.valid.empty();
  const bool complete = training.run(
      [&](Generator& generator) {
        return bucketed_batches(learned.source, {config.training.batch, kPad}, generator);
      },
      [&](const PaddedBatch& batch) { return learned.loss(system.model, batch); },
      [&] {
        return held ? Metrics{{"valid_loss", valid.mean_loss(system)}} : Metrics{};
      });
  std::vector<std::pair<std::string, std::string>> curves{{"train_loss", "training"}};
  if (held) curves.emplace_back("valid_loss", "validation");
  training.plot({.title = fmt::format("{}, attention {}", config.cell, config.attention),
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
  const Sentences& sentences = tested ? corpus.test : held ? corpus.valid : corpus.train;
  const char* const name = tested ? "test" : held ? "held-out" : "training";
  const WordDictionary dictionary(corpus.train);
  for (const auto& figure : report(system, sentences, name, &dictionary)) metrics.push_back(figure);
  training.log_final(metrics);
  if (!config.heatmap.empty() && config.attention != "none")
    system.draw_attention(with_end(system.source.encode(sentences[0].source)), config.heatmap);
  return 0;
}

// --- Commands -----------------------------------------------------------------------------------

/// Prints the translation of each line.
void translate_lines(System& system, const std::vector<std::string>& lines, std::string heatmap) {
  examples::for_each_line(lines, [&](const std::string& line, const std::string& where) {
    const Tokens tokens = tokenize(system.config, line);
    if (tokens.empty()) return fmt::print("\n");
    const auto source = with_end(examples::encode(tokens, system.source, where));
    fmt::print("{}\n", system.join(system.translate({source}, system.config.beam).at(0)));
    if (!heatmap.empty()) system.draw_attention(source, std::exchange(heatmap, ""));
  });
}

}  // namespace

int main(int argc, char** argv) {
  Config config;
  PairFiles files{"", "translate"};
  std::string heatmap;
  std::vector<std::string> lines;
  examples::TrainingProgram program("Encoder and decoder that translate.", "translate", argc, argv);
  CLI::App& use = program.add_command("translate", "translate lines, given or on stdin");
  CLI::App& eval = program.add_command("eval", "measure the translations of a file of pairs");
  for (CLI::App* command : {&use, &eval})  // instead of those that the model was saved with
    examples::add_options(*command, config, {"beam", "length-penalty"});
  use.add_option("lines", lines, "lines to translate");
  use.add_option("--heatmap", heatmap, "SVG file for what attention looks at in the first line");
  examples::add_options(eval, files);

  return program.run(
      config,
      {"level", "keep-case", "cell", "attention", "layers", "bidirectional", "hidden", "embed"},
      train, [&](const CLI::App&, const examples::Checkpoint& saved) {
        System system(config, saved.vocab("source"), saved.vocab("target"));
        saved.load("model", system.model);
        if (use.parsed()) return translate_lines(system, lines, heatmap);
        const auto sentences = read(config, files);
        if (sentences.empty()) throw ValueError("eval: --pairs, or --source and --target");
        const double loss = Examples(system, sentences).mean_loss(system);
        fmt::print("Loss {:.3f} per token (perplexity {:.3f}).\n", loss, std::exp(loss));
        report(system, sentences, "given");
      });
}
