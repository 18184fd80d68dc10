#include <unroll/unroll.h>

// One gradient is enough to see that headers and libraries belong together: d sum(x * x) = 2 x.
int main() {
  unroll::Tensor x = unroll::ones({2, 3}).requires_grad_();
  unroll::sum(x * x).backward();
  return unroll::sum(x.grad()).item() == 12.0 ? 0 : 1;
}
