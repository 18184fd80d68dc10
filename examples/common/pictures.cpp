#include "examples/common/pictures.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstdint>

#include "data/text.h"
#include "examples/common/gnuplot.h"

namespace examples {

bool pictures_svg(const std::string& path, const unroll::Tensor& pixels,
                  const std::vector<std::vector<std::string>>& captions) {
  const std::int64_t count = std::min<std::int64_t>(pixels.size(0), 6);
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
    std::string text = unroll::join(captions[static_cast<std::size_t>(n)], " ");
    script += "unset label\n";
    for (int line = 1; !text.empty(); ++line) {
      const std::size_t end = std::min(text.find(" and "), text.size());
      script += fmt::format("set label {} {} at graph 0.5, graph {} center font ',11'\n", line,
                            gnuplot_string(text.substr(0, end)), -0.13 * line);
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
  return draw_svg(path, 240 * static_cast<int>(columns), 250 * static_cast<int>(rows),
                  script + "unset multiplot\n");
}

}  // namespace examples
