#include "data/vocab.h"

#include <utf8.h>

#include <algorithm>
#include <charconv>
#include <optional>
#include <utility>

#include "data/text.h"
#include "framework/check.h"
#include "framework/file.h"
#include "framework/format.h"

namespace unroll {
namespace {

bool is_utf8(std::string_view text) {
  return utf8::is_valid(text.data(), text.data() + text.size());
}

// What to_text() writes for the characters that a reader or an editor would lose.
constexpr std::pair<char, char> kEscapes[] = {
    {' ', 's'}, {'\t', 't'}, {'\n', 'n'}, {'\r', 'r'}, {'\\', '\\'}};

std::string escape(std::string_view token) {
  std::string result;
  for (char c : token) {
    const auto* found = std::find_if(std::begin(kEscapes), std::end(kEscapes),
                                     [c](const auto& pair) { return pair.first == c; });
    if (found == std::end(kEscapes)) {
      result += c;
    } else {
      result += {'\\', found->second};
    }
  }
  return result;
}

/// The token that escape() made this of; nothing if it made none.
std::optional<std::string> unescape(std::string_view text) {
  std::string result;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const bool escaped = text[i] == '\\';
    if (escaped && ++i == text.size()) return std::nullopt;
    const auto* found = std::find_if(
        std::begin(kEscapes), std::end(kEscapes),
        [&](const auto& pair) { return (escaped ? pair.second : pair.first) == text[i]; });
    if (escaped != (found != std::end(kEscapes))) return std::nullopt;
    result += escaped ? found->first : text[i];
  }
  return result;
}

/// Hands out the lines of a text and throws errors that say which one it was.
class LineReader {
 public:
  LineReader(std::string_view text, const std::string& source) : rest_(text), source_(source) {}

  bool at_end() const { return rest_.empty(); }
  /// The next line, which must be there and end with a line feed.
  std::string_view next(std::string_view expected) {
    ++number_;
    const std::size_t length = rest_.find('\n');
    if (length == std::string_view::npos) {
      fail(rest_.empty() ? detail::format("expected {}, got the end", expected)
                         : "no line feed at its end");
    }
    const std::string_view line = rest_.substr(0, length);
    rest_.remove_prefix(length + 1);
    return line;
  }
  /// Throws unless the next line is this one.
  void expect(std::string_view wanted) {
    const std::string expected =
        wanted.empty() ? std::string("an empty line") : detail::format("'{}'", wanted);
    const std::string_view line = next(expected);
    if (line != wanted) fail(detail::format("expected {}, got '{}'", expected, line));
  }
  [[noreturn]] void fail(const std::string& what) const {
    detail::fail<FileError>("cannot read '{}': line {}: {}", source_, number_, what);
  }

 private:
  std::string_view rest_;
  const std::string& source_;
  std::int64_t number_ = 0;
};

}  // namespace

Vocab::Vocab(const std::vector<std::string>& text, const VocabOptions& options)
    : has_unknown_(!options.unknown_token.empty()) {
  if (options.min_freq < 1) {
    detail::fail<ValueError>("Vocab: min_freq must be 1 or more, got {}", options.min_freq);
  }
  const auto add_checked = [this](const std::string& token) {
    if (token.empty()) throw ValueError("Vocab: a token is empty");
    if (!is_utf8(token)) {
      detail::fail<ValueError>("Vocab: the token '{}' is not UTF-8", token);
    }
    return add(token);
  };

  if (has_unknown_) add_checked(options.unknown_token);
  for (const std::string& token : options.reserved_tokens) {
    if (!add_checked(token)) {
      detail::fail<ValueError>("Vocab: the token '{}' is reserved twice", token);
    }
  }

  std::unordered_map<std::string_view, std::int64_t> frequencies;
  for (const std::string& token : text) ++frequencies[token];
  std::vector<std::pair<std::string_view, std::int64_t>> ordered(frequencies.begin(),
                                                                 frequencies.end());
  std::sort(ordered.begin(), ordered.end(), [](const auto& a, const auto& b) {
    return a.second != b.second ? a.second > b.second : a.first < b.first;
  });
  for (const auto& [token, frequency] : ordered) {
    if (frequency >= options.min_freq) add_checked(std::string(token));
  }
}

/// Gives the next index to a token; false if it has one.
bool Vocab::add(const std::string& token) {
  if (!indices_.emplace(token, size()).second) return false;
  tokens_.push_back(token);
  return true;
}

std::int64_t Vocab::index(const std::string& token) const {
  const auto found = indices_.find(token);
  if (found != indices_.end()) return found->second;
  if (!has_unknown_) detail::fail<ValueError>("Vocab: unknown token '{}'", token);
  return 0;
}

const std::string& Vocab::token(std::int64_t index) const {
  if (index < 0 || index >= size()) {
    detail::fail<IndexError>("Vocab: index {} is out of range for {} tokens", index, size());
  }
  return tokens_[static_cast<std::size_t>(index)];
}

std::vector<std::int64_t> Vocab::encode(const std::vector<std::string>& tokens) const {
  std::vector<std::int64_t> indices;
  indices.reserve(tokens.size());
  for (const std::string& token : tokens) indices.push_back(index(token));
  return indices;
}

Tensor Vocab::encode_tensor(const std::vector<std::string>& tokens) const {
  return from_vector(encode(tokens));
}

std::vector<std::string> Vocab::decode(const std::vector<std::int64_t>& indices) const {
  std::vector<std::string> tokens;
  tokens.reserve(indices.size());
  for (std::int64_t index : indices) tokens.push_back(token(index));
  return tokens;
}

std::vector<std::string> Vocab::decode(const Tensor& indices) const {
  return decode(indices.to_vector<std::int64_t>());
}

std::string Vocab::to_text() const {
  std::string text = detail::format("unroll vocab 1\nunknown {}\ntokens {}\n\n",
                                    has_unknown_ ? "0" : "none", size());
  for (const std::string& token : tokens_) text += escape(token) + '\n';
  return text;
}

Vocab Vocab::from_text(std::string_view text, const std::string& source) {
  Vocab vocab;
  LineReader reader(text, source);
  reader.expect("unroll vocab 1");

  const std::string_view unknown = reader.next("'unknown 0' or 'unknown none'");
  vocab.has_unknown_ = unknown == "unknown 0";
  if (!vocab.has_unknown_ && unknown != "unknown none") {
    reader.fail(detail::format("expected 'unknown 0' or 'unknown none', got '{}'", unknown));
  }

  const std::string_view tokens = reader.next("'tokens N'");
  constexpr std::string_view kPrefix = "tokens ";
  const char* end = tokens.data() + tokens.size();
  std::int64_t size = -1;
  if (tokens.starts_with(kPrefix)) {
    const auto [parsed, error] = std::from_chars(tokens.data() + kPrefix.size(), end, size);
    if (error != std::errc() || parsed != end) size = -1;
  }
  // One way to write a number: "05" and "-0" are none.
  if (size < (vocab.has_unknown_ ? 1 : 0) || tokens != detail::format("tokens {}", size)) {
    reader.fail(detail::format("expected 'tokens N', got '{}'", tokens));
  }

  reader.expect("");
  for (std::int64_t i = 0; i < size; ++i) {
    const std::string_view line = reader.next(detail::format("token {} of {}", i + 1, size));
    const std::optional<std::string> token = unescape(line);
    if (line.empty()) reader.fail("a token is empty");
    if (!is_utf8(line)) reader.fail("not UTF-8");
    if (!token) reader.fail(detail::format("'{}' is no escaped token", line));
    if (!vocab.add(*token)) reader.fail(detail::format("the token '{}' is there twice", line));
  }
  if (!reader.at_end()) {
    reader.next("");
    reader.fail(detail::format("expected the end after {} tokens", size));
  }
  return vocab;
}

void Vocab::save(const std::string& path) const { write_file_atomically(path, to_text()); }

Vocab Vocab::load(const std::string& path) { return from_text(read_file(path), path); }

}  // namespace unroll
