#include "modules/cells.h"

#include <cmath>

#include "framework/autograd.h"
#include "framework/internal.h"
#include "framework/ops.h"
#include "framework/random.h"

namespace unroll {

using detail::fail;

RNNCellBase::RNNCellBase(const char* name, std::int64_t gates, std::int64_t inputs,
                         std::int64_t hidden, bool bias)
    : input_size(inputs), hidden_size(hidden), name_(name) {
  if (inputs < 1 || hidden < 1)
    fail<ValueError>("{}: sizes are at least 1, but input_size is {} and hidden_size is {}", name,
                     inputs, hidden);
  const double k = 1.0 / std::sqrt(static_cast<double>(hidden));
  weight_ih = param("weight_ih", uniform({gates * hidden, inputs}, -k, k));
  weight_hh = param("weight_hh", uniform({gates * hidden, hidden}, -k, k));
  if (bias) {
    bias_ih = param("bias_ih", uniform({gates * hidden}, -k, k));
    bias_hh = param("bias_hh", uniform({gates * hidden}, -k, k));
  }
}

Tensor RNNCellBase::initial_state(std::int64_t batch) const {
  return zeros({batch, hidden_size}, weight_hh.dtype());
}

Tensor RNNCellBase::project(const Tensor& xs, const Tensor& bias) const {
  if (xs.dim() < 1 || xs.size(-1) != input_size)
    fail<ShapeError>("{}: project: x must be [..., input_size = {}], but is {}", name_, input_size,
                     xs.shape());
  const Tensor y = matmul(xs, transpose(weight_ih));
  return bias.defined() ? y + bias : y;
}

void RNNCellBase::check_step(const Tensor& x, const Tensor& h, const char* what) const {
  const std::int64_t width = weight_ih.size(0);
  if (x.dim() != 2 || x.size(1) != width)
    fail<ShapeError>("{}: step: x must be projected, [B, {} * hidden_size = {}], but is {}", name_,
                     width / hidden_size, width, x.shape());
  const Shape wanted{x.size(0), hidden_size};
  if (h.shape() != wanted)
    fail<ShapeError>("{}: step: {} must be [B, hidden_size] = {}, but is {}", name_, what, wanted,
                     h.shape());
}

// --- RNN ----------------------------------------------------------------------------------------

RNNCell::RNNCell(std::int64_t inputs, std::int64_t hidden, const RNNOptions& options)
    : RNNCellBase("RNNCell", 1, inputs, hidden, options.bias),
      nonlinearity_(options.nonlinearity) {}

Tensor RNNCell::project(const Tensor& xs) const {
  return RNNCellBase::project(xs, bias_ih.defined() ? bias_ih + bias_hh : Tensor());
}

Tensor RNNCell::step(const Tensor& x, const Tensor& h) const {
  check_step(x, h);
  const Tensor a = x + matmul(h, transpose(weight_hh));
  return nonlinearity_ == Nonlinearity::tanh ? tanh(a) : relu(a);
}

// --- GRU ----------------------------------------------------------------------------------------

GRUCell::GRUCell(std::int64_t inputs, std::int64_t hidden, const GRUOptions& options)
    : RNNCellBase("GRUCell", 3, inputs, hidden, options.bias), reset_after_(options.reset_after) {}

Tensor GRUCell::project(const Tensor& xs) const {
  if (!bias_ih.defined()) return RNNCellBase::project(xs, Tensor());
  if (!reset_after_) return RNNCellBase::project(xs, bias_ih + bias_hh);
  const auto b_i = chunk(bias_ih, 3);
  const auto b_h = chunk(bias_hh, 3);
  return RNNCellBase::project(xs, concatenate({b_i[0] + b_h[0], b_i[1] + b_h[1], b_i[2]}));
}

Tensor GRUCell::step(const Tensor& x, const Tensor& h) const {
  check_step(x, h);
  const auto xs = chunk(x, 3, 1);
  Tensor z, n;
  if (reset_after_) {
    const auto hs = chunk(matmul(h, transpose(weight_hh)), 3, 1);
    const Tensor r = sigmoid(xs[0] + hs[0]);
    z = sigmoid(xs[1] + hs[1]);
    Tensor h_n = hs[2];
    if (bias_hh.defined()) h_n = h_n + narrow(bias_hh, 0, 2 * hidden_size, hidden_size);
    n = tanh(xs[2] + r * h_n);
  } else {
    const auto w = chunk(weight_hh, 3);
    const Tensor r = sigmoid(xs[0] + matmul(h, transpose(w[0])));
    z = sigmoid(xs[1] + matmul(h, transpose(w[1])));
    n = tanh(xs[2] + matmul(r * h, transpose(w[2])));
  }
  return n + z * (h - n);  // (1 - z) * n + z * h
}

// --- LSTM ---------------------------------------------------------------------------------------

LSTMCell::LSTMCell(std::int64_t inputs, std::int64_t hidden, const LSTMOptions& options)
    : RNNCellBase("LSTMCell", 4, inputs, hidden, options.bias) {
  if (!options.forget_bias) return;
  if (!options.bias) throw ValueError("LSTMCell: forget_bias needs bias");
  NoGrad no_grad;
  narrow(bias_ih, 0, hidden, hidden).fill_(*options.forget_bias);
  narrow(bias_hh, 0, hidden, hidden).zero_();
}

Tensor LSTMCell::project(const Tensor& xs) const {
  return RNNCellBase::project(xs, bias_ih.defined() ? bias_ih + bias_hh : Tensor());
}

LSTMState LSTMCell::initial_state(std::int64_t batch) const {
  return {RNNCellBase::initial_state(batch), RNNCellBase::initial_state(batch)};
}

LSTMState LSTMCell::step(const Tensor& x, const LSTMState& state) const {
  check_step(x, state.h);
  check_step(x, state.c, "c");
  const auto gates = chunk(x + matmul(state.h, transpose(weight_hh)), 4, 1);
  const Tensor i = sigmoid(gates[0]);
  const Tensor f = sigmoid(gates[1]);
  const Tensor g = tanh(gates[2]);
  const Tensor o = sigmoid(gates[3]);
  const Tensor c = f * state.c + i * g;
  return {o * tanh(c), c};
}

}  // namespace unroll
