#pragma once
/// How a text becomes tokens and tokens become a text.

#include <cstdint>
#include <string>
#include <vector>

#include "data/vocab.h"

namespace examples {

/// By characters or words. A line end is a token too, "\n" or "<eos>", unless only letters stay:
/// then lines follow each other without anything in between.
class Tokenizer {
 public:
  /// level: "char" or "word"; clean: "none" or "letters" (unroll::letters_only).
  Tokenizer(const std::string& level, const std::string& clean)
      : words_(level == "word"), letters_(clean == "letters") {}

  std::vector<std::string> line(const std::string& line) const;
  std::vector<std::string> text(const std::string& text) const;
  /// Back to text.
  std::string join(const std::vector<std::string>& tokens) const;

  /// What is read before the first token of a line: the end of another one or, with letters only, a
  /// space. Empty if the vocabulary has neither.
  std::vector<std::int64_t> line_start(const unroll::Vocab& vocab) const;

 private:
  std::string line_end() const;

  bool words_;
  bool letters_;
};

/// The indices of the tokens. Unknown ones get one warning, which begins with `where`.
std::vector<std::int64_t> encode(const std::vector<std::string>& tokens, const unroll::Vocab& vocab,
                                 const std::string& where);

}  // namespace examples
