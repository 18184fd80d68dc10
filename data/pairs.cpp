#include "data/pairs.h"

#include <fmt/format.h>

#include <cstddef>

#include "data/text.h"
#include "framework/check.h"

namespace unroll {
namespace {

bool blank(const std::string& text) { return split_words(text).empty(); }

[[noreturn]] void fail(const std::string& path, std::size_t line, const std::string& what) {
  throw FileError(fmt::format("cannot read '{}': line {}: {}", path, line + 1, what));
}

}  // namespace

std::vector<TextPair> read_pairs(const std::string& path) {
  std::vector<TextPair> pairs;
  const std::vector<std::string> lines = read_lines(path);
  for (std::size_t i = 0; i < lines.size(); ++i) {
    const std::string& line = lines[i];
    if (blank(line)) continue;
    const std::size_t tab = line.find('\t');
    if (tab == std::string::npos) fail(path, i, "there is no tab between source and target");
    const std::size_t end = line.find('\t', tab + 1);
    TextPair pair{line.substr(0, tab), line.substr(tab + 1, end - tab - 1)};
    if (blank(pair.source)) fail(path, i, "there is nothing before the tab");
    if (blank(pair.target)) fail(path, i, "there is nothing behind the tab");
    pairs.push_back(std::move(pair));
  }
  return pairs;
}

std::vector<TextPair> read_pairs(const std::string& source_path, const std::string& target_path) {
  const std::vector<std::string> sources = read_lines(source_path),
                                 targets = read_lines(target_path);
  if (sources.size() != targets.size())
    throw FileError(
        fmt::format("'{}' has {} lines, but '{}' has {}: line i of one belongs to line "
                    "i of the other",
                    source_path, sources.size(), target_path, targets.size()));
  std::vector<TextPair> pairs;
  for (std::size_t i = 0; i < sources.size(); ++i) {
    const bool no_source = blank(sources[i]), no_target = blank(targets[i]);
    if (no_source && no_target) continue;
    if (no_source) fail(source_path, i, fmt::format("it is empty, but not in '{}'", target_path));
    if (no_target) fail(target_path, i, fmt::format("it is empty, but not in '{}'", source_path));
    pairs.push_back({sources[i], targets[i]});
  }
  return pairs;
}

}  // namespace unroll
