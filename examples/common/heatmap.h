#pragma once
/// A matrix as a picture.

#include <optional>
#include <string>
#include <vector>

#include "examples/common/plot.h"

namespace examples {

struct HeatmapOptions {
  std::string title;
  std::string x_label;               ///< below the columns
  std::string y_label;               ///< beside the rows
  std::vector<std::string> columns;  ///< their names; empty: numbers from 0
  std::vector<std::string> rows;     ///< likewise; the first row is the topmost
  /// What the ends of the colours stand for (default: the least and the largest value).
  std::optional<double> low, high;
  bool log_scale = false;  ///< the colours follow the logarithm; 0 has none
};

/// Draws a colour for each value[row][column] into an SVG file, with a scale beside it; NaN leaves
/// a hole. As plot_svg without gnuplot. Throws ValueError for rows of different length, for no
/// value, and for names that are not as many as rows or columns.
bool heatmap_svg(const std::string& path, const HeatmapOptions& options,
                 const std::vector<std::vector<double>>& values);
/// Curves of one length as rows, with their names. "" as path: no picture.
bool heatmap_svg(const std::string& path, const PlotOptions& axes,
                 const std::vector<Curve>& curves);

}  // namespace examples
