#pragma once
/// Curves as a picture.

#include <string>
#include <vector>

namespace examples {

/// y[0], y[1], ... at x = 1, 2, ...; a NaN leaves a gap.
struct Curve {
  std::string name;
  std::vector<double> y;
};

struct PlotOptions {
  std::string title;
  std::string x_label;
  std::string y_label;
  bool log_scale = false;  ///< the y axis in powers of two
};

/// Draws the curves into an SVG file, by gnuplot; the file is complete or as it was before. Without
/// gnuplot, or if it fails, there is a warning and no picture: returns whether there is one.
bool plot_svg(const std::string& path, const PlotOptions& options,
              const std::vector<Curve>& curves);

}  // namespace examples
