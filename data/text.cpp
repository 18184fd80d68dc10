#include "data/text.h"

#include <locale.h>
#include <utf8.h>
#include <wctype.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <iterator>
#include <utility>

#include "framework/check.h"
#include "framework/file.h"
#include "framework/format.h"

namespace unroll {
namespace {

/// Where the first ill-formed sequence of bytes begins, or the end.
std::size_t find_invalid(std::string_view text) {
  const char* begin = text.data();
  return static_cast<std::size_t>(utf8::find_invalid(begin, begin + text.size()) - begin);
}

std::string describe_invalid(std::string_view text, std::size_t offset) {
  return detail::format("invalid UTF-8 at byte {} (0x{:02x})", offset,
                        static_cast<unsigned char>(text[offset]));
}

void require_utf8(const char* op, std::string_view text) {
  const std::size_t invalid = find_invalid(text);
  if (invalid != text.size()) {
    detail::fail<ValueError>("{}: {}", op, describe_invalid(text, invalid));
  }
}

bool is_letter(char c) { return ('a' <= c && c <= 'z') || ('A' <= c && c <= 'Z'); }
char to_lower(char c) { return 'A' <= c && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c; }

/// The property White_Space (Unicode 15, PropList.txt).
bool is_white_space(std::uint32_t c) {
  return (0x09 <= c && c <= 0x0d) || c == 0x20 || c == 0x85 || c == 0xa0 || c == 0x1680 ||
         (0x2000 <= c && c <= 0x200a) || c == 0x2028 || c == 0x2029 || c == 0x202f || c == 0x205f ||
         c == 0x3000;
}

bool is_digit(std::uint32_t c) { return '0' <= c && c <= '9'; }
bool is_punctuation(std::uint32_t c) {
  constexpr std::u32string_view kMarks =
      U",.;:!?\"()[]{}\u00a1\u00bf\u00ab\u00bb\u2026\u201c\u201d\u201e"
      U"\u3001\u3002\u3008\u3009\u300a\u300b\u300c\u300d\uff01\uff08\uff09\uff0c\uff1a\uff1b\uff1f";
  return kMarks.find(static_cast<char32_t>(c)) != kMarks.npos;
}

/// Calls f(code_point, its bytes) from the first character to the last.
template <class F>
void for_each_character(const char* op, std::string_view text, F f) {
  require_utf8(op, text);
  const char* end = text.data() + text.size();
  for (const char* next = text.data(); next != end;) {
    const char* begin = next;
    const std::uint32_t code_point = utf8::unchecked::next(next);
    f(code_point, std::string_view(begin, static_cast<std::size_t>(next - begin)));
  }
}

}  // namespace

std::string read_text(const std::string& path) {
  const std::string bytes = read_file(path);
  const std::size_t invalid = find_invalid(bytes);
  if (invalid != bytes.size()) {
    const auto line =
        1 + std::count(bytes.begin(), bytes.begin() + static_cast<std::ptrdiff_t>(invalid), '\n');
    detail::fail<FileError>("cannot read '{}': line {}: {}", path, line,
                            describe_invalid(bytes, invalid));
  }

  std::string text;
  text.reserve(bytes.size());
  for (std::size_t i = bytes.starts_with("\xef\xbb\xbf") ? 3 : 0; i < bytes.size(); ++i) {
    const bool ends_line = bytes[i] == '\r' && i + 1 < bytes.size() && bytes[i + 1] == '\n';
    if (!ends_line) text += bytes[i];
  }
  return text;
}

std::vector<std::string> read_lines(const std::string& path) {
  return split_lines(read_text(path));
}

std::vector<std::string> split_lines(std::string_view text) {
  std::vector<std::string> lines;
  while (!text.empty()) {
    const std::size_t length = std::min(text.find('\n'), text.size());
    std::string_view line = text.substr(0, length);
    if (length != text.size() && line.ends_with('\r')) line.remove_suffix(1);
    lines.emplace_back(line);
    text.remove_prefix(std::min(length + 1, text.size()));
  }
  return lines;
}

std::string letters_only(std::string_view text) {
  std::string result;
  bool gap = false;
  for (char c : text) {
    if (!is_letter(c)) {
      gap = true;
      continue;
    }
    if (gap && !result.empty()) result += ' ';
    gap = false;
    result += to_lower(c);
  }
  return result;
}

std::vector<std::string> split_words(std::string_view text) {
  std::vector<std::string> words;
  bool inside = false;
  for_each_character("split_words", text, [&](std::uint32_t code_point, std::string_view bytes) {
    const bool was_inside = std::exchange(inside, !is_white_space(code_point));
    if (!inside) return;
    if (!was_inside) words.emplace_back();
    words.back() += bytes;
  });
  return words;
}

std::string lower_case(std::string_view text) {
  // The C library knows all letters of Unicode; the program's own locale does not matter.
  static const locale_t locale = ::newlocale(LC_CTYPE_MASK, "C.UTF-8", nullptr);
  if (locale == nullptr) throw Error("lower_case: this system has no locale C.UTF-8");
  std::string result;
  for_each_character("lower_case", text, [&](std::uint32_t code_point, std::string_view) {
    const wint_t lower = ::towlower_l(static_cast<wint_t>(code_point), locale);
    utf8::unchecked::append(static_cast<std::uint32_t>(lower), std::back_inserter(result));
  });
  return result;
}

std::vector<std::string> split_punctuation(std::string_view text) {
  require_utf8("split_punctuation", text);
  std::vector<std::string> tokens;
  for (const std::string& word : split_words(text)) {
    const std::u32string characters = utf8::utf8to32(word);
    const auto digit = [&](std::size_t i) {
      return i < characters.size() && is_digit(characters[i]);
    };
    bool inside = false;
    for (std::size_t i = 0; i < characters.size(); ++i) {
      const bool mark = is_punctuation(characters[i]) && !(digit(i - 1) && digit(i + 1));
      if (mark || !inside) tokens.emplace_back();
      utf8::unchecked::append(characters[i], std::back_inserter(tokens.back()));
      inside = !mark;
    }
  }
  return tokens;
}

std::vector<std::string> split_characters(std::string_view text) {
  std::vector<std::string> characters;
  for_each_character("split_characters", text, [&](std::uint32_t, std::string_view bytes) {
    characters.emplace_back(bytes);
  });
  return characters;
}

std::optional<double> parse_number(std::string_view text) {
  const std::size_t first = std::min(text.find_first_not_of(" \t"), text.size());
  text = text.substr(first, text.find_last_not_of(" \t") + 1 - first);
  if (text.size() > 1 && text[0] == '+' && text[1] != '-') text.remove_prefix(1);
  double value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size() || !std::isfinite(value))
    return std::nullopt;
  return value;
}

std::string join(const std::vector<std::string>& parts, std::string_view separator) {
  std::string result;
  for (std::size_t i = 0; i < parts.size(); ++i) {
    if (i > 0) result += separator;
    result += parts[i];
  }
  return result;
}

}  // namespace unroll
