// Unrolled loops over x[t]: time per step must not grow with T
#include <unroll/unroll.h>

#include "common/options.h"

using namespace unroll;

int main(int argc, char** argv) {
  const auto options = bench::parse(argc, argv, "h = tanh(x[t] + h) over all t, x [T, 16, 64]");
  set_num_threads(options.threads);
  std::puts("T,median_ms,us_per_step");
  for (std::int64_t steps : {500, 1000, 2000, 4000}) {
    Tensor x = uniform({steps, 16, 64}, -1.0, 1.0).requires_grad_();
    const auto times = bench::measure(options.budget, [&] {
      Tensor h = zeros({16, 64});
      for (std::int64_t t = 0; t < steps; ++t) h = tanh(x[t] + h);
      sum(h).backward();
      x.set_grad(Tensor());
    });
    std::printf("%lld,%.3f,%.3f\n", static_cast<long long>(steps), times.median * 1e3,
                times.median * 1e6 / static_cast<double>(steps));
  }
}
