#pragma once
/// An LSTM layer with the backward pass derived by hand: no tape, no tensors, no general
/// operations, only the library's kernels. What these kernels allow, and so the yardstick for the
/// library.

#include <cstddef>
#include <cstdint>

#include "common/stopwatch.h"
#include "framework/kernels/kernels.h"
#include "framework/memory.h"

namespace bench {

/// Floats from the library's pool, as its tensors have them: on large pages; 0 at first.
class Buffer {
 public:
  explicit Buffer(std::int64_t size);
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;
  ~Buffer() { unroll::detail::pool_release(data_, bytes()); }
  float* data() const { return data_; }
  std::int64_t size() const { return size_; }
  operator float*() const { return data_; }

 private:
  std::size_t bytes() const { return static_cast<std::size_t>(size_) * sizeof(float); }
  std::int64_t size_;
  float* data_;
};

/// All buffers are made once, for one size. A training step is
///
///   pack();                  // the weights were changed
///   forward(x);
///   mean_of_squares();       // or anything that fills dy
///   pack_transposed(true);
///   backward(x, true);       // true: with the gradient of x
struct HandLSTM {
  explicit HandLSTM(Size size);

  /// Lays the weights out for the products of the forward, and for those of the backward.
  void pack();
  void pack_transposed(bool input_grad);
  /// x: [T, B, I]; fills h and c. The first of their T + 1 steps is the initial state.
  void forward(const float* x);
  /// The mean of the squares of all outputs; its gradient goes to dy.
  float mean_of_squares();
  /// From dy, after one forward: dw, du, db and, if asked for, dx.
  void backward(const float* x, bool input_grad);

  std::int64_t T, B, I, H;
  Buffer w, u, b;     ///< [I, 4H], [H, 4H], [4H]; columns i, f, g, o
  Buffer h, c;        ///< [T + 1, B, H]
  Buffer dy, dx;      ///< [T, B, H], [T, B, I]
  Buffer dw, du, db;  ///< like w, u, b

 private:
  /// So many time steps are projected, and their weight gradients taken, at once: some 256 rows,
  /// which are then still in the cache.
  std::int64_t steps_at_once() const { return B < 256 ? 256 / B : 1; }
  /// out [m, n] (+)= a [m, k] times a packed matrix, for some rows of one time step, in this
  /// thread.
  void step_product(std::int64_t m, std::int64_t n, std::int64_t k, const float* a,
                    const float* packed, float* out, bool accumulate) const;

  Buffer gates_;    ///< [T, B, 4H]: pre-activations, then gates, then gradients of the former
  Buffer tanh_c_;   ///< [T, B, H]
  Buffer dh_, dc_;  ///< [B, H]
  Buffer ones_;
  Buffer packed_w_, packed_u_, packed_w_transposed_, packed_u_transposed_;
};

/// Compares outputs and gradients with the library's LSTM; throws std::runtime_error where they
/// differ by more than rounding.
void check_hand_lstm();

}  // namespace bench
