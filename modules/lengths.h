#pragma once
/// Where the padding of a batch is. Not for users.

#include <cstdint>
#include <vector>

#include "framework/tensor.h"

namespace unroll::detail {

/// The lengths of B sequences of at most T steps, T for each where `lengths` is undefined. Throws,
/// with `where` before the message, DTypeError unless they are i64, ShapeError unless they are [B],
/// ValueError for one outside of 1 to T.
std::vector<std::int64_t> checked_lengths(const char* where, const Tensor& lengths, std::int64_t T,
                                          std::int64_t B);

/// [T, B] of f32: 1 in the padding, 0 elsewhere; undefined where there is none. Throws likewise.
Tensor padding_mask(const char* where, const Tensor& lengths, std::int64_t T, std::int64_t B);

}  // namespace unroll::detail
