#pragma once
/// Pictures by gnuplot: plot.h and heatmap.h say what can be drawn.

#include <functional>
#include <string>

#include "framework/gnuplot.h"

namespace examples {

using unroll::gnuplot_string;

/// As unroll::draw_svg, within try_to_draw().
bool draw_svg(const std::string& path, int width, int height, const std::string& commands);

/// Draws, and returns whether there is a picture. That gnuplot is not installed is a warning. Any
/// other Error, such as a full disk, is kept: no result is lost for the sake of a picture, but in
/// the end run() (program.h) fails.
bool try_to_draw(const std::function<void()>& draw);
/// The first error that was kept, or "".
const std::string& drawing_error();

}  // namespace examples
