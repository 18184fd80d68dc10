// Training step of a recurrent layer: forward, mean of squares, backward
#include <fmt/format.h>
#include <unroll/unroll.h>

#include <exception>

#include "cells.h"
#include "common/hand_lstm.h"
#include "common/options.h"

using namespace unroll;

namespace {

/// Tells the library that the parameters were written, as an optimizer's step does.
template <class Layer>
void touch(Layer& layer) {
  NoGrad no_grad;
  for (Tensor& parameter : layer.parameters()) parameter.write<float>();
}

/// Mode train: x requires a gradient. train_nodx: only the parameters do.
template <class F>
void for_each_mode(const bench::Options& options, F&& f) {
  for (const char* mode : {"train", "train_nodx"}) {
    if (options.wants_mode(mode)) f(mode, std::string(mode) == "train");
  }
}

template <class Make>
void train(const char* what, bench::Size s, const bench::Options& options, Make make) {
  if (!options.wants(what)) return;
  auto layer = make(s.I, s.H);
  for_each_mode(options, [&](const char* mode, bool input_grad) {
    Tensor x = normal({s.T, s.B, s.I});
    if (input_grad) x.requires_grad_();
    const auto times = bench::measure(
        options.budget, [&] { touch(layer); },
        [&] {
          layer.zero_grad();
          x.set_grad(Tensor());
          mean(square(layer(x).outputs)).backward();
        });
    bench::print("unroll", what, mode, s, options.threads, times);
  });
}

void train_by_hand(bench::Size s, const bench::Options& options) {
  const char* what = "handLSTM";
  if (!options.wants(what)) return;
  const bench::CustomLSTM start(s.I, s.H);
  bench::HandLSTM layer(s);
  const Tensor x = normal({s.T, s.B, s.I});
  const auto copy = [](const Tensor& from, float* to) {
    std::copy_n(from.data<float>(), from.numel(), to);
  };
  copy(start.w, layer.w);
  copy(start.u, layer.u);
  for_each_mode(options, [&](const char* mode, bool input_grad) {
    const auto times = bench::measure(options.budget, [&] {
      layer.pack();
      layer.forward(x.data<float>());
      layer.mean_of_squares();
      layer.pack_transposed(input_grad);
      layer.backward(x.data<float>(), input_grad);
    });
    bench::print("unroll", what, mode, s, options.threads, times);
  });
}

}  // namespace

int main(int argc, char** argv) try {
  const auto options =
      bench::parse(argc, argv, "Training step: forward, mean of squares, backward");
  set_num_threads(options.threads);
  if (options.wants("handLSTM")) bench::check_hand_lstm();
  bench::print_header();
  for (int row = 0; row < bench::kGridRows; ++row) {
    if (!options.wants_row(row)) continue;
    const bench::Size s = bench::kGrid[row];
    train("LSTM", s, options, [](int in, int n) { return LSTM(in, n); });
    train("customLSTM", s, options,
          [](int in, int n) { return Recurrent(bench::CustomLSTM(in, n)); });
    train("customLSTM_plain", s, options,
          [](int in, int n) { return Recurrent(bench::PlainLSTM(in, n)); });
    train("customLSTM_steps", s, options,
          [](int in, int n) { return Recurrent(bench::StepLSTM(in, n)); });
    train_by_hand(s, options);
    train("GRU", s, options, [](int in, int n) { return GRU(in, n); });
    train("GRU_textbook", s, options,
          [](int in, int n) { return GRU(in, n, GRUOptions{.reset_after = false}); });
    train("RNN", s, options, [](int in, int n) { return RNN(in, n); });
  }
} catch (const std::exception& error) {
  fmt::print(stderr, "error: {}\n", error.what());
  return 1;
}
