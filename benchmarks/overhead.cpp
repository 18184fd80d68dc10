// Cost of one op on the tape: 1000 times x = tanh(x) + c on small tensors, per op
#include <unroll/unroll.h>

#include "common/options.h"

using namespace unroll;

int main(int argc, char** argv) {
  const auto options = bench::parse(argc, argv, "Cost of one op on the tape");
  set_num_threads(options.threads);
  for (std::int64_t n : {1, 16, 1024}) {
    Tensor x0 = normal({n}).requires_grad_();
    const Tensor c = normal({n});
    const auto forward = [&] {
      Tensor x = x0;
      for (int i = 0; i < 1000; ++i) x = tanh(x) + c;
      return x;
    };
    const auto both = bench::measure(options.budget, [&] {
      x0.set_grad(Tensor());
      sum(forward()).backward();
    });
    const auto graph = bench::measure(options.budget, forward);
    const auto inference = bench::measure(options.budget, [&] {
      NoGrad no_grad;
      forward();
    });
    const double ops = 2000.0;
    std::printf(
        "overhead,unroll,n=%lld,fwd+bwd %.1f ns/op (min %.1f),fwd-with-graph %.1f,inference %.1f "
        "(2000 ops)\n",
        static_cast<long long>(n), both.median * 1e9 / ops, both.min * 1e9 / ops,
        graph.median * 1e9 / ops, inference.median * 1e9 / ops);
    std::fflush(stdout);
  }
}
