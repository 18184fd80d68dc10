#include "modules/layer_norm_cells.h"

#include <utility>

#include "framework/fused.h"
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
  const auto [o, c] = fused(
      [](const Tensor& from_x, const Tensor& from_h, const Tensor& c0) {
        const auto gates = chunk(from_x + from_h, 4, -1);
        const Tensor i = sigmoid(gates[0]);
        const Tensor f = sigmoid(gates[1]);
        const Tensor g = tanh(gates[2]);
        return std::pair{sigmoid(gates[3]), f * c0 + i * g};
      },
      x, norm_hh(linear(state.h, weight_hh)), state.c);
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
  const Tensor y = linear(seen, weight_hh);
  return fused(
      [](const Tensor& from_x, const Tensor& gates_h, const Tensor& n_h, const Tensor& h0) {
        const auto xs = chunk(from_x, 3, -1), hs = chunk(gates_h, 2, -1);
        const Tensor r = sigmoid(xs[0] + hs[0]);
        const Tensor z = sigmoid(xs[1] + hs[1]);
        const Tensor n = tanh(xs[2] + r * n_h);
        return (1.0 - z) * n + z * h0;
      },
      x, norm_hh(narrow(y, 1, 0, 2 * hidden_size)),
      norm_hn(narrow(y, 1, 2 * hidden_size, hidden_size)), h);
}

}  // namespace unroll
