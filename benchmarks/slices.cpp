// Unrolled loops over x[t]: time per step must not grow with T
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <vector>

#include <unroll/unroll.h>

using namespace unroll;

namespace {

/// Forward and backward of h = tanh(x[t] + h) over all t. x: [T, B, H].
void step(Tensor& x) {
  Tensor h = zeros({x.size(1), x.size(2)});
  for (std::int64_t t = 0; t < x.size(0); ++t) h = tanh(x[t] + h);
  sum(h).backward();
  x.set_grad(Tensor());
}

/// Median of seconds over several runs, after one to warm up.
double measure(std::int64_t steps) {
  Tensor x = uniform({steps, 16, 64}, -1.0, 1.0).requires_grad_();
  step(x);
  std::vector<double> seconds;
  for (int i = 0; i < 9; ++i) {
    const auto start = std::chrono::steady_clock::now();
    step(x);
    seconds.push_back(
        std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
  }
  std::sort(seconds.begin(), seconds.end());
  return seconds[seconds.size() / 2];
}

}  // namespace

int main() {
  set_num_threads(1);
  std::puts("slices: h = tanh(x[t] + h), x [T, 16, 64], forward + backward, median of 9");
  std::puts("T,ms,us_per_step");
  for (std::int64_t steps : {500, 1000, 2000, 4000}) {
    const double seconds = measure(steps);
    std::printf("%lld,%.3f,%.3f\n", static_cast<long long>(steps), seconds * 1e3,
                seconds * 1e6 / static_cast<double>(steps));
  }
}
