#pragma once
/// The pictures of examples/caption.cpp: made at random with the sentences that describe them, read
/// from files, and drawn.

#include <fmt/format.h>
#include <unroll/unroll.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "examples/common/gnuplot.h"

namespace caption {

using namespace unroll;

struct Pictures {
  Tensor pixels;                      ///< f32 [N, height, width, 3], 0 to 1
  std::vector<std::string> captions;  ///< [N], or none
};

// --- Made at random -----------------------------------------------------------------------------

/// What can stand in one quarter of a picture, and in which.
struct Kind {
  std::int64_t size, colour, shape, place;
  /// A fourth of all combinations is never shown in training; sizes, colours, shapes and places are
  /// all shown, and what is missing in one place stands in the others.
  bool unseen() const { return colour == (shape + 2 * size + place) % 4; }
};
inline constexpr std::array kSizes{"small", "large"};
inline constexpr std::array kColours{"red", "green", "blue", "yellow"};
inline constexpr std::array kShapes{"square", "circle", "triangle"};
inline constexpr std::array kPlaces{"top left", "top right", "bottom left", "bottom right"};

/// Whether a pixel belongs to a shape of so many pixels in width and height.
inline bool inside(std::int64_t shape, std::int64_t extent, std::int64_t row, std::int64_t column) {
  const double half = static_cast<double>(extent) / 2;
  const double y = static_cast<double>(row) + 0.5 - half,
               x = static_cast<double>(column) + 0.5 - half;
  if (shape == 1) return x * x + y * y <= half * half;
  if (shape == 2) return std::abs(x) <= (y + half) / 2;
  return true;
}

/// `count` pictures of 16 x 16 pixels with one to three shapes in different quarters, each a little
/// moved and more or less bright. With `unseen` each has one or more of the unseen kinds, else
/// none.
inline Pictures make_pictures(std::int64_t count, bool unseen, Generator& generator) {
  constexpr std::int64_t side = 16, quarter = side / 2;
  constexpr double rgb[4][3] = {{1, 0, 0}, {0, 1, 0}, {0, 0, 1}, {1, 1, 0}};
  Pictures pictures{zeros({count, side, side, 3}), {}};
  const auto pixels = pictures.pixels.write<float>();
  for (std::int64_t n = 0; n < count; ++n) {
    const std::int64_t shapes = 1 + generator.below(3),
                       special = unseen ? generator.below(shapes) : -1;
    std::int64_t left = shapes;
    std::string caption;
    for (std::int64_t place = 0; place < 4; ++place) {
      if (generator.below(4 - place) >= left) continue;  // `left` of the places that remain
      const bool unseen_here = special == shapes - left;
      Kind kind{};
      do {
        kind = {generator.below(2), generator.below(4), generator.below(3), place};
      } while (unseen_here ? !kind.unseen() : !unseen && kind.unseen());
      --left;
      const std::int64_t extent = kind.size == 0 ? 4 : 7;
      const std::int64_t top = place / 2 * quarter + generator.below(quarter - extent + 1);
      const std::int64_t begin = place % 2 * quarter + generator.below(quarter - extent + 1);
      const double brightness = 0.6 + 0.4 * generator.uniform();
      for (std::int64_t row = 0; row < extent; ++row)
        for (std::int64_t column = 0; column < extent; ++column)
          for (std::int64_t c = 0; c < 3; ++c)
            if (inside(kind.shape, extent, row, column))
              pixels[((n * side + top + row) * side + begin + column) * 3 + c] =
                  static_cast<float>(brightness * rgb[kind.colour][c]);
      const auto name = [](const auto& names, std::int64_t i) {
        return names[static_cast<std::size_t>(i)];
      };
      caption +=
          fmt::format("{}a {} {} {} {}", caption.empty() ? "" : " and ", name(kSizes, kind.size),
                      name(kColours, kind.colour), name(kShapes, kind.shape), name(kPlaces, place));
    }
    pictures.captions.push_back(caption);
  }
  return pictures;
}

// --- Files --------------------------------------------------------------------------------------

/// Pictures from a .npy file [N, height, width, 3], numbers from 0 to 1 or integers from 0 to 255;
/// without a file of captions, there are none. Throws FileError for what does not fit.
inline Pictures read_pictures(const std::string& path, const std::string& captions) {
  const Tensor array = load_npy(path);
  if (array.dim() != 4 || array.size(3) != 3 || array.size(1) % 2 != 0 || array.size(2) % 2 != 0 ||
      array.numel() == 0)
    throw FileError(
        fmt::format("cannot read '{}': expected an array (pictures, height, width, 3) "
                    "with even height and width, got {}",
                    path, to_string(array.shape())));
  Pictures pictures{array.to(DType::f32), {}};
  if (array.dtype() == DType::i64) pictures.pixels = pictures.pixels / 255.0;
  const double low = min(pictures.pixels).item(), high = max(pictures.pixels).item();
  if (!(low >= 0 && high <= 1))
    throw FileError(
        fmt::format("cannot read '{}': numbers must be from 0 to 1 (or integers from 0 to "
                    "255), but are from {} to {}",
                    path, low, high));
  if (captions.empty()) return pictures;
  pictures.captions = read_lines(captions);
  if (std::ssize(pictures.captions) != array.size(0))
    throw FileError(fmt::format("'{}' has {} pictures, but '{}' has {} lines", path, array.size(0),
                                captions, pictures.captions.size()));
  for (std::size_t i = 0; i < pictures.captions.size(); ++i)
    if (split_words(pictures.captions[i]).empty())
      throw FileError(
          fmt::format("cannot read '{}': line {}: there is no caption", captions, i + 1));
  return pictures;
}

// --- Drawn --------------------------------------------------------------------------------------

/// The first `count` pictures, each with a text below it, as an SVG file; see draw_svg (gnuplot.h).
inline bool draw_pictures(const std::string& path, const Tensor& pixels,
                          const std::vector<std::string>& texts, std::int64_t count) {
  const std::int64_t columns = std::min<std::int64_t>(count, 3),
                     rows = (count + columns - 1) / columns;
  const std::int64_t height = pixels.size(1), width = pixels.size(2);
  std::string script = fmt::format(
      "set multiplot layout {},{}\nunset key\nunset tics\nset size ratio -1\nset bmargin 4\n"
      "set xrange [-0.5:{}]\nset yrange [{}:-0.5]\n"
      "set object 1 rectangle from graph 0,0 to graph 1,1 fillcolor rgb 'black' behind\n",
      rows, columns, static_cast<double>(width) - 0.5, static_cast<double>(height) - 0.5);
  const std::vector<float> values = pixels.to_vector<float>();
  for (std::int64_t n = 0; n < count; ++n) {
    // A line of the text for each shape.
    std::string text = texts[static_cast<std::size_t>(n)];
    script += "unset label\n";
    for (int line = 1; !text.empty(); ++line) {
      const std::size_t end = std::min(text.find(" and "), text.size());
      script += fmt::format("set label {} {} at graph 0.5, graph {} center font ',11'\n", line,
                            examples::gnuplot_string(text.substr(0, end)), -0.13 * line);
      text.erase(0, end == text.size() ? end : end + 1);
    }
    script += fmt::format("$picture{} << END\n0 0 0\n", n);
    for (std::int64_t i = 0; i < height * width; ++i) {
      const float* p = &values[static_cast<std::size_t>((n * height * width + i) * 3)];
      const auto byte = [&](int c) { return std::lround(255 * static_cast<double>(p[c])); };
      const long rgb = (byte(0) << 16) + (byte(1) << 8) + byte(2);
      if (rgb != 0) script += fmt::format("{} {} {}\n", i % width, i / width, rgb);
    }
    script += fmt::format(
        "END\nplot $picture{} using 1:2:(0.5):(0.5):3 with boxxyerror fill solid noborder "
        "linecolor "
        "rgb variable\n",
        n);
  }
  return examples::draw_svg(path, 240 * static_cast<int>(columns), 250 * static_cast<int>(rows),
                            script + "unset multiplot\n");
}

}  // namespace caption
