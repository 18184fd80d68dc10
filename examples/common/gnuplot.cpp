#include "examples/common/gnuplot.h"

#include "examples/common/program.h"
#include "framework/external.h"

namespace examples {

namespace {

std::string& kept_error() {
  static std::string error;
  return error;
}

}  // namespace

bool draw_svg(const std::string& path, int width, int height, const std::string& commands) {
  return try_to_draw([&] { unroll::draw_svg(path, width, height, commands); });
}

bool try_to_draw(const std::function<void()>& draw) {
  try {
    draw();
    return true;
  } catch (const unroll::detail::MissingProgram& error) {
    warn(std::string("no plot ") + error.what());
  } catch (const unroll::Error& error) {
    if (kept_error().empty()) kept_error() = error.what();
  }
  return false;
}

const std::string& drawing_error() { return kept_error(); }

}  // namespace examples
