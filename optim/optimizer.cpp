#include "optim/optimizer.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "framework/autograd.h"
#include "framework/ops.h"
#include "optim/internal.h"

namespace unroll {

using detail::fail;

void Optimizer::add_group(std::vector<Tensor> parameters, double lr, std::vector<Buffer> buffers) {
  detail::require_not_negative(name_, "lr", lr);
  if (parameters.empty()) fail<ValueError>("{}: there are no parameters", name_);
  std::vector<Tensor> all = parameters_;
  for (const Tensor& parameter : parameters) {
    const auto refuse = [&](const std::string& why) {
      fail<ValueError>("{}: parameter {} {}", name_, all.size(), why);
    };
    if (!parameter.defined()) refuse("is undefined");
    if (!parameter.is_leaf()) refuse("is not a leaf: an operation on the tape made it");
    if (!is_floating(parameter.dtype())) refuse("is of " + to_string(parameter.dtype()));
    if (!parameter.is_contiguous()) refuse("is not contiguous");
    for (std::size_t j = 0; j < all.size(); ++j)
      if (parameter.is(all[j])) refuse(detail::format("is parameter {} again", j));
    all.push_back(parameter);
  }
  parameters_ = std::move(all);
  slots_.resize(parameters_.size(), Slot{.group = groups_.size()});
  groups_.push_back({lr, std::move(buffers)});
}

double Optimizer::lr(std::size_t group) const {
  if (group >= groups_.size())
    fail<IndexError>("{}: group {} is out of range [0, {})", name_, group, groups_.size());
  return groups_[group].lr;
}

void Optimizer::set_lr(double lr, std::size_t group) {
  detail::require_not_negative(name_, "lr", lr);
  this->lr(group);  // checks it
  groups_[group].lr = lr;
}

void Optimizer::set_lr(double lr) {
  for (std::size_t group = 0; group < groups_.size(); ++group) set_lr(lr, group);
}

void Optimizer::zero_grad() {
  for (Tensor& parameter : parameters_) parameter.set_grad(Tensor());
}

// --- A step -------------------------------------------------------------------------------------

void Optimizer::step() {
  NoGrad no_grad;
  // A buffer that decays towards 0 passes through the denormals, which are slow.
  kernels::FlushDenormals flush;
  for (std::size_t i = 0; i < parameters_.size(); ++i) {
    Tensor& parameter = parameters_[i];
    Slot& slot = slots_[i];
    const RowGrad rows = passes_over_zeros(slot.group) ? row_grad(parameter) : RowGrad();
    const Tensor grad = rows.defined() ? Tensor() : parameter.grad();
    if (!rows.defined() && !grad.defined()) continue;
    prepare(slot, parameter);
    for (const Tensor& buffer : slot.buffers)
      if (buffer.dtype() != parameter.dtype())
        fail<DTypeError>("{}: parameter {} is {} now and was {} in the step before", name_, i,
                         parameter.dtype(), buffer.dtype());
    ++slot.step;
    if (rows.defined())
      update_rows(parameter, rows, slot);
    else
      update(parameter, grad.contiguous(), slot);
  }
}

void Optimizer::prepare(Slot& slot, const Tensor& parameter) const {
  if (!slot.buffers.empty()) return;
  for (const Buffer& buffer : groups_[slot.group].buffers)
    slot.buffers.push_back(full(parameter.shape(), buffer.start, parameter.dtype()));
}

namespace {

/// table[rows[k]] = part[k]; both contiguous.
void put_rows(const Tensor& table, const Tensor& rows, const Tensor& part) {
  if (part.numel() == 0) return;
  const auto bytes = static_cast<std::size_t>(part.numel() / rows.numel() * size_of(table.dtype()));
  const std::int64_t* row = detail::read<std::int64_t>(rows);
  const char* source = static_cast<const char*>(detail::read(part));
  char* target = static_cast<char*>(detail::overwrite(table));
  for (std::int64_t k = 0; k < rows.numel(); ++k, source += bytes)
    std::memcpy(target + static_cast<std::size_t>(row[k]) * bytes, source, bytes);
}

}  // namespace

/// The rows are taken out, updated as a parameter of their own, and put back.
void Optimizer::update_rows(Tensor& parameter, const RowGrad& grad, Slot& slot) {
  Tensor part = index_select(parameter, 0, grad.rows);
  Slot part_slot{.group = slot.group, .step = slot.step};
  for (const Tensor& buffer : slot.buffers)
    part_slot.buffers.push_back(index_select(buffer, 0, grad.rows));
  update(part, grad.values, part_slot);
  put_rows(parameter, grad.rows, part);
  for (std::size_t b = 0; b < slot.buffers.size(); ++b)
    put_rows(slot.buffers[b], grad.rows, part_slot.buffers[b]);
}

// --- State --------------------------------------------------------------------------------------

NamedTensors Optimizer::state_dict() const {
  std::vector<double> rates;
  for (const Group& group : groups_) rates.push_back(group.lr);
  NamedTensors state{{"lr", from_vector(rates)}};
  for (std::size_t i = 0; i < slots_.size(); ++i) {
    const Slot& slot = slots_[i];
    if (slot.step == 0) continue;
    const std::string prefix = std::to_string(i) + ".";
    state.emplace_back(prefix + "step", from_vector<std::int64_t>({slot.step}, {}));
    for (std::size_t b = 0; b < slot.buffers.size(); ++b)
      state.emplace_back(prefix + groups_[slot.group].buffers[b].name, slot.buffers[b]);
  }
  return state;
}

void Optimizer::load_state_dict(const NamedTensors& state) {
  const std::string where = detail::format("load_state_dict: {}", name_);

  // Room for what the state should hold: a parameter that it mentions has to be complete.
  std::vector<Slot> slots;
  const Tensor rates = zeros({static_cast<std::int64_t>(groups_.size())}, DType::f64);
  NamedTensors room{{"lr", rates}};
  std::vector<Tensor> steps(parameters_.size());
  for (std::size_t i = 0; i < parameters_.size(); ++i) {
    slots.push_back({.group = slots_[i].group});
    const std::string prefix = std::to_string(i) + ".";
    const auto mentions = [&](const auto& entry) { return entry.first.starts_with(prefix); };
    if (std::none_of(state.begin(), state.end(), mentions)) continue;
    steps[i] = zeros({}, DType::i64);
    room.emplace_back(prefix + "step", steps[i]);
    prepare(slots[i], parameters_[i]);
    for (std::size_t b = 0; b < slots[i].buffers.size(); ++b)
      room.emplace_back(prefix + groups_[slots[i].group].buffers[b].name, slots[i].buffers[b]);
  }
  copy_values(state, room, where);

  for (std::size_t i = 0; i < parameters_.size(); ++i) {
    if (!steps[i].defined()) continue;
    slots[i].step = *steps[i].data<std::int64_t>();
    if (slots[i].step < 1)
      fail<ValueError>("{}: {}.step must be at least 1, but is {}", where, i, slots[i].step);
  }
  for (const double rate : rates.to_vector<double>())
    detail::require_not_negative(name_, "lr", rate);
  for (std::size_t group = 0; group < groups_.size(); ++group)
    groups_[group].lr = rates.data<double>()[group];
  slots_ = std::move(slots);
}

}  // namespace unroll
