#include "modules/any_cell.h"

#include <type_traits>
#include <utility>

#include "framework/internal.h"

namespace unroll {

using detail::fail;

namespace {

using Cells = std::variant<RNNCell, GRUCell, LSTMCell>;

Cells make_cell(std::int64_t input_size, std::int64_t hidden_size, CellType type) {
  if (type == CellType::rnn) return RNNCell(input_size, hidden_size);
  if (type == CellType::gru) return GRUCell(input_size, hidden_size);
  return LSTMCell(input_size, hidden_size);
}

/// A step of the cell from a state that is a list. Without a mask: nullptr.
AnyCell::State advance(const Cells& cells, const Tensor& x, const AnyCell::State& state,
                       const Tensor* mask) {
  return std::visit(
      [&](const auto& cell) {
        using Cell = std::decay_t<decltype(cell)>;
        using Own = decltype(cell.initial_state(0));
        Own own;
        const std::size_t wanted = detail::tensors_of(own).size();
        if (state.size() != wanted)
          fail<ValueError>("AnyCell: step: the state must have {} tensors, but has {}", wanted,
                           state.size());
        std::size_t i = 0;
        for_each_tensor(own, [&](Tensor& t) { t = state[i++]; });
        detail::CellWalker<Cell, Own> walker(cell, std::move(own));
        walker.step(x, mask);
        return detail::tensors_of(std::move(*walker.state));
      },
      cells);
}

}  // namespace

CellType cell_type_from_name(const std::string& name) {
  if (name == "rnn") return CellType::rnn;
  if (name == "gru") return CellType::gru;
  if (name == "lstm") return CellType::lstm;
  fail<ValueError>("there is no cell '{}', only rnn, gru and lstm", name);
}

AnyCell::AnyCell(std::int64_t inputs, std::int64_t hidden, CellType type)
    : input_size(inputs), output_size(hidden), cell_(make_cell(inputs, hidden, type)) {
  std::visit([&](const auto& cell) { absorb(cell, ""); }, cell_);
}

Equations AnyCell::equations() const {
  return std::visit([](const auto& cell) { return cell.equations(); }, cell_);
}

AnyCell::State AnyCell::initial_state(std::int64_t batch) const {
  return std::visit([&](const auto& cell) { return detail::tensors_of(cell.initial_state(batch)); },
                    cell_);
}

Tensor AnyCell::project(const Tensor& xs) const {
  return std::visit([&](const auto& cell) { return cell.project(xs); }, cell_);
}

AnyCell::State AnyCell::step(const Tensor& x, const State& state) const {
  return advance(cell_, x, state, nullptr);
}

AnyCell::State AnyCell::step(const Tensor& x, const State& state, const Tensor& mask) const {
  return advance(cell_, x, state, &mask);
}

template class Recurrent<AnyCell>;

}  // namespace unroll
