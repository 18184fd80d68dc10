#pragma once
/// Optimizer: changes parameters by their gradients.

#include <cstdint>
#include <string>
#include <vector>

#include "framework/state.h"
#include "framework/tensor.h"

namespace unroll {

/// What all optimizers share. One of your own says what happens to one parameter:
///
///   struct Signum : Optimizer {
///     Signum(std::vector<Tensor> parameters, double lr)
///         : Optimizer("Signum", std::move(parameters), lr, {"momentum_buffer"}) {}
///     void update(Tensor& parameter, const Tensor& grad, Slot& slot) override {
///       Tensor& m = slot.buffers[0];
///       m.mul_(0.9).add_(grad, 0.1);
///       parameter.add_(sign(m), -lr());
///     }
///   };
class Optimizer {
 public:
  Optimizer(const Optimizer&) = delete;
  Optimizer& operator=(const Optimizer&) = delete;
  virtual ~Optimizer() = default;

  /// One update of every parameter that has a gradient.
  void step();
  /// .grad of all parameters becomes undefined.
  void zero_grad();

  const std::vector<Tensor>& parameters() const { return parameters_; }
  /// The learning rate. set_lr throws ValueError for a negative one.
  double lr() const { return lr_; }
  void set_lr(double lr);

  /// What has to be saved to go on as if nothing had been interrupted: "lr" (f64, [1]) and, for the
  /// i-th parameter once it was updated, "i.step" (i64, a scalar: the number of updates) and its
  /// buffers by PyTorch's names, such as "i.exp_avg", which share memory with the optimizer.
  NamedTensors state_dict() const;
  /// Copies a state in. Nothing is changed unless all fits: a ValueError lists every missing,
  /// unexpected and misshapen name.
  void load_state_dict(const NamedTensors& state);

 protected:
  /// What is remembered of one parameter.
  struct Slot {
    std::int64_t step = 0;        ///< number of updates, this one included
    std::vector<Tensor> buffers;  ///< like the parameter, 0 at first; empty before the first update
  };

  /// `name` must be a string that stays. Throws ValueError when there are no parameters, for one
  /// that is undefined, no leaf, not floating-point, not contiguous or listed twice, and for a
  /// negative learning rate.
  Optimizer(const char* name, std::vector<Tensor> parameters, double lr,
            std::vector<std::string> buffer_names);
  /// Changes one parameter; runs under NoGrad. grad is contiguous.
  virtual void update(Tensor& parameter, const Tensor& grad, Slot& slot) = 0;

 private:
  const char* name_;
  std::vector<Tensor> parameters_;
  std::vector<Slot> slots_;  ///< one per parameter
  std::vector<std::string> buffer_names_;
  double lr_;
};

}  // namespace unroll
