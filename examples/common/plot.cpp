#include "examples/common/plot.h"

#include <utility>

#include "examples/common/gnuplot.h"

namespace examples {

bool plot_svg(const std::string& path, const PlotOptions& options,
              const std::vector<Curve>& curves) {
  return plot_svg(path, {{options, curves}});
}

bool plot_svg(const std::string& path, const std::vector<Panel>& panels) {
  std::vector<Panel> filled = panels;
  for (Panel& panel : filled)
    std::erase_if(panel.curves, [](const Curve& curve) { return curve.y.empty(); });
  std::erase_if(filled, [](const Panel& panel) { return panel.curves.empty(); });
  if (path.empty() || filled.empty()) return false;
  return try_to_draw([&] { unroll::draw_curves(path, filled); });
}

PlotOptions log_axes(std::string title, std::string x_label, std::string y_label) {
  return {.title = std::move(title),
          .x_label = std::move(x_label),
          .y_label = std::move(y_label),
          .log_scale = true,
          .log_base = 10};
}

}  // namespace examples
