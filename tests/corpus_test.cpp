// Readers of labelled lines and of CoNLL files: what they take, and what they say to what they
// don't.

#include <doctest/doctest.h>

#include <fstream>
#include <string>
#include <vector>

#include "data/conll.h"
#include "data/labelled.h"
#include "framework/check.h"
#include "tests/temporary_directory.h"

using namespace unroll;

namespace {

using Strings = std::vector<std::string>;

std::string labelled_error(const std::string& text) {
  try {
    parse_labelled_lines(text, "a.txt");
  } catch (const FileError& error) {
    return error.what();
  }
  return "";
}

std::string conll_error(const std::string& text, const ConllOptions& options = {}) {
  try {
    parse_conll(text, "a.conll", options);
  } catch (const FileError& error) {
    return error.what();
  }
  return "";
}

}  // namespace

TEST_CASE("labelled lines: label, text and line number") {
  const auto lines = parse_labelled_lines(
      "good the food was good\n\n1\t\ta  tab \r\n  \t \npos 这电影很好\nx y", "a.txt");
  REQUIRE(lines.size() == 4);
  CHECK(lines[0].label == "good");
  CHECK(lines[0].text == "the food was good");
  CHECK(lines[0].line == 1);
  CHECK(lines[1].label == "1");
  CHECK(lines[1].text == "a  tab");
  CHECK(lines[1].line == 3);
  CHECK(lines[2].text == "这电影很好");
  CHECK(lines[3].text == "y");
  CHECK(lines[3].line == 6);
  CHECK(parse_labelled_lines("", "a.txt").empty());
  CHECK(parse_labelled_lines("a b a b a\n", "a.txt")[0].text == "b a b a");
}

TEST_CASE("labelled lines: errors name file and line") {
  CHECK(labelled_error("a b\ngood\n") == "a.txt: line 2: has a label, 'good', but no text");
  CHECK(labelled_error("good \t \n") == "a.txt: line 1: has a label, 'good', but no text");
  CHECK(labelled_error("a b\n\n good food\n") ==
        "a.txt: line 3: does not begin with a label and a space or tab");
  CHECK(labelled_error("好　吃\n") ==  // an ideographic space
        "a.txt: line 1: does not begin with a label and a space or tab");
  CHECK(labelled_error("a b\na \xff") ==
        "a.txt: line 2: split_words: invalid UTF-8 at byte 2 (0xff)");
  const test::TemporaryDirectory directory;
  const std::string path = directory.file("empty");
  std::ofstream(path) << "\n\n";
  CHECK_THROWS_WITH_AS(read_labelled_lines(path),
                       (path + " has no line with a label and a text").c_str(), FileError);
  CHECK_THROWS_WITH_AS(
      read_labelled_lines(directory.file("none")),
      ("cannot read '" + directory.file("none") + "': No such file or directory").c_str(),
      FileError);
}

TEST_CASE("CoNLL: sentences, columns and line numbers") {
  const auto sentences = parse_conll(
      "-DOCSTART- -X- O O\n\nEU NNP B-NP B-ORG\r\nrejects VBZ B-VP O\r\n \n\n\nPeter\tNNP\tB-PER\n",
      "a.conll");
  REQUIRE(sentences.size() == 2);
  CHECK(sentences[0].tokens == Strings{"EU", "rejects"});
  CHECK(sentences[0].tags == Strings{"B-ORG", "O"});
  CHECK(sentences[0].lines == std::vector<std::int64_t>{3, 4});
  CHECK(sentences[1].tokens == Strings{"Peter"});
  CHECK(sentences[1].tags == Strings{"B-PER"});
  CHECK(sentences[1].lines == std::vector<std::int64_t>{8});

  const auto tags = parse_conll("EU NNP B-NP B-ORG\n", "a.conll", {.tag_column = 2});
  CHECK(tags[0].tags == Strings{"NNP"});
  const auto last = parse_conll("EU NNP B-ORG\n", "a", {.token_column = -2, .tag_column = 1});
  CHECK(last[0].tokens == Strings{"NNP"});
  CHECK(last[0].tags == Strings{"EU"});
  // Between tabs a token may have a space, and '#' is a token like any other.
  const auto tabs = parse_conll("New York\tB-LOC\n#\tO\n", "a.conll");
  CHECK(tabs[0].tokens == Strings{"New York", "#"});
  CHECK(parse_conll("", "a.conll").empty());
}

TEST_CASE("CoNLL-U: comments and ranges are left out") {
  const auto sentences = parse_conll(
      "# text = vámonos\n1-2\tvámonos\t_\t_\n1\tvamos\tir\tVERB\n2\tnos\tnosotros\tPRON\n"
      "2.1\tx\tx\tX\n\n",
      "a.conllu", {.token_column = 2, .tag_column = 4, .conllu = true});
  REQUIRE(sentences.size() == 1);
  CHECK(sentences[0].tokens == Strings{"vamos", "nos"});
  CHECK(sentences[0].tags == Strings{"VERB", "PRON"});
  CHECK(sentences[0].lines == std::vector<std::int64_t>{3, 4});
}

TEST_CASE("CoNLL: errors name file and line") {
  CHECK(conll_error("EU B-ORG\nrejects\n") ==
        "a.conll: line 2: has 1 column, but the token is in column 1 and the tag in column -1");
  CHECK(conll_error("EU B-ORG\n", {.tag_column = 4}) ==
        "a.conll: line 1: has 2 columns, but the token is in column 1 and the tag in column 4");
  CHECK(conll_error("EU B-ORG\n", {.tag_column = -3}) ==
        "a.conll: line 1: has 2 columns, but the token is in column 1 and the tag in column -3");
  CHECK(conll_error("EU\tB-ORG\n\nrejects\t\n") == "a.conll: line 3: column 2 is empty");
  CHECK(conll_error("EU\tB-ORG\n\t O\n") == "a.conll: line 2: column 1 is empty");
  CHECK(conll_error("EU O\n\xc3( O\n") ==
        "a.conll: line 2: split_words: invalid UTF-8 at byte 0 (0xc3)");
  CHECK_THROWS_WITH_AS(parse_conll("", "a.conll", {.tag_column = 0}),
                       "parse_conll: columns count from 1, or from -1 backwards", ValueError);
  const test::TemporaryDirectory directory;
  const std::string path = directory.file("empty");
  std::ofstream(path) << "\n";
  CHECK_THROWS_WITH_AS(read_conll(path), (path + " has no sentence").c_str(), FileError);
}

TEST_CASE("CoNLL: tags in another scheme, and what breaks the rules of theirs") {
  auto sentences = parse_conll("a I-X\nb I-X\nc B-X\n\nd O\ne I-Y\n", "a.conll");
  CHECK(convert_scheme(sentences, "a.conll", TagScheme::IOB1, TagScheme::BMES).empty());
  CHECK(sentences[0].tags == Strings{"B-X", "E-X", "S-X"});
  CHECK(sentences[1].tags == Strings{"O", "S-Y"});
  CHECK(convert_scheme(sentences, "a.conll", TagScheme::BMES, TagScheme::BIO).empty());
  CHECK(sentences[0].tags == Strings{"B-X", "I-X", "B-X"});

  sentences = parse_conll("a I-X\nb I-Y\nc I-Y\n\nd B-X\n", "a.conll");
  CHECK(convert_scheme(sentences, "a.conll", TagScheme::BIO, TagScheme::BIOES) ==
        Strings{"a.conll: line 1: I-X, but BIO has B-X there",
                "a.conll: line 2: I-Y, but BIO has B-Y there"});
  CHECK(sentences[0].tags == Strings{"S-X", "B-Y", "E-Y"});
  CHECK(sentences[1].tags == Strings{"S-X"});

  sentences = parse_conll("a O\nb PER\n", "a.conll");
  CHECK_THROWS_WITH_AS(
      convert_scheme(sentences, "a.conll", TagScheme::BIO, TagScheme::BIO),
      "a.conll: line 2: 'PER' is no tag of entities: those are O, or B, I, M, E or S with a type "
      "behind '-'",
      FileError);
}
