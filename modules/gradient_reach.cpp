#include "modules/gradient_reach.h"

namespace unroll {

std::vector<double> detail::gradient_reach(const std::vector<Tensor>& hs, Generator& generator) {
  if (hs.empty()) throw ShapeError("gradient_reach: needs a time step or more");
  const Tensor& last = hs.back();
  Tensor direction = normal(last.shape(), 0.0, 1.0, last.dtype(), generator);
  direction = direction / norm(direction, 2.0, {-1}, true);
  const std::vector<Tensor> gradients = grad({last}, hs, {.grad_outputs = {direction}});
  std::vector<double> norms;
  for (auto g = gradients.rbegin(); g != gradients.rend(); ++g)
    norms.push_back(mean(norm(*g, 2.0, {-1})).item());
  return norms;
}

}  // namespace unroll
