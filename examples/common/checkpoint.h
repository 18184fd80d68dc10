#pragma once
/// A saved model with all that it takes to use it or to go on training.

#include <string>

#include "data/vocab.h"
#include "examples/common/json_log.h"
#include "examples/common/options.h"
#include "framework/check.h"
#include "framework/checkpoint.h"
#include "framework/for_each_tensor.h"

namespace examples {

/// A checkpoint whose texts may be the options and numbers of a program.
class Checkpoint : public unroll::Checkpoint {
 public:
  using unroll::Checkpoint::Checkpoint;

  /// Anything with each() (options.h).
  template <class T>
  void add_values(const std::string& key, const T& values) {
    add_text(key, to_json(values).dump());
  }
  /// A vocabulary, as text. Throws FileError if there is none, or if it is damaged.
  unroll::Vocab vocab(const std::string& key) const {
    return unroll::Vocab::from_text(text(key), path());
  }
  /// The tensors of a state, which may be none. Loading throws FileError for another number of
  /// them.
  template <class State>
  void add_state(const std::string& key, State state) {
    unroll::NamedTensors tensors;
    unroll::for_each_tensor(
        state, [&](unroll::Tensor& t) { tensors.emplace_back(std::to_string(tensors.size()), t); });
    add(key, tensors);
  }
  template <class State>
  void load_state(const std::string& key, State& state) const {
    const unroll::NamedTensors tensors = part(key);
    std::size_t i = 0;
    unroll::for_each_tensor(state, [&](unroll::Tensor& t) {
      if (i < tensors.size()) t = tensors[i].second;
      ++i;
    });
    if (i != tensors.size()) throw unroll::FileError(path() + ": the " + key + " is damaged");
  }
  /// Which program a file is of. Throws FileError for one of another.
  void add_program(const std::string& name) { add_text("program", name); }
  void require_program(const std::string& name) const {
    if (text("program") != name)
      throw unroll::FileError(path() + " is of " + text("program") + ", not of " + name);
  }
  /// Throws FileError if there is no such text, or if it is damaged.
  template <class T>
  T values(const std::string& key) const {
    try {
      return from_json<T>(Json::parse(text(key)));
    } catch (const Json::exception& error) {
      throw unroll::FileError(path() + ": the " + key + " is damaged: " + error.what());
    }
  }
};

}  // namespace examples
