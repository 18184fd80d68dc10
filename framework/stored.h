#pragma once
/// Numbers as files hold them: element types that tensors don't have, at any address. Not for
/// users.

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "framework/check.h"
#include "framework/file.h"
#include "framework/format.h"
#include "framework/tensor.h"

namespace unroll::detail {

/// What is wrong with a file; who reads it adds the path.
struct Invalid {
  std::string what;
};

template <class... Args>
[[noreturn]] void invalid(fmt::format_string<Args...> text, Args&&... args) {
  throw Invalid{detail::format(text, std::forward<Args>(args)...)};
}

/// What parse(contents) makes of a file. Throws FileError if it cannot be read, or is Invalid.
template <class Parse>
auto parse_file(const std::string& path, const Parse& parse) {
  const std::string contents = read_file(path);
  try {
    return parse(contents);
  } catch (const Invalid& error) {
    fail<FileError>("cannot read '{}': {}", path, error.what);
  }
}

enum class Stored { f16, bf16, f32, f64, i8, i16, i32, i64, u8, u16, u32, u64, boolean };

/// Bytes of an array. Throws Invalid for one that no memory holds (0 counts as 1 there, so that no
/// product of a part of the sizes overflows).
std::uint64_t bytes_of(Stored type, const std::vector<std::uint64_t>& shape);
/// Copies little-endian elements into a tensor: f32 and f64 as they are, f16 and bf16 as f32, all
/// others as i64. Throws Invalid for u64 values that i64 does not hold, and for booleans that are
/// neither 0 nor 1. The shape has passed bytes_of.
Tensor read_stored(Stored type, const char* data, const std::vector<std::uint64_t>& shape);

}  // namespace unroll::detail
