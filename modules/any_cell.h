#pragma once
/// A cell whose kind is chosen while the program runs: by an option, or by a file.

#include <cstdint>
#include <string>
#include <variant>
#include <vector>

#include "modules/recurrent.h"

namespace unroll {

/// The library's cells (cells.h).
enum class CellType { rnn, gru, lstm };

/// The cell with such a name: "rnn", "gru" or "lstm". Throws ValueError for another name.
CellType cell_type_from_name(const std::string& name);

/// An RNNCell, GRUCell or LSTMCell behind one type, with the parameters, names and numbers of the
/// cell that it is:
///
///   Recurrent<AnyCell> rnn(8, 16, {.num_layers = 2}, cell_type_from_name("lstm"));
///
/// Its state is a list of tensors: h or, of an LSTM, h and c.
struct AnyCell : Module {
  /// What goes from step to step: each [B, hidden_size].
  using State = std::vector<Tensor>;

  /// Throws ValueError for sizes below 1.
  AnyCell(std::int64_t input_size, std::int64_t hidden_size, CellType type);

  /// Zeros.
  State initial_state(std::int64_t batch) const;
  /// xs: [..., input_size].
  Tensor project(const Tensor& xs) const;
  /// x: [B, G * hidden_size], projected. Throws ValueError for a state of another number of
  /// tensors.
  State step(const Tensor& x, const State& state) const;
  /// The same under dropout of the recurrent connections (recurrent.h). mask: [B, hidden_size].
  State step(const Tensor& x, const State& state, const Tensor& mask) const;
  /// Those of the cell that it is.
  Equations equations() const;

  std::int64_t input_size;   ///< numbers per time step that go in
  std::int64_t output_size;  ///< of h: hidden_size

 private:
  std::variant<RNNCell, GRUCell, LSTMCell> cell_;
};

extern template class Recurrent<AnyCell>;

}  // namespace unroll
