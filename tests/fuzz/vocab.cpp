// Any text as a vocabulary: refused with an error that names source and line, or read as what
// to_text() writes, byte for byte.

#include "data/vocab.h"

#include "framework/check.h"
#include "tests/fuzz/fuzz.h"

using namespace unroll;
using namespace unroll::fuzz;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view text = text_of(data, size);
  Vocab vocab;
  try {
    vocab = Vocab::from_text(text, "fuzz");
  } catch (const FileError& error) {
    require(std::string(error.what()).find("fuzz") != std::string::npos, error.what());
    return 0;
  }
  require(vocab.to_text() == text, "to_text() gives another text");
  for (std::int64_t i = 0; i < vocab.size(); ++i)
    require(vocab.index(vocab.token(i)) == i, "a token has another index");
  return 0;
}
