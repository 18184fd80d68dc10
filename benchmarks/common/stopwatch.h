#pragma once
/// What all sides of a comparison share: the grid of sizes, the stopwatch and the line that is
/// printed. C++17 and the standard library alone, since the peers' programs include it too.

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdio>
#include <vector>

namespace bench {

/// Time steps, batch, input size, hidden size.
struct Size {
  int T, B, I, H;
};
inline constexpr Size kGrid[] = {{35, 20, 200, 200}, {35, 32, 256, 256}, {64, 64, 512, 512},
                                 {100, 1, 64, 64},   {28, 128, 28, 128}, {200, 32, 128, 128}};
inline constexpr int kGridRows = 6;
/// Hidden (and input) sizes of a single step, T = B = 1.
inline constexpr int kStreamSizes[] = {64, 128, 512};

/// Floating-point operations of a training step of a layer with so many gates: a forward product
/// and two backward ones, each with the input's weight and the recurrent one.
inline double training_flops(Size s, int gates) {
  return 6.0 * s.T * s.B * (s.I + s.H) * gates * s.H;
}

/// For how long a thing is timed: at least so many seconds and at least so many times.
struct Budget {
  double seconds = 0.6;
  int iterations = 15;
};

struct Times {
  double median, min;  ///< seconds
  int iterations;
};

inline double now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

inline double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

/// Times f, each time after a call of prepare that is not timed. Warms up for a quarter of the
/// budget, at least three times.
template <class Prepare, class F>
Times measure(const Budget& budget, Prepare&& prepare, F&& f) {
  constexpr std::size_t most = 200000;
  double start = now();
  for (int i = 0; i < 3 || now() - start < budget.seconds / 4; ++i) {
    prepare();
    f();
  }
  std::vector<double> seconds;
  start = now();
  while (seconds.size() < static_cast<std::size_t>(budget.iterations) ||
         (now() - start < budget.seconds && seconds.size() < most)) {
    prepare();
    const double before = now();
    f();
    seconds.push_back(now() - before);
  }
  return {median(seconds), *std::min_element(seconds.begin(), seconds.end()),
          static_cast<int>(seconds.size())};
}
template <class F>
Times measure(const Budget& budget, F&& f) {
  return measure(
      budget, [] {}, f);
}

inline void print_header(const char* more = "") {
  std::printf("peer,what,mode,T,B,I,H,threads,median_ms,min_ms,iterations%s\n", more);
}

/// One line; what a benchmark adds to it follows, and then the end of the line.
inline void print_times(const char* peer, const char* what, const char* mode, Size s, int threads,
                        const Times& times) {
  std::printf("%s,%s,%s,%d,%d,%d,%d,%d,%.6f,%.6f,%d", peer, what, mode, s.T, s.B, s.I, s.H, threads,
              times.median * 1e3, times.min * 1e3, times.iterations);
}
inline void print(const char* peer, const char* what, const char* mode, Size s, int threads,
                  const Times& times) {
  print_times(peer, what, mode, s, threads, times);
  std::printf("\n");
  std::fflush(stdout);
}

}  // namespace bench
