#include "examples/common/plot.h"

#include "examples/common/gnuplot.h"

namespace examples {

bool plot_svg(const std::string& path, const PlotOptions& options,
              const std::vector<Curve>& curves) {
  return plot_svg(path, {{options, curves}});
}

bool plot_svg(const std::string& path, const std::vector<Panel>& panels) {
  return try_to_draw([&] { unroll::draw_curves(path, panels); });
}

}  // namespace examples
