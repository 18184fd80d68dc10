#pragma once
/// The model of examples/ner.cpp, its options, and sentences as it sees them.

#include <unroll/unroll.h>

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "examples/common/options.h"
#include "examples/common/training.h"

namespace ner {

using namespace unroll;
using Tags = std::vector<std::vector<std::string>>;

/// What a model is and how it learns. A saved model carries it.
struct Config {
  examples::DataFiles files;
  std::string language = "english", tags = "entities";
  std::optional<std::string> scheme;
  std::int64_t column = -1, token_column = 1;
  bool conllu = false, crf = false, lower = false;
  std::int64_t embed = 64, hidden = 64, char_embed = 16, char_hidden = 0;
  double dropout = 0.3, unknown = 0.5, epsilon = 0.01;
  examples::TrainingOptions training{.epochs = 12, .batch = 16, .lr = 3e-3, .plot = "ner.svg"};

  template <class F>
  void each(F&& option) {
    using CLI::IsMember, examples::above, examples::at_least;
    files.each(option);
    option("column", column, "where the tags stand, from 1; negative: from the last one, -1");
    option("token-column", token_column, "where the tokens stand, likewise");
    option("conllu", conllu, "skip the comments and ranges of CoNLL-U");
    option("tags", tags, "entities, or plain ones such as parts of speech",
           IsMember({"entities", "plain"}));
    option("scheme", scheme, "tag scheme of the files (default: BIO; bundled Chinese: BMES)",
           IsMember({"BIO", "IOB1", "BIOES", "BMES"}));
    option("language", language, "of the bundled sentences; typed Chinese is read by characters",
           IsMember({"english", "chinese"}));
    option("crf", crf, "score whole sequences of tags by a linear-chain CRF");
    option("lower", lower, "look words up in lower case; the characters stay as they are");
    option("embed", embed, "size of the word embedding", at_least(1));
    option("hidden", hidden, "hidden size of each direction", at_least(1));
    option("char-embed", char_embed, "size of the character embedding", at_least(1));
    option("char-hidden", char_hidden, "hidden size of a character BiLSTM; 0: none", at_least(0));
    option("dropout", dropout, "on what the BiLSTM reads and puts out", at_least(0));
    option("unknown", unknown, "how often a word that was seen once is <unk> while learning",
           at_least(0));
    option("epsilon", epsilon, "added to the counts of the HMM", above(0));
    training.each(option);
  }
  /// How a token is looked up among the words.
  std::string word(const std::string& token) const { return lower ? lower_case(token) : token; }
};

/// What a model knows. Index 0 stands for what it does not know.
struct Vocabularies {
  Vocab words, frequent, chars, tags;  ///< frequent: words that training has twice or more

  void save(examples::Checkpoint& file) const {
    file.add_text("words", words.to_text()), file.add_text("chars", chars.to_text());
    file.add_text("tags", tags.to_text());
  }
  void load(const examples::Checkpoint& file) {
    const auto read = [&](const char* key) { return file.vocab(key); };
    words = read("words"), chars = read("chars"), tags = read("tags");
  }
};

/// Sentences as indices of forms: the F different spellings that stand in them.
struct Dataset {
  Sequences forms;                            ///< [N][length]
  std::vector<std::int64_t> words, frequent;  ///< [F]: the index of the word; 0 if it is rare
  Sequences chars;                            ///< [F]
  Tags tags;                                  ///< [N][length]
};

/// The entries of a list at the indices of a tensor of any shape.
inline Tensor look_up(const std::vector<std::int64_t>& list, const Tensor& indices) {
  return reshape(index_select(from_vector(list), 0, flatten(indices)), indices.shape());
}

/// The tag with the largest score at each token. scores: [T, B, K]; returns [B][length].
inline Sequences each_best(const Tensor& scores, const Tensor& lengths) {
  const Tensor best = transpose(argmax(scores));  // [B, T]
  Sequences result;
  for (std::int64_t b = 0; b < best.size(0); ++b) {
    const auto length = static_cast<std::int64_t>(lengths[b].item());
    result.push_back(narrow(best[b], 0, 0, length).to_vector<std::int64_t>());
  }
  return result;
}

/// Scores each tag at each token from both sides of the sentence (Huang et al. 2015; with
/// characters and CRF, Lample et al. 2016):
///
///   x_t = [E[word_t], last states of a BiLSTM over the characters of word_t]
///   scores_t = W [LSTM from the left up to x_t, LSTM from the right down to x_t] + b
struct Tagger : Module {
  Tagger(const Config& config, const Vocabularies& vocabs)
      : unknown_rate(config.unknown),
        words(child("words", Embedding(vocabs.words.size(), config.embed))),
        lstm(child("lstm", LSTM(config.embed + 2 * config.char_hidden, config.hidden,
                                {.bidirectional = true}))),
        output(child("output", Linear(2 * config.hidden, vocabs.tags.size()))),
        dropout(child("dropout", Dropout(config.dropout))) {
    if (config.char_hidden > 0) {
      chars = child("chars", Embedding(vocabs.chars.size(), config.char_embed));
      char_lstm =
          child("char_lstm", LSTM(config.char_embed, config.char_hidden, {.bidirectional = true}));
    }
    if (config.crf)
      crf = child("crf",
                  LinearChainCRF(vocabs.tags.size(), config.tags == "entities"
                                                         ? bio_constraints(vocabs.tags.tokens())
                                                         : CRFConstraints()));
  }

  /// [T, B, K]
  Tensor scores(const Dataset& data, const PaddedBatch& batch) const {
    Tensor word = look_up(data.words, batch.x);
    if (is_training())  // <unk> learns what rare words are like (Lample et al. 2016)
      word = where(uniform(word.shape()) < unknown_rate, look_up(data.frequent, batch.x), word);
    Tensor x = words(word);
    if (char_lstm) x = concatenate({x, spelling(data, batch.x)}, 2);
    return output(dropout(lstm(dropout(x), {}, batch.lengths).outputs));
  }

  /// The mean over the tokens of -log p(tags). tags: [T, B].
  Tensor loss(const Dataset& data, const PaddedBatch& batch, const Tensor& tags) const {
    const Tensor s = scores(data, batch);
    if (!crf) return cross_entropy(s, tags, {.lengths = batch.lengths});
    return crf->loss(s, tags, batch.lengths, Reduction::sum) / sum(batch.lengths).item();
  }

  /// The most probable tags, [B][length]: one by one, or as a sequence with the CRF.
  Sequences best(const Dataset& data, const PaddedBatch& batch) const {
    const Tensor s = scores(data, batch);
    return crf ? crf->viterbi(s, batch.lengths).tags : each_best(s, batch.lengths);
  }

 private:
  /// [T, B, 2 C]: for each form in the batch, once, the last states of both directions.
  Tensor spelling(const Dataset& data, const Tensor& forms) const {
    std::map<std::int64_t, std::int64_t> places;
    std::vector<std::int64_t> distinct, place;
    for (std::int64_t form : forms.to_vector<std::int64_t>()) {
      const auto [found, added] = places.try_emplace(form, std::ssize(distinct));
      if (added) distinct.push_back(form);
      place.push_back(found->second);
    }
    const PaddedBatch letters = pad_sequences(data.chars, distinct, 0);
    const LSTM::State last = (*char_lstm)((*chars)(letters.x), {}, letters.lengths).state;
    return embedding(concatenate({last[0].h, last[1].h}, 1), from_vector(place, forms.shape()));
  }

  double unknown_rate;
  Embedding words;
  LSTM lstm;
  Linear output;
  Dropout dropout;
  std::optional<Embedding> chars;
  std::optional<LSTM> char_lstm;
  std::optional<LinearChainCRF> crf;
};

}  // namespace ner
