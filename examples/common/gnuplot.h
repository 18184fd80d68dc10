#pragma once
/// Pictures by gnuplot: plot.h and heatmap.h say what can be drawn.

#include <functional>
#include <string>

#include "framework/gnuplot.h"

namespace examples {

using unroll::gnuplot_string;

/// As unroll::draw_svg; but without gnuplot, or if it fails, there is a warning and no picture:
/// returns whether there is one.
bool draw_svg(const std::string& path, int width, int height, const std::string& commands);

/// Draws; an Error becomes a warning. Returns whether there was none.
bool or_warn(const std::function<void()>& draw);

}  // namespace examples
