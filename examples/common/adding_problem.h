#pragma once
/// The adding problem, which several examples use.

#include <cstdint>

#include "examples/common/comparison.h"
#include "framework/random.h"

namespace examples {

/// What a guess of 1, the mean, has for a mean squared error: the variance of the sum of two
/// numbers that are uniform in [0, 1), 2/12.
inline constexpr double kAddingBaseline = 2.0 / 12.0;

/// Which is the sum of the two numbers that are marked? (Hochreiter and Schmidhuber 1997,
/// experiment 4, as Arjovsky et al. 2016 have it.)
///
///   x  [T, B, 2]: at each time step a number, uniform in [0, 1), and a mark. The mark is 1 at one
///      time step of the first half and at one of the second half, else 0
///   y  [B, 1]: the sum
///
/// Throws ValueError for less than two time steps.
Batch adding_problem(std::int64_t steps, std::int64_t batch_size,
                     unroll::Generator& generator = unroll::default_generator());

}  // namespace examples
