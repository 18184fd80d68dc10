#pragma once
/// Exponential moving average of weights.

#include <vector>

#include "framework/state.h"
#include "framework/tensor.h"

namespace unroll {

/// The average a = decay * a + (1 - decay) * w of each parameter w over the steps of a training,
/// which often generalises better than the last w (Polyak and Juditsky 1992):
///
///   EMA average(model.parameters(), 0.999);
///   for (...) { ...; opt.step(); average.update(); }
///   average.swap();   // the model has the averages now
///   evaluate(model);
///   average.swap();   // and its own weights again
///
/// The average starts with the parameters as they are at first.
class EMA {
 public:
  /// Throws ValueError when there are no parameters, for one that is undefined or not
  /// floating-point, and for a decay outside of [0, 1].
  explicit EMA(std::vector<Tensor> parameters, double decay = 0.999);
  EMA(const EMA&) = delete;
  EMA& operator=(const EMA&) = delete;

  /// Takes the parameters in, once per step. Throws GraphError between two calls of swap().
  void update();
  /// Exchanges the values of parameters and averages.
  void swap();
  /// In the order of the parameters.
  const std::vector<Tensor>& averages() const { return averages_; }

  /// The averages, named "0", "1", ...; they share memory with this object. Both throw GraphError
  /// between two calls of swap(), load_state_dict also ValueError, and changes nothing, unless all
  /// fits.
  NamedTensors state_dict() const;
  /// Copies a state in. Throws as the above.
  void load_state_dict(const NamedTensors& state);

 private:
  void require_own_weights(const char* what) const;

  std::vector<Tensor> parameters_, averages_;
  double decay_;
  bool swapped_ = false;
};

}  // namespace unroll
