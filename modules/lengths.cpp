#include "modules/lengths.h"

#include "framework/internal.h"

namespace unroll::detail {

std::vector<std::int64_t> checked_lengths(const char* where, const Tensor& lengths, std::int64_t T,
                                          std::int64_t B) {
  if (!lengths.defined()) return std::vector<std::int64_t>(static_cast<std::size_t>(B), T);
  if (lengths.dtype() != DType::i64)
    fail<DTypeError>("{}: lengths must be i64, but are {}", where, lengths.dtype());
  if (lengths.shape() != Shape{B})
    fail<ShapeError>("{}: lengths must be [B] = {}, but are {}", where, Shape{B}, lengths.shape());
  auto list = lengths.to_vector<std::int64_t>();
  for (std::size_t b = 0; b < list.size(); ++b)
    if (list[b] < 1 || list[b] > T)
      fail<ValueError>("{}: lengths must be from 1 to T = {}, but lengths[{}] is {}", where, T, b,
                       list[b]);
  return list;
}

Tensor padding_mask(const char* where, const Tensor& lengths, std::int64_t T, std::int64_t B) {
  const auto list = checked_lengths(where, lengths, T, B);
  bool padded = false;
  std::vector<float> mask(static_cast<std::size_t>(T * B), 0.0F);
  for (std::int64_t b = 0; b < B; ++b)
    for (std::int64_t t = list[static_cast<std::size_t>(b)]; t < T; ++t) {
      mask[static_cast<std::size_t>(t * B + b)] = 1.0F;
      padded = true;
    }
  return padded ? from_vector(mask, {T, B}) : Tensor();
}

}  // namespace unroll::detail
