#include "examples/common/plot.h"

#include <fmt/format.h>

#include <algorithm>
#include <iterator>

#include "examples/common/gnuplot.h"

namespace examples {

namespace {

/// What gnuplot does for one panel; `number` keeps the names of its data apart from the others'.
std::string panel_script(const Panel& panel, std::size_t number) {
  const auto& [options, curves] = panel;
  std::string script;
  auto out = std::back_inserter(script);
  fmt::format_to(out,
                 "set title {}\nset xlabel {}\nset ylabel {}\nset grid\nset key top right\n"
                 "unset logscale\n{}{}",
                 gnuplot_string(options.title), gnuplot_string(options.x_label),
                 gnuplot_string(options.y_label), options.log_scale ? "set logscale y 2\n" : "",
                 options.log_x ? "set logscale x 10\n" : "");
  const auto shorter = [](const Curve& a, const Curve& b) { return a.y.size() < b.y.size(); };
  const auto longest = std::max_element(curves.begin(), curves.end(), shorter);
  const bool single = longest != curves.end() && longest->y.size() == 1 && longest->x.empty();
  script += single ? "set xrange [0:2]\n" : "set xrange [*:*]\n";
  for (std::size_t i = 0; i < curves.size(); ++i) {
    const Curve& curve = curves[i];
    fmt::format_to(out, "$curve{}_{} << END\n", number, i);
    for (std::size_t n = 0; n < curve.y.size(); ++n)
      fmt::format_to(out, "{} {}\n", curve.x.empty() ? static_cast<double>(n + 1) : curve.x.at(n),
                     curve.y[n]);
    fmt::format_to(out, "END\n");
  }
  for (std::size_t i = 0; i < curves.size(); ++i)
    fmt::format_to(out, "{} $curve{}_{} using 1:2 with {} title {}", i == 0 ? "plot" : ",", number,
                   i,
                   curves[i].points || curves[i].y.size() == 1 ? "points pointtype 7 pointsize 0.5"
                                                               : "lines linewidth 2",
                   gnuplot_string(curves[i].name));
  return script + "\n";
}

}  // namespace

bool plot_svg(const std::string& path, const PlotOptions& options,
              const std::vector<Curve>& curves) {
  return plot_svg(path, {{options, curves}});
}

bool plot_svg(const std::string& path, const std::vector<Panel>& panels) {
  std::string script;
  if (panels.size() > 1) script = fmt::format("set multiplot layout {},1\n", panels.size());
  for (std::size_t i = 0; i < panels.size(); ++i) script += panel_script(panels[i], i);
  return draw_svg(path, 720, panels.size() > 1 ? 320 * static_cast<int>(panels.size()) : 420,
                  script);
}

}  // namespace examples
