#include "data/csv.h"

#include <algorithm>
#include <optional>

#include "data/text.h"
#include "framework/check.h"
#include "framework/format.h"

namespace unroll {
namespace {

class CsvParser {
 public:
  CsvParser(std::string_view text, const std::string& source, char delimiter)
      : rest_(text), delimiter_(delimiter) {
    table_.source = source;
  }

  CsvTable parse() {
    while (!rest_.empty()) {
      if (end_line()) continue;  // an empty line
      const std::int64_t first = line_;
      std::vector<std::string> row{field()};
      while (!rest_.empty() && !end_line()) {
        rest_.remove_prefix(1);  // the delimiter
        row.push_back(field());
      }
      add(std::move(row), first);
    }
    if (table_.header.empty() && table_.rows.empty()) fail(line_, "there is no row");
    return std::move(table_);
  }

 private:
  [[noreturn]] void fail(std::int64_t line, const std::string& what) const {
    detail::fail<FileError>("cannot read '{}': line {}: {}", table_.source, line, what);
  }

  /// Whether a line ended here; if so, the next one begins.
  bool end_line() {
    const std::size_t length = rest_.starts_with("\r\n") ? 2 : rest_.starts_with('\n') ? 1 : 0;
    rest_.remove_prefix(length);
    if (length > 0) ++line_;
    return length > 0;
  }

  /// Up to a delimiter, a line end or the end of the text, all of which stay.
  std::string field() {
    if (rest_.starts_with('"')) return quoted_field();
    std::size_t length = std::min(rest_.find_first_of(std::string{delimiter_, '\n'}), rest_.size());
    if (rest_.substr(0, length + 1).ends_with("\r\n")) --length;
    const std::string_view text = rest_.substr(0, length);
    if (text.find('"') != text.npos)
      fail(line_, "a quote inside of a field that has none at its start");
    rest_.remove_prefix(length);
    return std::string(text);
  }

  std::string quoted_field() {
    const std::int64_t first = line_;
    std::string text;
    rest_.remove_prefix(1);
    while (true) {
      const std::size_t length = rest_.find('"');
      if (length == rest_.npos) fail(first, "a quote that does not end");
      text += rest_.substr(0, length);
      rest_.remove_prefix(length + 1);
      if (!rest_.starts_with('"')) break;
      text += '"';
      rest_.remove_prefix(1);
    }
    line_ += std::count(text.begin(), text.end(), '\n');
    if (!rest_.empty() && rest_[0] != delimiter_ && rest_[0] != '\n' && !rest_.starts_with("\r\n"))
      fail(line_, "characters between the end of a quote and the end of its field");
    return text;
  }

  void add(std::vector<std::string> row, std::int64_t line) {
    const bool first = table_.header.empty() && table_.rows.empty();
    const auto is_number = [](const std::string& text) { return parse_number(text).has_value(); };
    if (!first && std::ssize(row) != table_.columns())
      fail(line,
           detail::format("{} fields, where the first row has {}", row.size(), table_.columns()));
    if (first && std::none_of(row.begin(), row.end(), is_number)) {
      table_.header = std::move(row);
    } else {
      table_.rows.push_back(std::move(row));
      table_.lines.push_back(line);
    }
  }

  std::string_view rest_;
  char delimiter_;
  std::int64_t line_ = 1;
  CsvTable table_;
};

}  // namespace

std::int64_t CsvTable::columns() const {
  return std::ssize(!header.empty() || rows.empty() ? header : rows.front());
}

std::int64_t CsvTable::column(const std::string& name) const {
  const auto found = std::find(header.begin(), header.end(), name);
  if (found != header.end()) return found - header.begin();
  const double number = parse_number(name).value_or(0);
  for (std::int64_t i = 0; i < columns(); ++i)
    if (number == static_cast<double>(i + 1)) return i;
  detail::fail<FileError>("cannot read '{}': there is no column '{}' among {}", source, name,
                          header.empty() ? detail::format("1 to {}", columns())
                                         : detail::format("'{}'", join(header, "', '")));
}

std::vector<double> CsvTable::numbers(const std::string& name) const {
  const auto index = static_cast<std::size_t>(column(name));
  std::vector<double> values;
  values.reserve(rows.size());
  for (std::size_t i = 0; i < rows.size(); ++i) {
    const std::optional<double> value = parse_number(rows[i][index]);
    if (!value)
      detail::fail<FileError>("cannot read '{}': line {}: column '{}' has '{}', which is no number",
                              source, lines[i], name, rows[i][index]);
    values.push_back(*value);
  }
  return values;
}

CsvTable parse_csv(std::string_view text, const std::string& source, char delimiter) {
  return CsvParser(text, source, delimiter).parse();
}

CsvTable read_csv(const std::string& path, char delimiter) {
  return parse_csv(read_text(path), path, delimiter);
}

}  // namespace unroll
