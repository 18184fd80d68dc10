/// Text, vocabularies and batches of sequences.

#include <doctest/doctest.h>
#include <stdlib.h>

#include <algorithm>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <limits>
#include <numeric>
#include <set>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "data/data.h"
#include "framework/check.h"
#include "framework/file.h"
#include "framework/ops.h"

using namespace unroll;

namespace {

using Strings = std::vector<std::string>;
using Indices = std::vector<std::int64_t>;

constexpr std::int64_t kHuge = std::numeric_limits<std::int64_t>::max();

/// A directory that goes with all that is in it.
class TemporaryDirectory {
 public:
  TemporaryDirectory() {
    std::string name = (std::filesystem::temp_directory_path() / "unroll-data-XXXXXX").string();
    REQUIRE(::mkdtemp(name.data()) != nullptr);
    path_ = name;
  }
  TemporaryDirectory(const TemporaryDirectory&) = delete;
  TemporaryDirectory& operator=(const TemporaryDirectory&) = delete;
  ~TemporaryDirectory() { std::filesystem::remove_all(path_); }

  std::string path(const std::string& name) const { return path_ + "/" + name; }
  /// Writes a file and returns its path.
  std::string file(const std::string& name, const std::string& contents) const {
    std::ofstream(path(name), std::ios::binary) << contents;
    return path(name);
  }

 private:
  std::string path_;
};

Indices numbers(std::int64_t n) {
  Indices result(static_cast<std::size_t>(n));
  std::iota(result.begin(), result.end(), 0);
  return result;
}

Indices values(const Tensor& x) { return x.to_vector<std::int64_t>(); }

std::int64_t length(const Indices& sequence) { return static_cast<std::int64_t>(sequence.size()); }

/// Column b of an i64 tensor [T, B].
Indices column(const Tensor& x, std::int64_t b) { return values(select(x, 1, b)); }

struct Invalid {
  const char* what;
  std::string text;
  std::string error;
};

/// One ill-formed text of each kind, on a second line.
const std::vector<Invalid> kInvalid = {
    {"continuation alone", "a\n\x80", "invalid UTF-8 at byte 2 (0x80)"},
    {"byte that never occurs", "a\nb\xff\nc", "invalid UTF-8 at byte 3 (0xff)"},
    {"cut short by the end", "\n\xe4\xb8\xad\xe6\x96", "invalid UTF-8 at byte 4 (0xe6)"},
    {"cut short by a letter", "\né\xc3x", "invalid UTF-8 at byte 3 (0xc3)"},
    {"overlong", "a\n\xc0\xaf", "invalid UTF-8 at byte 2 (0xc0)"},
    {"surrogate", "a\nbc\xed\xa0\x80", "invalid UTF-8 at byte 4 (0xed)"},
    {"above U+10FFFF", "a\n\xf4\x90\x80\x80", "invalid UTF-8 at byte 2 (0xf4)"},
    {"after a carriage return", "a\r\n\xfe", "invalid UTF-8 at byte 3 (0xfe)"},
};

}  // namespace

// --- Text ---------------------------------------------------------------------------------------

TEST_CASE("text: split_lines takes both line ends and a last line without one") {
  CHECK(split_lines("") == Strings{});
  CHECK(split_lines("\n") == Strings{""});
  CHECK(split_lines("a") == Strings{"a"});
  CHECK(split_lines("a\n") == Strings{"a"});
  CHECK(split_lines("a\nb") == Strings{"a", "b"});
  CHECK(split_lines("a\r\nb\r\n") == Strings{"a", "b"});
  CHECK(split_lines("\n\na\n\n") == Strings{"", "", "a", ""});
  CHECK(split_lines("\r\n") == Strings{""});
  // Not a line end: a carriage return elsewhere.
  CHECK(split_lines("a\rb\n\rc\r") == Strings{"a\rb", "\rc\r"});
  CHECK(split_lines("a\r\r\n") == Strings{"a\r"});
  CHECK(split_lines("时间\n机器") == Strings{"时间", "机器"});
}

TEST_CASE("text: letters_only keeps lower-case letters and single spaces between them") {
  CHECK(letters_only("") == "");
  CHECK(letters_only("abc XYZ") == "abc xyz");
  CHECK(letters_only("The Time-Machine, by H. G. Wells [1898]\n") ==
        "the time machine by h g wells");
  CHECK(letters_only("  --42  ") == "");
  CHECK(letters_only("don't") == "don t");
  CHECK(letters_only("a\t\n b") == "a b");
  CHECK(letters_only("@A[Z`a{z") == "a z a z");  // the neighbours of A, Z, a and z
  CHECK(letters_only("naïve 时 x") == "na ve x");
}

TEST_CASE("text: split_words splits at white space of all kinds") {
  CHECK(split_words("") == Strings{});
  CHECK(split_words(" \t\r\n\v\f") == Strings{});
  CHECK(split_words("one") == Strings{"one"});
  CHECK(split_words(" the  time\tmachine\n") == Strings{"the", "time", "machine"});
  CHECK(split_words("a,b c.") == Strings{"a,b", "c."});
  CHECK(split_words("时间\u3000机器\u00a0é\u2003x\u2028y") ==
        Strings{"时间", "机器", "é", "x", "y"});
  for (const char* space :
       {"\t",     "\n",     "\v",     "\f",     "\r",     " ",      "\u0085", "\u00a0", "\u1680",
        "\u2000", "\u2001", "\u2002", "\u2003", "\u2004", "\u2005", "\u2006", "\u2007", "\u2008",
        "\u2009", "\u200a", "\u2028", "\u2029", "\u202f", "\u205f", "\u3000"}) {
    CAPTURE(space);
    CHECK(split_words(std::string("a") + space + "b") == Strings{"a", "b"});
  }
  CHECK(split_words("a\u200bb") == Strings{"a\u200bb"});  // zero width space is no white space
}

TEST_CASE("text: split_characters gives code points") {
  CHECK(split_characters("") == Strings{});
  CHECK(split_characters("a b\n") == Strings{"a", " ", "b", "\n"});
  CHECK(split_characters("né时😀") == Strings{"n", "é", "时", "😀"});
  CHECK(split_characters("e\u0301") == Strings{"e", "\u0301"});  // a combining accent is its own
  CHECK(split_characters(std::string("a\0b", 3)) == Strings{"a", std::string(1, '\0'), "b"});
  CHECK(split_characters("\u007f\u0080\u07ff\u0800\uffff\U00010000\U0010ffff").size() == 7);
}

TEST_CASE("text: lower_case knows the letters of Unicode") {
  CHECK(lower_case("") == "");
  CHECK(lower_case("The Time-Machine, 1895") == "the time-machine, 1895");
  CHECK(lower_case("ÀÇÉŒŸ àçéœÿ ẞ ΑΩ ЖЯ 时😀×") == "àçéœÿ àçéœÿ ß αω жя 时😀×");
}

TEST_CASE("text: split_punctuation makes tokens of marks") {
  CHECK(split_punctuation("") == Strings{});
  CHECK(split_punctuation("Go on, it's 10:30!") == Strings{"Go", "on", ",", "it's", "10:30", "!"});
  CHECK(split_punctuation("Où est-il ?  «Là»... (3.5 km).") ==
        Strings{"Où", "est-il", "?", "«", "Là", "»", ".", ".", ".", "(", "3.5", "km", ")", "."});
  CHECK(split_punctuation("?a. 1.") == Strings{"?", "a", ".", "1", "."});
  CHECK(split_punctuation("你好，世界。") == Strings{"你好", "，", "世界", "。"});
}

TEST_CASE("text: join is the way back") {
  CHECK(join({}) == "");
  CHECK(join({}, " ") == "");
  CHECK(join({"a"}, " ") == "a");
  CHECK(join({"a", "b", "c"}, ", ") == "a, b, c");
  CHECK(join({"", ""}, " ") == " ");
  const std::string text = "né 时\n😀";
  CHECK(join(split_characters(text)) == text);
}

TEST_CASE("text: what is not UTF-8 is an error with its offset") {
  const TemporaryDirectory directory;
  for (const Invalid& invalid : kInvalid) {
    CAPTURE(invalid.what);
    const std::string& text = invalid.text;
    const std::string& error = invalid.error;
    CHECK_THROWS_WITH_AS(split_words(text), ("split_words: " + error).c_str(), ValueError);
    CHECK_THROWS_WITH_AS(split_characters(text), ("split_characters: " + error).c_str(),
                         ValueError);
    CHECK_THROWS_WITH_AS(lower_case(text), ("lower_case: " + error).c_str(), ValueError);
    CHECK_THROWS_WITH_AS(split_punctuation(text), ("split_punctuation: " + error).c_str(),
                         ValueError);
    const std::string path = directory.file("invalid.txt", text);
    const std::string in_file = "cannot read '" + path + "': line 2: " + error;
    CHECK_THROWS_WITH_AS(read_text(path), in_file.c_str(), FileError);
    CHECK_THROWS_WITH_AS(read_lines(path), in_file.c_str(), FileError);
  }
  const std::string utf16 = directory.file("utf16.txt", std::string("\xff\xfe"
                                                                    "a\0",
                                                                    4));
  CHECK_THROWS_WITH_AS(
      read_text(utf16),
      ("cannot read '" + utf16 + "': line 1: invalid UTF-8 at byte 0 (0xff)").c_str(), FileError);
}

TEST_CASE("text: read_text and read_lines") {
  const TemporaryDirectory directory;
  const std::string path = directory.file("a.txt", "\xef\xbb\xbfOne\r\n\r\n时间\nthree\r");
  CHECK(read_text(path) == "One\n\n时间\nthree\r");
  CHECK(read_lines(path) == Strings{"One", "", "时间", "three\r"});

  const std::string empty_file = directory.file("empty.txt", "");
  CHECK(read_text(empty_file) == "");
  CHECK(read_lines(empty_file) == Strings{});
  CHECK(read_text(directory.file("mark.txt", "\xef\xbb\xbf")) == "");
}

TEST_CASE("text: a file that can't be read is an error that names it") {
  const TemporaryDirectory directory;
  const std::string missing = directory.path("missing.txt");
  CHECK_THROWS_WITH_AS(read_lines(missing),
                       ("cannot read '" + missing + "': No such file or directory").c_str(),
                       FileError);
  const std::string here = directory.path(".");
  CHECK_THROWS_WITH_AS(read_text(here), ("cannot read '" + here + "': Is a directory").c_str(),
                       FileError);
}

// --- Vocab --------------------------------------------------------------------------------------

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
  const std::string path = directory.path("vocab.txt");
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
  const std::string missing = directory.path("missing/vocab.txt");
  CHECK_THROWS_WITH_AS(Vocab::load(missing),
                       ("cannot read '" + missing + "': No such file or directory").c_str(),
                       FileError);
  CHECK_THROWS_WITH_AS(vocab.save(missing),
                       ("cannot write '" + missing + "': No such file or directory").c_str(),
                       FileError);
}

// --- Windows ------------------------------------------------------------------------------------

// A corpus that would be gone after the line is refused when compiled.
template <class C>
concept CutsRandomly = requires(C&& c) {
  random_windows(std::forward<C>(c), WindowOptions{});
};
template <class C>
concept CutsInSequence = requires(C&& c) {
  sequential_windows(std::forward<C>(c), WindowOptions{});
};
template <class C>
concept CutsToEvaluate = requires(C&& c) {
  evaluation_windows(std::forward<C>(c), WindowOptions{});
};
template <class C>
concept Buckets = requires(C&& c) {
  bucketed_batches(std::forward<C>(c), BucketOptions{});
};
static_assert(CutsRandomly<Indices&> && CutsRandomly<const Indices&> && !CutsRandomly<Indices>);
static_assert(CutsInSequence<Indices&> && !CutsInSequence<Indices>);
static_assert(CutsToEvaluate<Indices&> && !CutsToEvaluate<Indices>);
static_assert(CutsToEvaluate<std::span<const std::int64_t>>);
static_assert(Buckets<const Sequences&> && !Buckets<Sequences>);

TEST_CASE("windows: exact small cases, one step at a time") {
  // With T = 1 the random offset is 0.
  const Indices corpus = {10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20};
  std::vector<Indices> xs, ys;
  for (auto& [x, y] : sequential_windows(corpus, {.batch_size = 3, .num_steps = 1})) {
    CHECK(x.shape() == Shape{1, 3});
    CHECK(y.shape() == Shape{1, 3});
    CHECK(x.dtype() == DType::i64);
    CHECK(y.dtype() == DType::i64);
    xs.push_back(values(x));
    ys.push_back(values(y));
  }
  CHECK(xs == std::vector<Indices>{{10, 13, 16}, {11, 14, 17}, {12, 15, 18}});
  CHECK(ys == std::vector<Indices>{{11, 14, 17}, {12, 15, 18}, {13, 16, 19}});

  Indices all;
  for (auto& [x, y] : random_windows(corpus, {.batch_size = 5, .num_steps = 1})) {
    const Indices row = values(x);
    all.insert(all.end(), row.begin(), row.end());
    CHECK(values(y - x) == Indices(5, 1));
  }
  std::sort(all.begin(), all.end());
  CHECK(all == Indices{10, 11, 12, 13, 14, 15, 16, 17, 18, 19});
}

TEST_CASE("windows: time first") {
  const Indices corpus = numbers(9);
  const WindowBatches batches = evaluation_windows(corpus, {.batch_size = 2, .num_steps = 3});
  REQUIRE(batches.size() == 2);
  CHECK(batches[0].x.shape() == Shape{3, 2});
  CHECK(values(batches[0].x) == Indices{0, 4, 1, 5, 2, 6});
  CHECK(values(batches[0].y) == Indices{1, 5, 2, 6, 3, 7});
  CHECK(batches[1].x.shape() == Shape{1, 2});
  CHECK(values(batches[1].x) == Indices{3, 7});
  CHECK(values(batches[1].y) == Indices{4, 8});
}

TEST_CASE("windows: random windows cover the corpus as documented") {
  constexpr std::int64_t kTokens = 47, kBatch = 3, kSteps = 4;
  const Indices corpus = numbers(kTokens);
  std::set<std::int64_t> offsets;
  std::set<Indices> orders;
  for (std::uint64_t seed = 0; seed < 60; ++seed) {
    CAPTURE(seed);
    Generator generator(seed);
    Indices starts;
    const WindowBatches batches =
        random_windows(corpus, {.batch_size = kBatch, .num_steps = kSteps}, generator);
    for (auto& [x, y] : batches) {
      REQUIRE(x.shape() == Shape{kSteps, kBatch});
      REQUIRE(y.shape() == Shape{kSteps, kBatch});
      for (std::int64_t b = 0; b < kBatch; ++b) {
        const std::int64_t start = column(x, b)[0];
        CHECK(column(x, b) == Indices{start, start + 1, start + 2, start + 3});
        CHECK(column(y, b) == Indices{start + 1, start + 2, start + 3, start + 4});
        starts.push_back(start);
      }
    }
    const std::int64_t offset = starts[0] % kSteps;
    offsets.insert(offset);
    orders.insert(starts);
    const std::int64_t windows = (kTokens - offset - 1) / kSteps;
    CHECK(batches.size() == windows / kBatch);
    CHECK(length(starts) == windows / kBatch * kBatch);
    // Each start once, on the grid, inside the corpus.
    CHECK(std::set<std::int64_t>(starts.begin(), starts.end()).size() == starts.size());
    for (std::int64_t start : starts) {
      CHECK(start % kSteps == offset);
      CHECK(start >= 0);
      CHECK(start + kSteps < kTokens);
    }
  }
  CHECK(offsets == std::set<std::int64_t>{0, 1, 2, 3});
  CHECK(orders.size() == 60);
}

TEST_CASE("windows: sequential windows continue each other and cover the rows") {
  constexpr std::int64_t kTokens = 50, kBatch = 3, kSteps = 4;
  const Indices corpus = numbers(kTokens);
  std::set<std::int64_t> offsets;
  for (std::uint64_t seed = 0; seed < 40; ++seed) {
    CAPTURE(seed);
    Generator generator(seed);
    const WindowBatches batches =
        sequential_windows(corpus, {.batch_size = kBatch, .num_steps = kSteps}, generator);
    std::vector<Indices> rows(kBatch);
    for (auto& [x, y] : batches) {
      REQUIRE(x.shape() == Shape{kSteps, kBatch});
      CHECK(values(y - x) == Indices(kBatch * kSteps, 1));
      for (std::int64_t b = 0; b < kBatch; ++b) {
        Indices& row = rows[static_cast<std::size_t>(b)];
        const Indices part = column(x, b);
        row.insert(row.end(), part.begin(), part.end());
      }
    }
    const std::int64_t offset = rows[0][0];
    CHECK(offset < kSteps);
    offsets.insert(offset);
    const std::int64_t row_length = (kTokens - offset - 1) / kBatch;
    CHECK(batches.size() == row_length / kSteps);
    for (std::int64_t b = 0; b < kBatch; ++b) {
      Indices expected = numbers(row_length / kSteps * kSteps);
      for (std::int64_t& value : expected) value += offset + b * row_length;
      CHECK(rows[static_cast<std::size_t>(b)] == expected);
    }
  }
  CHECK(offsets == std::set<std::int64_t>{0, 1, 2, 3});
}

TEST_CASE("windows: an evaluation predicts all tokens but the first and less than B at the end") {
  for (std::int64_t tokens = 2; tokens < 30; ++tokens) {
    for (std::int64_t batch = 1; batch < std::min<std::int64_t>(tokens, 6); ++batch) {
      for (std::int64_t steps : {1, 2, 3, 7, 100}) {
        CAPTURE(tokens);
        CAPTURE(batch);
        CAPTURE(steps);
        const Indices corpus = numbers(tokens);
        std::vector<Indices> rows(static_cast<std::size_t>(batch));
        for (auto& [x, y] : evaluation_windows(corpus, {.batch_size = batch, .num_steps = steps})) {
          CHECK(x.size(0) >= 1);
          CHECK(x.size(0) <= steps);
          CHECK(values(y - x) == Indices(static_cast<std::size_t>(x.numel()), 1));
          for (std::int64_t b = 0; b < batch; ++b) {
            Indices& row = rows[static_cast<std::size_t>(b)];
            const Indices part = column(y, b);
            row.insert(row.end(), part.begin(), part.end());
          }
        }
        Indices predicted;
        for (const Indices& row : rows) predicted.insert(predicted.end(), row.begin(), row.end());
        Indices expected = numbers((tokens - 1) / batch * batch);
        for (std::int64_t& value : expected) ++value;
        CHECK(predicted == expected);
        CHECK(tokens - 1 - length(predicted) < batch);
      }
    }
  }
}

TEST_CASE("windows: a seed repeats, and an epoch can be entered in its middle") {
  const Indices corpus = numbers(200);
  const WindowOptions options{.batch_size = 4, .num_steps = 5};
  using Make = WindowBatches (*)(std::span<const std::int64_t>, const WindowOptions&, Generator&);
  for (Make make : {Make(random_windows), Make(sequential_windows)}) {
    Generator generator(7);
    make(corpus, options, generator);  // the first epoch
    const auto state = generator.state();
    const WindowBatches second = make(corpus, options, generator);
    std::vector<Indices> expected;
    for (auto& [x, y] : second) expected.push_back(values(x));

    Generator resumed;
    resumed.set_state(state);
    const WindowBatches again = make(corpus, options, resumed);
    REQUIRE(again.size() == second.size());
    for (std::int64_t i = again.size() - 1; i >= 0; --i) {
      CHECK(values(again[i].x) == expected[static_cast<std::size_t>(i)]);
    }
    CHECK(resumed.state() == generator.state());
  }
}

TEST_CASE("windows: the default generator is taken where none is given") {
  const Indices corpus = numbers(200);
  manual_seed(3);
  const Indices first = values(random_windows(corpus, {.batch_size = 4, .num_steps = 5})[0].x);
  Generator generator(3);
  CHECK(values(random_windows(corpus, {.batch_size = 4, .num_steps = 5}, generator)[0].x) == first);
}

TEST_CASE("windows: the shortest corpus gives a batch at every offset, a shorter one an error") {
  const WindowOptions options{.batch_size = 3, .num_steps = 4};
  const Indices enough = numbers(16);
  for (std::uint64_t seed = 0; seed < 30; ++seed) {
    Generator generator(seed);
    CHECK(random_windows(enough, options, generator).size() == 1);
    CHECK(sequential_windows(enough, options, generator).size() == 1);
  }
  const Indices shorter = numbers(15);
  CHECK_THROWS_WITH_AS(random_windows(shorter, options),
                       "random_windows: a batch needs (batch_size + 1) * num_steps = (3 + 1) * 4 "
                       "tokens, the corpus has 15",
                       ValueError);
  CHECK_THROWS_WITH_AS(sequential_windows(shorter, options),
                       "sequential_windows: a batch needs (batch_size + 1) * num_steps = (3 + 1) "
                       "* 4 tokens, the corpus has 15",
                       ValueError);
  const Indices three = numbers(3);
  CHECK_THROWS_WITH_AS(
      evaluation_windows(three, options),
      "evaluation_windows: a batch needs batch_size + 1 = 3 + 1 tokens, the corpus has 3",
      ValueError);
  const Indices none;
  CHECK_THROWS_WITH_AS(random_windows(none, {.batch_size = 1, .num_steps = 1}),
                       "random_windows: a batch needs (batch_size + 1) * num_steps = (1 + 1) * 1 "
                       "tokens, the corpus has 0",
                       ValueError);
  CHECK_THROWS_WITH_AS(
      evaluation_windows(none, {.batch_size = 1, .num_steps = 1}),
      "evaluation_windows: a batch needs batch_size + 1 = 1 + 1 tokens, the corpus has 0",
      ValueError);
}

namespace {

/// What random and sequential windows say of a corpus of 100 tokens.
std::string tokens_needed(const WindowOptions& options) {
  return ": a batch needs (batch_size + 1) * num_steps = (" + std::to_string(options.batch_size) +
         " + 1) * " + std::to_string(options.num_steps) + " tokens, the corpus has 100";
}

}  // namespace

TEST_CASE("windows: options and indices out of range") {
  const Indices corpus = numbers(100);
  CHECK_THROWS_WITH_AS(random_windows(corpus, {.batch_size = 0, .num_steps = 5}),
                       "random_windows: batch_size must be 1 or more, got 0", ValueError);
  CHECK_THROWS_WITH_AS(sequential_windows(corpus, {.batch_size = 2, .num_steps = -1}),
                       "sequential_windows: num_steps must be 1 or more, got -1", ValueError);
  CHECK_THROWS_WITH_AS(evaluation_windows(corpus, {.batch_size = 2, .num_steps = 0}),
                       "evaluation_windows: num_steps must be 1 or more, got 0", ValueError);
  for (const WindowOptions& options : {WindowOptions{kHuge, kHuge}, WindowOptions{2, kHuge}}) {
    CHECK_THROWS_WITH_AS(random_windows(corpus, options),
                         ("random_windows" + tokens_needed(options)).c_str(), ValueError);
    CHECK_THROWS_WITH_AS(sequential_windows(corpus, options),
                         ("sequential_windows" + tokens_needed(options)).c_str(), ValueError);
  }
  CHECK_THROWS_WITH_AS(evaluation_windows(corpus, {.batch_size = kHuge, .num_steps = 1}),
                       ("evaluation_windows: a batch needs batch_size + 1 = " +
                        std::to_string(kHuge) + " + 1 tokens, the corpus has 100")
                           .c_str(),
                       ValueError);
  CHECK(evaluation_windows(corpus, {.batch_size = 1, .num_steps = kHuge})[0].x.size(0) == 99);

  const WindowBatches batches = random_windows(corpus, {.batch_size = 2, .num_steps = 5});
  REQUIRE(batches.size() == 9);
  CHECK_THROWS_WITH_AS(batches[9], "WindowBatches: index 9 is out of range for 9 batches",
                       IndexError);
  CHECK_THROWS_WITH_AS(batches[-1], "WindowBatches: index -1 is out of range for 9 batches",
                       IndexError);
}

// --- Padded batches -----------------------------------------------------------------------------

TEST_CASE("padded: sequences side by side, time first") {
  const Sequences sequences = {{1, 2, 3}, {4}, {}, {5, 6}};
  const PaddedBatch all = pad_sequences(sequences, -7);
  CHECK(all.x.dtype() == DType::i64);
  CHECK(all.x.shape() == Shape{3, 4});
  CHECK(values(all.x) == Indices{1, 4, -7, 5, 2, -7, -7, 6, 3, -7, -7, -7});
  CHECK(all.lengths.dtype() == DType::i64);
  CHECK(all.lengths.shape() == Shape{4});
  CHECK(values(all.lengths) == Indices{3, 1, 0, 2});
  CHECK(all.indices == Indices{0, 1, 2, 3});

  const PaddedBatch some = pad_sequences(sequences, {3, 1, 3}, 0);
  CHECK(some.x.shape() == Shape{2, 3});
  CHECK(values(some.x) == Indices{5, 4, 5, 6, 0, 6});
  CHECK(values(some.lengths) == Indices{2, 1, 2});
  CHECK(some.indices == Indices{3, 1, 3});

  // A padding that a double can't hold.
  CHECK(values(pad_sequences({{1}, {}}, kHuge).x) == Indices{1, kHuge});
}

TEST_CASE("padded: nothing to pad") {
  const PaddedBatch none = pad_sequences({}, 0);
  CHECK(none.x.shape() == Shape{0, 0});
  CHECK(none.lengths.shape() == Shape{0});
  const PaddedBatch empty_ones = pad_sequences({{}, {}}, 0);
  CHECK(empty_ones.x.shape() == Shape{0, 2});
  CHECK(values(empty_ones.lengths) == Indices{0, 0});
}

TEST_CASE("padded: indices out of range") {
  const Sequences sequences = {{1}, {2}};
  CHECK_THROWS_WITH_AS(pad_sequences(sequences, {0, 2}, 0),
                       "pad_sequences: index 2 is out of range for 2 sequences", IndexError);
  CHECK_THROWS_WITH_AS(pad_sequences(sequences, {-1}, 0),
                       "pad_sequences: index -1 is out of range for 2 sequences", IndexError);
}

TEST_CASE("padded: buckets hold every sequence once, beside others of similar length") {
  constexpr std::int64_t kPadding = -1;
  for (std::int64_t count : {0, 1, 4, 5, 37, 40}) {
    for (std::int64_t batch_size : {1, 4, 50}) {
      for (std::int64_t bucket_batches : {1, 2, 3, 100}) {
        CAPTURE(count);
        CAPTURE(batch_size);
        CAPTURE(bucket_batches);
        Sequences sequences;
        Indices sorted_lengths;
        for (std::int64_t i = 0; i < count; ++i) {
          sequences.push_back(Indices(static_cast<std::size_t>(i * 17 % 11), i));
          sorted_lengths.push_back(length(sequences.back()));
        }
        std::sort(sorted_lengths.begin(), sorted_lengths.end());

        Generator generator(static_cast<std::uint64_t>(count));
        const PaddedBatches batches = bucketed_batches(
            sequences,
            {.batch_size = batch_size, .padding = kPadding, .bucket_batches = bucket_batches},
            generator);
        CHECK(batches.size() == (count + batch_size - 1) / batch_size);
        Indices seen;
        std::int64_t short_batches = 0;
        for (auto& [x, lengths, indices] : batches) {
          const Indices sizes = values(lengths);
          REQUIRE(length(sizes) == length(indices));
          short_batches += length(indices) < batch_size ? 1 : 0;
          const std::int64_t longest = *std::max_element(sizes.begin(), sizes.end());
          REQUIRE(x.shape() == Shape{longest, length(indices)});
          for (std::int64_t b = 0; b < length(indices); ++b) {
            const std::int64_t index = indices[static_cast<std::size_t>(b)];
            Indices expected = sequences[static_cast<std::size_t>(index)];
            CHECK(sizes[static_cast<std::size_t>(b)] == length(expected));
            expected.resize(static_cast<std::size_t>(longest), kPadding);
            CHECK(column(x, b) == expected);
            seen.push_back(index);
          }
          // One of the buckets has room for all lengths of the batch.
          const std::int64_t shortest = *std::min_element(sizes.begin(), sizes.end());
          bool fits = false;
          for (std::int64_t i = 0; i < count; i += batch_size * bucket_batches) {
            const std::int64_t last = std::min(count, i + batch_size * bucket_batches) - 1;
            fits = fits || (sorted_lengths[static_cast<std::size_t>(i)] <= shortest &&
                            longest <= sorted_lengths[static_cast<std::size_t>(last)]);
          }
          CHECK(fits);
        }
        std::sort(seen.begin(), seen.end());
        CHECK(seen == numbers(count));
        CHECK(short_batches == (count % batch_size == 0 ? 0 : 1));
      }
    }
  }
}

TEST_CASE("padded: one batch per bucket means the least padding") {
  Sequences sequences;
  for (std::int64_t i = 0; i < 32; ++i) {
    sequences.push_back(Indices(static_cast<std::size_t>(i * 5 % 32), i));
  }
  std::set<std::int64_t> widths;
  for (auto& [x, lengths, indices] :
       bucketed_batches(sequences, {.batch_size = 8, .bucket_batches = 1})) {
    Indices sizes = values(lengths);
    std::sort(sizes.begin(), sizes.end());
    CHECK(sizes.back() - sizes.front() == 7);
    widths.insert(x.size(0));
  }
  CHECK(widths == std::set<std::int64_t>{7, 15, 23, 31});
}

TEST_CASE("padded: order and company are random, and a seed repeats them") {
  Sequences sequences;
  for (std::int64_t i = 0; i < 24; ++i) {
    sequences.push_back(Indices(static_cast<std::size_t>(1 + i / 12), i));
  }
  std::set<Indices> orders;
  std::set<std::int64_t> first_widths;
  for (std::uint64_t seed = 0; seed < 40; ++seed) {
    Generator generator(seed), same(seed);
    const BucketOptions options{.batch_size = 6, .bucket_batches = 2};
    const PaddedBatches batches = bucketed_batches(sequences, options, generator);
    const PaddedBatches again = bucketed_batches(sequences, options, same);
    Indices order;
    for (std::int64_t i = 0; i < batches.size(); ++i) {
      const Indices indices = batches[i].indices;
      CHECK(again[i].indices == indices);
      order.insert(order.end(), indices.begin(), indices.end());
      // A bucket holds the twelve sequences of one length.
      CHECK(values(batches[i].lengths) == Indices(6, batches[i].x.size(0)));
    }
    orders.insert(order);
    first_widths.insert(batches[0].x.size(0));
  }
  CHECK(orders.size() == 40);
  CHECK(first_widths == std::set<std::int64_t>{1, 2});  // the batches come in random order
}

TEST_CASE("padded: who shares a batch changes within a bucket, also among equal lengths") {
  Sequences different, equal;
  for (std::int64_t i = 0; i < 12; ++i) {
    different.push_back(Indices(static_cast<std::size_t>(i), i));
    equal.push_back(Indices(3, i));
  }
  // The sequences that share a batch with number 0.
  const auto company = [](const Sequences& sequences, const BucketOptions& options,
                          std::uint64_t seed) {
    Generator generator(seed);
    for (auto& [x, lengths, indices] : bucketed_batches(sequences, options, generator)) {
      const std::set<std::int64_t> members(indices.begin(), indices.end());
      if (members.count(0) != 0) return members;
    }
    return std::set<std::int64_t>();
  };
  std::set<std::set<std::int64_t>> of_different, of_equal;
  for (std::uint64_t seed = 0; seed < 20; ++seed) {
    of_different.insert(company(different, {.batch_size = 3, .bucket_batches = 2}, seed));
    of_equal.insert(company(equal, {.batch_size = 3, .bucket_batches = 1}, seed));
  }
  CHECK(of_different.size() > 5);  // of 10 pairs from the bucket of lengths 0 to 5
  CHECK(of_equal.size() > 10);     // of 55
}

TEST_CASE("batches in order: each sequence once, as they stand") {
  const Sequences sequences{{1}, {2, 3}, {}, {4, 5, 6}, {7}};
  const PaddedBatches batches = ordered_batches(sequences, 2, 9);
  REQUIRE(batches.size() == 3);
  CHECK(batches[0].x.to_vector<std::int64_t>() == std::vector<std::int64_t>{1, 2, 9, 3});
  CHECK(batches[1].lengths.to_vector<std::int64_t>() == std::vector<std::int64_t>{0, 3});
  CHECK(batches[2].indices == std::vector<std::int64_t>{4});
  CHECK(ordered_batches(sequences, kHuge, 0).size() == 1);
  const Sequences none;
  CHECK(ordered_batches(none, 4, 0).size() == 0);
}

TEST_CASE("padded: options and batch indices out of range") {
  const Sequences sequences = {{1}, {2}, {3}};
  CHECK_THROWS_WITH_AS(ordered_batches(sequences, 0, 0),
                       "ordered_batches: batch_size must be 1 or more, got 0", ValueError);
  CHECK_THROWS_WITH_AS(bucketed_batches(sequences, {.batch_size = 0}),
                       "bucketed_batches: batch_size must be 1 or more, got 0", ValueError);
  CHECK_THROWS_WITH_AS(bucketed_batches(sequences, {.bucket_batches = 0}),
                       "bucketed_batches: bucket_batches must be 1 or more, got 0", ValueError);
  CHECK(bucketed_batches(sequences, {.batch_size = kHuge, .bucket_batches = kHuge}).size() == 1);
  const PaddedBatches batches = bucketed_batches(sequences, {.batch_size = 2});
  CHECK_THROWS_WITH_AS(batches[2], "PaddedBatches: index 2 is out of range for 2 batches",
                       IndexError);
  CHECK_THROWS_WITH_AS(batches[-1], "PaddedBatches: index -1 is out of range for 2 batches",
                       IndexError);
}

// --- All together -------------------------------------------------------------------------------

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
