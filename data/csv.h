#pragma once
/// Tables in CSV files.
///
///     std::vector<double> sunspots = read_csv("sunspots.csv").numbers("Sunspots");

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace unroll {

/// Rows of fields, all of the same number.
struct CsvTable {
  std::string source;                          ///< what errors name: the path of the file
  std::vector<std::string> header;             ///< the names of the columns, if the table has them
  std::vector<std::vector<std::string>> rows;  ///< the fields of each
  std::vector<std::int64_t> lines;             ///< where each row begins, counted from 1

  /// Fields of each row.
  std::int64_t columns() const;
  /// The index of a column, by its name or, if none has it, by its number from 1 on. Throws
  /// FileError, with what there is.
  std::int64_t column(const std::string& name) const;
  /// The finite numbers of a column, from the first row to the last. Throws FileError, naming
  /// source and line, for a field that is none (parse_number in text.h), and as column().
  std::vector<double> numbers(const std::string& column) const;
};

/// A table as in RFC 4180: a row per line, fields between delimiters; in a field between double
/// quotes a delimiter and a line end are ordinary characters, and two quotes stand for one. Empty
/// lines are passed over. The first row is the header if none of its fields is a number. Throws
/// FileError, naming `source` and line, for a quote that does not end or that stands inside of a
/// field, for a row with another number of fields than the first, and for a text without a row.
CsvTable parse_csv(std::string_view text, const std::string& source = "csv", char delimiter = ',');

/// The same from a file of UTF-8 text. Throws FileError.
CsvTable read_csv(const std::string& path, char delimiter = ',');

}  // namespace unroll
