#include "examples/common/options.h"

#include <fmt/format.h>

#include <functional>

#include "examples/common/program.h"

namespace examples {

namespace {

template <class Compare>
CLI::Validator number(double low, const char* rule, Compare compare) {
  return CLI::Validator(
      [=](const std::string& text) {
        double value = 0;
        const bool good = CLI::detail::lexical_cast(text, value) && compare(value, low);
        return good ? std::string() : fmt::format("must be {} {}, not {}", rule, low, text);
      },
      "");
}

}  // namespace

CLI::Validator at_least(double low) { return number(low, "at least", std::greater_equal()); }

CLI::Validator writable() {
  return CLI::Validator(
      [](const std::string& path) {
        require_writable(path);
        return std::string();
      },
      "");
}

CLI::Validator above(double low) { return number(low, "above", std::greater()); }

}  // namespace examples
