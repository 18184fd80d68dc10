#pragma once
/// Curves as a picture.

#include <string>
#include <vector>

#include "framework/gnuplot.h"

namespace examples {

using unroll::Curve;
using unroll::Panel;
using unroll::PlotOptions;

/// As unroll::draw_curves; but without gnuplot, or if it fails, there is a warning and no picture:
/// returns whether there is one.
bool plot_svg(const std::string& path, const PlotOptions& options,
              const std::vector<Curve>& curves);
/// The same with one panel below the other.
bool plot_svg(const std::string& path, const std::vector<Panel>& panels);

}  // namespace examples
