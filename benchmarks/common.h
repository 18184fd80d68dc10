#pragma once
/// What the benchmarks share: the grid of sizes, a stopwatch, and the line that is printed.

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <string>
#include <vector>

namespace bench {

/// Time steps, batch, input size, hidden size.
struct Size {
  int T, B, I, H;
};
inline constexpr Size kGrid[] = {{35, 20, 200, 200}, {35, 32, 256, 256}, {64, 64, 512, 512},
                                 {100, 1, 64, 64},   {28, 128, 28, 128}, {200, 32, 128, 128}};

struct Times {
  double median, min;  ///< seconds
  int iterations;
};

inline double now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

/// Runs f to warm up (3 times or more, 0.15 s or more, at most 5 s), then at least 15 times and for
/// at least 0.6 s.
template <class F>
Times measure(F&& f, int most = 4000) {
  double start = now();
  for (int i = 0; (i < 3 || now() - start < 0.15) && now() - start < 5.0; ++i) f();
  std::vector<double> seconds;
  start = now();
  while (seconds.size() < 15 ||
         (now() - start < 0.6 && seconds.size() < static_cast<std::size_t>(most))) {
    const double before = now();
    f();
    seconds.push_back(now() - before);
  }
  std::sort(seconds.begin(), seconds.end());
  return {seconds[seconds.size() / 2], seconds[0], static_cast<int>(seconds.size())};
}

inline void print_header() {
  std::puts("peer,what,mode,T,B,I,H,threads,median_ms,min_ms,iterations");
}

inline void print(const char* what, const char* mode, Size s, int threads, const Times& times) {
  std::printf("unroll,%s,%s,%d,%d,%d,%d,%d,%.6f,%.6f,%d\n", what, mode, s.T, s.B, s.I, s.H, threads,
              times.median * 1e3, times.min * 1e3, times.iterations);
  std::fflush(stdout);
}

}  // namespace bench
