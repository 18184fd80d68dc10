#include "examples/common/gnuplot.h"

#include "examples/common/program.h"
#include "framework/check.h"

namespace examples {

bool draw_svg(const std::string& path, int width, int height, const std::string& commands) {
  return or_warn([&] { unroll::draw_svg(path, width, height, commands); });
}

bool or_warn(const std::function<void()>& draw) {
  try {
    draw();
    return true;
  } catch (const unroll::Error& error) {
    warn(std::string("no plot ") + error.what());
    return false;
  }
}

}  // namespace examples
