#pragma once
/// Pictures by gnuplot: plot.h and heatmap.h say what can be drawn.

#include <string>
#include <string_view>

namespace examples {

/// As gnuplot writes a string.
std::string gnuplot_string(std::string_view text);

/// Draws into an SVG file of so many pixels what the gnuplot commands say; the file is complete or
/// as it was before. Without gnuplot, or if it fails, there is a warning and no picture: returns
/// whether there is one.
bool draw_svg(const std::string& path, int width, int height, const std::string& commands);

}  // namespace examples
