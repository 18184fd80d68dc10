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

namespace {

/// The new state, from the sum of the products and biases.
LSTMState peephole_lstm(const Tensor& sum, const Tensor& c0, const Tensor& w_ci, const Tensor& w_cf,
                        const Tensor& w_co) {
  const auto gates = chunk(sum, 4, -1);
  const Tensor i = sigmoid(gates[0] + w_ci * c0);
  const Tensor f = sigmoid(gates[1] + w_cf * c0);
  const Tensor g = tanh(gates[2]);
  const Tensor c = f * c0 + i * g;
  const Tensor o = sigmoid(gates[3] + w_co * c);
  return {o * tanh(c), c};
}

}  // namespace

LSTMState PeepholeLSTMCell::step(const Tensor& x, const LSTMState& state) const {
  check_step(x, state.h);
  check_step(x, state.c, "c");
  return fused([](const Tensor& sum, const Tensor& c, const Tensor& w_ci, const Tensor& w_cf,
                  const Tensor& w_co) { return peephole_lstm(sum, c, w_ci, w_cf, w_co); },
               linear(state.h, weight_hh, x), state.c, weight_ci, weight_cf, weight_co);
}

Equations PeepholeLSTMCell::equations() const {
  return {[](const Tensor& x, const LSTMState& s, const Tensor& w, const Tensor& u, const Tensor& b,
             const Tensor& w_ci, const Tensor& w_cf, const Tensor& w_co) {
            return peephole_lstm(linear(s.h, u, linear(x, w, b)), s.c, w_ci, w_cf, w_co);
          },
          weight_ih,
          weight_hh,
          sum_of_biases(),
          weight_ci,
          weight_cf,
          weight_co};
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

namespace {

/// The new state, from the sum of the products and biases.
LSTMState coupled_lstm(const Tensor& sum, const Tensor& c0) {
  const auto gates = chunk(sum, 3, -1);
  const Tensor i = sigmoid(gates[0]);
  const Tensor g = tanh(gates[1]);
  const Tensor o = sigmoid(gates[2]);
  const Tensor c = (1.0 - i) * c0 + i * g;
  return {o * tanh(c), c};
}

}  // namespace

LSTMState CoupledLSTMCell::step(const Tensor& x, const LSTMState& state) const {
  check_step(x, state.h);
  check_step(x, state.c, "c");
  return fused([](const Tensor& sum, const Tensor& c) { return coupled_lstm(sum, c); },
               linear(state.h, weight_hh, x), state.c);
}

Equations CoupledLSTMCell::equations() const {
  return {[](const Tensor& x, const LSTMState& s, const Tensor& w, const Tensor& u,
             const Tensor& b) { return coupled_lstm(linear(s.h, u, linear(x, w, b)), s.c); },
          weight_ih, weight_hh, sum_of_biases()};
}

}  // namespace unroll
