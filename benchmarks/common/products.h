#pragma once
/// The matrix products of a recurrent layer with M = batch rows, K inputs and N outputs.

#include <algorithm>
#include <cstddef>
#include <random>
#include <vector>

#include "common/options.h"

namespace bench {

/// C [m, n] = A [m, k] B [k, n]; a matrix that is `transposed` lies in memory as its transpose.
struct Product {
  const char* what;
  int m, n, k;
  bool a_transposed, b_transposed;
};

/// x W, dY W' and X' dY for one (M, N, K), W being [K, N].
inline std::vector<Product> products(int M, int N, int K) {
  return {{"xW", M, N, K, false, false},
          {"dYW'", M, K, N, false, true},
          {"X'dY", K, N, M, true, false}};
}

inline constexpr int kProductSizes[][3] = {{20, 800, 200},     {32, 1024, 256},  {64, 2048, 512},
                                           {128, 512, 128},    {1, 2048, 512},   {1, 256, 64},
                                           {1024, 1024, 1024}, {4096, 2048, 512}};

/// Calls f(product) for each that the options ask for; --row counts the sizes.
template <class F>
void for_each_product(const Options& options, F&& f) {
  int row = 0;
  for (const auto& size : kProductSizes) {
    if (options.wants_row(row++)) {
      for (const Product& p : products(size[0], size[1], size[2])) {
        if (options.wants(p.what)) f(p);
      }
    }
  }
}

struct Operands {
  std::vector<float> a, b, c;
  explicit Operands(const Product& p)
      : a(static_cast<std::size_t>(p.m) * static_cast<std::size_t>(p.k)),
        b(static_cast<std::size_t>(p.k) * static_cast<std::size_t>(p.n)),
        c(static_cast<std::size_t>(p.m) * static_cast<std::size_t>(p.n)) {
    std::mt19937 random(1);
    std::uniform_real_distribution<float> values(-1.0f, 1.0f);
    for (float& x : a) x = values(random);
    for (float& x : b) x = values(random);
  }
};

inline void print_product_header() {
  std::puts("peer,what,mode,m,n,k,threads,median_ms,min_ms,iterations,gflops");
}

/// Times multiply() and prints a line. Small products are repeated, so that the clock's own time
/// does not count.
template <class F>
void time_product(const char* peer, const char* mode, const Product& p, const Options& options,
                  F&& multiply) {
  if (!options.wants_mode(mode)) return;
  const double flops = 2.0 * p.m * p.n * p.k;
  const int repeats = std::max(1, static_cast<int>(2e6 / flops));
  Times times = measure(options.budget, [&] {
    for (int i = 0; i < repeats; ++i) multiply();
  });
  times.median /= repeats;
  times.min /= repeats;
  std::printf("%s,%s,%s,%d,%d,%d,%d,%.6f,%.6f,%d,%.1f\n", peer, p.what, mode, p.m, p.n, p.k,
              options.threads, times.median * 1e3, times.min * 1e3, times.iterations,
              flops / times.median / 1e9);
  std::fflush(stdout);
}

}  // namespace bench
