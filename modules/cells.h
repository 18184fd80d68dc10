#pragma once
/// Recurrent cells: one time step, as equations.
///
/// A cell says how a state goes from one time step to the next:
///
///   project(xs)      what does not need the state, for all time steps at once:
///                    [T, B, input_size] -> [T, B, ...], or for one step [B, input_size] -> [B,
///                    ...]
///   step(x, state)   one time step, from a projected input; returns the new state
///   initial_state(batch)
///
/// The cells here have no privilege: yours may be written the same way (recurrent.h).
///
/// Names, shapes, gate order and the start of the parameters, uniform in (-k, k) with
/// k = 1 / sqrt(hidden_size), are PyTorch's. G is the number of gates, W' the transpose of W and
/// * the elementwise product. Constructors throw ValueError for sizes below 1; project and step
/// throw ShapeError.

#include <cstdint>
#include <optional>
#include <tuple>

#include "modules/cell_state.h"
#include "modules/equations.h"
#include "modules/module.h"

namespace unroll {

/// What the cells here have in common.
struct RNNCellBase : Module {
  /// Zeros: [batch, output_size].
  Tensor initial_state(std::int64_t batch) const;

  std::int64_t input_size;   ///< numbers per time step that go in
  std::int64_t hidden_size;  ///< numbers of the state h
  std::int64_t output_size;  ///< of h: hidden_size, but for an LSTM with proj_size
  Tensor weight_ih;          ///< [G * hidden_size, input_size]
  Tensor weight_hh;          ///< [G * hidden_size, output_size]
  Tensor bias_ih;            ///< [G * hidden_size], undefined without bias
  Tensor bias_hh;            ///< [G * hidden_size], undefined without bias

 protected:
  /// `name` must be a string that stays. `proj_size` 0: h is of hidden_size.
  RNNCellBase(const char* name, std::int64_t gates, std::int64_t input_size,
              std::int64_t hidden_size, bool bias, std::int64_t proj_size = 0);
  /// xs W_ih' + b; xs: [..., input_size]; returns [..., G * hidden_size].
  Tensor project(const Tensor& xs, const Tensor& bias) const;
  /// bias_ih + bias_hh, zeros without bias.
  Tensor sum_of_biases() const;
  /// A bias, or zeros for an undefined one.
  Tensor or_zeros(const Tensor& bias) const;
  /// Throws ShapeError unless x is [B, G * hidden_size] and h [B, output_size].
  void check_step(const Tensor& x, const Tensor& h) const;
  /// The same for another part of the state, called `what`, of [B, hidden_size].
  void check_step(const Tensor& x, const Tensor& part, const char* what) const;

 private:
  void check_state(const Tensor& x, const Tensor& part, const char* what, std::int64_t width) const;

  const char* name_;
};

/// What an RNN does to its sum.
enum class Nonlinearity { tanh, relu };

/// Options of RNNCell and RNN.
struct RNNOptions {
  Nonlinearity nonlinearity = Nonlinearity::tanh;  ///< of the new state
  bool bias = true;                                ///< whether there are biases
};

/// h' = tanh(W_ih x + b_ih + W_hh h + b_hh)                                     (Elman 1990)
struct RNNCell : RNNCellBase {
  /// Throws ValueError for sizes below 1.
  RNNCell(std::int64_t input_size, std::int64_t hidden_size, const RNNOptions& options = {});

  /// W_ih x + b_ih + b_hh. xs: [..., input_size].
  Tensor project(const Tensor& xs) const;
  /// x: [B, hidden_size], projected; h: [B, hidden_size].
  Tensor step(const Tensor& x, const Tensor& h) const;
  /// Those above.
  Equations equations() const;

 private:
  Nonlinearity nonlinearity_;
};

/// Options of GRUCell and GRU.
struct GRUOptions {
  bool bias = true;  ///< whether there are biases
  /// Whether the reset gate is applied after the recurrent product, as in PyTorch and cuDNN, or
  /// before it, as in the paper and in textbooks.
  bool reset_after = true;
};

/// Gated recurrent unit (Cho et al. 2014, eq. 5 to 8), with z as PyTorch means it: the part of the
/// old state that is kept. Rows of the parameters: r, z, n.
///
///   r  = sigmoid(W_ir x + b_ir + W_hr h + b_hr)
///   z  = sigmoid(W_iz x + b_iz + W_hz h + b_hz)
///   n  = tanh(W_in x + b_in + r * (W_hn h + b_hn))       or, with reset_after = false,
///   n  = tanh(W_in x + b_in + W_hn (r * h) + b_hn)
///   h' = (1 - z) * n + z * h
struct GRUCell : RNNCellBase {
  /// Throws ValueError for sizes below 1.
  GRUCell(std::int64_t input_size, std::int64_t hidden_size, const GRUOptions& options = {});

  /// W_ih x + b_ih and, unless reset_after, b_hh. xs: [..., input_size].
  Tensor project(const Tensor& xs) const;
  /// x: [B, 3 * hidden_size], projected; h: [B, hidden_size].
  Tensor step(const Tensor& x, const Tensor& h) const;
  /// The same with mask * h in place of h in the products W_hr h, W_hz h and W_hn h (or r * h),
  /// while z * h stays what it is. mask: [B, hidden_size].
  Tensor step(const Tensor& x, const Tensor& h, const Tensor& mask) const;
  /// Those above.
  Equations equations() const;

 private:
  bool reset_after_;
};

/// Options of LSTMCell and LSTM.
struct LSTMOptions {
  bool bias = true;  ///< whether there are biases
  /// What the bias of the forget gate (b_if + b_hf) starts with, 1 for instance (Gers et al. 2000;
  /// Jozefowicz et al. 2015); by default it is random as all others. Throws ValueError without
  /// bias.
  std::optional<double> forget_bias{};
  /// If above 0, h is projected to so many numbers (Sak et al. 2014). Throws ValueError unless it
  /// is below hidden_size.
  std::int64_t proj_size = 0;
};

/// The state of an LSTM.
struct LSTMState {
  Tensor h;  ///< [B, hidden_size] or [B, proj_size], the output
  Tensor c;  ///< [B, hidden_size], the memory
  /// What it holds (for_each_tensor.h).
  auto fields() { return std::tie(h, c); }
};

/// Long short-term memory (Hochreiter and Schmidhuber 1997) with a forget gate (Gers et al. 2000).
/// Rows of the parameters: i, f, g, o.
///
///   i  = sigmoid(W_ii x + b_ii + W_hi h + b_hi)
///   f  = sigmoid(W_if x + b_if + W_hf h + b_hf)
///   g  = tanh(W_ig x + b_ig + W_hg h + b_hg)
///   o  = sigmoid(W_io x + b_io + W_ho h + b_ho)
///   c' = f * c + i * g
///   h' = o * tanh(c')                or, with proj_size,   h' = W_hr (o * tanh(c'))
struct LSTMCell : RNNCellBase {
  /// Throws ValueError for sizes below 1.
  LSTMCell(std::int64_t input_size, std::int64_t hidden_size, const LSTMOptions& options = {});

  /// W_ih x + b_ih + b_hh. xs: [..., input_size].
  Tensor project(const Tensor& xs) const;
  /// Zeros: h [batch, output_size], c [batch, hidden_size].
  LSTMState initial_state(std::int64_t batch) const;
  /// x: [B, 4 * hidden_size], projected.
  LSTMState step(const Tensor& x, const LSTMState& state) const;
  /// Those above.
  Equations equations() const;

  Tensor weight_hr;  ///< [proj_size, hidden_size], undefined without proj_size

 private:
  /// The new state with o * tanh(c') for h'.
  LSTMState unprojected_step(const Tensor& x, const LSTMState& state) const;
};

}  // namespace unroll
