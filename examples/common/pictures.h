#pragma once
/// Pictures as one picture.

#include <string>
#include <vector>

#include "framework/tensor.h"

namespace examples {

/// The first pictures [N, height, width, 3], numbers from 0 to 1, three in a row and six at most,
/// each with its caption below it, whose lines break before "and", as an SVG file. As draw_svg
/// (gnuplot.h) without gnuplot.
bool pictures_svg(const std::string& path, const unroll::Tensor& pixels,
                  const std::vector<std::vector<std::string>>& captions);

}  // namespace examples
