/// Vocabularies: their order, unknown tokens, and their text form.

#include "data/vocab.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <cstdint>
#include <string>

#include "data/text.h"
#include "framework/check.h"
#include "framework/file.h"
#include "framework/ops.h"
#include "framework/tensor.h"
#include "tests/data.h"
#include "tests/temporary_directory.h"

using namespace unroll;
using namespace unroll::test;

TEST_CASE("vocab: the unknown token, then by frequency, ties by bytes") {
  const Vocab vocab({"b", "a", "c", "b", "时", "é", "B", "a", "b"});
  CHECK(vocab.tokens() == Strings{"<unk>", "b", "a", "B", "c", "é", "时"});
  CHECK(vocab.size() == 7);
  CHECK(vocab.has_unknown());
  for (std::int64_t i = 0; i < vocab.size(); ++i) CHECK(vocab.index(vocab.token(i)) == i);
}

TEST_CASE("vocab: the order of the text does not matter") {
  Strings text;
  for (int i = 0; i < 200; ++i) text.push_back("w" + std::to_string(i * i % 61));
  const Vocab vocab(text);
  CHECK(vocab.size() == 32);  // <unk>, 0 and the 30 squares modulo the prime 61
  CHECK(Vocab(Strings(text.rbegin(), text.rend())).tokens() == vocab.tokens());
  Strings sorted = text;
  std::sort(sorted.begin(), sorted.end());
  CHECK(Vocab(sorted).tokens() == vocab.tokens());
}

TEST_CASE("vocab: min_freq drops what is rare") {
  const Strings text = {"a", "a", "a", "b", "b", "c"};
  CHECK(Vocab(text, {.min_freq = 1}).tokens() == Strings{"<unk>", "a", "b", "c"});
  CHECK(Vocab(text, {.min_freq = 2}).tokens() == Strings{"<unk>", "a", "b"});
  CHECK(Vocab(text, {.min_freq = 3}).tokens() == Strings{"<unk>", "a"});
  CHECK(Vocab(text, {.min_freq = 4}).tokens() == Strings{"<unk>"});
  CHECK_THROWS_WITH_AS(Vocab(text, {.min_freq = 0}), "Vocab: min_freq must be 1 or more, got 0",
                       ValueError);
}

TEST_CASE("vocab: reserved tokens come first, in their order, seen or not") {
  const Vocab vocab({"x", "<eos>", "x", "<unk>", "y", "<eos>", "<eos>"},
                    {.min_freq = 2, .reserved_tokens = {"<pad>", "<bos>", "<eos>"}});
  CHECK(vocab.tokens() == Strings{"<unk>", "<pad>", "<bos>", "<eos>", "x"});
  CHECK(vocab.contains("<pad>"));
  CHECK(!vocab.contains("y"));
  CHECK_THROWS_WITH_AS(Vocab({}, {.reserved_tokens = {"<pad>", "<pad>"}}),
                       "Vocab: the token '<pad>' is reserved twice", ValueError);
  CHECK_THROWS_WITH_AS(Vocab({}, {.reserved_tokens = {"<unk>"}}),
                       "Vocab: the token '<unk>' is reserved twice", ValueError);
}

TEST_CASE("vocab: unknown tokens get index 0, or are an error where there is no unknown token") {
  const Vocab with({"a"}, {.unknown_token = "?"});
  CHECK(with.tokens() == Strings{"?", "a"});
  CHECK(with.index("b") == 0);
  CHECK(with.encode({"a", "b", "?", ""}) == Indices{1, 0, 0, 0});

  const Vocab without({"a", "b", "b"}, {.unknown_token = ""});
  CHECK(!without.has_unknown());
  CHECK(without.tokens() == Strings{"b", "a"});
  CHECK(without.encode({"a", "b"}) == Indices{1, 0});
  CHECK_THROWS_WITH_AS(without.index("时"), "Vocab: unknown token '时'", ValueError);
  CHECK_THROWS_WITH_AS(without.encode({"a", "<unk>"}), "Vocab: unknown token '<unk>'", ValueError);
}

TEST_CASE("vocab: tokens that no file could hold are refused") {
  CHECK_THROWS_WITH_AS(Vocab({"a", ""}), "Vocab: a token is empty", ValueError);
  CHECK_THROWS_WITH_AS(Vocab({"a"}, {.reserved_tokens = {""}}), "Vocab: a token is empty",
                       ValueError);
  CHECK_THROWS_WITH_AS(Vocab({"a\xff"}), "Vocab: the token 'a\xff' is not UTF-8", ValueError);
}

TEST_CASE("vocab: of no text") {
  CHECK(Vocab(Strings{}).tokens() == Strings{"<unk>"});
  CHECK(Vocab(Strings{}, {.unknown_token = ""}).size() == 0);
  const Vocab none;
  CHECK(none.size() == 0);
  CHECK_THROWS_WITH_AS(none.index("a"), "Vocab: unknown token 'a'", ValueError);
  CHECK_THROWS_WITH_AS(none.token(0), "Vocab: index 0 is out of range for 0 tokens", IndexError);
}

TEST_CASE("vocab: encode and decode, vectors and tensors") {
  const Vocab vocab({"a", "a", "b"});
  const Strings text = {"b", "a", "x", "b"};
  CHECK(vocab.encode(text) == Indices{2, 1, 0, 2});
  CHECK(vocab.decode(Indices{2, 1, 0, 2}) == Strings{"b", "a", "<unk>", "b"});
  CHECK(vocab.encode({}) == Indices{});
  CHECK(vocab.decode(Indices{}) == Strings{});

  const Tensor indices = vocab.encode_tensor(text);
  CHECK(indices.dtype() == DType::i64);
  CHECK(indices.shape() == Shape{4});
  CHECK(values(indices) == Indices{2, 1, 0, 2});
  CHECK(vocab.decode(indices) == Strings{"b", "a", "<unk>", "b"});
  CHECK(vocab.decode(transpose(reshape(indices, {2, 2}), 0, 1)) == Strings{"b", "<unk>", "a", "b"});
  CHECK(vocab.encode_tensor({}).shape() == Shape{0});

  CHECK_THROWS_WITH_AS(vocab.decode(Indices{0, 3}), "Vocab: index 3 is out of range for 3 tokens",
                       IndexError);
  CHECK_THROWS_WITH_AS(vocab.token(-1), "Vocab: index -1 is out of range for 3 tokens", IndexError);
  CHECK_THROWS_WITH_AS(vocab.decode(tensor({1.0})), "to_vector: the tensor is f32, not i64",
                       DTypeError);
}

TEST_CASE("vocab: the text form") {
  const Vocab vocab({" ", " ", "\n", "\t", "\r", "\\", "\\s", "时", "a b", "#"});
  const std::string text = vocab.to_text();
  CHECK(text ==
        "unroll vocab 1\nunknown 0\ntokens "
        "10\n\n<unk>\n\\s\n\\t\n\\n\n\\r\n#\n\\\\\n\\\\s\na\\sb\n时\n");
  CHECK(Vocab::from_text(text).tokens() == vocab.tokens());
  CHECK(Vocab::from_text(text).has_unknown());
  CHECK(Vocab::from_text(text).index("时") == vocab.index("时"));
  CHECK(Vocab::from_text(text).to_text() == text);

  const Vocab without({"b", "a", "b"}, {.unknown_token = ""});
  CHECK(without.to_text() == "unroll vocab 1\nunknown none\ntokens 2\n\nb\na\n");
  const Vocab again = Vocab::from_text(without.to_text());
  CHECK(again.tokens() == without.tokens());
  CHECK(!again.has_unknown());

  CHECK(Vocab().to_text() == "unroll vocab 1\nunknown none\ntokens 0\n\n");
  CHECK(Vocab::from_text(Vocab().to_text()).size() == 0);
}

TEST_CASE("vocab: every code point survives the text form") {
  Strings all;
  for (std::uint32_t c = 0; c < 0x3000; ++c) {
    std::string token;
    if (c < 0x80) {
      token = {static_cast<char>(c)};
    } else if (c < 0x800) {
      token = {static_cast<char>(0xc0 | (c >> 6)), static_cast<char>(0x80 | (c & 0x3f))};
    } else {
      token = {static_cast<char>(0xe0 | (c >> 12)), static_cast<char>(0x80 | ((c >> 6) & 0x3f)),
               static_cast<char>(0x80 | (c & 0x3f))};
    }
    all.push_back(token);
  }
  const Vocab vocab(all, {.unknown_token = ""});
  CHECK(vocab.tokens() == all);  // ties: in the order of the code points
  CHECK(Vocab::from_text(vocab.to_text()).tokens() == all);
}

TEST_CASE("vocab: from_text takes nothing but what to_text writes") {
  const std::string head = "unroll vocab 1\nunknown 0\n";
  struct Case {
    std::string text;
    std::string error;
  };
  const Case cases[] = {
      {"", "line 1: expected 'unroll vocab 1', got the end"},
      {"unroll vocab 1", "line 1: no line feed at its end"},
      {"unroll vocab 2\n", "line 1: expected 'unroll vocab 1', got 'unroll vocab 2'"},
      {"unroll vocab 1\r\n", "line 1: expected 'unroll vocab 1', got 'unroll vocab 1\r'"},
      {"unroll vocab 1\n", "line 2: expected 'unknown 0' or 'unknown none', got the end"},
      {"unroll vocab 1\nunknown 1\n",
       "line 2: expected 'unknown 0' or 'unknown none', got 'unknown 1'"},
      {head, "line 3: expected 'tokens N', got the end"},
      {head + "tokens\n", "line 3: expected 'tokens N', got 'tokens'"},
      {head + "tokens \n", "line 3: expected 'tokens N', got 'tokens '"},
      {head + "tokens 2x\n", "line 3: expected 'tokens N', got 'tokens 2x'"},
      {head + "tokens -2\n", "line 3: expected 'tokens N', got 'tokens -2'"},
      {head + "tokens 02\n", "line 3: expected 'tokens N', got 'tokens 02'"},
      {head + "tokens 99999999999999999999\n",
       "line 3: expected 'tokens N', got 'tokens 99999999999999999999'"},
      {head + "tokens 0\n\n", "line 3: expected 'tokens N', got 'tokens 0'"},
      {head + "tokens 2\n<unk>\na\n", "line 4: expected an empty line, got '<unk>'"},
      {head + "tokens 2\n\n<unk>\n", "line 6: expected token 2 of 2, got the end"},
      {head + "tokens 9000000000000000000\n\na\n",
       "line 6: expected token 2 of 9000000000000000000, got the end"},
      {head + "tokens 2\n\n<unk>\na", "line 6: no line feed at its end"},
      {head + "tokens 2\n\n<unk>\n\n", "line 6: a token is empty"},
      {head + "tokens 2\n\n<unk>\na b\n", "line 6: 'a b' is no escaped token"},
      {head + "tokens 2\n\n<unk>\na\r\n", "line 6: 'a\r' is no escaped token"},
      {head + "tokens 2\n\n<unk>\n\\x\n", "line 6: '\\x' is no escaped token"},
      {head + "tokens 2\n\n<unk>\na\\\n", "line 6: 'a\\' is no escaped token"},
      {head + "tokens 2\n\n<unk>\n\xff\n", "line 6: not UTF-8"},
      {head + "tokens 3\n\n<unk>\na\na\n", "line 7: the token 'a' is there twice"},
      {head + "tokens 1\n\n<unk>\na\n", "line 6: expected the end after 1 tokens"},
      {head + "tokens 1\n\n<unk>\n\n", "line 6: expected the end after 1 tokens"},
  };
  for (const Case& c : cases) {
    CAPTURE(c.text);
    CHECK_THROWS_WITH_AS(Vocab::from_text(c.text, "m.safetensors"),
                         ("cannot read 'm.safetensors': " + c.error).c_str(), FileError);
  }
  CHECK_THROWS_WITH_AS(Vocab::from_text(""),
                       "cannot read 'vocabulary': line 1: expected 'unroll vocab 1', got the end",
                       FileError);
}

TEST_CASE("vocab: save and load") {
  const TemporaryDirectory directory;
  const std::string path = directory.file("vocab.txt");
  const Vocab vocab(split_characters("the time machine\n时间机器\n"),
                    {.reserved_tokens = {"<pad>"}});
  vocab.save(path);
  CHECK(read_file(path) == vocab.to_text());
  CHECK(Vocab::load(path).to_text() == vocab.to_text());

  const std::string other = directory.file("other.txt", "hello\n");
  CHECK_THROWS_WITH_AS(
      Vocab::load(other),
      ("cannot read '" + other + "': line 1: expected 'unroll vocab 1', got 'hello'").c_str(),
      FileError);
  const std::string missing = directory.file("missing/vocab.txt");
  CHECK_THROWS_WITH_AS(Vocab::load(missing),
                       ("cannot read '" + missing + "': No such file or directory").c_str(),
                       FileError);
  CHECK_THROWS_WITH_AS(vocab.save(missing),
                       ("cannot write '" + missing + "': No such file or directory").c_str(),
                       FileError);
}
