/// Text: lines, words, characters, and what is not UTF-8.

#include "data/text.h"

#include <doctest/doctest.h>

#include <string>
#include <vector>

#include "framework/check.h"
#include "tests/data.h"
#include "tests/temporary_directory.h"

using namespace unroll;
using namespace unroll::test;

namespace {

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
  const std::string missing = directory.file("missing.txt");
  CHECK_THROWS_WITH_AS(read_lines(missing),
                       ("cannot read '" + missing + "': No such file or directory").c_str(),
                       FileError);
  const std::string here = directory.file(".");
  CHECK_THROWS_WITH_AS(read_text(here), ("cannot read '" + here + "': Is a directory").c_str(),
                       FileError);
}
