#pragma once
/// Curves as a picture.

#include <string>
#include <vector>

namespace examples {

/// y[0], y[1], ... at x[0], x[1], ... or, without x, at 1, 2, ...; a NaN leaves a gap.
struct Curve {
  std::string name;
  std::vector<double> y{};
  std::vector<double> x{};
  bool points = false;  ///< instead of a line
};

struct PlotOptions {
  std::string title;
  std::string x_label;
  std::string y_label;
  bool log_scale = false;  ///< the y axis in powers of two
  bool log_x = false;      ///< the x axis in powers of ten
};

/// Curves and the axes that they share.
struct Panel {
  PlotOptions options;
  std::vector<Curve> curves;
};

/// Draws the curves into an SVG file, by gnuplot; the file is complete or as it was before. Without
/// gnuplot, or if it fails, there is a warning and no picture: returns whether there is one.
bool plot_svg(const std::string& path, const PlotOptions& options,
              const std::vector<Curve>& curves);

/// The same for several panels, one below the other.
bool plot_svg(const std::string& path, const std::vector<Panel>& panels);

}  // namespace examples
