#include "data/labelled.h"

#include <algorithm>

#include "data/text.h"
#include "framework/check.h"
#include "framework/format.h"

namespace unroll {

std::vector<LabelledLine> parse_labelled_lines(std::string_view text, const std::string& source) {
  std::vector<LabelledLine> result;
  std::int64_t number = 0;
  for (const std::string& line : split_lines(text)) {
    ++number;
    const auto where = [&] { return detail::format("{}: line {}:", source, number); };
    std::vector<std::string> words;
    try {
      words = split_words(line);
    } catch (const ValueError& error) {
      detail::fail<FileError>("{} {}", where(), error.what());
    }
    if (words.empty()) continue;
    const std::string& label = words[0];
    const std::size_t end = std::min(line.find_first_of(" \t"), line.size());
    if (line.substr(0, end) != label)
      throw FileError(where() + " does not begin with a label and a space or tab");
    if (words.size() == 1)
      detail::fail<FileError>("{} has a label, '{}', but no text", where(), label);
    const std::size_t first = line.find(words[1], end);
    const std::size_t last = line.rfind(words.back()) + words.back().size();
    result.push_back({label, line.substr(first, last - first), number});
  }
  return result;
}

std::vector<LabelledLine> read_labelled_lines(const std::string& path) {
  std::vector<LabelledLine> lines = parse_labelled_lines(read_text(path), path);
  if (lines.empty()) detail::fail<FileError>("{} has no line with a label and a text", path);
  return lines;
}

}  // namespace unroll
