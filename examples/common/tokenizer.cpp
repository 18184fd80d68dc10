#include "examples/common/tokenizer.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "data/text.h"
#include "examples/common/program.h"

namespace examples {

std::string Tokenizer::line_end() const {
  if (letters_) return "";
  return words_ ? "<eos>" : "\n";
}

std::vector<std::string> Tokenizer::line(const std::string& line) const {
  const std::string clean = letters_ ? unroll::letters_only(line) : line;
  return words_ ? unroll::split_words(clean) : unroll::split_characters(clean);
}

std::vector<std::string> Tokenizer::text(const std::string& text) const {
  const std::string end = line_end();
  std::vector<std::string> tokens;
  for (const std::string& one : unroll::split_lines(text)) {
    for (std::string& token : line(one)) tokens.push_back(std::move(token));
    if (!end.empty()) tokens.push_back(end);
  }
  return tokens;
}

std::string Tokenizer::join(const std::vector<std::string>& tokens) const {
  if (!words_) return unroll::join(tokens);
  std::string text;
  for (const std::string& token : tokens) {
    if (token == "<eos>") {
      text += '\n';
    } else {
      if (!text.empty() && text.back() != '\n') text += ' ';
      text += token;
    }
  }
  return text;
}

std::vector<std::int64_t> Tokenizer::line_start(const unroll::Vocab& vocab) const {
  const std::string end = line_end();
  const std::string start = end.empty() ? " " : end;
  if (!vocab.contains(start)) return {};
  return {vocab.index(start)};
}

std::vector<std::int64_t> encode(const std::vector<std::string>& tokens, const unroll::Vocab& vocab,
                                 const std::string& where) {
  const auto unknown = [&](const std::string& token) { return !vocab.contains(token); };
  if (const auto count = std::count_if(tokens.begin(), tokens.end(), unknown); count > 0)
    warn(fmt::format(
        "{}: {} of {} tokens are not in the vocabulary, the first one is '{}'; they count as {}",
        where, grouped(count), grouped(std::ssize(tokens)),
        *std::find_if(tokens.begin(), tokens.end(), unknown), vocab.token(0)));
  return vocab.encode(tokens);
}

}  // namespace examples
