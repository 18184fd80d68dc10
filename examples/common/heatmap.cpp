#include "examples/common/heatmap.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <iterator>

#include "examples/common/gnuplot.h"
#include "framework/check.h"

namespace examples {

namespace {

/// set xtics ('a' 0, 'b' 1, ...)
std::string tics(const char* axis, const std::vector<std::string>& names, const char* style) {
  if (names.empty()) return "";
  std::string list;
  for (std::size_t i = 0; i < names.size(); ++i)
    list += fmt::format("{}{} {}", i == 0 ? "" : ", ", gnuplot_string(names[i]), i);
  return fmt::format("set {}tics {} ({})\n", axis, style, list);
}

}  // namespace

bool heatmap_svg(const std::string& path, const HeatmapOptions& options,
                 const std::vector<std::vector<double>>& values) {
  const std::size_t rows = values.size(), columns = rows > 0 ? values[0].size() : 0;
  if (columns == 0) throw unroll::ValueError("heatmap_svg: there is no value");
  for (std::size_t row = 0; row < rows; ++row)
    if (values[row].size() != columns)
      throw unroll::ValueError(fmt::format("heatmap_svg: row 0 has {} values, but row {} has {}",
                                           columns, row, values[row].size()));
  const auto check = [](const char* what, std::size_t names, std::size_t expected) {
    if (names != 0 && names != expected)
      throw unroll::ValueError(
          fmt::format("heatmap_svg: {} names for {} {}", names, expected, what));
  };
  check("rows", options.rows.size(), rows);
  check("columns", options.columns.size(), columns);

  const auto end = [](const std::optional<double>& value) {
    return value ? fmt::format("{}", *value) : "*";
  };
  std::string script;
  auto out = std::back_inserter(script);
  fmt::format_to(out,
                 "set title {}\nset xlabel {}\nset ylabel {}\nunset key\nset tics nomirror out\n"
                 "set palette defined (0 '#f7fbff', 1 '#6baed6', 2 '#08306b')\n"
                 "set xrange [-0.5:{}]\nset yrange [{}:-0.5]\n"
                 "set cbrange [{}:{}]\n{}{}{}",
                 gnuplot_string(options.title), gnuplot_string(options.x_label),
                 gnuplot_string(options.y_label), static_cast<double>(columns) - 0.5,
                 static_cast<double>(rows) - 0.5, end(options.low), end(options.high),
                 tics("x", options.columns, "rotate by 45 right"), tics("y", options.rows, ""),
                 options.log_scale ? "set logscale cb\nset format cb '%.0e'\n" : "");
  fmt::format_to(out, "$values << END\n");
  for (std::size_t row = 0; row < rows; ++row)
    for (std::size_t column = 0; column < columns; ++column)
      if (const double value = values[row][column]; !std::isnan(value))
        fmt::format_to(out, "{} {} {}\n", column, row, value);
  // Boxes, since gnuplot's images want two rows and columns or more.
  fmt::format_to(out,
                 "END\nplot $values using 1:2:(0.5):(0.5):3 with boxxyerror fill solid noborder "
                 "linecolor palette\n");
  const int height = 160 + 26 * static_cast<int>(std::clamp<std::size_t>(rows, 6, 30));
  return draw_svg(path, 720, height, script);
}

bool heatmap_svg(const std::string& path, const PlotOptions& axes,
                 const std::vector<Curve>& curves) {
  if (path.empty()) return false;
  HeatmapOptions options;
  options.title = axes.title, options.x_label = axes.x_label, options.log_scale = axes.log_scale;
  std::vector<std::vector<double>> values;
  for (const Curve& curve : curves) {
    options.rows.push_back(curve.name);
    values.push_back(curve.y);
  }
  return heatmap_svg(path, options, values);
}

}  // namespace examples
