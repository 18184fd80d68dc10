#include <unroll/unroll.h>

#include <cstdio>

using namespace unroll;

struct Cell : Module {
  Tensor w, u, b;
  Cell(int in, int n)
      : w(param("w", uniform({in, n}, -0.1, 0.1))),
        u(param("u", uniform({n, n}, -0.1, 0.1))),
        b(param("b", zeros({n}))) {}
  Tensor initial_state(int batch) const { return zeros({batch, u.size(0)}); }
  Tensor project(const Tensor& xs) const { return matmul(xs, w) + b; }
  Tensor step(const Tensor& x, const Tensor& h) const { return tanh(x + matmul(h, u)); }
};

int main() {
  Cell cell(1, 32);
  Linear out(32, 1);
  Adam optimizer(parameters(cell, out), {.lr = 1e-2});
  for (int i = 0; i < 200; ++i) {
    const Tensor xs = uniform({20, 64, 1}, 0.0, 1.0);
    const auto [hs, last] = scan(cell, xs);
    const Tensor loss = mean(square(out(last) - mean(xs, 0)));
    optimizer.zero_grad();
    loss.backward();
    optimizer.step();
    if (i % 50 == 0) std::printf("%d: %.4f\n", i, loss.item());
  }
}
