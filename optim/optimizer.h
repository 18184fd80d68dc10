#pragma once
/// Optimizer: changes parameters by their gradients.

#include <cstdint>
#include <string>
#include <vector>

#include "framework/row_grad.h"
#include "framework/state.h"
#include "framework/tensor.h"

namespace unroll {

/// What all optimizers share. Parameters stand in groups with options of their own, one group to
/// begin with:
///
///   AdamW opt(model.parameters(), {.lr = 1e-3});
///   opt.add_param_group(head.parameters(), {.lr = 1e-2, .weight_decay = 0.0});
///
/// An optimizer of one's own says what happens to one parameter:
///
///   struct Signum : Optimizer {
///     Signum(std::vector<Tensor> parameters, double lr) : Optimizer("Signum") {
///       add_group(std::move(parameters), lr, {"momentum_buffer"});
///     }
///     void update(Tensor& parameter, const Tensor& grad, Slot& slot) override {
///       Tensor& m = slot.buffers[0];
///       m.mul_(0.9).add_(grad, 0.1);
///       parameter.add_(sign(m), -lr(slot.group));
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

  /// All parameters, group after group.
  const std::vector<Tensor>& parameters() const { return parameters_; }
  /// Number of groups.
  std::size_t groups() const { return groups_.size(); }
  /// The learning rate of a group. Throws IndexError.
  double lr(std::size_t group = 0) const;
  /// Sets it for all groups, or for one. Throws ValueError for a negative one, IndexError.
  void set_lr(double lr);
  /// Sets it for one group. Throws as the above.
  void set_lr(double lr, std::size_t group);

  /// What has to be saved to go on as if nothing had been interrupted: "lr" (f64, one per group)
  /// and, for the i-th parameter once it was updated, "i.step" (i64, a scalar: the number of
  /// updates) and its buffers by PyTorch's names, such as "i.exp_avg", which share memory with the
  /// optimizer.
  NamedTensors state_dict() const;
  /// Copies a state in. Nothing is changed unless all fits: a ValueError lists every missing,
  /// unexpected and misshapen name.
  void load_state_dict(const NamedTensors& state);

 protected:
  /// A buffer that is kept of each parameter of a group: like the parameter, with `start`
  /// everywhere before the first update.
  struct Buffer {
    /// Named as PyTorch names it.
    Buffer(const char* buffer_name, double value = 0.0) : name(buffer_name), start(value) {}
    std::string name;  ///< in the state_dict
    double start;      ///< what it holds before the first update
  };
  /// What is remembered of one parameter.
  struct Slot {
    std::size_t group = 0;          ///< the parameter's
    std::int64_t step = 0;          ///< number of updates, this one included
    std::vector<Tensor> buffers{};  ///< empty before the first update
  };

  /// `name` must be a string that stays.
  explicit Optimizer(const char* name) : name_(name) {}
  /// Throws ValueError when there are no parameters, for one that is undefined, no leaf, not
  /// floating-point, not contiguous or listed twice, and for a negative learning rate.
  void add_group(std::vector<Tensor> parameters, double lr, std::vector<Buffer> buffers = {});
  /// The optimizer's name, for messages.
  const char* name() const { return name_; }

  /// Changes one parameter; runs under NoGrad. grad is contiguous.
  virtual void update(Tensor& parameter, const Tensor& grad, Slot& slot) = 0;
  /// Whether an element whose gradient is 0 stays as it is, buffers included, or may. Of a gradient
  /// by rows (row_grad.h), update() is then given only the rows that have one, together with those
  /// rows of the parameter and the buffers.
  virtual bool passes_over_zeros(std::size_t /*group*/) const { return false; }

 private:
  struct Group {
    double lr;
    std::vector<Buffer> buffers;
  };

  void prepare(Slot& slot, const Tensor& parameter) const;
  void update_rows(Tensor& parameter, const RowGrad& grad, Slot& slot);

  const char* name_;
  std::vector<Group> groups_;
  std::vector<Tensor> parameters_;
  std::vector<Slot> slots_;  ///< one per parameter
};

}  // namespace unroll
