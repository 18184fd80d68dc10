#pragma once
/// Small pictures of coloured shapes, made at random with the sentences that describe them.

#include <fmt/format.h>

#include <array>
#include <cmath>
#include <cstdint>
#include <string>

#include "data/pictures.h"
#include "data/text.h"
#include "framework/random.h"
#include "framework/tensor.h"

namespace examples {

/// What can stand in one quarter of a picture, and in which.
struct ShapeKind {
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
inline bool inside_shape(std::int64_t shape, std::int64_t extent, std::int64_t row,
                         std::int64_t column) {
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
inline unroll::CaptionedPictures make_shapes(std::int64_t count, bool unseen,
                                             unroll::Generator& generator) {
  constexpr std::int64_t side = 16, quarter = side / 2;
  constexpr double rgb[4][3] = {{1, 0, 0}, {0, 1, 0}, {0, 0, 1}, {1, 1, 0}};
  unroll::CaptionedPictures pictures{unroll::zeros({count, side, side, 3}), {}};
  const auto pixels = pictures.pixels.write<float>();
  for (std::int64_t n = 0; n < count; ++n) {
    const std::int64_t shapes = 1 + generator.below(3),
                       special = unseen ? generator.below(shapes) : -1;
    std::int64_t left = shapes;
    std::string caption;
    for (std::int64_t place = 0; place < 4; ++place) {
      if (generator.below(4 - place) >= left) continue;  // `left` of the places that remain
      const bool unseen_here = special == shapes - left;
      ShapeKind kind{};
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
            if (inside_shape(kind.shape, extent, row, column))
              pixels[((n * side + top + row) * side + begin + column) * 3 + c] =
                  static_cast<float>(brightness * rgb[kind.colour][c]);
      const auto name = [](const auto& names, std::int64_t i) {
        return names[static_cast<std::size_t>(i)];
      };
      caption +=
          fmt::format("{}a {} {} {} {}", caption.empty() ? "" : " and ", name(kSizes, kind.size),
                      name(kColours, kind.colour), name(kShapes, kind.shape), name(kPlaces, place));
    }
    pictures.captions.push_back(unroll::split_words(caption));
  }
  return pictures;
}

}  // namespace examples
