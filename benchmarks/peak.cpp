// The most that one core can do: fused multiply-adds in registers, in GFLOP/s
#include <cstdio>
#include <string_view>

#include "common/options.h"
#include "framework/kernels/kernels.h"

namespace {

constexpr int kChains = 12;  // two units, each busy with an instruction for 4 to 5 cycles
constexpr long kRounds = 1000000;

/// Independent chains of a = a x + y in vectors of so many bytes; returns the operations done.
/// Inlined into a function that is compiled for an instruction set.
template <int bytes>
[[gnu::always_inline]] inline double multiply_adds() {
  using Vector [[gnu::vector_size(bytes)]] = float;
  constexpr int lanes = bytes / static_cast<int>(sizeof(float));
  Vector chain[kChains];
  for (int i = 0; i < kChains; ++i) chain[i] = Vector{} + static_cast<float>(i);
  Vector x = Vector{} + 0.999f, y = Vector{} + 1e-3f;
  // The compiler must not know them: it would leave out a chain whose value it can foresee.
  asm volatile("" : "+m"(x), "+m"(y));
  for (long round = 0; round < kRounds; ++round) {
#pragma GCC unroll 12
    for (int i = 0; i < kChains; ++i) chain[i] = chain[i] * x + y;
  }
  // Somebody might look at the result, so it has to be computed.
  for (int i = 0; i < kChains; ++i) asm volatile("" : : "m"(chain[i]));
  return 2.0 * lanes * kChains * static_cast<double>(kRounds);
}

double baseline() { return multiply_adds<16>(); }
#if defined(__x86_64__)
[[gnu::target("avx2,fma")]] double avx2() { return multiply_adds<32>(); }
[[gnu::target("avx512f,fma")]] double avx512() { return multiply_adds<64>(); }
#endif

}  // namespace

int main(int argc, char** argv) {
  const auto options = bench::parse(argc, argv, "Peak of one core: fused multiply-adds");
  const std::string_view isa = unroll::kernels::active().isa;
  double (*run)() = baseline;
#if defined(__x86_64__)
  if (isa == "avx2") run = avx2;
  if (isa == "avx512") run = avx512;
#endif
  double operations = 0;
  const auto times = bench::measure(options.budget, [&] { operations = run(); });
  std::puts("peer,what,isa,gflops,max_gflops");
  std::printf("peak,fma,%s,%.1f,%.1f\n", unroll::kernels::active().isa,
              operations / times.median / 1e9, operations / times.min / 1e9);
}
