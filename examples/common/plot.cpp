#include "examples/common/plot.h"

#include <fmt/format.h>

#include <algorithm>
#include <iterator>

#include "examples/common/gnuplot.h"

namespace examples {

bool plot_svg(const std::string& path, const PlotOptions& options,
              const std::vector<Curve>& curves) {
  std::string script;
  auto out = std::back_inserter(script);
  fmt::format_to(out, "set title {}\nset xlabel {}\nset ylabel {}\nset grid\nset key top right\n{}",
                 gnuplot_string(options.title), gnuplot_string(options.x_label),
                 gnuplot_string(options.y_label), options.log_scale ? "set logscale y 2\n" : "");
  const auto shorter = [](const Curve& a, const Curve& b) { return a.y.size() < b.y.size(); };
  const auto longest = std::max_element(curves.begin(), curves.end(), shorter);
  if (longest != curves.end() && longest->y.size() == 1) script += "set xrange [0:2]\n";
  for (std::size_t i = 0; i < curves.size(); ++i) {
    fmt::format_to(out, "$curve{} << END\n", i);
    for (std::size_t x = 0; x < curves[i].y.size(); ++x)
      fmt::format_to(out, "{} {}\n", x + 1, curves[i].y[x]);
    fmt::format_to(out, "END\n");
  }
  for (std::size_t i = 0; i < curves.size(); ++i)
    fmt::format_to(out, "{} $curve{} using 1:2 with {} linewidth 2 title {}", i == 0 ? "plot" : ",",
                   i, curves[i].y.size() == 1 ? "points" : "lines", gnuplot_string(curves[i].name));
  return draw_svg(path, 720, 420, script + "\n");
}

}  // namespace examples
