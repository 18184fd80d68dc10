#pragma once
/// A log for programs: one JSON object per line.

#include <cstdio>
#include <functional>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>

/// A value that may be missing is null in JSON.
template <class T>
struct nlohmann::adl_serializer<std::optional<T>> {
  template <class AnyJson>
  static void to_json(AnyJson& json, const std::optional<T>& value) {
    if (value)
      json = *value;
    else
      json = nullptr;
  }
  template <class AnyJson>
  static void from_json(const AnyJson& json, std::optional<T>& value) {
    if (json.is_null())
      value.reset();
    else
      value = json.template get<T>();
  }
};

namespace examples {

/// Keys stay in the order in which they are written.
using Json = nlohmann::ordered_json;

class JsonLog {
 public:
  /// Starts a file, or goes on with it. An empty path: nothing is written. Throws FileError.
  JsonLog(const std::string& path, bool append);

  /// One line, at once on its way to the disk. Infinity and NaN become null. Throws FileError, and
  /// calls `rescue` before: what was learned need not be lost with the log.
  void write(const Json& line, const std::function<void()>& rescue = {});

 private:
  struct Close {
    void operator()(std::FILE* file) const { std::fclose(file); }
  };
  std::string path_;
  std::unique_ptr<std::FILE, Close> file_;
};

}  // namespace examples
