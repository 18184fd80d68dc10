#pragma once
/// Where time and memory go.

#include <cstdint>
#include <string>
#include <unordered_map>
#include <vector>

#include "framework/scope.h"

namespace unroll {

/// What a Profiler sees.
struct ProfilerOptions {
  /// Whether a chain in fused() runs as its operations, so that each is seen. As it stands it is
  /// one operation "fused", and much faster: that is how to see where the time of training goes.
  bool open_chains = false;
};

/// While one lives, it measures the operations of this thread.
///
///   Profiler profiler(model.named_parameters());
///   for (int i = 0; i < 10; ++i) train_step();
///   std::puts(profiler.table().c_str());
///   profiler.write_trace("trace.json");         // for chrome://tracing or ui.perfetto.dev
///
/// An operation's time runs from when it first asks for memory to when its result is on the tape; a
/// view asks for none, and has no time. That of a rule is all that it does in a sweep ("mul
/// backward"). Products of a weight's gradient that are put off and done together count as
/// "products put off". What lies in between (a program's own code, checks, the optimizer) is the
/// difference to the whole, which the table names. A tensor that a program makes between two
/// operations (zeros(), tensor()) counts with the second. Bytes are those asked for, whether or not
/// the memory was used before. Each measurement costs some 0.1 microseconds, so very small
/// operations look slower than they are.
class Profiler final : detail::NamingWatcher {
 public:
  /// Begins to measure. `names`, such as model.named_parameters(), is what modules are called by.
  explicit Profiler(const NamedTensors& names = {}, const ProfilerOptions& options = {});

  /// Two tables, most time first: by operation and by module (scope.h). Times in milliseconds.
  std::string table() const;
  /// All operations, and the modules and time steps around them, in the trace event format of
  /// Chrome. Throws FileError.
  void write_trace(const std::string& path) const;

  /// One operation, or one rule.
  struct Event {
    std::string op;         ///< "mul", "mul backward"
    detail::Place place;    ///< of the operation, also for its rule
    bool backward;          ///< whether it is a rule
    std::int64_t start;     ///< nanoseconds since the profiler began
    std::int64_t duration;  ///< nanoseconds
    std::int64_t bytes;     ///< asked for
  };
  /// All of them, in the order in which they ended.
  const std::vector<Event>& events() const { return events_; }

 private:
  /// A stretch of time in one module and time step.
  struct Stay {
    detail::Place place;
    std::int64_t start, duration;
  };

  void computed(const char* op, const detail::Inputs& inputs, const Tensor& value, int k) override;
  void allocated(std::int64_t bytes) override;
  void arrived(const detail::Node& node, const Tensor& grad) override;
  void passed(const detail::Node& node) override;
  void place_changed() override;
  bool opens_chains() const override { return open_chains_; }

  std::int64_t now() const;  ///< nanoseconds since the profiler began
  /// Forgets what has been asked for since the last operation.
  void begin_anew();

  std::int64_t start_;  ///< on the clock
  bool open_chains_;
  std::vector<Event> events_;
  std::vector<Stay> stays_;
  std::unordered_map<const detail::Node*, detail::Place> places_;  ///< of operations
  std::int64_t asked_ = -1;  ///< when memory was first asked for since the last operation; -1: not
  std::int64_t bytes_ = 0;   ///< asked for since then
  std::vector<std::int64_t> running_;  ///< when rules that run began, the innermost last
  std::int64_t last_passed_ = 0;       ///< when the last rule ended
  std::int64_t entered_ = 0;           ///< when this place was entered
  detail::Place here_;
};

}  // namespace unroll
