// exp, log, tanh and sigmoid of floats, beside xsimd's own
#include <string_view>
#include <vector>

#include "common/options.h"
#include "framework/kernels/kernels.h"
#include "functions/xsimd.h"

namespace {

using unroll::kernels::Op;

const bench::XsimdFunctions& xsimd_functions() {
  const std::string_view isa = unroll::kernels::active().isa;
#if defined(__x86_64__)
  return isa == "sse2"   ? bench::kXsimdSse2
         : isa == "avx2" ? bench::kXsimdAvx2
                         : bench::kXsimdAvx512;
#else
  return bench::kXsimdNeon;
#endif
}

constexpr std::int64_t kElements = 4096;  // x and y lie in the L1 cache
constexpr int kRepetitions = 20;

/// From `lowest` to `highest`, in such steps that neighbours are far from each other.
std::vector<float> arguments(float lowest, float highest) {
  std::vector<float> x(kElements);
  for (std::int64_t i = 0; i < kElements; ++i)
    x[static_cast<std::size_t>(i)] =
        lowest + (highest - lowest) * static_cast<float>(i * 1597 % kElements) / kElements;
  return x;
}

void compare(const char* name, Op op, bench::Function peer, float lowest, float highest,
             const bench::Options& options) {
  if (!options.wants(name)) return;
  const std::vector<float> x = arguments(lowest, highest);
  std::vector<float> y(kElements);
  const auto ours =
      unroll::kernels::float_kernels<float>().elementwise[static_cast<std::size_t>(op)];
  const bench::Times own = bench::measure(options.budget, [&] {
    for (int i = 0; i < kRepetitions; ++i)
      ours(kElements, y.data(), x.data(), nullptr, nullptr, nullptr);
  });
  const bench::Times others = bench::measure(options.budget, [&] {
    for (int i = 0; i < kRepetitions; ++i) peer(kElements, y.data(), x.data());
  });
  const auto per_element = [](double seconds) { return 1e9 * seconds / kRepetitions / kElements; };
  std::printf("%s,%s,%.3f,%.3f,%.2f\n", name, unroll::kernels::active().isa,
              per_element(own.median), per_element(others.median), others.median / own.median);
}

}  // namespace

int main(int argc, char** argv) {
  const auto options =
      bench::parse(argc, argv, "exp, log, tanh and sigmoid, nanoseconds for a float");
  std::puts("function,isa,unroll_ns,xsimd_ns,ratio");
  const bench::XsimdFunctions& peer = xsimd_functions();
  compare("exp", Op::exp, peer.exp, -10.0f, 10.0f, options);
  compare("log", Op::log, peer.log, 1e-3f, 1e3f, options);
  compare("tanh", Op::tanh, peer.tanh, -4.0f, 4.0f, options);
  compare("sigmoid", Op::sigmoid, peer.sigmoid, -10.0f, 10.0f, options);
}
