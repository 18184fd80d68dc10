#pragma once
/// Relatives of the LSTM (cells.h), as cells of their own. Use them with scan(), or as a module:
///
///   Recurrent<PeepholeLSTMCell> lstm(3, 8, {.num_layers = 2});
///
/// Parameters start uniform in (-k, k) with k = 1 / sqrt(hidden_size). Errors are those of cells.h.

#include <cstdint>

#include "modules/cells.h"

namespace unroll {

/// Options of PeepholeLSTMCell.
struct PeepholeLSTMOptions {
  bool bias = true;  ///< whether there are biases
};

/// An LSTM whose gates see the memory (Gers and Schmidhuber 2000; Gers, Schraudolph and Schmidhuber
/// 2002). Rows of the parameters: i, f, g, o.
///
///   i  = sigmoid(W_ii x + b_ii + W_hi h + b_hi + w_ci * c)
///   f  = sigmoid(W_if x + b_if + W_hf h + b_hf + w_cf * c)
///   g  = tanh(W_ig x + b_ig + W_hg h + b_hg)
///   c' = f * c + i * g
///   o  = sigmoid(W_io x + b_io + W_ho h + b_ho + w_co * c')
///   h' = o * tanh(c')
struct PeepholeLSTMCell : RNNCellBase {
  /// Throws ValueError for sizes below 1.
  PeepholeLSTMCell(std::int64_t input_size, std::int64_t hidden_size,
                   const PeepholeLSTMOptions& options = {});

  /// W_ih x + b_ih + b_hh. xs: [..., input_size].
  Tensor project(const Tensor& xs) const;
  /// Zeros: two times [batch, hidden_size].
  LSTMState initial_state(std::int64_t batch) const;
  /// x: [B, 4 * hidden_size], projected.
  LSTMState step(const Tensor& x, const LSTMState& state) const;
  /// Those above.
  Equations equations() const;

  Tensor weight_ci;  ///< [hidden_size]
  Tensor weight_cf;  ///< [hidden_size]
  Tensor weight_co;  ///< [hidden_size]
};

/// Options of CoupledLSTMCell.
struct CoupledLSTMOptions {
  bool bias = true;  ///< whether there are biases
};

/// An LSTM that forgets as much as it takes in: f = 1 - i (Greff et al. 2017, "CIFG"). Rows of the
/// parameters: i, g, o.
///
///   i  = sigmoid(W_ii x + b_ii + W_hi h + b_hi)
///   g  = tanh(W_ig x + b_ig + W_hg h + b_hg)
///   o  = sigmoid(W_io x + b_io + W_ho h + b_ho)
///   c' = (1 - i) * c + i * g
///   h' = o * tanh(c')
struct CoupledLSTMCell : RNNCellBase {
  /// Throws ValueError for sizes below 1.
  CoupledLSTMCell(std::int64_t input_size, std::int64_t hidden_size,
                  const CoupledLSTMOptions& options = {});

  /// W_ih x + b_ih + b_hh. xs: [..., input_size].
  Tensor project(const Tensor& xs) const;
  /// Zeros: two times [batch, hidden_size].
  LSTMState initial_state(std::int64_t batch) const;
  /// x: [B, 3 * hidden_size], projected.
  LSTMState step(const Tensor& x, const LSTMState& state) const;
  /// Those above.
  Equations equations() const;
};

}  // namespace unroll
