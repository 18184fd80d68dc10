#pragma once
/// The elementwise part of an LSTM step, forward and backward, by hand.

#include <cstdint>

namespace bench {

/// Rows of the gates are i, f, g, o, each of `hidden` elements; the other arrays have `hidden`
/// elements per row. All are contiguous.
struct GateKernels {
  /// gates: in the pre-activations without the bias, out i, f, g, o.
  ///   c' = f c + i g,  tanh_c = tanh(c'),  h' = o tanh_c
  void (*forward)(std::int64_t rows, std::int64_t hidden, float* gates, const float* bias,
                  const float* c, float* new_c, float* tanh_c, float* h);
  /// gates: in i, f, g, o, out the gradients of the pre-activations. The gradient of h' is
  /// dy + dh (dh is null in the last time step); dc: in the gradient of c' that later steps gave,
  /// out that of c.
  void (*backward)(std::int64_t rows, std::int64_t hidden, float* gates, const float* c,
                   const float* tanh_c, const float* dy, const float* dh, float* dc);
};

/// Those for the instruction set that the library's kernels use.
const GateKernels& gate_kernels();

}  // namespace bench
