#pragma once
/// Pairs of sentences: what a translator learns from.

#include <functional>
#include <string>
#include <unordered_map>
#include <vector>

namespace unroll {

/// A text and its translation.
struct TextPair {
  std::string source;  ///< what is read
  std::string target;  ///< what is made of it
  /// Whether both are the same.
  bool operator==(const TextPair&) const = default;
};

/// Pairs from one file: a line each, source, tab, target; what stands behind a second tab (a
/// licence, a number) is left out, and so are empty lines. Throws FileError as read_text, and,
/// naming path and line, for a line without a tab or with nothing on one side of it.
std::vector<TextPair> read_pairs(const std::string& path);

/// Pairs from two files with as many lines: line i of one belongs to line i of the other. Lines
/// that are empty in both are left out. Throws FileError as read_text, for different numbers of
/// lines, and, naming path and line, for one that is empty in one file alone.
std::vector<TextPair> read_pairs(const std::string& source_path, const std::string& target_path);

/// A sentence as tokens, and all its translations, which are all right (metrics.h: references).
struct TranslatedSentence {
  std::vector<std::string> source;                ///< what is read
  std::vector<std::vector<std::string>> targets;  ///< what may be made of it, one or more
};

/// Pairs as tokens. Those with the same tokens in the source become one sentence; the order is that
/// of their first pairs.
std::vector<TranslatedSentence> group_by_source(
    const std::vector<TextPair>& pairs,
    const std::function<std::vector<std::string>(const std::string&)>& tokenize);

/// A dictionary, made by counting: what a translation has to beat. For each source token s it has
/// the target token t that is most often found beside it,
///
///   2 c(s, t) / (c(s) + c(t))     (Dice 1945)
///
/// where c(s, t) counts the pairs of an s and a t in all pairs of sentences, and c the tokens. Of
/// equal ones the last by their bytes.
class WordDictionary {
 public:
  /// Counts in these sentences and all their translations.
  explicit WordDictionary(const std::vector<TranslatedSentence>& sentences);

  /// Word for word, in the order of the source. Tokens that are not in it are left out.
  std::vector<std::string> translate(const std::vector<std::string>& source) const;

 private:
  std::unordered_map<std::string, std::string> words_;
};

}  // namespace unroll
