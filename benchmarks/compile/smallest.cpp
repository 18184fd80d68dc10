#include <unroll/unroll.h>

int main() {
  unroll::Tensor x = unroll::ones({2, 3}).requires_grad_();
  unroll::sum(x * x).backward();
  return unroll::sum(x.grad()).item() == 12.0 ? 0 : 1;
}
