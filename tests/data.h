#pragma once
/// What the tests of text, vocabularies and batches share: names for lists, and looks at tensors.

#include <cstdint>
#include <limits>
#include <numeric>
#include <string>
#include <vector>

#include "framework/ops.h"
#include "framework/tensor.h"

namespace unroll::test {

using Strings = std::vector<std::string>;
using Indices = std::vector<std::int64_t>;

constexpr std::int64_t kHuge = std::numeric_limits<std::int64_t>::max();

inline Indices numbers(std::int64_t n) {
  Indices result(static_cast<std::size_t>(n));
  std::iota(result.begin(), result.end(), 0);
  return result;
}

inline Indices values(const Tensor& x) { return x.to_vector<std::int64_t>(); }

inline std::int64_t length(const Indices& sequence) {
  return static_cast<std::int64_t>(sequence.size());
}

/// Column b of an i64 tensor [T, B].
inline Indices column(const Tensor& x, std::int64_t b) { return values(select(x, 1, b)); }

}  // namespace unroll::test
