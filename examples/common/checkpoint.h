#pragma once
/// A saved model with all that it takes to use it or to go on training.

#include <string>

#include "examples/common/json_log.h"
#include "examples/common/options.h"
#include "framework/safetensors.h"

namespace examples {

/// A safetensors file in parts: tensors under "model.", "optimizer." and so on, and texts.
class Checkpoint {
 public:
  Checkpoint() = default;
  /// Reads a file. Throws FileError.
  explicit Checkpoint(const std::string& path);
  /// Writes a file; it holds either the old or the whole new contents. Throws FileError.
  void save(const std::string& path) const;

  /// Adds tensors as part.name.
  void add(const std::string& part, const unroll::NamedTensors& tensors);
  void add_text(const std::string& key, const std::string& text) { file_.metadata[key] = text; }
  /// Anything with each() (options.h).
  template <class T>
  void add_values(const std::string& key, const T& values) {
    add_text(key, to_json(values).dump());
  }

  /// The tensors of a part, by the names that they had.
  unroll::NamedTensors part(const std::string& part) const;
  /// Throw FileError if there is no such text, or if it is damaged.
  const std::string& text(const std::string& key) const;
  template <class T>
  T values(const std::string& key) const {
    try {
      return from_json<T>(Json::parse(text(key)));
    } catch (const Json::exception& error) {
      damaged(key, error.what());
    }
  }

 private:
  [[noreturn]] void damaged(const std::string& key, const std::string& reason) const;

  std::string path_;
  unroll::TensorFile file_;
};

}  // namespace examples
