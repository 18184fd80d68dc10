#pragma once
/// Text with arguments, by fmt. Not for users. What fmt makes of them is compiled once, in
/// format.cpp: every file that calls fmt's own functions would hold a copy. Not installed.

#include <fmt/format.h>

#include <string>

#include "framework/tensor.h"

/// @cond
template <>
struct fmt::formatter<unroll::Shape> : fmt::formatter<std::string> {
  fmt::appender format(const unroll::Shape& shape, fmt::format_context& context) const;
};

template <>
struct fmt::formatter<unroll::DType> : fmt::formatter<std::string> {
  fmt::appender format(unroll::DType dtype, fmt::format_context& context) const;
};
/// @endcond

namespace unroll::detail {

/// As fmt::vformat.
std::string formatted(fmt::string_view text, fmt::format_args args);

/// As fmt::format; shapes and dtypes may be among the arguments.
template <class... Args>
std::string format(fmt::format_string<Args...> text, Args&&... args) {
  return formatted(text, fmt::make_format_args(args...));
}

/// Throws an E with such a message.
template <class E, class... Args>
[[noreturn]] void fail(fmt::format_string<Args...> text, Args&&... args) {
  throw E(formatted(text, fmt::make_format_args(args...)));
}

}  // namespace unroll::detail
