#pragma once
/// What the tests of the kernels share: every instruction set, random values, a wider type.

#include <doctest/doctest.h>

#include <cstdint>
#include <random>
#include <string>
#include <vector>

#include "framework/kernels/kernels.h"

namespace unroll::test {

/// What expected values are computed in.
using Real = long double;

/// Runs f on the table of every instruction set that this CPU has.
template <class F>
void for_each_isa(F&& f) {
  for (const kernels::Kernels* table : kernels::available()) {
    CAPTURE(std::string(table->isa));
    f(*table);
  }
}

template <class T>
std::vector<T> random_values(std::size_t n, std::uint64_t seed, double low = -1, double high = 1) {
  std::mt19937_64 engine(seed);
  std::uniform_real_distribution<double> uniform(low, high);
  std::vector<T> values(n);
  for (T& v : values) v = static_cast<T>(uniform(engine));
  return values;
}

}  // namespace unroll::test
