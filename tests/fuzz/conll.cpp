// Any text in columns: refused with an error that names source and line, or read as tokens and tags
// that stand in the lines which they name.

#include "data/conll.h"

#include "data/text.h"
#include "framework/check.h"
#include "tests/fuzz/fuzz.h"

using namespace unroll;
using namespace unroll::fuzz;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  Bytes bytes(data, size < 2 ? size : 2);
  ConllOptions options;
  const std::int64_t columns[] = {1, 2, 4, -1, -2, 10};
  options.token_column = columns[bytes.below(6)];
  const std::int64_t second = bytes.below(256);
  options.tag_column = columns[second % 6];
  options.conllu = second >= 128;
  const std::string_view text = text_of(data, size).substr(size < 2 ? size : 2);
  try {
    const std::vector<std::string> lines = split_lines(text);
    for (const TaggedSentence& sentence : parse_conll(text, "fuzz", options)) {
      const std::size_t n = sentence.tokens.size();
      require(n > 0 && sentence.tags.size() == n && sentence.lines.size() == n, "lists differ");
      for (std::size_t i = 0; i < n; ++i) {
        const auto number = static_cast<std::size_t>(sentence.lines[i]);
        require(number >= 1 && number <= lines.size(), "there is no such line");
        for (const std::string& part : {sentence.tokens[i], sentence.tags[i]}) {
          require(!part.empty(), "an empty token or tag");
          require(lines[number - 1].find(part) != std::string::npos, "not in its line");
        }
      }
    }
  } catch (const FileError& error) {
    require(std::string(error.what()).starts_with("fuzz: line "), error.what());
  }
  return 0;
}
