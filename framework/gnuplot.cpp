#include "framework/gnuplot.h"

#include <algorithm>
#include <cmath>
#include <iterator>
#include <limits>

#include "framework/external.h"
#include "framework/format.h"

namespace unroll {

std::string gnuplot_string(std::string_view text) {
  std::string result = "'";
  for (const char c : text) {
    if (c == '\'') result += c;
    result += c;
  }
  return result + "'";
}

void draw_svg(const std::string& path, int width, int height, const std::string& commands) {
  const std::string script = detail::format(
      "set encoding utf8\nset linetype 9 linecolor rgb '#a6761d'\nset linetype cycle 9\n"
      "set terminal svg size {},{} dynamic noenhanced font 'sans-serif,14' background 'white'\n{}",
      width, height, commands);
  detail::write_by_program(path, script, [](const std::string& from, const std::string& to) {
    return std::vector<std::string>{
        "gnuplot", "-e",
        detail::format("set output {}; load {}", gnuplot_string(to), gnuplot_string(from))};
  });
}

namespace {

/// The range of an axis: what gnuplot chooses, except where all values are the same.
std::string range(const char* axis, const std::vector<Curve>& curves, bool log_scale,
                  double (*value)(const Curve&, std::size_t)) {
  double low = std::numeric_limits<double>::infinity(), high = -low;
  for (const Curve& curve : curves)
    for (std::size_t n = 0; n < curve.y.size(); ++n)
      if (const double v = value(curve, n); std::isfinite(v))
        low = std::min(low, v), high = std::max(high, v);
  if (low != high) return detail::format("set {}range [*:*]\n", axis);
  if (log_scale && low > 0) return detail::format("set {}range [{}:{}]\n", axis, low / 2, low * 2);
  return detail::format("set {}range [{}:{}]\n", axis, low - 1, low + 1);
}

/// What gnuplot does for one panel; `number` keeps the names of its data apart from the others'.
std::string panel_script(const Panel& panel, std::size_t number) {
  const auto& [options, curves] = panel;
  std::string script;
  script += detail::format(
      "set title {}\nset xlabel {}\nset ylabel {}\nset grid\nset key {}\n"
      "unset logscale\nset border back\n{}{}",
      gnuplot_string(options.title), gnuplot_string(options.x_label),
      gnuplot_string(options.y_label), options.legend,
      options.log_scale ? detail::format("set logscale y {}\n", options.log_base) : "",
      options.log_x ? "set logscale x 10\n" : "");
  const auto at = [](const Curve& curve, std::size_t n) {
    return curve.x.empty() ? static_cast<double>(n + 1) : curve.x.at(n);
  };
  script += range("x", curves, options.log_x, at);
  script += range("y", curves, options.log_scale,
                  [](const Curve& curve, std::size_t n) { return curve.y[n]; });
  for (std::size_t i = 0; i < curves.size(); ++i) {
    const Curve& curve = curves[i];
    script += detail::format("$curve{}_{} << END\n", number, i);
    for (std::size_t n = 0; n < curve.y.size(); ++n)
      script += detail::format("{} {}\n", at(curve, n), curve.y[n]);
    script += "END\n";
  }
  for (std::size_t i = 0; i < curves.size(); ++i)
    script += detail::format(
        "{} $curve{}_{} using 1:2 with {} title {}", i == 0 ? "plot" : ",", number, i,
        curves[i].points || curves[i].y.size() == 1 ? "points pointtype 7 pointsize 0.5"
                                                    : "lines linewidth 2",
        gnuplot_string(curves[i].name));
  return script + "\n";
}

}  // namespace

void draw_curves(const std::string& path, const std::vector<Panel>& panels) {
  std::string script;
  if (panels.size() > 1) script = detail::format("set multiplot layout {},1\n", panels.size());
  for (std::size_t i = 0; i < panels.size(); ++i) script += panel_script(panels[i], i);
  draw_svg(path, 720, panels.size() > 1 ? 380 * static_cast<int>(panels.size()) : 420, script);
}

}  // namespace unroll
