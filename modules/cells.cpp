#include "modules/cells.h"

#include <cmath>

#include "framework/autograd.h"
#include "framework/fused.h"
#include "framework/internal.h"
#include "framework/ops.h"
#include "framework/random.h"

namespace unroll {

using detail::fail;

RNNCellBase::RNNCellBase(const char* name, std::int64_t gates, std::int64_t inputs,
                         std::int64_t hidden, bool bias, std::int64_t proj_size)
    : input_size(inputs),
      hidden_size(hidden),
      output_size(proj_size > 0 ? proj_size : hidden),
      name_(name) {
  if (inputs < 1 || hidden < 1)
    fail<ValueError>("{}: sizes are at least 1, but input_size is {} and hidden_size is {}", name,
                     inputs, hidden);
  if (proj_size < 0 || proj_size >= hidden)
    fail<ValueError>("{}: proj_size must be at least 0 and below hidden_size = {}, but is {}", name,
                     hidden, proj_size);
  const double k = 1.0 / std::sqrt(static_cast<double>(hidden));
  weight_ih = param("weight_ih", uniform({gates * hidden, inputs}, -k, k));
  weight_hh = param("weight_hh", uniform({gates * hidden, output_size}, -k, k));
  if (bias) {
    bias_ih = param("bias_ih", uniform({gates * hidden}, -k, k));
    bias_hh = param("bias_hh", uniform({gates * hidden}, -k, k));
  }
}

Tensor RNNCellBase::initial_state(std::int64_t batch) const {
  return zeros({batch, output_size}, weight_hh.dtype());
}

Tensor RNNCellBase::project(const Tensor& xs, const Tensor& bias) const {
  if (xs.dim() < 1 || xs.size(-1) != input_size)
    fail<ShapeError>("{}: project: x must be [..., input_size = {}], but is {}", name_, input_size,
                     xs.shape());
  return linear(xs, weight_ih, bias);
}

Tensor RNNCellBase::or_zeros(const Tensor& bias) const {
  return bias.defined() ? bias : zeros({weight_hh.size(0)}, weight_hh.dtype());
}

Tensor RNNCellBase::sum_of_biases() const {
  return or_zeros(bias_ih.defined() ? bias_ih + bias_hh : Tensor());
}

void RNNCellBase::check_step(const Tensor& x, const Tensor& h) const {
  check_state(x, h, "h", output_size);
}

void RNNCellBase::check_step(const Tensor& x, const Tensor& part, const char* what) const {
  check_state(x, part, what, hidden_size);
}

void RNNCellBase::check_state(const Tensor& x, const Tensor& part, const char* what,
                              std::int64_t width) const {
  const std::int64_t gates = weight_ih.shape()[0];
  const Shape &sums = x.shape(), &shape = part.shape();
  if (sums.size() != 2 || sums[1] != gates)
    fail<ShapeError>("{}: step: x must be projected, [B, {} * hidden_size = {}], but is {}", name_,
                     gates / hidden_size, gates, sums);
  if (shape.size() != 2 || shape[0] != sums[0] || shape[1] != width)
    fail<ShapeError>("{}: step: {} must be [B, {}] = {}, but is {}", name_, what,
                     width == hidden_size ? "hidden_size" : "proj_size", Shape{sums[0], width},
                     shape);
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
  const Tensor a = linear(h, weight_hh, x);
  return nonlinearity_ == Nonlinearity::tanh ? tanh(a) : relu(a);
}

Equations RNNCell::equations() const {
  const Tensor bias = sum_of_biases();
  if (nonlinearity_ == Nonlinearity::relu)
    return {[](const Tensor& x, const Tensor& h, const Tensor& w, const Tensor& u,
               const Tensor& b) { return relu(linear(h, u, linear(x, w, b))); },
            weight_ih, weight_hh, bias};
  return {[](const Tensor& x, const Tensor& h, const Tensor& w, const Tensor& u, const Tensor& b) {
            return tanh(linear(h, u, linear(x, w, b)));
          },
          weight_ih, weight_hh, bias};
}

// --- GRU ----------------------------------------------------------------------------------------

GRUCell::GRUCell(std::int64_t inputs, std::int64_t hidden, const GRUOptions& options)
    : RNNCellBase("GRUCell", 3, inputs, hidden, options.bias), reset_after_(options.reset_after) {}

Tensor GRUCell::project(const Tensor& xs) const {
  const bool both = !reset_after_ && bias_ih.defined();
  return RNNCellBase::project(xs, both ? bias_ih + bias_hh : bias_ih);
}

namespace {

/// reset_after: the new state, from the products with their biases.
Tensor gru(const Tensor& from_x, const Tensor& from_h, const Tensor& h) {
  const auto xs = chunk(from_x, 3, -1), hs = chunk(from_h, 3, -1);
  const Tensor r = sigmoid(xs[0] + hs[0]);
  const Tensor z = sigmoid(xs[1] + hs[1]);
  const Tensor n = tanh(xs[2] + r * hs[2]);
  return (1.0 - z) * n + z * h;
}

}  // namespace

Tensor GRUCell::step(const Tensor& x, const Tensor& h) const {
  check_step(x, h);
  if (!reset_after_) {
    const auto xs = chunk(x, 3, 1), w = chunk(weight_hh, 3);
    const Tensor r = sigmoid(xs[0] + linear(h, w[0]));
    return fused(
        [](const Tensor& x_z, const Tensor& h_z, const Tensor& x_n, const Tensor& h_n,
           const Tensor& h0) {
          const Tensor z = sigmoid(x_z + h_z);
          const Tensor n = tanh(x_n + h_n);
          return (1.0 - z) * n + z * h0;
        },
        xs[1], linear(h, w[1]), xs[2], linear(r * h, w[2]), h);
  }
  return fused([](const Tensor& from_x, const Tensor& from_h,
                  const Tensor& h0) { return gru(from_x, from_h, h0); },
               x, linear(h, weight_hh, bias_hh), h);
}

Equations GRUCell::equations() const {
  if (!reset_after_)
    return {[](const Tensor& x, const Tensor& h, const Tensor& w, const Tensor& of_gates,
               const Tensor& of_n, const Tensor& b) {
              const auto xs = chunk(linear(x, w, b), 3, -1);
              const auto hs = chunk(linear(h, of_gates), 2, -1);
              const Tensor r = sigmoid(xs[0] + hs[0]);
              const Tensor z = sigmoid(xs[1] + hs[1]);
              const Tensor n = tanh(xs[2] + linear(r * h, of_n));
              return (1.0 - z) * n + z * h;
            },
            weight_ih, narrow(weight_hh, 0, 0, 2 * hidden_size),
            narrow(weight_hh, 0, 2 * hidden_size, hidden_size), sum_of_biases()};
  return {[](const Tensor& x, const Tensor& h, const Tensor& w, const Tensor& u, const Tensor& b,
             const Tensor& c) { return gru(linear(x, w, b), linear(h, u, c), h); },
          weight_ih, weight_hh, or_zeros(bias_ih), or_zeros(bias_hh)};
}

// The step from mask * h carries z * (mask * h) on, but z * h is what is to be carried.
Tensor GRUCell::step(const Tensor& x, const Tensor& h, const Tensor& mask) const {
  check_step(x, h);
  const Tensor seen = h * mask;
  const auto of_z = [&](const Tensor& t, std::int64_t dim) {
    return narrow(t, dim, hidden_size, hidden_size);
  };
  // Where the reset gate comes first, the projection has both biases.
  const Tensor bias = reset_after_ && bias_hh.defined() ? of_z(bias_hh, 0) : Tensor();
  const Tensor z = sigmoid(of_z(x, 1) + linear(seen, of_z(weight_hh, 0), bias));
  return step(x, seen) + z * (h - seen);
}

// --- LSTM ---------------------------------------------------------------------------------------

LSTMCell::LSTMCell(std::int64_t inputs, std::int64_t hidden, const LSTMOptions& options)
    : RNNCellBase("LSTMCell", 4, inputs, hidden, options.bias, options.proj_size) {
  if (options.proj_size > 0) {
    const double k = 1.0 / std::sqrt(static_cast<double>(hidden));
    weight_hr = param("weight_hr", uniform({options.proj_size, hidden}, -k, k));
  }
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
  return {RNNCellBase::initial_state(batch), zeros({batch, hidden_size}, weight_hh.dtype())};
}

namespace {

/// The new state without proj_size, from the sum of the products and biases.
LSTMState lstm(const Tensor& sum, const Tensor& c0) {
  const auto gates = chunk(sum, 4, -1);
  const Tensor i = sigmoid(gates[0]);
  const Tensor f = sigmoid(gates[1]);
  const Tensor g = tanh(gates[2]);
  const Tensor o = sigmoid(gates[3]);
  const Tensor c = f * c0 + i * g;
  return {o * tanh(c), c};
}

}  // namespace

LSTMState LSTMCell::step(const Tensor& x, const LSTMState& state) const {
  LSTMState next = unprojected_step(x, state);
  if (weight_hr.defined()) next.h = linear(next.h, weight_hr);
  return next;
}

LSTMState LSTMCell::unprojected_step(const Tensor& x, const LSTMState& state) const {
  check_step(x, state.h);
  check_step(x, state.c, "c");
  return fused([](const Tensor& sum, const Tensor& c) { return lstm(sum, c); },
               linear(state.h, weight_hh, x), state.c);
}

Equations LSTMCell::equations() const {
  if (weight_hr.defined())
    return {[](const Tensor& x, const LSTMState& s, const Tensor& w, const Tensor& u,
               const Tensor& b, const Tensor& projection) {
              const LSTMState next = lstm(linear(s.h, u, linear(x, w, b)), s.c);
              return LSTMState{linear(next.h, projection), next.c};
            },
            weight_ih, weight_hh, sum_of_biases(), weight_hr};
  return {[](const Tensor& x, const LSTMState& s, const Tensor& w, const Tensor& u,
             const Tensor& b) { return lstm(linear(s.h, u, linear(x, w, b)), s.c); },
          weight_ih, weight_hh, sum_of_biases()};
}

}  // namespace unroll
