// Training step of a recurrent layer: forward, mean of squares, backward (no optimizer)
#include "common.h"

#include <cstdlib>
#include <cstring>

#include "cells.h"

using namespace unroll;

namespace {

struct Arguments {
  int threads = 1;
  int row = -1;
};

Arguments parse(int argc, char** argv) {
  Arguments a;
  for (int i = 1; i + 1 < argc; i += 2) {
    if (!std::strcmp(argv[i], "--threads")) a.threads = std::atoi(argv[i + 1]);
    if (!std::strcmp(argv[i], "--row")) a.row = std::atoi(argv[i + 1]);
  }
  return a;
}

template <class Layer>
void train(const char* what, Layer layer, bench::Size s, int threads) {
  for (bool input_grad : {true, false}) {
    Tensor x = normal({s.T, s.B, s.I});
    if (input_grad) x.requires_grad_();
    const auto times = bench::measure([&] {
      layer.zero_grad();
      x.set_grad(Tensor());
      mean(square(layer(x).outputs)).backward();
    });
    bench::print(what, input_grad ? "train" : "train_nodx", s, threads, times);
  }
}

}  // namespace

int main(int argc, char** argv) {
  const Arguments a = parse(argc, argv);
  set_num_threads(a.threads);
  bench::print_header();
  int row = 0;
  for (bench::Size s : bench::kGrid) {
    if (a.row < 0 || a.row == row) {
      train("LSTM", LSTM(s.I, s.H), s, a.threads);
      train("customLSTM", Recurrent(bench::CustomLSTM(s.I, s.H)), s, a.threads);
      train("customLSTM_plain", Recurrent(bench::PlainLSTM(s.I, s.H)), s, a.threads);
      train("GRU", GRU(s.I, s.H), s, a.threads);
      train("RNN", RNN(s.I, s.H), s, a.threads);
    }
    ++row;
  }
}
