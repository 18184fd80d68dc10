#pragma once
/// The weights of the best epoch.

#include <vector>

#include "framework/state.h"
#include "framework/tensor.h"

namespace unroll {

/// Keeps the weights with which an error was the least. Measured after each epoch on data that the
/// training does not see, it is least before the model has learned its training data by heart
/// (Prechelt 1998, "Early stopping - but when?"):
///
///   BestWeights best(model.parameters());
///   for (...) { train(); best.update(validation_error()); }
///   best.restore();   // the model is what it was after the best epoch
class BestWeights {
 public:
  /// Throws ValueError when there are no parameters, and for one that is undefined or not
  /// floating-point.
  explicit BestWeights(std::vector<Tensor> parameters);

  /// Takes the parameters as they are if the error is less than all before, and returns whether it
  /// is. NaN never is.
  bool update(double error);
  /// Gives the parameters the best values; before the first update, those that they began with.
  void restore();
  /// The least error; before the first update infinity.
  double error() const { return error_.item(); }

  /// The values, named "0", "1", ... in the order of the parameters, and the "error", f64 []; they
  /// share memory with this object.
  NamedTensors state_dict() const;
  /// Copies a state in. Throws ValueError, and changes nothing, unless all fits.
  void load_state_dict(const NamedTensors& state);

 private:
  std::vector<Tensor> parameters_, values_;
  Tensor error_;
};

}  // namespace unroll
