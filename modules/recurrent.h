#pragma once
/// From one time step to a sequence: scan() and Recurrent, for the cells of cells.h and for yours.
///
/// A cell is anything with
///
///   State step(const Tensor& x, const State& state) const;
///
/// where State is a Tensor or a struct of them (cell_state.h). What a step puts out is the first
/// tensor of its new state; a step that puts out something else returns {output, state} as a
/// Step<State> or a std::pair<Tensor, State>. Two more functions are used where a cell has them:
///
///   Tensor project(const Tensor& xs) const;          many time steps at once, each by itself
///   State initial_state(std::int64_t batch) const;   the state before the first step

#include <cstdint>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "framework/ops.h"
#include "modules/cell_state.h"
#include "modules/cells.h"
#include "modules/module.h"

namespace unroll {

/// What one time step gives.
template <class State>
struct Step {
  Tensor output;
  State state;
};

/// What a sequence gives: the outputs of all time steps, [T, B, ...], and the state after the last.
template <class State>
struct ScanResult {
  Tensor outputs;
  State state;
};

namespace detail {

template <class State>
Step<State> as_step(State next) {
  return {first_tensor(next), std::move(next)};
}
template <class State>
Step<State> as_step(std::pair<Tensor, State> next) {
  return {std::move(next.first), std::move(next.second)};
}
template <class State>
Step<State> as_step(Step<State> next) {
  return next;
}

/// An integer that becomes whatever type of integer the other side counts in.
struct Count {
  std::int64_t value;
  template <class Integer, class = std::enable_if_t<std::is_integral_v<Integer>>>
  operator Integer() const {
    return static_cast<Integer>(value);
  }
};

template <class Cell>
concept HasInitialState = requires(const Cell& cell) {
  cell.initial_state(Count{1});
};

template <class Cell>
Tensor project(const Cell& cell, const Tensor& xs) {
  if constexpr (requires { cell.project(xs); })
    return cell.project(xs);
  else
    return xs;
}

/// The initial state for a projected input whose dimension `batch_dim` is the batch, in its dtype.
template <class Cell>
auto initial_state(const Cell& cell, const Tensor& projected, std::int64_t batch_dim) {
  const DType dtype = is_floating(projected.dtype()) ? projected.dtype() : DType::f32;
  return map_state(cell.initial_state(Count{projected.size(batch_dim)}),
                   [&](const Tensor& t) { return t.to(dtype); });
}

/// Throws ShapeError unless xs is [T, ...] with T >= 1 and at least `rank` dimensions.
void check_sequence(const Tensor& xs, std::int64_t rank);
/// Throws ShapeError unless x has `rank` dimensions, 3 for [T, B, input_size] and 2 for
/// [B, input_size].
void check_input(const Module& module, const Tensor& x, std::int64_t rank, std::int64_t input_size);
/// Throws ValueError unless there are none or `wanted` states.
void check_state_count(const Module& module, std::size_t given, std::size_t wanted);

}  // namespace detail

/// Whether scan() can unroll the cell from a state of this type.
template <class Cell, class State>
concept CellFor = requires(const Cell& cell, const Tensor& x, const State& state) {
  detail::as_step<State>(cell.step(x, state));
};

namespace detail {

/// How many time steps are projected at once: some 256 rows, which make a product of full speed
/// and, projected, are still in the cache when the steps read them.
std::int64_t steps_at_once(const Tensor& xs);

/// `start(projected)` gives the state before the first step.
template <class State, class Cell, class Start>
ScanResult<State> scan_from(const Cell& cell, const Tensor& xs, const Start& start) {
  const std::int64_t steps = xs.size(0), at_once = steps_at_once(xs);
  std::vector<Tensor> outputs;
  outputs.reserve(static_cast<std::size_t>(steps));
  Tensor projected = project(cell, slice(xs, 0, 0, at_once));
  State state = start(projected);
  for (std::int64_t t = 0; t < steps; ++t) {
    if (t > 0 && t % at_once == 0) projected = project(cell, slice(xs, 0, t, t + at_once));
    Step<State> next = as_step<State>(cell.step(projected[t % at_once], state));
    outputs.push_back(std::move(next.output));
    state = std::move(next.state);
  }
  return {stack(outputs), std::move(state)};
}

}  // namespace detail

/// Unrolls a cell over a sequence: calls step for xs[0], xs[1], ..., each time with the state that
/// the step before returned. xs: [T, ...], [T, B, input_size] for the library's cells. The whole of
/// backpropagation through time is backward() on what comes out. Throws ShapeError for T = 0.
template <class Cell, class State>
ScanResult<State> scan(const Cell& cell, const Tensor& xs, State state) {
  static_assert(CellFor<Cell, State>,
                "scan(cell, xs, state): the cell needs `State step(const Tensor& x, const State& "
                "state) const`, where State is the type of `state`. It returns the new state, or "
                "{output, state} as a Step<State> or a std::pair<Tensor, State>");
  if constexpr (CellFor<Cell, State>) {
    detail::check_sequence(xs, 1);
    return detail::scan_from<State>(cell, xs, [&](const Tensor&) { return std::move(state); });
  }
}

/// The same from the cell's initial state. xs: [T, B, ...].
template <class Cell>
auto scan(const Cell& cell, const Tensor& xs) {
  static_assert(detail::HasInitialState<Cell>,
                "scan(cell, xs): the cell needs `State initial_state(std::int64_t batch) const`; "
                "or call scan(cell, xs, state)");
  if constexpr (detail::HasInitialState<Cell>) {
    using State = decltype(detail::initial_state(cell, xs, 1));
    static_assert(CellFor<Cell, State>,
                  "scan(cell, xs): the cell needs `State step(const Tensor& x, const State& state) "
                  "const`, where State is what initial_state returns. It returns the new state, or "
                  "{output, state} as a Step<State> or a std::pair<Tensor, State>");
    if constexpr (CellFor<Cell, State>) {
      detail::check_sequence(xs, 2);
      return detail::scan_from<State>(cell, xs, [&](const Tensor& projected) {
        return detail::initial_state(cell, projected, 1);
      });
    }
  }
}

/// A cell as a module over sequences. Its parameters are those of the cell with "_l0" behind their
/// names, as in PyTorch: weight_ih_l0, ...
///
///   Recurrent rnn(MyCell(3, 8));
///   auto [hs, state] = rnn(xs);                   // from the initial state
///   auto [more, end] = rnn(next_xs, state);       // from where we were
///
/// The cell needs initial_state. If it has a member `input_size`, inputs are checked against it.
template <class Cell>
class Recurrent : public Module {
 public:
  static_assert(std::is_base_of_v<Module, Cell>, "Recurrent<Cell>: the cell is a Module");
  static_assert(detail::HasInitialState<Cell>,
                "Recurrent<Cell>: the cell needs `State initial_state(std::int64_t batch) const`");
  using CellState = decltype(std::declval<const Cell&>().initial_state(detail::Count{1}));
  static_assert(CellFor<Cell, CellState>,
                "Recurrent<Cell>: the cell needs `State step(const Tensor& x, const State& state) "
                "const`, where State is what initial_state returns");
  /// One cell state per layer (one layer so far). An empty list stands for the initial state.
  using State = std::vector<CellState>;

  explicit Recurrent(Cell cell) : cell_(absorb(std::move(cell), "_l0")) {}

  /// xs: [T, B, input_size]; returns {outputs [T, B, hidden_size], state}. Throws ShapeError if xs
  /// or the state doesn't fit or T = 0, ValueError for a wrong number of layers in `state`.
  ScanResult<State> operator()(const Tensor& xs, const State& state = {}) const {
    check(xs, 3, state);
    auto result = state.empty() ? scan(cell_, xs) : scan(cell_, xs, state.front());
    return {std::move(result.outputs), State{std::move(result.state)}};
  }

  /// One time step, for streaming. x: [B, input_size]; returns {output [B, hidden_size], state}.
  Step<State> step(const Tensor& x, const State& state = {}) const {
    check(x, 2, state);
    const Tensor projected = detail::project(cell_, x);
    auto next = detail::as_step<CellState>(cell_.step(
        projected, state.empty() ? detail::initial_state(cell_, projected, 0) : state.front()));
    return {std::move(next.output), State{std::move(next.state)}};
  }

  State initial_state(std::int64_t batch) const {
    return State{cell_.initial_state(detail::Count{batch})};
  }

  const Cell& cell() const { return cell_; }

 private:
  void check(const Tensor& x, std::int64_t rank, const State& state) const {
    if constexpr (requires { cell_.input_size; })
      detail::check_input(*this, x, rank, cell_.input_size);
    detail::check_state_count(*this, state.size(), 1);
  }

  Cell cell_;
};

/// The library's cells over sequences: RNNCell, GRUCell and LSTMCell have the equations.
struct RNN : Recurrent<RNNCell> {
  RNN(std::int64_t input_size, std::int64_t hidden_size, const RNNOptions& options = {})
      : Recurrent(RNNCell(input_size, hidden_size, options)) {}
};
struct GRU : Recurrent<GRUCell> {
  GRU(std::int64_t input_size, std::int64_t hidden_size, const GRUOptions& options = {})
      : Recurrent(GRUCell(input_size, hidden_size, options)) {}
};
struct LSTM : Recurrent<LSTMCell> {
  LSTM(std::int64_t input_size, std::int64_t hidden_size, const LSTMOptions& options = {})
      : Recurrent(LSTMCell(input_size, hidden_size, options)) {}
};

}  // namespace unroll
