#pragma once
/// From one time step to a sequence: scan() and Recurrent, for the cells of cells.h and for yours.
///
/// A cell is anything with
///
///   State step(const Tensor& x, const State& state) const;
///
/// where State is a Tensor or a struct of them (cell_state.h). What a step puts out is the first
/// tensor of its new state; a step that puts out something else returns {output, state} as a
/// StepResult<State> or a std::pair<Tensor, State>. A cell that is nothing but its equations has,
/// instead of `step` or besides it,
///
///   Equations equations() const;                     the same as a function (equations.h), which
///   is
///                                                    run for all time steps at once; x as it comes
///
/// Three more functions are used where a cell has them:
///
///   Tensor project(const Tensor& xs) const;          what does not need the state, for many time
///                                                    steps at once; each of them for itself
///   State initial_state(std::int64_t batch) const;   the state before the first step
///   State step(const Tensor& x, const State& state, const Tensor& mask) const;
///                                                    under dropout of the recurrent connections
///                                                    (VariationalDropout)

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "framework/ops.h"
#include "modules/cell_state.h"
#include "modules/cells.h"
#include "modules/equations.h"
#include "modules/module.h"

namespace unroll {

/// What a sequence gives: the outputs of all time steps, [T, B, ...], and the state after the last.
template <class State>
struct ScanResult {
  Tensor outputs;  ///< [T, B, ...]
  State state;     ///< what the next time step begins with
};

/// How scan() goes through a sequence.
struct ScanOptions {
  /// From the last time step to the first. Each output stands where its input stands.
  bool reverse = false;
  /// [B] of i64: how many time steps each sequence of a padded batch has, 1 to T; undefined: all T.
  /// What stands behind them has no influence, not even NaN: outputs and gradients there are 0, and
  /// each sequence's final state is the one after its own last time step. Every tensor of the state
  /// must have the batch as its first dimension.
  Tensor lengths{};
  /// Above 0: no gradient passes from one time step to the one before at every so many-th link of
  /// the walk. Truncated backpropagation through time (Williams and Peng 1990); the state goes on,
  /// so outputs stay the same.
  std::int64_t truncate = 0;
  /// Above 0 (and below 1): each link is cut with this probability, and the gradient that passes
  /// the others is divided by 1 - p, so that its expectation is the whole gradient (Tallec and
  /// Ollivier 2017). Draws a number per link from default_generator(), none under NoGrad.
  double random_truncate = 0.0;
};

namespace detail {

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

/// Whether the cell says itself what its step does, and did not inherit that together with another
/// step than it has now.
template <class Cell>
concept HasEquations = requires(const Cell& cell) {
  requires std::is_same_v<decltype(&Cell::equations), Equations (Cell::*)() const>;
};
template <class Cell, class State>
concept HasStep = requires(const Cell& cell, const Tensor& x, const State& state) {
  as_step<State>(cell.step(x, state));
};

/// A cell and its state on their way through a sequence, without their types: what the loop over
/// time needs to know of them. The loop is compiled once (recurrent.cpp), and not for every cell.
class Walker {
 public:
  virtual Tensor project(const Tensor& xs) const = 0;
  /// Takes the cell's initial state if there is no state yet.
  virtual void start(std::int64_t batch, DType dtype) = 0;
  /// One time step, from a projected input. `mask`, if there is one, is for recurrent connections.
  virtual Tensor step(const Tensor& x, const Tensor* mask) = 0;
  /// Whether there are equations for all time steps at once.
  virtual bool has_equations() = 0;
  /// Those of inputs that are not projected, once there is a state: Equations::over_time.
  virtual Tensor over_time(const Tensor& xs, const SequenceOptions& options) = 0;
  /// Puts f(tensor) in place of each tensor of the state.
  virtual void map(const std::function<Tensor(const Tensor&)>& f) = 0;

 protected:
  ~Walker() = default;
};

template <class Cell, class State>
class CellWalker final : public Walker {
 public:
  CellWalker(const Cell& cell, std::optional<State> start) : state(std::move(start)), cell_(cell) {}

  Tensor project(const Tensor& xs) const override {
    if constexpr (HasStep<Cell, State> && requires { cell_.project(xs); })
      return cell_.project(xs);
    else
      return xs;
  }
  void start(std::int64_t batch, DType dtype) override {
    if constexpr (HasInitialState<Cell>) {
      if (state) return;
      state = cell_.initial_state(Count{batch});
      map([dtype](const Tensor& t) { return t.to(dtype); });
    }
  }
  Tensor step(const Tensor& x, const Tensor* mask) override {
    StepResult<State> next = mask ? masked_step(x, *mask) : plain_step(x, *state);
    *state = std::move(next.state);
    return std::move(next.output);
  }
  bool has_equations() override {
    if constexpr (HasEquations<Cell>)
      return static_cast<bool>(equations());
    else
      return false;
  }
  Tensor over_time(const Tensor& xs, const SequenceOptions& options) override {
    if constexpr (HasEquations<Cell>) {
      auto tensors = tensors_of(*state);
      const Tensor outputs = equations().over_time(xs, options, tensors);
      std::size_t i = 0;
      map([&](const Tensor&) { return tensors[i++]; });
      return outputs;
    } else {
      return Tensor();
    }
  }
  void map(const std::function<Tensor(const Tensor&)>& f) override {
    for_each_tensor(*state, [&](Tensor& t) { t = f(t); });
  }

  std::optional<State> state;

 private:
  /// The cell's, of one walk.
  const Equations& equations() {
    if (!equations_) equations_ = cell_.equations();
    return *equations_;
  }
  StepResult<State> plain_step(const Tensor& x, const State& from) {
    if constexpr (HasStep<Cell, State>)
      return as_step<State>(cell_.step(x, from));
    else
      return equations().step(x, from);
  }
  StepResult<State> masked_step(const Tensor& x, const Tensor& mask) {
    if constexpr (requires { as_step<State>(cell_.step(x, *state, mask)); }) {
      return as_step<State>(cell_.step(x, *state, mask));
    } else {
      State seen = *state;
      Tensor& h = first_tensor(seen);
      h = h * mask;
      return plain_step(x, seen);
    }
  }

  const Cell& cell_;
  std::optional<Equations> equations_;
};

template <class Cell>
Scope scope_of(const Cell& cell) {
  if constexpr (std::is_base_of_v<Module, Cell>)
    return cell.scope();
  else
    return Scope();
}

/// The outputs of all time steps; afterwards the walker has the final state. xs: [T, ...].
Tensor walk(Walker& walker, const Tensor& xs, const ScanOptions& options);
/// Throws ShapeError unless xs has at least `rank` dimensions.
void check_rank(const Tensor& xs, std::int64_t rank);

}  // namespace detail

/// Whether scan() can unroll the cell from a state of this type.
template <class Cell, class State>
concept CellFor = detail::HasStep<Cell, State> || detail::HasEquations<Cell>;

/// Unrolls a cell over a sequence: calls step for xs[0], xs[1], ..., each time with the state that
/// the step before returned; or does all of that at once, where the cell has equations() and
/// neither lengths nor truncation are asked for. xs: [T, ...], [T, B, input_size] for the library's
/// cells. The whole of backpropagation through time is backward() on what comes out.
///
/// `project` gets the time steps of a long sequence in pieces of some 256 rows, so that what it
/// makes is still in the cache when it is needed; those of a padded batch (options.lengths) come as
/// [rows, ...], one below the other.
///
/// Where a step multiplies x as it came by a weight (matmul or linear, with a leaf that requires a
/// gradient, or a view on one), that is done for all time steps of a piece at once, and x gets its
/// gradient through xs: a cell of plain equations needs no `project` for it. Not while somebody
/// looks at the tape (inspect.h), and not for an x that has a hook or keeps its gradient by then.
///
/// Throws ShapeError for T = 0, and for lengths that are not [B]; DTypeError for lengths that are
/// not i64; ValueError for one outside of 1 to T, and for options outside of their range.
template <class Cell, class State>
ScanResult<State> scan(const Cell& cell, const Tensor& xs, State state,
                       const ScanOptions& options = {}) {
  static_assert(CellFor<Cell, State>,
                "scan(cell, xs, state): the cell needs `State step(const Tensor& x, const State& "
                "state) const`, where State is the type of `state`. It returns the new state, or "
                "{output, state} as a StepResult<State> or a std::pair<Tensor, State>");
  if constexpr (CellFor<Cell, State>) {
    const Scope here = detail::scope_of(cell);
    detail::CellWalker<Cell, State> walker(cell, std::move(state));
    Tensor outputs = detail::walk(walker, xs, options);
    return {std::move(outputs), std::move(*walker.state)};
  }
}

/// The same from the cell's initial state, in the dtype of the projected input. xs: [T, B, ...].
template <class Cell>
auto scan(const Cell& cell, const Tensor& xs, const ScanOptions& options = {}) {
  static_assert(detail::HasInitialState<Cell>,
                "scan(cell, xs): the cell needs `State initial_state(std::int64_t batch) const`; "
                "or call scan(cell, xs, state)");
  if constexpr (detail::HasInitialState<Cell>) {
    using State = decltype(cell.initial_state(detail::Count{1}));
    static_assert(CellFor<Cell, State>,
                  "scan(cell, xs): the cell needs `State step(const Tensor& x, const State& state) "
                  "const`, where State is what initial_state returns. It returns the new state, or "
                  "{output, state} as a StepResult<State> or a std::pair<Tensor, State>");
    if constexpr (CellFor<Cell, State>) {
      detail::check_rank(xs, 2);
      const Scope here = detail::scope_of(cell);
      detail::CellWalker<Cell, State> walker(cell, std::nullopt);
      Tensor outputs = detail::walk(walker, xs, options);
      return ScanResult<State>{std::move(outputs), std::move(*walker.state)};
    }
  }
}

// --- Recurrent ----------------------------------------------------------------------------------

/// Dropout with one mask per sequence for all of its time steps, drawn at each call, in training
/// (Gal and Ghahramani 2016).
struct VariationalDropout {
  double input = 0.0;   ///< on what goes into each layer
  double output = 0.0;  ///< on what comes out of the last one
  /// On the recurrent connections of each layer and direction: h (the first tensor of the state)
  /// counts as mask * h in the next step. A cell that carries h over besides multiplying it, as a
  /// GRU does with z * h, would shrink or blow up what it carries: it takes the mask as a third
  /// argument of `step` and puts mask * h in the products alone.
  double recurrent = 0.0;
};

/// How the outputs of both directions become one.
enum class Merge { concatenate, sum };

/// Options of all recurrent modules.
struct RecurrentOptions {
  std::int64_t num_layers = 1;  ///< each reads what the one before it puts out
  bool batch_first = false;     ///< sequences are [B, T, ...] instead of [T, B, ...]; states stay
  double dropout = 0.0;         ///< in training, on what comes out of each layer but the last
  bool bidirectional = false;   ///< every layer walks in both directions
  Merge merge = Merge::concatenate;  ///< how the outputs of two directions become one
  VariationalDropout variational{};  ///< masks that stay for all time steps
  std::int64_t truncate = 0;         ///< ScanOptions::truncate, in each layer and direction
  double random_truncate = 0.0;      ///< ScanOptions::random_truncate
};

namespace detail {

/// What Recurrent does that does not depend on the cell.
class RecurrentBase : public Module {
 public:
  const RecurrentOptions& options() const { return options_; }
  /// Layers times directions.
  std::int64_t num_cells() const { return options_.num_layers * num_directions(); }

 protected:
  using WalkerAt = std::function<Walker&(std::size_t)>;

  /// Throws ValueError for options outside of their range.
  explicit RecurrentBase(const RecurrentOptions& options);

  std::int64_t num_directions() const { return options_.bidirectional ? 2 : 1; }
  /// The place of a cell among all. Throws IndexError.
  std::size_t place(std::int64_t layer, bool reverse) const;
  /// What stands behind the names of that cell's parameters: "_l0", "_l0_reverse", "_l1", ...
  std::string suffix(std::size_t cell) const;
  /// The scope of a cell: "l0", "l0_reverse".
  Scope cell_scope(std::size_t cell) const;
  /// Throws ValueError unless there is one layer in one direction.
  void require_single_cell() const;
  /// Throws ValueError unless there are no states or one per cell.
  void check_state(std::size_t given) const;
  /// input_size -1: any.
  Tensor run(const Tensor& xs, const Tensor& lengths, std::int64_t input_size,
             const WalkerAt& walker) const;
  /// Throws unless a single time step may be taken from x.
  void check_step(const Tensor& x, std::int64_t input_size) const;
  /// That of one layer, from what the layer below puts out.
  Tensor layer_step(std::size_t layer, const Tensor& x, Walker& cell) const;

 private:
  void check_input(const Tensor& x, bool sequence, std::int64_t input_size) const;

  RecurrentOptions options_;
};

}  // namespace detail

/// Layers of cells as a module over sequences:
///
///   Recurrent rnn(MyCell(3, 8));                          // one layer of a cell
///   auto [hs, state] = rnn(xs);                           // from the initial state
///   auto [more, end] = rnn(next_xs, state);               // from where we were
///
///   Recurrent<MyCell> deep(3, 8, {.num_layers = 2, .bidirectional = true});
///   auto [ys, last] = deep(padded, {}, lengths);          // sequences of different length
///
/// A layer gets the outputs of the one below; with two directions, those of both, concatenated or
/// summed. Parameters have the cell's names with the layer behind them, as in PyTorch:
/// weight_ih_l0, weight_ih_l0_reverse, weight_ih_l1, ...
///
/// The cell needs initial_state. If it has a member `input_size`, inputs are checked against it.
template <class Cell>
class Recurrent : public detail::RecurrentBase {
 public:
  static_assert(std::is_base_of_v<Module, Cell>, "Recurrent<Cell>: the cell is a Module");
  static_assert(detail::HasInitialState<Cell>,
                "Recurrent<Cell>: the cell needs `State initial_state(std::int64_t batch) const`");
  /// The state of one cell.
  using CellState = decltype(std::declval<const Cell&>().initial_state(detail::Count{1}));
  static_assert(CellFor<Cell, CellState>,
                "Recurrent<Cell>: the cell needs `State step(const Tensor& x, const State& state) "
                "const`, where State is what initial_state returns, or `Equations equations() "
                "const`");
  /// One cell state per layer and direction: layer by layer, forward before reverse. An empty list
  /// stands for the initial state.
  using State = std::vector<CellState>;

  /// One layer. Throws ValueError for options of more than one cell.
  explicit Recurrent(Cell cell, const RecurrentOptions& options = {}) : RecurrentBase(options) {
    require_single_cell();
    add(std::move(cell));
  }

  /// Cells made from (input_size, hidden_size, cell options...). Outputs have hidden_size numbers
  /// or, if the cell has a member `output_size`, so many.
  template <class... CellOptions>
  requires std::is_constructible_v<Cell, std::int64_t, std::int64_t, const CellOptions&...>
  Recurrent(std::int64_t input_size, std::int64_t hidden_size, const RecurrentOptions& options = {},
            const CellOptions&... cell_options)
      : RecurrentBase(options) {
    std::int64_t width = input_size;
    for (std::int64_t layer = 0; layer < options.num_layers; ++layer) {
      for (std::int64_t d = 0; d < num_directions(); ++d)
        add(Cell(detail::Count{width}, detail::Count{hidden_size}, cell_options...));
      width = hidden_size;
      if constexpr (requires { cells_[0].output_size; }) width = cells_[0].output_size;
      if (options.merge == Merge::concatenate) width *= num_directions();
    }
  }

  /// Cells made by `make(layer, reverse)`, called with (0, false), (0, true) if bidirectional,
  /// (1, false), ...
  template <class Make>
  requires std::is_invocable_r_v<Cell, Make&, std::int64_t, bool>
  explicit Recurrent(Make make, const RecurrentOptions& options = {}) : RecurrentBase(options) {
    for (std::int64_t layer = 0; layer < options.num_layers; ++layer)
      for (std::int64_t d = 0; d < num_directions(); ++d) add(make(layer, d == 1));
  }

  /// xs: [T, B, input_size], [B, T, input_size] if batch_first; lengths: [B] of i64, or undefined
  /// (ScanOptions::lengths). Returns {outputs, state}; outputs: [T, B, H] or [B, T, H], where H is
  /// the cell's width, times two if two directions are concatenated. Throws as scan() does, and
  /// ShapeError for xs that don't fit, ValueError for a wrong number of cell states.
  ScanResult<State> operator()(const Tensor& xs, const State& state = {},
                               const Tensor& lengths = {}) const;

  /// One time step, for streaming. x: [B, input_size]; returns {output [B, H], state}. Throws
  /// ValueError for a bidirectional module, which needs the whole sequence, and in training for one
  /// with variational dropout, whose masks belong to one.
  StepResult<State> step(const Tensor& x, const State& state = {}) const;

  /// What a walk begins with unless it is given: one per cell.
  State initial_state(std::int64_t batch) const;

  /// Throws IndexError.
  const Cell& cell(std::int64_t layer = 0, bool reverse = false) const {
    return cells_[place(layer, reverse)];
  }

 private:
  using Walkers = std::vector<detail::CellWalker<Cell, CellState>>;

  void add(Cell cell) { cells_.push_back(absorb(std::move(cell), suffix(cells_.size()))); }
  std::int64_t input_size() const {
    if constexpr (requires { cells_[0].input_size; })
      return cells_[0].input_size;
    else
      return -1;
  }
  Walkers walkers(const State& state) const;
  static State take_state(Walkers& walkers);

  std::vector<Cell> cells_;
};

/// Recurrent(make): the cell is what make(layer, reverse) returns.
template <class Make>
requires std::is_invocable_v<Make&, std::int64_t, bool> Recurrent(Make, RecurrentOptions = {})
->Recurrent<std::invoke_result_t<Make&, std::int64_t, bool>>;

template <class Cell>
auto Recurrent<Cell>::operator()(const Tensor& xs, const State& state, const Tensor& lengths) const
    -> ScanResult<State> {
  Walkers all = walkers(state);
  Tensor outputs =
      run(xs, lengths, input_size(), [&](std::size_t i) -> detail::Walker& { return all[i]; });
  return {std::move(outputs), take_state(all)};
}

template <class Cell>
auto Recurrent<Cell>::step(const Tensor& x, const State& state) const -> StepResult<State> {
  check_state(state.size());
  check_step(x, input_size());
  const Scope here = scope();
  StepResult<State> next{x, {}};
  next.state.reserve(cells_.size());
  for (std::size_t i = 0; i < cells_.size(); ++i) {
    detail::CellWalker<Cell, CellState> cell(
        cells_[i], state.empty() ? std::nullopt : std::optional(state[i]));
    next.output = layer_step(i, next.output, cell);
    next.state.push_back(std::move(*cell.state));
  }
  return next;
}

template <class Cell>
auto Recurrent<Cell>::initial_state(std::int64_t batch) const -> State {
  State state;
  for (const Cell& cell : cells_) state.push_back(cell.initial_state(detail::Count{batch}));
  return state;
}

template <class Cell>
auto Recurrent<Cell>::walkers(const State& state) const -> Walkers {
  check_state(state.size());
  Walkers list;
  list.reserve(cells_.size());
  for (std::size_t i = 0; i < cells_.size(); ++i)
    list.emplace_back(cells_[i], state.empty() ? std::nullopt : std::optional(state[i]));
  return list;
}

template <class Cell>
auto Recurrent<Cell>::take_state(Walkers& walkers) -> State {
  State state;
  state.reserve(walkers.size());
  for (auto& walker : walkers) state.push_back(std::move(*walker.state));
  return state;
}

extern template class Recurrent<RNNCell>;
extern template class Recurrent<GRUCell>;
extern template class Recurrent<LSTMCell>;

/// The library's cells over sequences: RNNCell, GRUCell and LSTMCell have the equations. Options of
/// the layers come first, those of the cell after them:
///
///   LSTM lstm(3, 8, {.num_layers = 2, .bidirectional = true}, {.forget_bias = 1.0});
///   GRU gru(3, 8, {.reset_after = false});
struct RNN : Recurrent<RNNCell> {
  /// Throws ValueError for sizes and options out of their range.
  RNN(std::int64_t input_size, std::int64_t hidden_size, const RecurrentOptions& options = {},
      const RNNOptions& cell_options = {});
  /// One layer in one direction.
  RNN(std::int64_t input_size, std::int64_t hidden_size, const RNNOptions& cell_options);
};
/// Layers of GRUCell; names, shapes and initialisation are PyTorch's.
struct GRU : Recurrent<GRUCell> {
  /// Throws ValueError for sizes and options out of their range.
  GRU(std::int64_t input_size, std::int64_t hidden_size, const RecurrentOptions& options = {},
      const GRUOptions& cell_options = {});
  /// One layer in one direction.
  GRU(std::int64_t input_size, std::int64_t hidden_size, const GRUOptions& cell_options);
};
/// Layers of LSTMCell; names, shapes and initialisation are PyTorch's.
struct LSTM : Recurrent<LSTMCell> {
  /// Throws ValueError for sizes and options out of their range.
  LSTM(std::int64_t input_size, std::int64_t hidden_size, const RecurrentOptions& options = {},
       const LSTMOptions& cell_options = {});
  /// One layer in one direction.
  LSTM(std::int64_t input_size, std::int64_t hidden_size, const LSTMOptions& cell_options);
};

}  // namespace unroll
