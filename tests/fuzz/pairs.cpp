// Any text as pairs of sentences: one file with tabs or, if the input has a zero byte, two files
// that are cut there. Refused with an error that names a file, or read as pairs that stand in its
// lines.

#include "data/pairs.h"

#include "data/text.h"
#include "framework/check.h"
#include "tests/fuzz/fuzz.h"

using namespace unroll;
using namespace unroll::fuzz;

namespace {

/// Each pair is of some line, and later ones are of later lines.
void check(const std::vector<TextPair>& pairs, const std::vector<std::string>& sources,
           const std::vector<std::string>& targets, bool tabs) {
  std::size_t i = 0;
  const auto is_line = [&](const TextPair& pair) {
    if (!tabs) return sources[i] == pair.source && targets[i] == pair.target;
    const std::string both = pair.source + '\t' + pair.target;
    return sources[i] == both || sources[i].starts_with(both + '\t');
  };
  for (const TextPair& pair : pairs) {
    while (i < sources.size() && !is_line(pair)) {
      require(split_words(sources[i]).empty(), "a line was left out");
      ++i;
    }
    require(i++ < sources.size(), "there is no such line");
    require(!split_words(pair.source).empty(), "no source");
    require(!split_words(pair.target).empty(), "no target");
    require(!tabs || (pair.source + pair.target).find('\t') == std::string::npos, "a tab");
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static const MemoryFile first(".source"), second(".target");
  const std::string_view text = text_of(data, size);
  const std::size_t cut = text.find('\0');
  try {
    first.write(text.substr(0, cut));
    if (cut == text.npos) {
      const std::vector<TextPair> pairs = read_pairs(first.path());
      check(pairs, read_lines(first.path()), {}, true);
    } else {
      second.write(text.substr(cut + 1));
      const std::vector<TextPair> pairs = read_pairs(first.path(), second.path());
      check(pairs, read_lines(first.path()), read_lines(second.path()), false);
    }
  } catch (const FileError& error) {
    require(std::string(error.what()).find(first.path()) != std::string::npos ||
                std::string(error.what()).find(second.path()) != std::string::npos,
            error.what());
  }
  return 0;
}
