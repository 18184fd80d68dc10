// Finds names of persons and brands, or other tags: a BiLSTM, with or without CRF, beside an HMM.
//
//   ner                                                  learns the bundled sentences in seconds
//   ner --language chinese --crf                         the same in Chinese, with a CRF
//   ner --train FILE --dev FILE --test FILE              CoNLL files of yours
//   ner tag "Marlow bought a Marlow yesterday."          what a saved model says of a line
//
// docs/examples/ner.md has the equations and all options.

#include <fmt/format.h>
#include <unroll/unroll.h>

#include <algorithm>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "common/program.h"
#include "common/training.h"
#include "ner/model.h"

using namespace unroll;
using ner::Config, ner::Dataset, ner::Tagger, ner::Tags, ner::Vocabularies;

namespace {

/// The sentences of a file, with entities as BIO. Says which tags break the rules of their scheme.
std::vector<TaggedSentence> read(const Config& config, const std::string& path) {
  if (path.empty()) return {};
  auto sentences = read_conll(path, {config.token_column, config.column, config.conllu});
  if (config.tags == "plain") return sentences;
  auto broken = convert_scheme(sentences, path, scheme_from_name(*config.scheme), TagScheme::BIO);
  if (broken.empty()) return sentences;
  examples::warn(
      fmt::format("{} tags break the rules of {}; they count as conlleval has it:\n{}",
                  broken.size(), *config.scheme,
                  join({broken.begin(), broken.begin() + std::min(std::ssize(broken), 5L)}, "\n")));
  return sentences;
}

Vocabularies make_vocabularies(const Config& config, const std::vector<TaggedSentence>& sentences) {
  std::vector<std::string> words, chars, tags;
  for (const TaggedSentence& sentence : sentences) {
    for (const std::string& token : sentence.tokens) {
      words.push_back(config.word(token));
      for (std::string& c : split_characters(token)) chars.push_back(std::move(c));
    }
    tags.insert(tags.end(), sentence.tags.begin(), sentence.tags.end());
  }
  return {Vocab(words), Vocab(words, {.min_freq = 2}), Vocab(chars),
          Vocab(tags, {.unknown_token = ""})};
}

Dataset encode(const Config& config, const Vocabularies& vocabs,
               const std::vector<TaggedSentence>& sentences) {
  Dataset data;
  std::vector<std::string> tokens;
  for (const TaggedSentence& sentence : sentences)
    tokens.insert(tokens.end(), sentence.tokens.begin(), sentence.tokens.end());
  const Vocab forms(tokens, {.unknown_token = ""});
  for (const std::string& form : forms.tokens()) {
    data.words.push_back(vocabs.words.index(config.word(form)));
    data.frequent.push_back(vocabs.frequent.contains(config.word(form)) ? data.words.back() : 0);
    data.chars.push_back(vocabs.chars.encode(split_characters(form)));
  }
  for (const TaggedSentence& sentence : sentences) {
    data.forms.push_back(forms.encode(sentence.tokens));
    data.tags.push_back(sentence.tags);
  }
  return data;
}

/// The indices of the tags of each sentence of a batch.
using Model = std::function<Sequences(const Dataset&, const PaddedBatch&)>;

Tags predict(const Model& model, const Dataset& data, const Vocab& tags) {
  const NoGrad no_grad;
  Tags result(data.forms.size());
  Generator generator;
  for (const PaddedBatch& batch : bucketed_batches(data.forms, {.batch_size = 64}, generator)) {
    const Sequences found = model(data, batch);
    for (std::size_t b = 0; b < found.size(); ++b)
      result[static_cast<std::size_t>(batch.indices[b])] = tags.decode(found[b]);
  }
  return result;
}

/// The first one is what is watched while learning.
examples::Metrics measure(const Config& config, const Tags& expected, const Tags& predicted) {
  if (config.tags == "plain") return {{"accuracy", tag_accuracy(expected, predicted)}};
  const EntityScores s = entity_scores(expected, predicted);
  return {{"f1", s.all.f1()},
          {"precision", s.all.precision()},
          {"recall", s.all.recall()},
          {"accuracy", s.accuracy()}};
}

int train(Config config, const examples::Call& call, const examples::Checkpoint* saved) {
  if (!config.scheme)
    config.scheme = config.files.train.empty() && config.language == "chinese" ? "BMES" : "BIO";
  const auto files = config.files.or_bundled("ner." + config.language, "conll");
  const std::vector<TaggedSentence> sentences = read(config, files.train);
  Vocabularies vocabs = make_vocabularies(config, sentences);
  if (saved) vocabs.load(*saved);
  const Dataset train_set = encode(config, vocabs, sentences);
  const Dataset dev = encode(config, vocabs, read(config, files.dev));
  const Dataset test = encode(config, vocabs, read(config, files.test));
  Sequences targets, words;
  for (std::size_t n = 0; n < sentences.size(); ++n) {
    targets.push_back(vocabs.tags.encode(train_set.tags[n]));
    const Tensor forms = from_vector(train_set.forms[n]);
    words.push_back(ner::look_up(train_set.frequent, forms).to_vector<std::int64_t>());
  }

  manual_seed(config.training.seed);
  Tagger tagger(config, vocabs);
  HMM hmm(vocabs.tags.size(), vocabs.words.size());
  hmm.fit(words, targets, config.epsilon);
  Adam optimizer(tagger.parameters(), {.lr = config.training.lr});
  const auto save = [&](examples::Checkpoint& file) {
    file.add_values("config", config), vocabs.save(file);
  };
  examples::Training training(config.training, call, tagger, optimizer, save, "tokens");
  if (saved) training.go_on_from(*saved);
  const std::string name = config.crf ? "BiLSTM, CRF" : "BiLSTM";
  if (!call.quiet)
    fmt::print("{} sentences, {} words, tags {}. {}: {} parameters.\n", sentences.size(),
               vocabs.words.size(), join(vocabs.tags.tokens(), " "), name,
               examples::grouped(tagger.parameter_count()));

  const Model bilstm = [&](auto& data, auto& batch) { return tagger.best(data, batch); };
  const Model viterbi = [&](auto& data, auto& batch) {
    return hmm.viterbi(ner::look_up(data.frequent, batch.x), batch.lengths).tags;
  };
  const Model posteriors = [&](auto& data, auto& batch) {
    const Tensor p = hmm.posteriors(ner::look_up(data.frequent, batch.x), batch.lengths);
    return ner::each_best(p, batch.lengths);
  };
  const auto score = [&](const Model& model, const Dataset& data) {
    return measure(config, data.tags, predict(model, data, vocabs.tags));
  };
  const Dataset& watched = dev.forms.empty() ? train_set : dev;
  const auto baseline = score(viterbi, watched)[0];
  const std::string curve = (dev.forms.empty() ? "train_" : "dev_") + baseline.first;
  const bool complete = training.run(
      [&](Generator& generator) {
        return bucketed_batches(train_set.forms, {.batch_size = config.training.batch}, generator);
      },
      [&](const PaddedBatch& batch) {
        return examples::TrainingLoss{
            tagger.loss(train_set, batch, pad_sequences(targets, batch.indices, 0).x),
            static_cast<std::int64_t>(sum(batch.lengths).item())};
      },
      [&] {
        return examples::Metrics{{curve, score(bilstm, watched)[0].second},
                                 {curve + "_hmm", baseline.second}};
      });
  training.plot({.title = curve, .y_label = baseline.first},
                {{curve, name}, {curve + "_hmm", "HMM"}});
  if (!complete) return training.exit_code();

  fmt::print("\nAfter {} epochs, {:.1f} s:\n\n{:<22}", training.epochs(), training.seconds(), "");
  for (const auto& [what, value] : measure(config, watched.tags, watched.tags))
    fmt::print("{:>10}", what);
  fmt::print("\n");
  examples::Metrics all;
  const auto row = [&](const char* part, const Dataset& data, const std::string& title,
                       const Model& model, const char* suffix) {
    fmt::print("{:<6}{:<16}", part, title);
    for (const auto& [what, value] : score(model, data)) {
      fmt::print("{:>9.1f}%", 100 * value);
      all.emplace_back(fmt::format("{}_{}{}", part, what, suffix), value);
    }
    fmt::print("\n");
  };
  for (const auto& [part, data] : {std::pair("train", &train_set), {"dev", &dev}, {"test", &test}})
    if (!data->forms.empty()) {
      row(part, *data, "HMM, posteriors", posteriors, "_hmm_posteriors");
      row(part, *data, "HMM, Viterbi", viterbi, "_hmm");
      row(part, *data, name, bilstm, "");
    }
  training.log_final(all);
  if (config.tags == "plain") return 0;
  const Dataset& last = test.forms.empty() ? watched : test;
  fmt::print("\nThe last row by type:\n\n");
  for (const auto& [type, c] : entity_scores(last.tags, predict(bilstm, last, vocabs.tags)).types)
    fmt::print("{:<22}{:>9.1f}%{:>9.1f}%{:>9.1f}%   {} of {}\n", type, 100 * c.f1(),
               100 * c.precision(), 100 * c.recall(), c.correct, c.expected);
  return 0;
}

/// Prints each line as a sentence of a CoNLL file.
void tag(const examples::Checkpoint& saved, const std::vector<std::string>& lines) {
  const auto config = saved.values<Config>("config");
  Vocabularies vocabs;
  vocabs.load(saved);
  Tagger tagger(config, vocabs);
  saved.load("model", tagger);
  tagger.eval();
  const NoGrad no_grad;
  examples::for_each_line(lines, [&](const std::string& line, const std::string&) {
    const auto split = config.language == "chinese" ? split_characters : split_punctuation;
    const TaggedSentence sentence{split(line), {}, {}};
    if (sentence.tokens.empty()) return;
    const Dataset data = encode(config, vocabs, {sentence});
    auto tags = vocabs.tags.decode(tagger.best(data, pad_sequences(data.forms, 0))[0]);
    if (config.tags == "entities")
      tags = entity_tags(find_entities(tags), std::ssize(tags), scheme_from_name(*config.scheme));
    for (std::size_t i = 0; i < tags.size(); ++i)
      fmt::print("{}\t{}\n", sentence.tokens[i], tags[i]);
    fmt::print("\n");
  });
}

}  // namespace

int main(int argc, char** argv) {
  Config config;
  std::vector<std::string> lines;
  examples::TrainingProgram program("Tags of words by a BiLSTM.", "ner", argc, argv);
  program.add_command("tag", "print the tags of sentences, given or on stdin, in columns")
      .add_option("lines", lines, "sentences to tag");
  return program.run(
      config, {"language", "tags", "crf", "lower", "embed", "hidden", "char-embed", "char-hidden"},
      train, [&](const CLI::App&, const examples::Checkpoint& saved) { tag(saved, lines); });
}
