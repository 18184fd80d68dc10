#include "framework/format.h"

fmt::appender fmt::formatter<unroll::Shape>::format(const unroll::Shape& shape,
                                                    fmt::format_context& context) const {
  return fmt::formatter<std::string>::format(unroll::to_string(shape), context);
}

fmt::appender fmt::formatter<unroll::DType>::format(unroll::DType dtype,
                                                    fmt::format_context& context) const {
  return fmt::formatter<std::string>::format(unroll::to_string(dtype), context);
}

std::string unroll::detail::formatted(fmt::string_view text, fmt::format_args args) {
  return fmt::vformat(text, args);
}
