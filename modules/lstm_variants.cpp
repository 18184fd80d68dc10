#include "modules/lstm_variants.h"

#include <cmath>

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
  const auto gates = chunk(x + matmul(state.h, transpose(weight_hh)), 4, 1);
  const Tensor i = sigmoid(gates[0] + weight_ci * state.c);
  const Tensor f = sigmoid(gates[1] + weight_cf * state.c);
  const Tensor g = tanh(gates[2]);
  const Tensor c = f * state.c + i * g;
  const Tensor o = sigmoid(gates[3] + weight_co * c);
  return {o * tanh(c), c};
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
  const auto gates = chunk(x + matmul(state.h, transpose(weight_hh)), 3, 1);
  const Tensor i = sigmoid(gates[0]);
  const Tensor g = tanh(gates[1]);
  const Tensor o = sigmoid(gates[2]);
  const Tensor c = (1.0 - i) * state.c + i * g;
  return {o * tanh(c), c};
}

}  // namespace unroll
