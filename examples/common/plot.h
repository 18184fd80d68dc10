#pragma once
/// Curves as a picture.

#include <string>
#include <vector>

#include "framework/gnuplot.h"

namespace examples {

using unroll::Curve;
using unroll::Panel;
using unroll::PlotOptions;

/// Axes of which the y axis is in powers of ten.
PlotOptions log_axes(std::string title, std::string x_label, std::string y_label);

/// As unroll::draw_curves, within try_to_draw() (gnuplot.h): returns whether there is a picture.
/// Curves without a value are left out; without any, and without a path, there is none.
bool plot_svg(const std::string& path, const PlotOptions& options,
              const std::vector<Curve>& curves);
/// The same with one panel below the other.
bool plot_svg(const std::string& path, const std::vector<Panel>& panels);

}  // namespace examples
