#include "framework/step_products.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "framework/internal.h"
#include "framework/ops.h"

namespace unroll::detail {

namespace {

/// Whether two tensors are the same window on the same weight.
bool same(const Tensor& a, const Tensor& b) {
  if (!a.defined() || !b.defined()) return a.defined() == b.defined();
  const TensorImpl &x = a.impl(), &y = b.impl();
  return x.storage == y.storage && x.offset == y.offset && x.dtype == y.dtype &&
         x.shape == y.shape && x.strides == y.strides && weight_of(x) == weight_of(y);
}

std::uint32_t version_of(const Tensor& x) { return x.defined() ? version(x) : 0; }

/// By the sum, which is finite if all numbers are (or, for huge ones, not even then).
bool is_finite(const Tensor& x) {
  return dispatch_floating(x.dtype(), [&]<class T>(T) {
    return std::isfinite(kernels::float_kernels<T>().sum(x.numel(), read<T>(dense(x))));
  });
}

}  // namespace

constinit thread_local StepProducts* StepProducts::current_ = nullptr;

Tensor TimeStep::of(const Tensor& whole) const {
  return rows > 0 ? narrow(whole, 0, first, rows) : select(whole, 0, first);
}

StepProducts::StepProducts() : outer_(std::exchange(current_, this)) {}
StepProducts::~StepProducts() { current_ = outer_; }

void StepProducts::begin(Tensor piece) {
  piece_ = std::move(piece);
  finite_ = Finite::unknown;
}

void StepProducts::clear() {
  piece_ = x_ = Tensor();
  products_.clear();
}

const Tensor& StepProducts::next(TimeStep step) {
  step_ = step;
  x_ = step.of(piece_);
  ++number_;
  return x_;
}

std::int64_t StepProducts::widest() const {
  std::int64_t width = piece_.size(-1);
  for (const Product& p : products_) width = std::max(width, p.value.size(-1));
  return width;
}

/// Whether the product is this one, and nothing that it was made of has been written since.
bool StepProducts::is(const Product& p, Multiply multiply, const Tensor& weight,
                      const Tensor& bias) const {
  return p.multiply == multiply && p.recorded == grad_enabled() &&
         p.weight_version == version(weight) && p.bias_version == version_of(bias) &&
         p.piece_version == version(piece_) && same(p.weight, weight) && same(p.bias, bias);
}

/// Whether there is reason to believe that the other time steps will ask for a product as well.
bool StepProducts::may_begin_one() {
  if (off_ || piece_.size(0) == step_.rows || (step_.rows == 0 && piece_.size(0) == 1))
    return false;
  if (watched() && opens_chains()) return false;
  const TensorImpl& x = x_.impl();
  if (x.node && (x.node->hooks || x.node->keeps_grad)) return false;
  for (const Product& p : products_) off_ = off_ || p.asked < number_ - 1;
  if (off_) return false;
  if (finite_ == Finite::unknown) finite_ = is_finite(piece_) ? Finite::yes : Finite::no;
  return finite_ == Finite::yes;
}

Tensor StepProducts::product(Multiply multiply, const Tensor& weight, const Tensor& bias) {
  for (Product& p : products_) {
    if (!is(p, multiply, weight, bias)) continue;
    p.asked = number_;
    return step_.of(p.value);
  }
  if (!weight_of(weight.impl()) || (bias.defined() && !weight_of(bias.impl())) || !may_begin_one())
    return Tensor();
  products_.push_back({multiply, weight, bias, version(weight), version_of(bias), version(piece_),
                       grad_enabled(), multiply(piece_, weight, bias), number_});
  return step_.of(products_.back().value);
}

}  // namespace unroll::detail
