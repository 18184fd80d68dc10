#pragma once
/// An LSTM as a user of the library writes it, from the equations alone.

#include <cmath>

#include <unroll/unroll.h>

namespace bench {

/// i, f, g, o = sigmoid, sigmoid, tanh, sigmoid of the sum; c' = f c + i g; h' = o tanh(c').
inline unroll::LSTMState lstm(const unroll::Tensor& sum, const unroll::Tensor& c0) {
  const auto gates = chunk(sum, 4, 1);
  const auto c = sigmoid(gates[1]) * c0 + sigmoid(gates[0]) * tanh(gates[2]);
  return {sigmoid(gates[3]) * tanh(c), c};
}

/// The weights of the sum W x + U h + b.
struct LSTMWeights : unroll::Module {
  unroll::Tensor w, u, b;
  LSTMWeights(int in, int n) {
    const double k = 1.0 / std::sqrt(n);
    w = param("w", unroll::uniform({in, 4 * n}, -k, k));
    u = param("u", unroll::uniform({n, 4 * n}, -k, k));
    b = param("b", unroll::zeros({4 * n}));
  }
  unroll::LSTMState initial_state(int batch) const {
    return {unroll::zeros({batch, u.size(0)}), unroll::zeros({batch, u.size(0)})};
  }
};

/// What a beginner writes: the equations, in one function.
struct PlainLSTM : LSTMWeights {
  using LSTMWeights::LSTMWeights;
  unroll::Equations equations() const {
    using unroll::Tensor;
    return {[](const Tensor& x, const unroll::LSTMState& s, const Tensor& from_x,
               const Tensor& from_h, const Tensor& bias) {
              return lstm(matmul(x, from_x) + matmul(s.h, from_h) + bias, s.c);
            },
            w, u, b};
  }
};

/// With a step of its own besides, for a time step alone, and with what the step does not need the
/// state for in `project`.
struct CustomLSTM : PlainLSTM {
  using PlainLSTM::PlainLSTM;
  unroll::Equations equations() const { return PlainLSTM::equations(); }
  unroll::Tensor project(const unroll::Tensor& xs) const { return matmul(xs, w) + b; }
  unroll::LSTMState step(const unroll::Tensor& x, const unroll::LSTMState& s) const {
    using unroll::Tensor;
    return unroll::fused(
        [](const Tensor& wx, const Tensor& uh, const Tensor& c0) { return lstm(wx + uh, c0); }, x,
        matmul(s.h, u), s.c);
  }
};

/// Step by step, and an operation at a time: a step that may do anything.
struct StepLSTM : LSTMWeights {
  using LSTMWeights::LSTMWeights;
  unroll::LSTMState step(const unroll::Tensor& x, const unroll::LSTMState& s) const {
    return lstm(matmul(x, w) + matmul(s.h, u) + b, s.c);
  }
};

}  // namespace bench
