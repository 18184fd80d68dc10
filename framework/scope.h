#pragma once
/// Where in the model and where in time an operation is done: for those who look at what the tape
/// does (inspect.h, anomaly.h, profiler.h). While nobody does, a scope costs the test of one
/// number.

#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_map>

#include "framework/state.h"
#include "framework/watch.h"

namespace unroll {

/// Part of the model: what is computed while one lives belongs to it. Names nest: "encoder.l0".
/// A module opens one by `const Scope here = scope();` (Module::scope).
class Scope {
 public:
  /// The part is what it was.
  Scope() = default;
  /// A part of the part that this is in.
  explicit Scope(std::string_view name) {
    if (detail::watched()) enter(name, false);
  }
  /// A path from the model's root, whatever scope this is in.
  static Scope at_path(std::string_view path) { return Scope(path, true); }
  ~Scope() {
    if (entered_) leave();
  }
  Scope(const Scope&) = delete;
  Scope& operator=(const Scope&) = delete;

 private:
  Scope(std::string_view path, bool whole) { enter(path, whole); }
  void enter(std::string_view name, bool whole);
  void leave();

  bool entered_ = false;
  std::string outer_;
};

/// A time step: what is computed while one lives belongs to it. scan() and Recurrent open one for
/// each step themselves, with the place in the sequence as its number.
class Step {
 public:
  /// Number t, not below 0.
  explicit Step(std::int64_t t) {
    if (detail::watched()) enter(t);
  }
  ~Step() {
    if (entered_) leave();
  }
  Step(const Step&) = delete;
  Step& operator=(const Step&) = delete;

 private:
  void enter(std::int64_t t);
  void leave();

  bool entered_ = false;
  std::int64_t outer_ = 0;
};

namespace detail {

/// Where this thread is now.
struct Place {
  std::string module;      ///< "" outside of every Scope
  std::int64_t step = -1;  ///< -1 outside of every Step

  friend bool operator==(const Place&, const Place&) = default;
};
const Place& place();

/// A watcher that knows tensors, such as the parameters of a model, by name.
class NamingWatcher : public Watcher {
 public:
  explicit NamingWatcher(const NamedTensors& names);
  std::string name_of(const Node* node) const override;

 private:
  std::unordered_map<const Node*, std::string> names_;
};

}  // namespace detail
}  // namespace unroll
