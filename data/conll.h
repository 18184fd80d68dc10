#pragma once
/// Files in the columns of the CoNLL shared tasks: a token and its tags on each line, and an empty
/// line behind each sentence.

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "data/metrics.h"

namespace unroll {

/// A sentence as three lists of one length.
struct TaggedSentence {
  std::vector<std::string> tokens;  ///< the words
  std::vector<std::string> tags;    ///< the tag of each
  std::vector<std::int64_t> lines;  ///< where each token stands in its file, from 1 on
};

/// Which columns are read.
struct ConllOptions {
  std::int64_t token_column = 1;  ///< from 1 on; negative: from the last one on, which is -1
  std::int64_t tag_column = -1;   ///< likewise
  /// As Universal Dependencies write (CoNLL-U): lines that begin with '#' are comments, and those
  /// whose first column is a range or a decimal ("1-2", "8.1") are no tokens of their own.
  bool conllu = false;
};

/// The sentences of a text. Columns stand between tabs where a line has one, and between white
/// space elsewhere. Lines that begin with -DOCSTART- are skipped. Throws FileError, naming `source`
/// and the line, for one that has less columns than it takes, for one with nothing in such a column
/// and for one that is not UTF-8; ValueError for a column 0.
std::vector<TaggedSentence> parse_conll(std::string_view text, const std::string& source,
                                        const ConllOptions& options = {});

/// The same of a file. Throws FileError as read_text(), and for a file without any.
std::vector<TaggedSentence> read_conll(const std::string& path, const ConllOptions& options = {});

/// Puts the tags of all sentences into another scheme, by the entities that find_entities() sees.
/// Returns a line for each tag that breaks the rules of `from`, such as "a.conll: line 7: I-PER,
/// but BIO has B-PER there". Throws FileError, naming `source` and the line, for what is no tag at
/// all.
std::vector<std::string> convert_scheme(std::vector<TaggedSentence>& sentences,
                                        const std::string& source, TagScheme from, TagScheme to);

}  // namespace unroll
