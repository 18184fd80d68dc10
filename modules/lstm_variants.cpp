#include "modules/lstm_variants.h"

#include <cmath>

#include "framework/fused.h"
#include "framework/ops.h"
#include "framework/random.h"

namespace unroll {

// --- Peepholes ----------------------------------------------------------------------------------

PeepholeLSTMCell::PeepholeLSTMCell(std::int64_t inputs, std::int64_t hidden,
                                   const PeepholeLSTMOptions& options)
    : RNNCellBase("PeepholeLSTMCell", 4, inputs, hidden, options.bias) {
  const double k = 1.0 / std::sqrt(static_cast<double>(hidden));
  weight_ci = param("weight_ci", uniform({hidden}, -k, k));
  weight_cf = param("weight_cf", uniform({hidden}, -k, k));
  weight_co = param("weight_co", uniform({hidden}, -k, k));
}

Tensor PeepholeLSTMCell::project(const Tensor& xs) const {
  return RNNCellBase::project(xs, bias_ih.defined() ? bias_ih + bias_hh : Tensor());
}

LSTMState PeepholeLSTMCell::initial_state(std::int64_t batch) const {
  return {RNNCellBase::initial_state(batch), RNNCellBase::initial_state(batch)};
}

LSTMState PeepholeLSTMCell::step(const Tensor& x, const LSTMState& state) const {
  check_step(x, state.h);
  check_step(x, state.c, "c");
  return fused(
      [](const Tensor& sum, const Tensor& c0, const Tensor& w_ci, const Tensor& w_cf,
         const Tensor& w_co) {
        const auto gates = chunk(sum, 4, -1);
        const Tensor i = sigmoid(gates[0] + w_ci * c0);
        const Tensor f = sigmoid(gates[1] + w_cf * c0);
        const Tensor g = tanh(gates[2]);
        const Tensor c = f * c0 + i * g;
        const Tensor o = sigmoid(gates[3] + w_co * c);
        return LSTMState{o * tanh(c), c};
      },
      linear(state.h, weight_hh, x), state.c, weight_ci, weight_cf, weight_co);
}

// --- Coupled gates ------------------------------------------------------------------------------

CoupledLSTMCell::CoupledLSTMCell(std::int64_t inputs, std::int64_t hidden,
                                 const CoupledLSTMOptions& options)
    : RNNCellBase("CoupledLSTMCell", 3, inputs, hidden, options.bias) {}

Tensor CoupledLSTMCell::project(const Tensor& xs) const {
  return RNNCellBase::project(xs, bias_ih.defined() ? bias_ih + bias_hh : Tensor());
}

LSTMState CoupledLSTMCell::initial_state(std::int64_t batch) const {
  return {RNNCellBase::initial_state(batch), RNNCellBase::initial_state(batch)};
}

LSTMState CoupledLSTMCell::step(const Tensor& x, const LSTMState& state) const {
  check_step(x, state.h);
  check_step(x, state.c, "c");
  return fused(
      [](const Tensor& sum, const Tensor& c0) {
        const auto gates = chunk(sum, 3, -1);
        const Tensor i = sigmoid(gates[0]);
        const Tensor g = tanh(gates[1]);
        const Tensor o = sigmoid(gates[2]);
        const Tensor c = (1.0 - i) * c0 + i * g;
        return LSTMState{o * tanh(c), c};
      },
      linear(state.h, weight_hh, x), state.c);
}

}  // namespace unroll
