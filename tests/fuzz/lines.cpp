// Any text as labelled lines, with tabs or spaces between label and text.

#include "data/labelled.h"
#include "data/text.h"
#include "framework/check.h"
#include "tests/fuzz/fuzz.h"

using namespace unroll;
using namespace unroll::fuzz;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view text = text_of(data, size);
  try {
    const std::vector<std::string> lines = split_lines(text);
    for (const LabelledLine& line : parse_labelled_lines(text, "fuzz")) {
      const auto number = static_cast<std::size_t>(line.line);
      require(number >= 1 && number <= lines.size(), "there is no such line");
      require(lines[number - 1].starts_with(line.label), "another label");
      require(lines[number - 1].find(line.text) != std::string::npos, "another text");
      require(!split_words(line.text).empty(), "no text");
      require(line.label.find_first_of(" \t") == std::string::npos, "a label of two words");
    }
  } catch (const FileError& error) {
    require(std::string(error.what()).starts_with("fuzz: line "), error.what());
  }
  return 0;
}
