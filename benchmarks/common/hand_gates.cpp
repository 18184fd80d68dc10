#include "common/hand_gates.h"

#include <string_view>

#include "framework/kernels/kernels.h"

// The loops stand once, as plain C++; each function that calls them is compiled for one instruction
// set, and the compiler makes vectors of them.

// The same wishes, in the words of both compilers: no two elements of a loop depend on each other,
// and AVX-512 means whole registers.
#if defined(__clang__)
#define UNROLL_NO_ALIASES _Pragma("clang loop vectorize(assume_safety)")
#define UNROLL_AVX512 "avx512f,avx512dq,avx512vl,fma"
#else
#define UNROLL_NO_ALIASES _Pragma("GCC ivdep")
#define UNROLL_AVX512 "avx512f,avx512dq,avx512vl,fma,prefer-vector-width=512"
#endif

namespace bench {
namespace {

struct Power {
  float scale, p;
};

/// e^x = scale (1 + p), where scale is a power of 2 and |log(1 + p)| <= ln(2) / 2. x: from -87.3 to
/// 88.3, so that scale is a normal number. How, and why, is said in framework/kernels/exp.impl.h.
[[gnu::always_inline]] inline Power power(float x) {
  constexpr float magic = 0x1.8p+23f;
  const float shifted = x * 0x1.715476p+0f + magic;  // no room for a fraction: rounded
  const float n = shifted - magic;
  const float r = (x - n * 0x1.63p-1f) + n * 0x1.bd0106p-13f;
  float q = 0x1.a1256ap-13f;
  q = q * r + 0x1.6d43acp-10f;
  q = q * r + 0x1.1110ep-7f;
  q = q * r + 0x1.5554e8p-5f;
  q = q * r + 0x1.555556p-3f;
  q = q * r + 0.5f;
  const std::int32_t exponent = __builtin_bit_cast(std::int32_t, shifted) << 23;
  const std::int32_t one = __builtin_bit_cast(std::int32_t, 1.0f);
  return {__builtin_bit_cast(float, one + exponent), q * (r * r) + r};
}

[[gnu::always_inline]] inline float sigmoid(float x) {
  const float below = -x > 88.3f ? 88.3f : -x;
  const Power e = power(below < -87.3f ? -87.3f : below);
  return 1.0f / (1.0f + (e.scale + e.scale * e.p));
}

/// t / (t + 2) with t = e^(2|x|) - 1.
[[gnu::always_inline]] inline float tanh(float x) {
  const float size = __builtin_fabsf(x);
  const float z = size > 9.1f ? 9.1f : size;
  const Power e = power(z + z);
  const float t = e.scale * e.p + (e.scale - 1.0f);
  return __builtin_copysignf(t / (t + 2.0f), x);
}

[[gnu::always_inline]] inline void forward_rows(std::int64_t rows, std::int64_t hidden,
                                                float* __restrict gates,
                                                const float* __restrict bias,
                                                const float* __restrict c, float* __restrict new_c,
                                                float* __restrict tanh_c, float* __restrict h) {
  for (std::int64_t row = 0; row < rows; ++row) {
    float* __restrict const is = gates + row * 4 * hidden;
    float* __restrict const fs = is + hidden;
    float* __restrict const gs = fs + hidden;
    float* __restrict const os = gs + hidden;
    const std::int64_t first = row * hidden;
    UNROLL_NO_ALIASES
    for (std::int64_t j = 0; j < hidden; ++j) {
      const float i = sigmoid(is[j] + bias[j]);
      const float f = sigmoid(fs[j] + bias[hidden + j]);
      const float g = tanh(gs[j] + bias[2 * hidden + j]);
      const float o = sigmoid(os[j] + bias[3 * hidden + j]);
      const float next = f * c[first + j] + i * g;
      const float t = tanh(next);
      is[j] = i;
      fs[j] = f;
      gs[j] = g;
      os[j] = o;
      new_c[first + j] = next;
      tanh_c[first + j] = t;
      h[first + j] = o * t;
    }
  }
}

[[gnu::always_inline]] inline void backward_rows(std::int64_t rows, std::int64_t hidden,
                                                 float* __restrict gates, const float* __restrict c,
                                                 const float* __restrict tanh_c,
                                                 const float* __restrict dy,
                                                 const float* __restrict dh, float* __restrict dc) {
  for (std::int64_t row = 0; row < rows; ++row) {
    float* __restrict const is = gates + row * 4 * hidden;
    float* __restrict const fs = is + hidden;
    float* __restrict const gs = fs + hidden;
    float* __restrict const os = gs + hidden;
    const std::int64_t first = row * hidden;
    const auto unit = [&](std::int64_t j, float d_h) __attribute__((always_inline)) {
      const float i = is[j], f = fs[j], g = gs[j], o = os[j], t = tanh_c[first + j];
      const float d_c = dc[first + j] + d_h * o * (1.0f - t * t);
      is[j] = d_c * g * (i * (1.0f - i));
      fs[j] = d_c * c[first + j] * (f * (1.0f - f));
      gs[j] = d_c * i * (1.0f - g * g);
      os[j] = d_h * t * (o * (1.0f - o));
      dc[first + j] = d_c * f;
    };
    if (dh != nullptr) {
      UNROLL_NO_ALIASES
      for (std::int64_t j = 0; j < hidden; ++j) unit(j, dy[first + j] + dh[first + j]);
    } else {
      UNROLL_NO_ALIASES
      for (std::int64_t j = 0; j < hidden; ++j) unit(j, dy[first + j]);
    }
  }
}

void forward(std::int64_t rows, std::int64_t hidden, float* gates, const float* bias,
             const float* c, float* new_c, float* tanh_c, float* h) {
  forward_rows(rows, hidden, gates, bias, c, new_c, tanh_c, h);
}
void backward(std::int64_t rows, std::int64_t hidden, float* gates, const float* c,
              const float* tanh_c, const float* dy, const float* dh, float* dc) {
  backward_rows(rows, hidden, gates, c, tanh_c, dy, dh, dc);
}

#if defined(__x86_64__)
[[gnu::target("avx2,fma")]] void forward_avx2(std::int64_t rows, std::int64_t hidden, float* gates,
                                              const float* bias, const float* c, float* new_c,
                                              float* tanh_c, float* h) {
  forward_rows(rows, hidden, gates, bias, c, new_c, tanh_c, h);
}
[[gnu::target("avx2,fma")]] void backward_avx2(std::int64_t rows, std::int64_t hidden, float* gates,
                                               const float* c, const float* tanh_c, const float* dy,
                                               const float* dh, float* dc) {
  backward_rows(rows, hidden, gates, c, tanh_c, dy, dh, dc);
}

[[gnu::target(UNROLL_AVX512)]] void forward_avx512(std::int64_t rows, std::int64_t hidden,
                                                   float* gates, const float* bias, const float* c,
                                                   float* new_c, float* tanh_c, float* h) {
  forward_rows(rows, hidden, gates, bias, c, new_c, tanh_c, h);
}
[[gnu::target(UNROLL_AVX512)]] void backward_avx512(std::int64_t rows, std::int64_t hidden,
                                                    float* gates, const float* c,
                                                    const float* tanh_c, const float* dy,
                                                    const float* dh, float* dc) {
  backward_rows(rows, hidden, gates, c, tanh_c, dy, dh, dc);
}
#endif

}  // namespace

const GateKernels& gate_kernels() {
  static const GateKernels kernels = [] {
#if defined(__x86_64__)
    const std::string_view isa = unroll::kernels::active().isa;
    if (isa == "avx512") return GateKernels{forward_avx512, backward_avx512};
    if (isa == "avx2") return GateKernels{forward_avx2, backward_avx2};
#endif
    return GateKernels{forward, backward};
  }();
  return kernels;
}

}  // namespace bench
