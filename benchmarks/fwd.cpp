// Inference over a sequence: forward under NoGrad
#include <unroll/unroll.h>

#include "cells.h"
#include "common/hand_lstm.h"
#include "common/options.h"

using namespace unroll;

namespace {

template <class Make>
void forward(const char* what, bench::Size s, const bench::Options& options, Make make) {
  if (!options.wants(what)) return;
  const auto layer = make(s.I, s.H);
  const Tensor x = normal({s.T, s.B, s.I});
  const auto times = bench::measure(options.budget, [&] {
    NoGrad no_grad;
    layer(x);
  });
  bench::print("unroll", what, "fwd", s, options.threads, times);
}

void forward_by_hand(bench::Size s, const bench::Options& options) {
  if (!options.wants("handLSTM")) return;
  bench::HandLSTM layer(s);
  const Tensor x = normal({s.T, s.B, s.I});
  layer.pack();  // once: nobody changes the weights
  const auto times = bench::measure(options.budget, [&] { layer.forward(x.data<float>()); });
  bench::print("unroll", "handLSTM", "fwd", s, options.threads, times);
}

}  // namespace

int main(int argc, char** argv) {
  const auto options = bench::parse(argc, argv, "Inference over a sequence");
  set_num_threads(options.threads);
  bench::print_header();
  for (int row = 0; row < bench::kGridRows; ++row) {
    if (!options.wants_row(row)) continue;
    const bench::Size s = bench::kGrid[row];
    forward("LSTM", s, options, [](int in, int n) { return LSTM(in, n); });
    forward("customLSTM", s, options,
            [](int in, int n) { return Recurrent(bench::CustomLSTM(in, n)); });
    forward("customLSTM_plain", s, options,
            [](int in, int n) { return Recurrent(bench::PlainLSTM(in, n)); });
    forward("customLSTM_steps", s, options,
            [](int in, int n) { return Recurrent(bench::StepLSTM(in, n)); });
    forward_by_hand(s, options);
    forward("GRU", s, options, [](int in, int n) { return GRU(in, n); });
    forward("GRU_textbook", s, options,
            [](int in, int n) { return GRU(in, n, GRUOptions{.reset_after = false}); });
    forward("RNN", s, options, [](int in, int n) { return RNN(in, n); });
  }
}
