#include "common/hand_lstm.h"

#include <fmt/format.h>
#include <unroll/unroll.h>

#include <cmath>
#include <cstring>
#include <new>
#include <stdexcept>

#include "common/hand_gates.h"
#include "framework/kernels/kernels.h"
#include "framework/kernels/parallel.h"

namespace bench {

using namespace unroll::kernels;

Buffer::Buffer(std::int64_t size)
    : size_(size), data_(static_cast<float*>(unroll::detail::pool_allocate(bytes()))) {
  std::fill_n(data_, size, 0.0f);
}

namespace {

const FloatKernels<float>& table() { return active().f32; }

}  // namespace

HandLSTM::HandLSTM(Size s)
    : T(s.T),
      B(s.B),
      I(s.I),
      H(s.H),
      w(I * 4 * H),
      u(H * 4 * H),
      b(4 * H),
      h((T + 1) * B * H),
      c((T + 1) * B * H),
      dy(T * B * H),
      dx(T * B * I),
      dw(w.size()),
      du(u.size()),
      db(b.size()),
      gates_(T * B * 4 * H),
      tanh_c_(T * B * H),
      dh_(B * H),
      dc_(B * H),
      ones_(T * B),
      packed_w_(table().packed_size(I, 4 * H)),
      packed_u_(table().packed_size(H, 4 * H)),
      packed_w_transposed_(table().packed_size(4 * H, I)),
      packed_u_transposed_(table().packed_size(4 * H, H)) {
  std::fill_n(ones_.data(), ones_.size(), 1.0f);
}

void HandLSTM::pack() {
  unroll::kernels::pack<float>(I, 4 * H, {w, 4 * H, 1}, packed_w_);
  unroll::kernels::pack<float>(H, 4 * H, {u, 4 * H, 1}, packed_u_);
}

void HandLSTM::pack_transposed(bool input_grad) {
  if (input_grad) unroll::kernels::pack<float>(4 * H, I, {w, 1, 4 * H}, packed_w_transposed_);
  unroll::kernels::pack<float>(4 * H, H, {u, 1, 4 * H}, packed_u_transposed_);
}

void HandLSTM::step_product(std::int64_t m, std::int64_t n, std::int64_t k, const float* a,
                            const float* packed, float* out, bool accumulate) const {
  table().gemm_packed(m, n, k, {a, k, 1}, packed, out, n, accumulate, {}, 0, n);
}

void HandLSTM::forward(const float* x) {
  const FlushDenormals flush;
  for (std::int64_t first = 0; first < T; first += steps_at_once()) {
    const std::int64_t last = std::min(first + steps_at_once(), T);
    gemm_packed((last - first) * B, 4 * H, I, {x + first * B * I, I, 1}, packed_w_.data(),
                gates_ + first * B * 4 * H, 4 * H, false);
    // A sequence needs no other one: each thread takes some of them through all these time steps.
    parallel_for(0, B, 8, [&](std::int64_t row, std::int64_t last_row) {
      const FlushDenormals flush_here;
      for (std::int64_t t = first; t < last; ++t) {
        const std::int64_t at = t * B + row, rows = last_row - row;
        float* gates = gates_ + at * 4 * H;
        step_product(rows, 4 * H, H, h + at * H, packed_u_, gates, true);
        gate_kernels().forward(rows, H, gates, b, c + at * H, c + (at + B) * H, tanh_c_ + at * H,
                               h + (at + B) * H);
      }
    });
  }
}

float HandLSTM::mean_of_squares() {
  const std::int64_t n = dy.size();
  const float* y = h + B * H;
  const double scale = 2.0 / static_cast<double>(n);
  const double immediates[2] = {scale, 0.0};
  table().elementwise[static_cast<std::size_t>(Op::affine)](n, dy, y, nullptr, nullptr, immediates);
  return table().dot(n, y, y) / static_cast<float>(n);
}

void HandLSTM::backward(const float* x, bool input_grad) {
  const FlushDenormals flush;
  std::memset(dc_, 0, static_cast<std::size_t>(dc_.size()) * sizeof(float));
  const std::int64_t chunks = (T + steps_at_once() - 1) / steps_at_once();
  for (std::int64_t chunk = chunks - 1; chunk >= 0; --chunk) {
    const std::int64_t first = chunk * steps_at_once();
    const std::int64_t last = std::min(first + steps_at_once(), T);
    parallel_for(0, B, 8, [&](std::int64_t row, std::int64_t last_row) {
      const FlushDenormals flush_here;
      const std::int64_t rows = last_row - row;
      float* dh = dh_ + row * H;
      for (std::int64_t t = last - 1; t >= first; --t) {
        const std::int64_t at = t * B + row;
        float* gates = gates_ + at * 4 * H;
        gate_kernels().backward(rows, H, gates, c + at * H, tanh_c_ + at * H, dy + at * H,
                                t + 1 < T ? dh : nullptr, dc_ + row * H);
        if (t > 0) {
          step_product(rows, H, 4 * H, gates, packed_u_transposed_, dh, false);
        }
      }
    });
    const bool accumulate = chunk + 1 < chunks;
    const std::int64_t rows = (last - first) * B;
    const float* from_x = x + first * B * I;
    const float* from_h = h + first * B * H;
    const MatrixRef<float> dgates = {gates_ + first * B * 4 * H, 4 * H, 1};
    gemm(H, 4 * H, rows, {from_h, 1, H}, dgates, du.data(), 4 * H, accumulate);
    gemm(I, 4 * H, rows, {from_x, 1, I}, dgates, dw.data(), 4 * H, accumulate);
    gemm(1, 4 * H, rows, {ones_.data(), rows, 1}, dgates, db.data(), 4 * H, accumulate);
    if (input_grad) {
      gemm_packed(rows, I, 4 * H, dgates, packed_w_transposed_.data(), dx + first * B * I, I,
                  false);
    }
  }
}

namespace {

using unroll::Tensor;

void fill(float* to, const Tensor& from) {
  const auto values = from.to_vector<float>();
  std::copy(values.begin(), values.end(), to);
}

void compare(const char* what, Size s, const float* hand, const Tensor& library) {
  const auto expected = library.to_vector<float>();
  double largest = 0, error = 0;
  for (std::size_t i = 0; i < expected.size(); ++i) {
    largest = std::max(largest, std::abs(double{expected[i]}));
    error = std::max(error, std::abs(double{expected[i]} - double{hand[i]}));
  }
  if (!(error <= 1e-5 * largest)) {
    throw std::runtime_error(
        fmt::format("handLSTM ({}, {}, {}, {}): {} differs from the library's by {} of {}", s.T,
                    s.B, s.I, s.H, what, error, largest));
  }
}

void check(Size s) {
  unroll::LSTM library(s.I, s.H);
  Tensor x = unroll::normal({s.T, s.B, s.I}).requires_grad_();
  const Tensor outputs = library(x).outputs;
  mean(square(outputs)).backward();

  HandLSTM hand(s);
  const auto& cell = library.cell();
  fill(hand.w, transpose(cell.weight_ih));
  fill(hand.u, transpose(cell.weight_hh));
  fill(hand.b, cell.bias_ih + cell.bias_hh);
  hand.pack();
  hand.pack_transposed(true);
  hand.forward(x.data<float>());
  hand.mean_of_squares();
  hand.backward(x.data<float>(), true);

  compare("h", s, hand.h + s.B * s.H, outputs);
  compare("dx", s, hand.dx, x.grad());
  compare("dw", s, hand.dw, transpose(cell.weight_ih.grad()));
  compare("du", s, hand.du, transpose(cell.weight_hh.grad()));
  compare("db", s, hand.db, cell.bias_ih.grad());
}

}  // namespace

void check_hand_lstm() {
  check({9, 40, 7, 20});    // several chunks of time steps, columns that fill no vector
  check({300, 1, 16, 33});  // products with a vector
}

}  // namespace bench
