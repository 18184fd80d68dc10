#include "modules/layer_norm_cells.h"

#include "framework/ops.h"

namespace unroll {

// --- LSTM ---------------------------------------------------------------------------------------

LayerNormLSTMCell::LayerNormLSTMCell(std::int64_t inputs, std::int64_t hidden,
                                     const LayerNormOptions& options)
    : RNNCellBase("LayerNormLSTMCell", 4, inputs, hidden, false),
      norm_ih(child("norm_ih", LayerNorm(4 * hidden, options))),
      norm_hh(child("norm_hh", LayerNorm(4 * hidden, options))),
      norm_c(child("norm_c", LayerNorm(hidden, options))) {}

Tensor LayerNormLSTMCell::project(const Tensor& xs) const {
  return norm_ih(RNNCellBase::project(xs, Tensor()));
}

LSTMState LayerNormLSTMCell::initial_state(std::int64_t batch) const {
  return {RNNCellBase::initial_state(batch), RNNCellBase::initial_state(batch)};
}

LSTMState LayerNormLSTMCell::step(const Tensor& x, const LSTMState& state) const {
  check_step(x, state.h);
  check_step(x, state.c, "c");
  const auto gates = chunk(x + norm_hh(matmul(state.h, transpose(weight_hh))), 4, 1);
  const Tensor i = sigmoid(gates[0]);
  const Tensor f = sigmoid(gates[1]);
  const Tensor g = tanh(gates[2]);
  const Tensor o = sigmoid(gates[3]);
  const Tensor c = f * state.c + i * g;
  return {o * tanh(norm_c(c)), c};
}

// --- GRU ----------------------------------------------------------------------------------------

LayerNormGRUCell::LayerNormGRUCell(std::int64_t inputs, std::int64_t hidden,
                                   const LayerNormOptions& options)
    : RNNCellBase("LayerNormGRUCell", 3, inputs, hidden, false),
      norm_ih(child("norm_ih", LayerNorm(2 * hidden, options))),
      norm_hh(child("norm_hh", LayerNorm(2 * hidden, options))),
      norm_in(child("norm_in", LayerNorm(hidden, options))),
      norm_hn(child("norm_hn", LayerNorm(hidden, options))) {}

Tensor LayerNormGRUCell::project(const Tensor& xs) const {
  const Tensor y = RNNCellBase::project(xs, Tensor());
  return concatenate({norm_ih(narrow(y, -1, 0, 2 * hidden_size)),
                      norm_in(narrow(y, -1, 2 * hidden_size, hidden_size))},
                     -1);
}

Tensor LayerNormGRUCell::step(const Tensor& x, const Tensor& h) const {
  return step_seeing(x, h, h);
}

Tensor LayerNormGRUCell::step(const Tensor& x, const Tensor& h, const Tensor& mask) const {
  return step_seeing(x, h, h * mask);
}

Tensor LayerNormGRUCell::step_seeing(const Tensor& x, const Tensor& h, const Tensor& seen) const {
  check_step(x, seen);
  const Tensor y = matmul(seen, transpose(weight_hh));
  const auto gates =
      chunk(narrow(x, 1, 0, 2 * hidden_size) + norm_hh(narrow(y, 1, 0, 2 * hidden_size)), 2, 1);
  const Tensor r = sigmoid(gates[0]);
  const Tensor z = sigmoid(gates[1]);
  const Tensor h_n = norm_hn(narrow(y, 1, 2 * hidden_size, hidden_size));
  const Tensor n = tanh(narrow(x, 1, 2 * hidden_size, hidden_size) + r * h_n);
  return n + z * (h - n);  // (1 - z) * n + z * h
}

}  // namespace unroll
