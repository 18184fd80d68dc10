#pragma once
/// Pictures by the program gnuplot.

#include <string>
#include <string_view>
#include <vector>

namespace unroll {

/// As gnuplot writes a string.
std::string gnuplot_string(std::string_view text);

/// Draws into an SVG file of so many pixels what the gnuplot commands say; the file is complete or
/// as it was before. Throws FileError that names the path and the reason, such as that gnuplot is
/// not installed.
void draw_svg(const std::string& path, int width, int height, const std::string& commands);

/// y[0], y[1], ... at x[0], x[1], ... or, without x, at 1, 2, ...; a NaN leaves a gap.
struct Curve {
  std::string name;         ///< in the legend
  std::vector<double> y{};  ///< the values
  std::vector<double> x{};  ///< where they are: as many, or none
  bool points = false;      ///< instead of a line
};

/// Axes and what is written at them.
struct PlotOptions {
  std::string title{};           ///< above the picture
  std::string x_label{};         ///< below the x axis
  std::string y_label{};         ///< beside the y axis
  bool log_scale = false;        ///< the y axis in powers of log_base
  bool log_x = false;            ///< the x axis in powers of ten
  int log_base = 2;              ///< of the y axis
  std::string legend = "below";  ///< where it stands, in gnuplot's words for `set key`
};

/// Curves and the axes that they share.
struct Panel {
  PlotOptions options;        ///< the axes
  std::vector<Curve> curves;  ///< what is drawn
};

/// Draws curves into an SVG file, one panel below the other. Throws as draw_svg.
void draw_curves(const std::string& path, const std::vector<Panel>& panels);

}  // namespace unroll
