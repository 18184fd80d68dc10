// Any text as a table with commas, tabs or semicolons: refused with an error that names source and
// line, or read as rows of one width, which come back when they are written with every field in
// quotes.

#include "data/csv.h"

#include "framework/check.h"
#include "tests/fuzz/fuzz.h"

using namespace unroll;
using namespace unroll::fuzz;

namespace {

std::string quoted(const std::vector<std::string>& row, char delimiter) {
  std::string line;
  for (const std::string& field : row) {
    if (!line.empty()) line += delimiter;
    line += '"';
    for (char c : field) line += c == '"' ? std::string("\"\"") : std::string{c};
    line += '"';
  }
  return line + '\n';
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  Bytes bytes(data, size < 1 ? size : 1);
  const char delimiter = ",\t;"[bytes.below(3)];
  const std::string_view text = text_of(data, size).substr(size < 1 ? size : 1);
  try {
    const CsvTable table = parse_csv(text, "fuzz", delimiter);
    require(table.rows.size() == table.lines.size(), "lists differ");
    std::string again = table.header.empty() ? "" : quoted(table.header, delimiter);
    for (const auto& row : table.rows) {
      require(std::ssize(row) == table.columns(), "a row of another width");
      again += quoted(row, delimiter);
    }
    const CsvTable second = parse_csv(again, "fuzz", delimiter);
    require(second.header == table.header && second.rows == table.rows, "another table");
    for (std::int64_t column = 1; column <= table.columns(); ++column)
      require(table.numbers(std::to_string(column)).size() == table.rows.size(),
              "numbers are lost");
  } catch (const FileError& error) {
    require(std::string(error.what()).starts_with("cannot read 'fuzz': "), error.what());
  }
  return 0;
}
