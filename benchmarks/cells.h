#pragma once
/// An LSTM as a user of the library writes it, from the equations alone.

#include <cmath>

#include <unroll/unroll.h>

namespace bench {

/// i, f, g, o = sigmoid, sigmoid, tanh, sigmoid of W x + U h + b; c' = f c + i g; h' = o tanh(c').
struct CustomLSTM : unroll::Module {
  unroll::Tensor w, u, b;
  CustomLSTM(int in, int n) {
    const double k = 1.0 / std::sqrt(n);
    w = param("w", unroll::uniform({in, 4 * n}, -k, k));
    u = param("u", unroll::uniform({n, 4 * n}, -k, k));
    b = param("b", unroll::zeros({4 * n}));
  }
  unroll::LSTMState initial_state(int batch) const {
    return {unroll::zeros({batch, u.size(0)}), unroll::zeros({batch, u.size(0)})};
  }
  unroll::Tensor project(const unroll::Tensor& xs) const { return matmul(xs, w) + b; }
  unroll::LSTMState step(const unroll::Tensor& x, const unroll::LSTMState& s) const {
    return unroll::fused(
        [](const unroll::Tensor& wx, const unroll::Tensor& uh, const unroll::Tensor& c0) {
          const auto gates = chunk(wx + uh, 4, 1);
          const auto c = sigmoid(gates[1]) * c0 + sigmoid(gates[0]) * tanh(gates[2]);
          return unroll::LSTMState{sigmoid(gates[3]) * tanh(c), c};
        },
        x, matmul(s.h, u), s.c);
  }
};

/// The same without `project` and without fused(): what a beginner writes.
struct PlainLSTM : CustomLSTM {
  using CustomLSTM::CustomLSTM;
  unroll::Tensor project(const unroll::Tensor& xs) const { return xs; }
  unroll::LSTMState step(const unroll::Tensor& x, const unroll::LSTMState& s) const {
    const auto gates = chunk(matmul(x, w) + matmul(s.h, u) + b, 4, 1);
    const auto c = sigmoid(gates[1]) * s.c + sigmoid(gates[0]) * tanh(gates[2]);
    return {sigmoid(gates[3]) * tanh(c), c};
  }
};

}  // namespace bench
