#pragma once
/// Whether two tensors are equal to the bit.

#include <cstring>

#include "framework/tensor.h"

namespace unroll::fuzz {

inline bool same(const Tensor& a, const Tensor& b) {
  if (a.dtype() != b.dtype() || !(a.shape() == b.shape())) return false;
  const Tensor x = a.contiguous(), y = b.contiguous();
  return std::memcmp(detail::read(x), detail::read(y),
                     static_cast<std::size_t>(x.numel() * size_of(x.dtype()))) == 0;
}

}  // namespace unroll::fuzz
