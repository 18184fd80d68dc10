#pragma once
/// Vocab: the numbers of tokens.

#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "framework/tensor.h"

namespace unroll {

/// Which tokens get an index.
struct VocabOptions {
  std::int64_t min_freq = 1;  ///< a token that is seen less often than this gets no index
  /// Get the first indices (after the unknown token), seen or not: padding, begin, end.
  std::vector<std::string> reserved_tokens{};
  /// Stands at index 0 for all tokens without an index. Empty: there is none, and a token without
  /// an index is an error.
  std::string unknown_token = "<unk>";
};

/// Tokens and their indices: the unknown token, the reserved ones in their order, then what the
/// text holds, the most frequent first. Tokens that are seen equally often stand in the order of
/// their bytes, which for UTF-8 is the order of their code points, so that the same text gives the
/// same indices everywhere. Immutable once made: threads may share one.
class Vocab {
 public:
  /// Without a token.
  Vocab() = default;
  /// Of all tokens of a text, in any order, repeated as often as they are seen. Throws ValueError
  /// for a token that is empty or not UTF-8, for one that is reserved twice, and for min_freq < 1.
  explicit Vocab(const std::vector<std::string>& text, const VocabOptions& options = {});

  /// Number of tokens.
  std::int64_t size() const { return static_cast<std::int64_t>(tokens_.size()); }
  /// All tokens by index.
  const std::vector<std::string>& tokens() const { return tokens_; }
  /// Whether a token has an index of its own.
  bool contains(const std::string& token) const { return indices_.count(token) != 0; }
  /// Whether index 0 stands for unknown tokens.
  bool has_unknown() const { return has_unknown_; }

  /// The index of a token, or that of the unknown token. Throws ValueError, naming the token, if
  /// there is none.
  std::int64_t index(const std::string& token) const;
  /// The token of an index. Throws IndexError.
  const std::string& token(std::int64_t index) const;

  /// The index of each token.
  std::vector<std::int64_t> encode(const std::vector<std::string>& tokens) const;
  /// The same as an i64 Tensor [N].
  Tensor encode_tensor(const std::vector<std::string>& tokens) const;
  /// The token of each index.
  std::vector<std::string> decode(const std::vector<std::int64_t>& indices) const;
  /// The same from an i64 Tensor of any shape, in row-major order. Throws DTypeError.
  std::vector<std::string> decode(const Tensor& indices) const;

  /// The vocabulary as text, for a file or for the metadata of a saved model. Four header lines,
  /// then one line per token in the order of the indices:
  ///
  ///     unroll vocab 1
  ///     unknown 0           (or: unknown none)
  ///     tokens 28
  ///     (an empty line)
  ///     <unk>
  ///     e
  ///     t
  ///
  /// In a token, `\s`, `\t`, `\n`, `\r` and `\\` stand for a space, a tab, a line feed, a carriage
  /// return and a backslash.
  std::string to_text() const;
  /// Reads what to_text() wrote and takes nothing else. Throws FileError, naming `source` and the
  /// line.
  static Vocab from_text(std::string_view text, const std::string& source = "vocabulary");

  /// to_text() to a file and back. `path` holds either the old or the whole new file. Throw
  /// FileError.
  void save(const std::string& path) const;
  /// Reads a file that save() wrote. Throws FileError.
  static Vocab load(const std::string& path);

 private:
  bool add(const std::string& token);

  bool has_unknown_ = false;
  std::vector<std::string> tokens_;
  std::unordered_map<std::string, std::int64_t> indices_;
};

}  // namespace unroll
