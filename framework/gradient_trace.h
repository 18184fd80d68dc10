#pragma once
/// How gradients flow: through time, and from one training step to the next.

#include <cstdint>
#include <string>
#include <vector>

#include "framework/memory.h"
#include "framework/scope.h"
#include "framework/tensor.h"

namespace unroll {

/// How a GradientTrace keeps what it sees.
struct GradientTraceOptions {
  bool values = false;  ///< keep the gradients themselves besides their norms
};

/// What a GradientTrace has seen of one tensor in one sweep.
struct GradientRecord {
  std::int64_t step;             ///< of training
  std::string name;              ///< under which it is watched
  std::int64_t t;                ///< time step, or -1
  double norm;                   ///< the Euclidean norm of the gradient
  std::vector<double> values{};  ///< the gradient, if values are kept
};

/// Keeps the norms of the gradients of chosen tensors.
///
///   GradientTrace trace;
///   for (int i = 0; i < 100; ++i) {
///     Tensor h = zeros({B, H});
///     for (int t = 0; t < T; ++t) trace.watch("h", h = cell.step(xs[t], h), t);
///     loss(h).backward();
///     trace.next_step();
///   }
///   std::puts(trace.table().c_str());
///   trace.write_csv("gradients.csv");
///   trace.plot_over_time("gradients.svg");
///
/// Inside of scan() the call stands in the cell's `step` and needs no t: while a GradientTrace
/// lives, the Step scope says it. Of what is computed in fused() only results can be watched. It
/// works by Tensor::register_hook, and asks nothing of operations that it does not watch.
class GradientTrace {
 public:
  /// Watches nothing yet.
  explicit GradientTrace(const GradientTraceOptions& options = {});
  ~GradientTrace();
  GradientTrace(const GradientTrace&) = delete;
  GradientTrace& operator=(const GradientTrace&) = delete;

  /// From now on the gradients that sweeps bring to x are kept, as those of time step t (-1: of the
  /// Step scope, or of no time step). A leaf, such as a parameter, is watched once; the result of
  /// an operation each time that there is a new one. Throws GraphError if x requires no gradient.
  void watch(const std::string& name, const Tensor& x, std::int64_t t = -1);
  /// All of them, each under its name: watch(model.named_parameters()).
  void watch(const NamedTensors& tensors);
  /// What comes now belongs to the next training step.
  void next_step();

  /// All that was seen, in the order in which it came.
  const std::vector<GradientRecord>& records() const;
  /// A row per tensor and time step with its norms: a column per training step, or, of more than
  /// eight, eight of them with the first and the last. "-": no gradient came.
  std::string table() const;
  /// All of it, a line each: step,name,t,norm and, with values, the values separated by spaces.
  /// Throws FileError.
  void write_csv(const std::string& path) const;
  /// Norms over time of the first and of the last training step, a curve per name, as an SVG file;
  /// the y axis is logarithmic. Throws ValueError if there is nothing to draw, FileError (gnuplot
  /// is needed).
  void plot_over_time(const std::string& path) const;
  /// Norms over training steps, a curve per name: over all time steps as one vector. Throws as
  /// plot_over_time.
  void plot_over_steps(const std::string& path) const;

 private:
  struct State;
  /// Its only task is that Step scopes are kept.
  struct Watcher final : detail::Watcher {
    bool opens_chains() const override { return false; }
  };

  Watcher watcher_;
  detail::Ref<State> state_;
  std::vector<std::pair<Tensor, std::int64_t>> leaves_;  ///< and their hooks
};

}  // namespace unroll
