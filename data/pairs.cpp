#include "data/pairs.h"

#include <algorithm>
#include <cstddef>
#include <map>
#include <utility>

#include "data/text.h"
#include "framework/check.h"
#include "framework/format.h"

namespace unroll {
namespace {

bool blank(const std::string& text) { return split_words(text).empty(); }

[[noreturn]] void fail(const std::string& path, std::size_t line, const std::string& what) {
  detail::fail<FileError>("cannot read '{}': line {}: {}", path, line + 1, what);
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
    detail::fail<FileError>(
        "'{}' has {} lines, but '{}' has {}: line i of one belongs to line i of the other",
        source_path, sources.size(), target_path, targets.size());
  std::vector<TextPair> pairs;
  for (std::size_t i = 0; i < sources.size(); ++i) {
    const bool no_source = blank(sources[i]), no_target = blank(targets[i]);
    if (no_source && no_target) continue;
    if (no_source)
      fail(source_path, i, detail::format("it is empty, but not in '{}'", target_path));
    if (no_target)
      fail(target_path, i, detail::format("it is empty, but not in '{}'", source_path));
    pairs.push_back({sources[i], targets[i]});
  }
  return pairs;
}

std::vector<TranslatedSentence> group_by_source(
    const std::vector<TextPair>& pairs,
    const std::function<std::vector<std::string>(const std::string&)>& tokenize) {
  std::vector<TranslatedSentence> sentences;
  std::map<std::vector<std::string>, std::size_t> places;
  for (const TextPair& pair : pairs) {
    std::vector<std::string> source = tokenize(pair.source);
    const auto [place, is_new] = places.emplace(source, sentences.size());
    if (is_new) sentences.push_back({std::move(source), {}});
    sentences[place->second].targets.push_back(tokenize(pair.target));
  }
  return sentences;
}

WordDictionary::WordDictionary(const std::vector<TranslatedSentence>& sentences) {
  std::unordered_map<std::string, double> sources, targets;
  std::unordered_map<std::string, std::unordered_map<std::string, double>> both;
  for (const TranslatedSentence& sentence : sentences)
    for (const std::vector<std::string>& target : sentence.targets) {
      for (const std::string& t : target) ++targets[t];
      for (const std::string& s : sentence.source) {
        ++sources[s];
        for (const std::string& t : target) ++both[s][t];
      }
    }
  for (const auto& [s, beside] : both) {
    std::pair<double, std::string> best;
    for (const auto& [t, count] : beside)
      best = std::max(best, {2 * count / (sources[s] + targets[t]), t});
    words_[s] = best.second;
  }
}

std::vector<std::string> WordDictionary::translate(const std::vector<std::string>& source) const {
  std::vector<std::string> target;
  for (const std::string& s : source)
    if (const auto found = words_.find(s); found != words_.end()) target.push_back(found->second);
  return target;
}

}  // namespace unroll
