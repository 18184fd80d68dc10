// Growth of the resident set in one training step; time per step of long sequences
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>

#include <unroll/unroll.h>

#include "cells.h"
#include "common/options.h"

using namespace unroll;

namespace {

/// Highest resident set of this process so far, in MB.
double peak_mb() {
  rusage usage;
  getrusage(RUSAGE_SELF, &usage);
  return static_cast<double>(usage.ru_maxrss) / 1024.0;
}

template <class Make>
void measure(const char* what, int steps, const bench::Options& options, Make make) {
  if (!options.wants(what)) return;
  std::fflush(stdout);
  // In a process of its own: what one measurement leaves in the memory pool, the next would take.
  const pid_t child = fork();
  if (child != 0) {
    int status = 0;
    waitpid(child, &status, 0);
    if (status != 0) std::exit(1);
    return;
  }
  set_num_threads(options.threads);
  const bench::Size s = {steps, 16, 128, 128};
  auto layer = make(s.I, s.H);
  const Tensor x = normal({s.T, s.B, s.I});
  const auto step = [&] {
    layer.zero_grad();
    mean(square(layer(x).outputs)).backward();
  };
  const double before = peak_mb();
  step();
  const double growth = peak_mb() - before;
  const auto times = bench::measure({options.budget.seconds, 3}, step);
  bench::print_times("unroll", what, "memory", s, options.threads, times);
  std::printf(",%.1f,%.3f\n", growth, times.median * 1e6 / s.T);
  std::fflush(stdout);
  _exit(0);
}

}  // namespace

int main(int argc, char** argv) {
  const auto options = bench::parse(argc, argv, "Memory of a training step, and time per step");
  bench::print_header(",growth_mb,us_per_time_step");
  int row = 0;
  for (int steps : {1000, 2000, 5000, 10000}) {
    if (!options.wants_row(row++)) continue;
    measure("LSTM", steps, options, [](int in, int n) { return LSTM(in, n); });
    measure("customLSTM", steps, options,
            [](int in, int n) { return Recurrent(bench::CustomLSTM(in, n)); });
  }
}
