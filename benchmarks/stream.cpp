// One LSTM step of one sequence, the state carried on: latency
#include <unroll/unroll.h>

#include "cells.h"
#include "common/options.h"

using namespace unroll;

namespace {

/// `step(state)` gives the next state. The last column counts how often the memory pool asked the
/// system for memory while the steps were timed.
template <class State, class Step>
void stream(const char* what, int hidden, const bench::Options& options, State state, Step step) {
  if (!options.wants(what)) return;
  const NoGrad no_grad;
  for (int i = 0; i < 3; ++i) state = step(state);
  const auto before = pool_stats().new_blocks;
  const auto times = bench::measure(options.budget, [&] { state = step(state); });
  const auto calls = pool_stats().new_blocks - before;
  bench::print_times("unroll", what, "stream", {1, 1, hidden, hidden}, options.threads, times);
  std::printf(",%.3f,%lld\n", times.median * 1e6, static_cast<long long>(calls));
  std::fflush(stdout);
}

}  // namespace

int main(int argc, char** argv) {
  const auto options = bench::parse(argc, argv, "One LSTM step of one sequence, state carried on");
  set_num_threads(options.threads);
  bench::print_header(",median_us,pool_new_blocks");
  for (int n : bench::kStreamSizes) {
    const Tensor x = normal({1, n});
    const LSTM layer(n, n);
    stream("LSTM", n, options, layer.initial_state(1),
           [&](const auto& state) { return layer.step(x, state).state; });
    const LSTMCell& cell = layer.cell();
    stream("LSTMCell", n, options, cell.initial_state(1),
           [&](const auto& state) { return cell.step(cell.project(x), state); });
    const bench::CustomLSTM custom(n, n);
    stream("customLSTM", n, options, custom.initial_state(1),
           [&](const auto& state) { return custom.step(custom.project(x), state); });
    const bench::PlainLSTM plain(n, n);
    stream("customLSTM_plain", n, options, plain.initial_state(1),
           [&](const auto& state) { return plain.equations().step(x, state).state; });
  }
}
