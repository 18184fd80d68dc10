#include "optim/optimizer.h"

#include <algorithm>
#include <utility>

#include "framework/autograd.h"
#include "framework/internal.h"
#include "framework/kernels/parallel.h"

namespace unroll {

using detail::fail;

namespace {

void check_lr(const char* name, double lr) {
  if (!(lr >= 0.0)) fail<ValueError>("{}: lr must not be negative, but is {}", name, lr);
}

}  // namespace

Optimizer::Optimizer(const char* name, std::vector<Tensor> parameters, double lr,
                     std::vector<std::string> buffer_names)
    : name_(name),
      parameters_(std::move(parameters)),
      slots_(parameters_.size()),
      buffer_names_(std::move(buffer_names)),
      lr_(lr) {
  check_lr(name, lr);
  if (parameters_.empty()) fail<ValueError>("{}: there are no parameters", name);
  for (std::size_t i = 0; i < parameters_.size(); ++i) {
    const Tensor& parameter = parameters_[i];
    const auto refuse = [&](const std::string& why) {
      fail<ValueError>("{}: parameter {} {}", name, i, why);
    };
    if (!parameter.defined()) refuse("is undefined");
    if (!parameter.is_leaf()) refuse("is not a leaf: an operation on the tape made it");
    if (!is_floating(parameter.dtype())) refuse("is of " + to_string(parameter.dtype()));
    if (!parameter.is_contiguous()) refuse("is not contiguous");
    for (std::size_t j = 0; j < i; ++j)
      if (parameter.is(parameters_[j])) refuse(fmt::format("is parameter {} again", j));
  }
}

void Optimizer::step() {
  NoGrad no_grad;
  // A buffer that decays towards 0 passes through the denormals, which are slow.
  kernels::FlushDenormals flush;
  for (std::size_t i = 0; i < parameters_.size(); ++i) {
    Tensor& parameter = parameters_[i];
    const Tensor grad = parameter.grad();
    if (!grad.defined()) continue;
    Slot& slot = slots_[i];
    if (slot.buffers.empty())
      for (std::size_t b = 0; b < buffer_names_.size(); ++b)
        slot.buffers.push_back(zeros_like(parameter));
    for (const Tensor& buffer : slot.buffers)
      if (buffer.dtype() != parameter.dtype())
        fail<DTypeError>("{}: parameter {} is {} now and was {} in the step before", name_, i,
                         parameter.dtype(), buffer.dtype());
    ++slot.step;
    update(parameter, grad.contiguous(), slot);
  }
}

void Optimizer::zero_grad() {
  for (Tensor& parameter : parameters_) parameter.set_grad(Tensor());
}

void Optimizer::set_lr(double lr) {
  check_lr(name_, lr);
  lr_ = lr;
}

NamedTensors Optimizer::state_dict() const {
  NamedTensors state{{"lr", tensor({lr_}, DType::f64)}};
  for (std::size_t i = 0; i < slots_.size(); ++i) {
    const Slot& slot = slots_[i];
    if (slot.step == 0) continue;
    const std::string prefix = std::to_string(i) + ".";
    state.emplace_back(prefix + "step", from_vector<std::int64_t>({slot.step}, {}));
    for (std::size_t b = 0; b < buffer_names_.size(); ++b)
      state.emplace_back(prefix + buffer_names_[b], slot.buffers[b]);
  }
  return state;
}

void Optimizer::load_state_dict(const NamedTensors& state) {
  const std::string where = fmt::format("load_state_dict: {}", name_);

  // Room for what the state should hold: a parameter that it mentions has to be complete.
  std::vector<Slot> slots(parameters_.size());
  NamedTensors room{{"lr", zeros({1}, DType::f64)}};
  std::vector<Tensor> steps(parameters_.size());
  for (std::size_t i = 0; i < parameters_.size(); ++i) {
    const std::string prefix = std::to_string(i) + ".";
    const auto mentions = [&](const auto& entry) { return entry.first.starts_with(prefix); };
    if (std::none_of(state.begin(), state.end(), mentions)) continue;
    steps[i] = zeros({}, DType::i64);
    room.emplace_back(prefix + "step", steps[i]);
    for (const std::string& name : buffer_names_) {
      slots[i].buffers.push_back(zeros_like(parameters_[i]));
      room.emplace_back(prefix + name, slots[i].buffers.back());
    }
  }
  copy_values(state, room, where);

  for (std::size_t i = 0; i < parameters_.size(); ++i) {
    if (!steps[i].defined()) continue;
    slots[i].step = *steps[i].data<std::int64_t>();
    if (slots[i].step < 1)
      fail<ValueError>("{}: {}.step must be at least 1, but is {}", where, i, slots[i].step);
  }
  set_lr(room[0].second.item());
  slots_ = std::move(slots);
}

}  // namespace unroll
