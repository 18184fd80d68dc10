#pragma once
/// The text side of examples/translate.cpp: pairs as tokens, and how good their translations are.

#include <fmt/format.h>
#include <unroll/unroll.h>

#include <algorithm>
#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "examples/common/program.h"
#include "examples/data/number_words.h"
#include "examples/translate/model.h"

namespace translate {

using namespace unroll;
using Tokens = std::vector<std::string>;

/// Words and punctuation marks, or characters.
inline Tokens tokenize(const Config& config, const std::string& text) {
  const std::string cased = config.keep_case ? text : lower_case(text);
  return config.level == "word" ? split_punctuation(cased) : split_characters(cased);
}

/// A source sentence and all its translations.
struct Sentence {
  Tokens source;
  std::vector<Tokens> targets;
};

/// Pairs of the same source become one sentence; the order is that of their first pairs.
inline std::vector<Sentence> group(const Config& config, const std::vector<TextPair>& pairs) {
  std::vector<Sentence> sentences;
  std::map<Tokens, std::size_t> places;
  for (const TextPair& pair : pairs) {
    Tokens source = tokenize(config, pair.source);
    const auto [place, is_new] = places.emplace(source, sentences.size());
    if (is_new) sentences.push_back({std::move(source), {}});
    sentences[place->second].targets.push_back(tokenize(config, pair.target));
  }
  return sentences;
}

/// Different numbers in words: 0 to 99, then numbers below 1,000, 10,000 and so on in turn.
inline std::vector<TextPair> number_pairs(std::int64_t count) {
  Generator generator(0);
  std::vector<TextPair> pairs;
  std::set<std::int64_t> seen;
  const auto add = [&](std::int64_t n) {
    if (seen.insert(n).second)
      pairs.push_back({examples::english_number(n), examples::french_number(n)});
  };
  for (std::int64_t n = 0; n < 100; ++n) add(n);
  while (std::ssize(pairs) < count)
    for (const std::int64_t below : {1'000, 10'000, 100'000, 1'000'000})
      add(generator.below(below));
  pairs.resize(static_cast<std::size_t>(count));
  return pairs;
}

/// Those that --max-pairs leaves.
inline std::vector<TextPair> first_pairs(const Config& config, std::vector<TextPair> list) {
  if (config.max_pairs > 0)
    list.resize(std::min(list.size(), static_cast<std::size_t>(config.max_pairs)));
  return list;
}

/// The pairs of --pairs or of --source and --target (or of their --valid and --test kin); none if
/// none of them is given.
inline std::vector<Sentence> read(const Config& config, const std::string& prefix,
                                  const std::string& pairs, const std::string& source,
                                  const std::string& target) {
  if (source.empty() != target.empty())
    throw ValueError(fmt::format("--{0}source and --{0}target go together", prefix));
  if (!pairs.empty() && !source.empty())
    throw ValueError(fmt::format("--{0}pairs or --{0}source and --{0}target, not both", prefix));
  if (pairs.empty() && source.empty()) return {};
  auto list = pairs.empty() ? read_pairs(source, target) : read_pairs(pairs);
  if (list.empty()) throw FileError((pairs.empty() ? source : pairs) + " has no pair");
  return group(config, prefix.empty() ? first_pairs(config, std::move(list)) : list);
}

struct Corpus {
  std::vector<Sentence> train, valid, test;

  explicit Corpus(const Config& config)
      : train(read(config, "", config.pairs, config.source, config.target)),
        valid(read(config, "valid-", config.valid_pairs, config.valid_source, config.valid_target)),
        test(read(config, "test-", config.test_pairs, config.test_source, config.test_target)) {
    if (train.empty()) {
      std::vector<TextPair> list;
      if (config.bundled == "numbers") {
        list = number_pairs(2500);
        if (valid.empty()) valid = group(config, {list.begin() + 1400, list.begin() + 1500});
        if (test.empty()) test = group(config, {list.begin() + 1500, list.end()});
        list.resize(1400);
      } else {
        list = read_pairs(examples::bundled("phrases.tsv"));
      }
      train = group(config, first_pairs(config, std::move(list)));
    }
    if (valid.empty()) {  // a source is learned with all its translations, or not at all
      Generator generator(config.training.seed);
      const auto held =
          static_cast<std::int64_t>(config.hold_out * static_cast<double>(train.size()));
      for (std::int64_t i = 0; i < held; ++i) {
        std::swap(train[static_cast<std::size_t>(generator.below(std::ssize(train)))],
                  train.back());
        valid.push_back(std::move(train.back()));
        train.pop_back();
      }
    }
    for (Sentence& sentence : train) {
      const auto longer = [&](const Tokens& t) { return std::ssize(t) > config.max_length; };
      if (longer(sentence.source)) sentence.targets.clear();
      std::erase_if(sentence.targets, longer);
    }
    const auto before = train.size();
    std::erase_if(train, [](const Sentence& sentence) { return sentence.targets.empty(); });
    if (train.empty()) throw ValueError("there is nothing to learn: try a larger --max-length");
    if (train.size() < before)
      examples::warn(fmt::format(
          "{} sentences have more than {} tokens and are not learned",
          examples::grouped(static_cast<std::int64_t>(before - train.size())), config.max_length));
  }
};

struct Quality {
  double exact = 0;  ///< part of the sentences for which one of the translations is hit
  double bleu4 = 0;  ///< of the corpus
  double bleu2 = 0;  ///< mean of the sentences' best
};

inline Quality quality(const std::vector<Tokens>& found, const std::vector<Sentence>& expected) {
  Quality sum;
  std::vector<std::vector<Tokens>> references;
  for (std::size_t i = 0; i < found.size(); ++i) {
    const auto& targets = references.emplace_back(expected[i].targets);
    double best = 0;
    for (const Tokens& target : targets) best = std::max(best, sentence_bleu(found[i], target, 2));
    sum.bleu2 += best;
    sum.exact += std::count(targets.begin(), targets.end(), found[i]) > 0 ? 1 : 0;
  }
  const auto n = static_cast<double>(found.size());
  return {sum.exact / n, corpus_bleu(found, references).score, sum.bleu2 / n};
}

/// What a translation has to beat: a dictionary. For each word of the source it writes the word of
/// the target that is most often found beside it, 2 c(s, t) / (c(s) + c(t)) (Dice 1945).
class WordForWord {
 public:
  explicit WordForWord(const std::vector<Sentence>& sentences) {
    std::unordered_map<std::string, double> sources, targets;
    std::unordered_map<std::string, std::unordered_map<std::string, double>> both;
    for (const Sentence& sentence : sentences)
      for (const Tokens& target : sentence.targets) {
        for (const std::string& t : target) ++targets[t];
        for (const std::string& s : sentence.source) {
          ++sources[s];
          for (const std::string& t : target) ++both[s][t];
        }
      }
    for (const auto& [s, beside] : both) {
      std::pair<double, std::string> best;
      for (const auto& [t, count] : beside)
        best = std::max(best, {2 * count / (sources[s] + targets[t]), t});
      words_[s] = best.second;
    }
  }

  Tokens operator()(const Tokens& source) const {
    Tokens target;
    for (const std::string& s : source)
      if (const auto found = words_.find(s); found != words_.end()) target.push_back(found->second);
    return target;
  }

 private:
  std::unordered_map<std::string, std::string> words_;
};

}  // namespace translate
