#pragma once
/// Checkpoint: all that a training needs to go on as if nothing had happened, in one file.
///
///   Checkpoint file;
///   file.add("model", model);
///   file.add("optimizer", optimizer);
///   file.add("schedule", schedule);
///   file.add("generator", default_generator());
///   file.add_number("epoch", epoch);
///   file.add_text("vocabulary", vocab.to_text());
///   file.save("run.safetensors");
///
/// and to go on, with objects that were made as those were:
///
///   const Checkpoint file("run.safetensors");
///   file.load("model", model);
///   ...
///   epoch = file.number("epoch");

#include <cstdint>
#include <functional>
#include <string>

#include "framework/random.h"
#include "framework/safetensors.h"
#include "framework/state.h"

namespace unroll {

/// A safetensors file in parts: the tensors of a part "model" are named "model.<name>", numbers are
/// i64 scalars, texts are the file's metadata. So any program that reads safetensors finds the
/// weights, and this one finds in a file of its own how the model has to be made (configuration,
/// vocabulary).
class Checkpoint {
 public:
  Checkpoint() = default;
  /// Reads a file. Throws FileError.
  explicit Checkpoint(const std::string& path);
  /// Writes a file; whatever happens, it holds either the old or the whole new contents. Throws as
  /// save_safetensors.
  void save(const std::string& path) const;

  /// Adds a part. Tensors are not copied: save before they change. Throws ValueError for a part or
  /// number whose name is empty, has a '.' or is there already.
  void add(const std::string& part, const NamedTensors& tensors);
  /// The state of a generator.
  void add(const std::string& part, const Generator& generator);
  /// Anything with a state_dict(): modules, optimizers, schedules, averages.
  template <class T>
  void add(const std::string& part, const T& owner) {
    add(part, owner.state_dict());
  }
  /// A number of its own, such as the epoch.
  void add_number(const std::string& name, std::int64_t value);
  /// A text of its own, such as a vocabulary.
  void add_text(const std::string& key, const std::string& text);

  /// The tensors of a part, by the names that they had; none if there is no such part.
  NamedTensors part(const std::string& part) const;
  /// Give back what was added. Throw FileError, naming file and part, for what does not fit; then
  /// nothing has changed.
  void load(const std::string& part, Generator& generator) const;
  /// Anything with a load_state_dict().
  template <class T>
  void load(const std::string& part, T& owner) const {
    restore(part, [&](const NamedTensors& state) { owner.load_state_dict(state); });
  }
  /// Throw FileError where there is no such number or text.
  std::int64_t number(const std::string& name) const;
  /// The text of that key. Throws FileError.
  const std::string& text(const std::string& key) const;
  /// The file that was read; empty for none.
  const std::string& path() const { return path_; }

 private:
  void restore(const std::string& part, const std::function<void(const NamedTensors&)>& load) const;

  std::string path_;
  TensorFile file_;
};

}  // namespace unroll
