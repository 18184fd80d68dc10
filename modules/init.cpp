#include "modules/init.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "framework/autograd.h"
#include "framework/internal.h"
#include "framework/ops.h"

namespace unroll {

using detail::fail;

namespace init {

namespace {

struct Fans {
  double in, out;
};

Fans fans(const char* where, const Tensor& x) {
  if (x.dim() < 2)
    fail<ShapeError>("{}: fans are defined for 2 dimensions and more, but x is {}", where,
                     x.shape());
  double field = 1;  // elements of one kernel of a convolution
  for (std::int64_t d = 2; d < x.dim(); ++d) field *= static_cast<double>(x.size(d));
  return {static_cast<double>(x.size(1)) * field, static_cast<double>(x.size(0)) * field};
}

double kaiming_std(const char* where, const Tensor& x, double slope, Fan fan) {
  const Fans f = fans(where, x);
  return std::sqrt(2.0 / ((1.0 + slope * slope) * (fan == Fan::in ? f.in : f.out)));
}

double xavier_std(const char* where, const Tensor& x, double gain) {
  const Fans f = fans(where, x);
  return gain * std::sqrt(2.0 / (f.in + f.out));
}

/// U(-a, a) has the standard deviation a / sqrt(3).
Tensor uniform_with_std_(Tensor x, double std, Generator& generator) {
  const double a = std::sqrt(3.0) * std;
  return uniform_(std::move(x), -a, a, generator);
}

}  // namespace

Tensor constant_(Tensor x, double value) {
  NoGrad no_grad;
  return x.fill_(value);
}

Tensor uniform_(Tensor x, double low, double high, Generator& generator) {
  NoGrad no_grad;
  return x.copy_(uniform(x.shape(), low, high, x.dtype(), generator));
}

Tensor normal_(Tensor x, double mean, double std, Generator& generator) {
  NoGrad no_grad;
  return x.copy_(normal(x.shape(), mean, std, x.dtype(), generator));
}

Tensor xavier_uniform_(Tensor x, double gain, Generator& generator) {
  const double std = xavier_std("init::xavier_uniform_", x, gain);
  return uniform_with_std_(std::move(x), std, generator);
}

Tensor xavier_normal_(Tensor x, double gain, Generator& generator) {
  const double std = xavier_std("init::xavier_normal_", x, gain);
  return normal_(std::move(x), 0.0, std, generator);
}

Tensor kaiming_uniform_(Tensor x, double slope, Fan fan, Generator& generator) {
  const double std = kaiming_std("init::kaiming_uniform_", x, slope, fan);
  return uniform_with_std_(std::move(x), std, generator);
}

Tensor kaiming_normal_(Tensor x, double slope, Fan fan, Generator& generator) {
  const double std = kaiming_std("init::kaiming_normal_", x, slope, fan);
  return normal_(std::move(x), 0.0, std, generator);
}

Tensor orthogonal_(Tensor x, double gain, Generator& generator) {
  if (x.dim() < 2)
    fail<ShapeError>("init::orthogonal_: needs 2 dimensions or more, but x is {}", x.shape());
  if (x.numel() == 0) return x;
  const std::int64_t rows = x.size(0);
  const std::int64_t columns = x.numel() / rows;
  const std::int64_t n = std::min(rows, columns);  // vectors to make orthonormal ...
  const std::int64_t m = std::max(rows, columns);  // ... of this length
  Tensor q = normal({n, m}, 0.0, 1.0, DType::f64, generator);

  // Gram-Schmidt against all earlier vectors at once. The second round removes what rounding left
  // in the first: "twice is enough" (Giraud et al. 2005).
  NoGrad no_grad;
  for (std::int64_t i = 0; i < n; ++i) {
    Tensor v = q[i];
    const Tensor earlier = narrow(q, 0, 0, i);
    for (int round = 0; round < 2 && i > 0; ++round)
      v.copy_(v - matmul(matmul(earlier, v), earlier));
    v.copy_(v / norm(v));
  }
  if (rows > columns) q = transpose(q);
  return x.copy_(reshape(q * gain, x.shape()));
}

}  // namespace init

Tensor orthogonal(const Shape& shape, double gain, DType dtype, Generator& generator) {
  return init::orthogonal_(empty(shape, dtype), gain, generator);
}

}  // namespace unroll
