#pragma once
/// Lines of a stream that may pause, never end, or hold anything.

#include <cstddef>
#include <string>

#include "examples/common/interrupt.h"

namespace examples {

/// Reads a file descriptor line by line, in bounded memory.
class LineReader {
 public:
  /// Of a line, only the first `longest` bytes are kept.
  explicit LineReader(int descriptor, std::size_t longest = 4096)
      : descriptor_(descriptor), longest_(longest) {}

  /// The next line without its end ("\n" or "\r\n"), as soon as it is there; the last one may have
  /// none. False at the end of the stream and when interrupted. Throws FileError where reading
  /// fails.
  bool next(std::string& line, const Interrupt& interrupt);

 private:
  bool fill(const Interrupt& interrupt);

  int descriptor_;
  std::size_t longest_;
  std::string buffer_;
  std::size_t at_ = 0;  ///< what of the buffer has been given out
};

/// For a message: what is no printable ASCII as '?', and at most 40 characters.
std::string printable(const std::string& text);

}  // namespace examples
