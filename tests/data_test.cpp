/// Text, vocabularies and batches of sequences, all together.

#include "data/data.h"

#include <doctest/doctest.h>

#include <string>

#include "tests/data.h"
#include "tests/temporary_directory.h"

using namespace unroll;
using namespace unroll::test;

TEST_CASE("data: from a file to batches and back to text") {
  const TemporaryDirectory directory;
  Strings lines = read_lines(directory.file("book.txt", "The Time\r\nMachine!\r\n\r\nby H. G."));
  for (std::string& line : lines) line = letters_only(line);
  CHECK(lines == Strings{"the time", "machine", "", "by h g"});
  const Strings tokens = split_characters(join(lines));
  CHECK(tokens.size() == 21);
  const Vocab vocab(tokens);
  CHECK(vocab.tokens() ==
        Strings{"<unk>", " ", "e", "h", "i", "m", "t", "a", "b", "c", "g", "n", "y"});
  const Indices corpus = vocab.encode(tokens);
  const WindowBatch batch = evaluation_windows(corpus, {.batch_size = 1, .num_steps = 8})[1];
  CHECK(join(vocab.decode(batch.x)) == "machineb");
  CHECK(join(vocab.decode(batch.y)) == "achineby");
}
