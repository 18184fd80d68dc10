#pragma once
/// Curves as a picture.

#include <string>
#include <vector>

#include "framework/gnuplot.h"

namespace examples {

using unroll::Curve;
using unroll::Panel;
using unroll::PlotOptions;

/// As unroll::draw_curves, within try_to_draw() (gnuplot.h): returns whether there is a picture.
bool plot_svg(const std::string& path, const PlotOptions& options,
              const std::vector<Curve>& curves);
/// The same with one panel below the other.
bool plot_svg(const std::string& path, const std::vector<Panel>& panels);

}  // namespace examples
