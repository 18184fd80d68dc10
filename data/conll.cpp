#include "data/conll.h"

#include <algorithm>
#include <cctype>
#include <cstddef>
#include <utility>

#include "data/text.h"
#include "framework/check.h"
#include "framework/format.h"

namespace unroll {
namespace {

std::vector<std::string> split_tabs(std::string_view line) {
  std::vector<std::string> columns;
  for (std::size_t begin = 0; begin <= line.size();) {
    const std::size_t end = std::min(line.find('\t', begin), line.size());
    columns.emplace_back(line.substr(begin, end - begin));
    begin = end + 1;
  }
  return columns;
}

/// Of CoNLL-U: 1-2 or 8.1, which stand beside the tokens themselves.
bool is_range(const std::string& id) {
  const auto other =
      std::find_if(id.begin(), id.end(), [](unsigned char c) { return !std::isdigit(c); });
  return other != id.begin() && other != id.end() && (*other == '-' || *other == '.');
}

}  // namespace

std::vector<TaggedSentence> parse_conll(std::string_view text, const std::string& source,
                                        const ConllOptions& options) {
  if (options.token_column == 0 || options.tag_column == 0)
    throw ValueError("parse_conll: columns count from 1, or from -1 backwards");
  std::vector<TaggedSentence> sentences;
  TaggedSentence sentence;
  const auto end_sentence = [&] {
    if (!sentence.tokens.empty()) sentences.push_back(std::exchange(sentence, {}));
  };
  std::int64_t number = 0;
  for (const std::string& line : split_lines(text)) {
    ++number;
    const auto fail = [&](const std::string& what) {
      detail::fail<FileError>("{}: line {}: {}", source, number, what);
    };
    std::vector<std::string> columns;
    try {
      columns = split_words(line);
    } catch (const ValueError& error) {
      fail(error.what());
    }
    if (columns.empty()) {
      end_sentence();
      continue;
    }
    if (columns[0] == "-DOCSTART-" || (options.conllu && line.starts_with('#'))) continue;
    if (line.find('\t') != std::string::npos) columns = split_tabs(line);
    if (options.conllu && is_range(columns[0])) continue;
    const auto size = static_cast<std::int64_t>(columns.size());
    const auto index = [&](std::int64_t column) { return column > 0 ? column - 1 : size + column; };
    const std::int64_t token = index(options.token_column), tag = index(options.tag_column);
    if (std::min(token, tag) < 0 || std::max(token, tag) >= size || token == tag)
      fail(detail::format("has {} {}, but the token is in column {} and the tag in column {}", size,
                          size == 1 ? "column" : "columns", options.token_column,
                          options.tag_column));
    for (const auto& [column, values] :
         {std::pair(token, &sentence.tokens), std::pair(tag, &sentence.tags)}) {
      values->push_back(columns[static_cast<std::size_t>(column)]);
      if (split_words(values->back()).empty())
        fail(detail::format("column {} is empty", column + 1));
    }
    sentence.lines.push_back(number);
  }
  end_sentence();
  return sentences;
}

std::vector<TaggedSentence> read_conll(const std::string& path, const ConllOptions& options) {
  std::vector<TaggedSentence> sentences = parse_conll(read_text(path), path, options);
  if (sentences.empty()) throw FileError(path + " has no sentence");
  return sentences;
}

std::vector<std::string> convert_scheme(std::vector<TaggedSentence>& sentences,
                                        const std::string& source, TagScheme from, TagScheme to) {
  std::vector<std::string> broken;
  for (TaggedSentence& sentence : sentences) {
    const auto where = [&](std::size_t i) {
      return detail::format("{}: line {}: ", source, sentence.lines[i]);
    };
    for (std::size_t i = 0; i < sentence.tags.size(); ++i) try {
        find_entities({sentence.tags[i]});
      } catch (const ValueError&) {
        detail::fail<FileError>(
            "{}'{}' is no tag of entities: those are O, or B, I, M, E or S with a type behind '-'",
            where(i), sentence.tags[i]);
      }
    const std::vector<Entity> entities = find_entities(sentence.tags);
    const auto size = static_cast<std::int64_t>(sentence.tags.size());
    const std::vector<std::string> right = entity_tags(entities, size, from);
    for (std::size_t i = 0; i < right.size(); ++i)
      if (sentence.tags[i] != right[i])
        broken.push_back(detail::format("{}{}, but {} has {} there", where(i), sentence.tags[i],
                                        scheme_name(from), right[i]));
    sentence.tags = entity_tags(entities, size, to);
  }
  return broken;
}

}  // namespace unroll
