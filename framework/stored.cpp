#include "framework/stored.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <type_traits>

namespace unroll::detail {

static_assert(std::endian::native == std::endian::little, "files hold little-endian numbers");

namespace {

float from_f16(std::uint16_t bits) {
  const int exponent = bits >> 10 & 0x1f;
  const int fraction = bits & 0x3ff;
  const std::uint32_t sign = static_cast<std::uint32_t>(bits & 0x8000) << 16;
  float magnitude;
  if (exponent == 0x1f) {  // infinity or NaN
    magnitude = std::bit_cast<float>(0x7f800000u | static_cast<std::uint32_t>(fraction) << 13);
  } else if (exponent == 0) {
    magnitude = std::ldexp(static_cast<float>(fraction), -24);
  } else {
    magnitude = std::ldexp(static_cast<float>(0x400 + fraction), exponent - 25);
  }
  return std::bit_cast<float>(sign | std::bit_cast<std::uint32_t>(magnitude));
}

float from_bf16(std::uint16_t bits) {
  return std::bit_cast<float>(static_cast<std::uint32_t>(bits) << 16);
}

std::int64_t from_bool(std::uint8_t byte) {
  if (byte > 1) invalid("a BOOL is {}, must be 0 or 1", byte);
  return byte;
}

template <class From>
std::int64_t from_integer(From value) {
  if constexpr (std::is_same_v<From, std::uint64_t>) {
    if (value > std::numeric_limits<std::int64_t>::max()) {
      invalid("the U64 {} is above the largest i64", value);
    }
  }
  return static_cast<std::int64_t>(value);
}

template <class T>
T as_it_is(T value) {
  return value;
}

template <class From, class T, T (*convert)(From)>
Tensor read_values(const char* data, const Shape& shape) {
  Tensor result = empty(shape, dtype_of<T>());
  for (T& value : result.write<T>()) {
    From stored;
    std::memcpy(&stored, data, sizeof stored);
    data += sizeof stored;
    value = convert(stored);
  }
  return result;
}

struct Format {
  std::uint64_t size;  ///< bytes of one element
  Tensor (*read)(const char* data, const Shape& shape);
};

Format format_of(Stored type) {
  switch (type) {
    case Stored::f16: return {2, read_values<std::uint16_t, float, from_f16>};
    case Stored::bf16: return {2, read_values<std::uint16_t, float, from_bf16>};
    case Stored::f32: return {4, read_values<float, float, as_it_is>};
    case Stored::f64: return {8, read_values<double, double, as_it_is>};
    case Stored::i8: return {1, read_values<std::int8_t, std::int64_t, from_integer>};
    case Stored::i16: return {2, read_values<std::int16_t, std::int64_t, from_integer>};
    case Stored::i32: return {4, read_values<std::int32_t, std::int64_t, from_integer>};
    case Stored::i64: return {8, read_values<std::int64_t, std::int64_t, from_integer>};
    case Stored::u8: return {1, read_values<std::uint8_t, std::int64_t, from_integer>};
    case Stored::u16: return {2, read_values<std::uint16_t, std::int64_t, from_integer>};
    case Stored::u32: return {4, read_values<std::uint32_t, std::int64_t, from_integer>};
    case Stored::u64: return {8, read_values<std::uint64_t, std::int64_t, from_integer>};
    default: return {1, read_values<std::uint8_t, std::int64_t, from_bool>};
  }
}

}  // namespace

std::uint64_t bytes_of(Stored type, const std::vector<std::uint64_t>& shape) {
  std::uint64_t limit = std::uint64_t{1} << 43, elements = 1;  // that of a tensor
  for (const std::uint64_t size : shape) {
    limit /= std::max<std::uint64_t>(size, 1);
    if (limit == 0) invalid("the shape is too large");
    elements *= size;
  }
  return elements * format_of(type).size;
}

Tensor read_stored(Stored type, const char* data, const std::vector<std::uint64_t>& shape) {
  return format_of(type).read(data, std::vector<std::int64_t>(shape.begin(), shape.end()));
}

}  // namespace unroll::detail
