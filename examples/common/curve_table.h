#pragma once
/// Curves as a table.

#include <string>
#include <vector>

#include "examples/common/plot.h"

namespace examples {

/// A row for each curve with its values at some x, under a head that begins with `corner`:
///
///   steps ahead          1          4
///   persistence     0.2818     0.3191
///
/// "-" where a curve has no value.
std::string curve_table(const std::string& corner, const std::vector<Curve>& curves,
                        const std::vector<double>& xs);

}  // namespace examples
