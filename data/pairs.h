#pragma once
/// Pairs of sentences: what a translator learns from.

#include <string>
#include <vector>

namespace unroll {

/// A text and its translation.
struct TextPair {
  std::string source;  ///< what is read
  std::string target;  ///< what is made of it
  /// Whether both are the same.
  bool operator==(const TextPair&) const = default;
};

/// Pairs from one file: a line each, source, tab, target; what stands behind a second tab (a
/// licence, a number) is left out, and so are empty lines. Throws FileError as read_text, and,
/// naming path and line, for a line without a tab or with nothing on one side of it.
std::vector<TextPair> read_pairs(const std::string& path);

/// Pairs from two files with as many lines: line i of one belongs to line i of the other. Lines
/// that are empty in both are left out. Throws FileError as read_text, for different numbers of
/// lines, and, naming path and line, for one that is empty in one file alone.
std::vector<TextPair> read_pairs(const std::string& source_path, const std::string& target_path);

}  // namespace unroll
