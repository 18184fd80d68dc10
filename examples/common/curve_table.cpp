#include "examples/common/curve_table.h"

#include <fmt/format.h>

#include <algorithm>

namespace examples {

std::string curve_table(const std::string& corner, const std::vector<Curve>& curves,
                        const std::vector<double>& xs) {
  std::size_t width = corner.size();
  for (const Curve& curve : curves) width = std::max(width, curve.name.size());
  std::string table = fmt::format("{:{}}", corner, width);
  for (const double x : xs) table += fmt::format("{:>11}", x);
  for (const Curve& curve : curves) {
    table += fmt::format("\n{:{}}", curve.name, width);
    for (const double x : xs) {
      std::size_t i = 0;
      while (i < curve.y.size() && (curve.x.empty() ? static_cast<double>(i + 1) : curve.x[i]) != x)
        ++i;
      table +=
          i < curve.y.size() ? fmt::format("{:11.4g}", curve.y[i]) : fmt::format("{:>11}", "-");
    }
  }
  return table + "\n";
}

}  // namespace examples
