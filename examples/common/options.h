#pragma once
/// Options that are named once: for the command line, for --help and for a saved model.
///
///   struct Config {
///     std::int64_t hidden = 256;
///     template <class F>
///     void each(F&& option) {
///       option("hidden", hidden, "size of the hidden state", at_least(1));
///     }
///   };

#include <CLI/CLI.hpp>
#include <algorithm>
#include <string>
#include <type_traits>
#include <vector>

#include "examples/common/json_log.h"

namespace examples {

/// Checks for options that are numbers.
CLI::Validator at_least(double low);
CLI::Validator above(double low);
/// For a file to write: throws as require_writable (program.h).
CLI::Validator writable();

/// --hidden and so on, with the present values as defaults; of all or, with a list, of those
/// `only`. A bool is a flag: --bidirectional, or --bidirectional=false where it is on by now.
template <class T>
void add_options(CLI::App& app, T& values, const std::vector<std::string>& only = {}) {
  values.each([&](const char* name, auto& value, const char* help, const auto&... checks) {
    if (!only.empty() && std::find(only.begin(), only.end(), name) == only.end()) return;
    const std::string flag = std::string("--") + name;
    if constexpr (std::is_same_v<std::remove_cvref_t<decltype(value)>, bool>) {
      app.add_flag(flag, value, help);
    } else {
      CLI::Option* option = app.add_option(flag, value, help);
      if constexpr (!requires { value.has_value(); }) option->capture_default_str();
      (option->check(checks), ...);
    }
  });
}

template <class T>
Json to_json(T values) {
  Json json;
  values.each([&](const char* name, const auto& value, auto&&...) { json[name] = value; });
  return json;
}

/// Throws nlohmann's exceptions for what is missing or has another type.
template <class T>
T from_json(const Json& json) {
  T values;
  values.each([&](const char* name, auto& value, auto&&...) {
    value = json.at(name).get<std::remove_cvref_t<decltype(value)>>();
  });
  return values;
}

}  // namespace examples
