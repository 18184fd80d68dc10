// Any bytes as text: what RFC 3629 calls UTF-8 is taken and comes back whole; all else is refused
// with the offset of its first wrong byte.

#include <vector>

#include "data/text.h"
#include "framework/check.h"
#include "tests/fuzz/fuzz.h"

using namespace unroll;
using namespace unroll::fuzz;

namespace {

/// Where the first sequence begins that is not UTF-8, or the size: from the table of RFC 3629,
/// section 4.
std::size_t valid_prefix(std::string_view text) {
  std::size_t i = 0;
  while (i < text.size()) {
    const auto byte = [&](std::size_t k) {
      return i + k < text.size() ? static_cast<unsigned char>(text[i + k]) : 0u;
    };
    const auto tail = [&](std::size_t k) { return byte(k) >= 0x80 && byte(k) <= 0xbf; };
    const auto in = [&](std::size_t k, unsigned low, unsigned high) {
      return byte(k) >= low && byte(k) <= high;
    };
    const unsigned b = byte(0);
    std::size_t length = 0;
    if (b <= 0x7f)
      length = 1;
    else if (b >= 0xc2 && b <= 0xdf)
      length = tail(1) ? 2 : 0;
    else if (b >= 0xe0 && b <= 0xef)
      length = in(1, b == 0xe0 ? 0xa0 : 0x80, b == 0xed ? 0x9f : 0xbf) && tail(2) ? 3 : 0;
    else if (b >= 0xf0 && b <= 0xf4)
      length =
          in(1, b == 0xf0 ? 0x90 : 0x80, b == 0xf4 ? 0x8f : 0xbf) && tail(2) && tail(3) ? 4 : 0;
    if (length == 0) return i;
    i += length;
  }
  return i;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view text = text_of(data, size);
  const std::size_t valid = valid_prefix(text);
  const std::string offset = std::to_string(valid);
  try {
    const std::vector<std::string> characters = split_characters(text);
    require(valid == text.size(), "split_characters took what is not UTF-8");
    require(join(characters) == text, "the characters are another text");
  } catch (const ValueError& error) {
    require(valid < text.size(), std::string("refused: ") + error.what());
    require(std::string(error.what()).find(offset) != std::string::npos,
            error.what() + (" instead of " + offset));
  }
  try {
    const std::vector<std::string> words = split_words(text);
    require(valid == text.size(), "split_words took what is not UTF-8");
    for (const std::string& word : words)
      require(!word.empty() && split_words(word) == std::vector{word}, "a word is none");
  } catch (const ValueError& error) {
    require(valid < text.size(), std::string("refused: ") + error.what());
  }
  for (const std::string& line : split_lines(text))
    require(line.find('\n') == std::string::npos, "a line has two");
  const std::string letters = letters_only(text);
  require(letters_only(letters) == letters, "letters_only changes its own result");

  static const MemoryFile file;
  file.write(text);
  try {
    const std::string read = read_text(file.path());
    require(valid_prefix(read) == read.size(), "read_text gives what is not UTF-8");
    std::string expected;
    const std::size_t start = text.starts_with("\xef\xbb\xbf") ? 3 : 0;
    for (std::size_t i = start; i < text.size(); ++i)
      if (text.substr(i, 2) != "\r\n") expected += text[i];
    require(read == expected, "read_text gives another text");
  } catch (const FileError& error) {
    require(valid < text.size(), std::string("refused: ") + error.what());
    require(std::string(error.what()).find(file.path()) != std::string::npos, error.what());
  }
  return 0;
}
