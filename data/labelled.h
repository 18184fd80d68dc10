#pragma once
/// Files with a label and a text on each line, as classifiers read them.

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace unroll {

/// "positive<tab>the food was good" or "positive the food was good".
struct LabelledLine {
  std::string label;      ///< the first word
  std::string text;       ///< the rest
  std::int64_t line = 0;  ///< its number, from 1 on
};

/// The lines of a text. The label ends at the first space or tab; white space around the text is
/// dropped; lines of white space alone are skipped. Throws FileError, naming `source` and the line,
/// for a line with a label and no text, for one that begins with white space, and for one that is
/// not UTF-8.
std::vector<LabelledLine> parse_labelled_lines(std::string_view text, const std::string& source);

/// The same of a file. Throws FileError as read_text(), and for a file without any.
std::vector<LabelledLine> read_labelled_lines(const std::string& path);

}  // namespace unroll
