/// CSV tables and numbers in text.

#include <doctest/doctest.h>

#include <fstream>
#include <optional>
#include <string>
#include <vector>

#include "data/csv.h"
#include "data/text.h"
#include "framework/check.h"
#include "tests/temporary_directory.h"

using namespace unroll;

namespace {

using Strings = std::vector<std::string>;
using Rows = std::vector<Strings>;

}  // namespace

TEST_CASE("a number is all that its text holds") {
  CHECK(parse_number("-12.5e3") == -12500.0);
  CHECK(parse_number(" \t7 \t") == 7.0);
  CHECK(parse_number("+.5") == 0.5);
  for (const char* text : {"", " ", "+", "-", "+-1", "++1", "1 2", "1,5", "0x10", "1e", "1e999",
                           "nan", "inf", "-infinity", "abc", "1a", "\n1", "１"}) {
    CAPTURE(text);
    CHECK(parse_number(text) == std::nullopt);
  }
}

TEST_CASE("CSV: fields, quotes and line ends") {
  CHECK(parse_csv("1,2\n3,4\n").rows == Rows{{"1", "2"}, {"3", "4"}});
  CHECK(parse_csv("1,2\r\n3,4").rows == Rows{{"1", "2"}, {"3", "4"}});
  CHECK(parse_csv("\n1,\n\n\n,2\n\n").rows == Rows{{"1", ""}, {"", "2"}});
  CHECK(parse_csv("1,").rows == Rows{{"1", ""}});
  CHECK(parse_csv("\"1\",\"a,b\"\n2,\"say \"\"hi\"\"\"\n3,\"\"\n").rows ==
        Rows{{"1", "a,b"}, {"2", "say \"hi\""}, {"3", ""}});
  CHECK(parse_csv("1;2,5", "csv", ';').rows == Rows{{"1", "2,5"}});

  const CsvTable table = parse_csv("1,\"two\nlines\"\r\n\n2,\"x\r\ny\"\n3,z");
  CHECK(table.rows == Rows{{"1", "two\nlines"}, {"2", "x\r\ny"}, {"3", "z"}});
  CHECK(table.lines == std::vector<std::int64_t>{1, 4, 6});
}

TEST_CASE("CSV: a first row without a number is the header") {
  CHECK(parse_csv("a,b\n1,2\n").header == Strings{"a", "b"});
  CHECK(parse_csv("a,b").header == Strings{"a", "b"});
  CHECK(parse_csv("a,b\nc,d\n").rows == Rows{{"c", "d"}});
  CHECK(parse_csv("2024-01,5\n2024-02,6\n").header.empty());
}

TEST_CASE("CSV: a column by name or number") {
  const CsvTable table = parse_csv("month,2,spots\nx,7,58.0\ny,8, 62.6\n", "sun.csv");
  CHECK(table.header.empty());  // the 2 is a number
  const CsvTable named = parse_csv("month,spots\nx,58.0\ny, 62.6\n", "sun.csv");
  CHECK(named.columns() == 2);
  CHECK(named.numbers("spots") == std::vector<double>{58.0, 62.6});
  CHECK(named.numbers("2") == std::vector<double>{58.0, 62.6});
  CHECK(parse_csv("1,2\n").numbers("1") == std::vector<double>{1.0});
  CHECK(parse_csv("a,b").numbers("b").empty());

  CHECK_THROWS_WITH_AS(named.numbers("sun"),
                       "cannot read 'sun.csv': there is no column 'sun' among 'month', 'spots'",
                       FileError);
  for (const char* name : {"0", "3", "1.5", "-1", "1e300", ""})
    CHECK_THROWS_WITH_AS(named.column(name),
                         (std::string("cannot read 'sun.csv': there is no column '") + name +
                          "' among 'month', 'spots'")
                             .c_str(),
                         FileError);
  CHECK_THROWS_WITH_AS(table.column("month2"),
                       "cannot read 'sun.csv': there is no column 'month2' among 1 to 3",
                       FileError);
  CHECK_THROWS_WITH_AS(named.numbers("month"),
                       "cannot read 'sun.csv': line 2: column 'month' has 'x', which is no number",
                       FileError);
}

TEST_CASE("CSV: what is malformed is refused with its line") {
  const auto refused = [](const std::string& text, const std::string& error) {
    CAPTURE(text);
    CHECK_THROWS_WITH_AS(parse_csv(text, "f.csv"), ("cannot read 'f.csv': " + error).c_str(),
                         FileError);
  };
  refused("", "line 1: there is no row");
  refused("\n\n", "line 3: there is no row");
  refused("1,2\n\n3\n", "line 3: 1 fields, where the first row has 2");
  refused("a\n1,2\n", "line 2: 2 fields, where the first row has 1");
  refused("1,2\n3,\"4\n\n", "line 2: a quote that does not end");
  refused("1\n2\"3\"\n", "line 2: a quote inside of a field that has none at its start");
  refused("\"1\n\n\"2\n", "line 3: characters between the end of a quote and the end of its field");
}

TEST_CASE("CSV: files") {
  const test::TemporaryDirectory directory;
  const std::string path = directory.file("series.csv");
  std::ofstream(path) << "\xef\xbb\xbfvalue\r\n1\r\n2\r\n";
  CHECK(read_csv(path).numbers("value") == std::vector<double>{1.0, 2.0});
  std::ofstream(path) << "value\n1\n\xff\n";
  CHECK_THROWS_WITH_AS(
      read_csv(path),
      ("cannot read '" + path + "': line 3: invalid UTF-8 at byte 8 (0xff)").c_str(), FileError);
  CHECK_THROWS_WITH_AS(
      read_csv(directory.file("none.csv")),
      ("cannot read '" + directory.file("none.csv") + "': No such file or directory").c_str(),
      FileError);
}
