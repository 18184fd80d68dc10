#pragma once
/// Recurrent cells with layer normalisation (Ba, Kiros and Hinton 2016, supplementary material):
/// what x and h give is normalised before it is added, so that its size no longer
/// depends on that of the weights or of the input. LN is LayerNorm, each with a weight and a bias
/// of its own, which stand for the biases of the cell. Use them with scan(), or as a module:
///
///   Recurrent<LayerNormLSTMCell> lstm(3, 8, {.num_layers = 2});
///
/// Weights start uniform in (-k, k) with k = 1 / sqrt(hidden_size). Errors are those of cells.h.

#include <cstdint>

#include "modules/cells.h"
#include "modules/layer_norm.h"

namespace unroll {

/// Rows of the parameters: i, f, g, o. LN_ih and LN_hh normalise all four gates together.
///
///   (i, f, g, o) = LN_ih(W_ih x) + LN_hh(W_hh h)
///   c' = sigmoid(f) * c + sigmoid(i) * tanh(g)
///   h' = sigmoid(o) * tanh(LN_c(c'))
struct LayerNormLSTMCell : RNNCellBase {
  /// Throws ValueError for sizes below 1.
  LayerNormLSTMCell(std::int64_t input_size, std::int64_t hidden_size,
                    const LayerNormOptions& options = {});

  /// LN_ih(W_ih x). xs: [..., input_size].
  Tensor project(const Tensor& xs) const;
  /// Zeros: two times [batch, hidden_size].
  LSTMState initial_state(std::int64_t batch) const;
  /// x: [B, 4 * hidden_size], projected.
  LSTMState step(const Tensor& x, const LSTMState& state) const;

  LayerNorm norm_ih;  ///< over 4 * hidden_size
  LayerNorm norm_hh;  ///< over 4 * hidden_size
  LayerNorm norm_c;   ///< over hidden_size
};

/// Rows of the parameters: r, z, n; z is the part of the old state that is kept, as in GRUCell. The
/// gates r and z are normalised together, the candidate n for itself.
///
///   (r, z) = LN_ih(W_i(r,z) x) + LN_hh(W_h(r,z) h)
///   n  = tanh(LN_in(W_in x) + sigmoid(r) * LN_hn(W_hn h))
///   h' = (1 - sigmoid(z)) * n + sigmoid(z) * h
struct LayerNormGRUCell : RNNCellBase {
  /// Throws ValueError for sizes below 1.
  LayerNormGRUCell(std::int64_t input_size, std::int64_t hidden_size,
                   const LayerNormOptions& options = {});

  /// LN_ih(W_i(r,z) x) and LN_in(W_in x), side by side. xs: [..., input_size].
  Tensor project(const Tensor& xs) const;
  /// x: [B, 3 * hidden_size], projected; h: [B, hidden_size].
  Tensor step(const Tensor& x, const Tensor& h) const;
  /// The same with mask * h in place of h in the products. mask: [B, hidden_size].
  Tensor step(const Tensor& x, const Tensor& h, const Tensor& mask) const;

  LayerNorm norm_ih;  ///< over 2 * hidden_size
  LayerNorm norm_hh;  ///< over 2 * hidden_size
  LayerNorm norm_in;  ///< over hidden_size
  LayerNorm norm_hn;  ///< over hidden_size

 private:
  /// seen: what the products see of h.
  Tensor step_seeing(const Tensor& x, const Tensor& h, const Tensor& seen) const;
};

}  // namespace unroll
