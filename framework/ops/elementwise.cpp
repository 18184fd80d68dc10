/// Elementwise operations. Each is a value, computed by one kernel instruction, and a rule; `back`
/// sums a gradient over broadcast dimensions by itself.

#include <algorithm>
#include <cmath>
#include <tuple>
#include <utility>

#include "framework/internal.h"
#include "framework/ops.h"

namespace unroll {

using detail::map;
using detail::map_over;
using kernels::Op;

namespace {

struct Instruction {
  Op op;
  double s0 = 0.0, s1 = 0.0;
};

/// An operation that was given its operands by value, and lets go of them: a parameter lives until
/// the end of its caller's expression, but the memory of a temporary is to go from one operation to
/// the next. The result is written over an operand that nobody else holds, unless the rule reads
/// the operands again.
template <class Rule, class... Operand>
Tensor pass_on(const char* name, const Instruction& i, const std::tuple<Operand&...>& operands,
               Keep keep, const Rule& rule) {
  return std::apply(
      [&](Operand&... x) {
        const bool kept = keep.has_any_input() && grad_enabled();
        Tensor y =
            kept ? map(name, i.op, {&x...}, i.s0, i.s1) : map_over(name, i.op, {&x...}, i.s0, i.s1);
        y = record(name, {x...}, std::move(y), keep, rule);
        ((x = Tensor()), ...);
        return y;
      },
      operands);
}

/// scale * x + shift, under the name that the user wrote.
Tensor affine(const char* name, Tensor x, double scale, double shift) {
  detail::require_holds(name, x, scale);
  detail::require_holds(name, x, shift);
  return pass_on(name, {Op::affine, scale, shift}, std::tie(x), Keep::none,
                 [scale](Back& back) { back.add(0, back.release_grad() * scale); });
}

Tensor compare(const char* name, Op op, const Tensor& a, const Tensor& b) {
  return map(name, op, {&a, &b});
}
Tensor compare(const char* name, Op op, const Tensor& a, double b) {
  detail::require_holds(name, a, b);
  return compare(name, op, a, detail::scalar(b, a.dtype()));
}

}  // namespace

// a + b: da = g, db = g
Tensor operator+(Tensor a, Tensor b) {
  const std::int64_t sizes[2] = {a.numel(), b.numel()};
  const Tensor y = pass_on("add", {Op::add}, std::tie(a, b), Keep::none, [](Back& back) {
    back.add(0, back.grad);
    back.add(1, back.release_grad());
  });
  if (const auto& node = y.impl().node)
    for (int i = 0; i < 2; ++i)
      node->passes_on |= static_cast<std::uint8_t>((sizes[i] == y.numel()) << i);
  return y;
}

// a - b: da = g, db = -g
Tensor operator-(Tensor a, Tensor b) {
  return pass_on("sub", {Op::sub}, std::tie(a, b), Keep::none, [](Back& back) {
    back.add(0, back.grad);
    if (back.needs(1)) back.add(1, -back.release_grad());
  });
}

// a * b: da = g b, db = g a
Tensor operator*(Tensor a, Tensor b) {
  return pass_on("mul", {Op::mul}, std::tie(a, b), Keep::inputs, [](Back& back) {
    if (back.needs(0)) back.add(0, back.grad * back.in(1));
    if (back.needs(1)) back.add(1, back.release_grad() * back.in(0));
  });
}

// y = a / b: da = g / b, db = -g y / b
Tensor operator/(const Tensor& a, const Tensor& b) {
  return record("div", {a, b}, map("div", Op::div, {&a, &b}), Keep::input(1) | Keep::output,
                [](Back& back) {
                  const Tensor da = back.grad / back.in(1);
                  if (back.needs(1)) back.add(1, -da * back.out());
                  back.add(0, da);
                });
}

Tensor operator+(Tensor a, double b) { return affine("add", std::move(a), 1.0, b); }
Tensor operator-(Tensor a, double b) { return affine("sub", std::move(a), 1.0, -b); }
Tensor operator*(Tensor a, double b) { return affine("mul", std::move(a), b, 0.0); }
Tensor operator/(Tensor a, double b) {
  detail::require_floating("div", a);
  return affine("div", std::move(a), 1.0 / b, 0.0);
}
Tensor operator+(double a, Tensor b) { return affine("add", std::move(b), 1.0, a); }
Tensor operator-(double a, Tensor b) { return affine("sub", std::move(b), -1.0, a); }
Tensor operator*(double a, Tensor b) { return affine("mul", std::move(b), a, 0.0); }
Tensor operator/(double a, const Tensor& b) { return detail::scalar(a, b.dtype()) / b; }

Tensor operator-(Tensor x) {
  return pass_on("neg", {Op::neg}, std::tie(x), Keep::none,
                 [](Back& back) { back.add(0, -back.release_grad()); });
}

// |x|: dx = g sign(x)
Tensor abs(const Tensor& x) {
  return record("abs", {x}, map("abs", Op::abs, {&x}), Keep::inputs,
                [](Back& back) { back.add(0, back.grad * sign(back.in(0))); });
}

Tensor sign(const Tensor& x) {
  return record("sign", {x}, map("sign", Op::sign, {&x}), Keep::none,
                [](Back& back) { back.add(0, zeros_like(back.grad)); });
}

namespace {

// 2 a b, in one pass: da = 2 g b, db = 2 g a
Tensor twice_product(const Tensor& a, const Tensor& b) {
  return record("mul", {a, b}, map("mul", Op::scaled_mul, {&a, &b}, 2.0), Keep::inputs,
                [](Back& back) {
                  if (back.needs(0)) back.add(0, twice_product(back.grad, back.in(1)));
                  if (back.needs(1)) back.add(1, twice_product(back.grad, back.in(0)));
                });
}

}  // namespace

// x^2: dx = 2 g x
Tensor square(const Tensor& x) {
  return record("square", {x}, map("square", Op::square, {&x}), Keep::inputs,
                [](Back& back) { back.add(0, twice_product(back.grad, back.in(0))); });
}

// y = e^x: dx = g y
Tensor exp(Tensor x) {
  return pass_on("exp", {Op::exp}, std::tie(x), Keep::output,
                 [](Back& back) { back.add(0, back.release_grad() * back.out()); });
}

// log x: dx = g / x
Tensor log(const Tensor& x) {
  return record("log", {x}, map("log", Op::log, {&x}), Keep::inputs,
                [](Back& back) { back.add(0, back.grad / back.in(0)); });
}

// y = sqrt(x): dx = g / (2 y)
Tensor sqrt(Tensor x) {
  return pass_on("sqrt", {Op::sqrt}, std::tie(x), Keep::output,
                 [](Back& back) { back.add(0, back.grad / (back.out() * 2.0)); });
}

Tensor sin(const Tensor& x) {
  return record("sin", {x}, map("sin", Op::sin, {&x}), Keep::inputs,
                [](Back& back) { back.add(0, back.grad * cos(back.in(0))); });
}

Tensor cos(const Tensor& x) {
  return record("cos", {x}, map("cos", Op::cos, {&x}), Keep::inputs,
                [](Back& back) { back.add(0, -back.grad * sin(back.in(0))); });
}

namespace {

// g (1 - y^2), with y = tanh(x) a value of its own: dg = h (1 - y^2), dy = -2 h g y
Tensor tanh_grad(Tensor g, Tensor y) {
  return pass_on("tanh_grad", {Op::tanh_grad}, std::tie(g, y), Keep::inputs, [](Back& back) {
    const Tensor outer = back.in(0), out = back.in(1);
    if (back.needs(0)) back.add(0, tanh_grad(back.grad, out));
    if (back.needs(1)) back.add(1, back.grad * outer * out * -2.0);
  });
}

// g y (1 - y), with y = sigmoid(x): dg = h y (1 - y), dy = h g (1 - 2 y)
Tensor sigmoid_grad(Tensor g, Tensor y) {
  return pass_on("sigmoid_grad", {Op::sigmoid_grad}, std::tie(g, y), Keep::inputs, [](Back& back) {
    const Tensor outer = back.in(0), out = back.in(1);
    if (back.needs(0)) back.add(0, sigmoid_grad(back.grad, out));
    if (back.needs(1)) back.add(1, back.grad * outer * (1.0 - out * 2.0));
  });
}

}  // namespace

// y = tanh(x): dx = g (1 - y^2)
Tensor tanh(Tensor x) {
  return pass_on("tanh", {Op::tanh}, std::tie(x), Keep::output,
                 [](Back& back) { back.add(0, tanh_grad(back.release_grad(), back.out())); });
}

// y = sigmoid(x): dx = g y (1 - y)
Tensor sigmoid(Tensor x) {
  return pass_on("sigmoid", {Op::sigmoid}, std::tie(x), Keep::output,
                 [](Back& back) { back.add(0, sigmoid_grad(back.release_grad(), back.out())); });
}

// y = max(x, 0): dx = g where y > 0
Tensor relu(Tensor x) {
  detail::require_floating("relu", x);
  return pass_on("relu", {Op::relu}, std::tie(x), Keep::output,
                 [](Back& back) { back.add(0, back.release_grad() * (back.out() > 0.0)); });
}

// log(1 + e^x): dx = g sigmoid(x)
Tensor softplus(const Tensor& x) {
  return record("softplus", {x}, map("softplus", Op::softplus, {&x}), Keep::inputs,
                [](Back& back) { back.add(0, back.grad * sigmoid(back.in(0))); });
}

// x^p: dx = g p x^(p-1)
Tensor pow(const Tensor& x, double exponent) {
  detail::require_floating("pow", x);
  if (exponent == 2.0) return square(x);
  const Tensor p = detail::scalar(exponent, x.dtype());
  return record("pow", {x}, map("pow", Op::pow, {&x, &p}), Keep::inputs, [exponent](Back& back) {
    if (exponent == 0.0)
      back.add(0, zeros_like(back.grad));
    else
      back.add(0, back.grad * pow(back.in(0), exponent - 1.0) * exponent);
  });
}

// y = x^p: dx = g p x^(p-1), dp = g y log(x), and 0 where x = 0
Tensor pow(const Tensor& x, const Tensor& exponent) {
  return record("pow", {x, exponent}, map("pow", Op::pow, {&x, &exponent}),
                Keep::inputs | Keep::output, [](Back& back) {
                  const Tensor base = back.in(0), p = back.in(1);
                  if (back.needs(0)) {
                    const Tensor zero = detail::scalar(0.0, p.dtype());
                    back.add(0, back.grad * where(p == 0.0, zero, p * pow(base, p - 1.0)));
                  }
                  if (back.needs(1)) {
                    const Tensor one = detail::scalar(1.0, p.dtype());
                    back.add(1, back.grad * back.out() * log(where(base == 0.0, one, base)));
                  }
                });
}

Tensor clamp(const Tensor& x, double low, double high) {
  if (!(low <= high)) detail::fail<ValueError>("clamp: low = {} is above high = {}", low, high);
  if (x.dtype() == DType::i64) {  // infinity: as far as i64 and double go together
    low = std::max(low, -0x1p63);
    high = std::min(high, std::nextafter(0x1p63, 0.0));
  }
  return record("clamp", {x}, map("clamp", Op::clamp, {&x}, low, high), Keep::inputs,
                [low, high](Back& back) {
                  const Tensor in = back.in(0);
                  back.add(0, back.grad * ((in >= low) * (in <= high)));
                });
}

namespace {

/// The gradient of minimum and maximum: all to the side that won, half to each where they tie.
template <class Wins>
void share(Back& back, Wins&& wins) {
  const Tensor a = back.in(0), b = back.in(1);
  const Tensor tie = (a == b) * 0.5;
  if (back.needs(0)) back.add(0, back.grad * (wins(a, b) + tie));
  if (back.needs(1)) back.add(1, back.grad * (wins(b, a) + tie));
}

}  // namespace

Tensor minimum(const Tensor& a, const Tensor& b) {
  return record("minimum", {a, b}, map("minimum", Op::minimum, {&a, &b}), Keep::inputs,
                [](Back& back) { share(back, [](auto& x, auto& y) { return x < y; }); });
}

Tensor maximum(const Tensor& a, const Tensor& b) {
  return record("maximum", {a, b}, map("maximum", Op::maximum, {&a, &b}), Keep::inputs,
                [](Back& back) { share(back, [](auto& x, auto& y) { return x > y; }); });
}

// da = g where the condition holds, db = g where it does not (0 elsewhere, even if g is infinite)
Tensor where(const Tensor& condition, const Tensor& a, const Tensor& b) {
  detail::require_same_dtype("where", a, b);
  const Tensor chosen = condition.dtype() == a.dtype() ? condition.detach()
                                                       : (condition != 0.0).to(a.dtype()).detach();
  return record("where", {chosen, a, b}, map("where", Op::where, {&chosen, &a, &b}), Keep::input(0),
                [](Back& back) {
                  const Tensor zero = detail::scalar(0.0, back.grad.dtype());
                  if (back.needs(1)) back.add(1, where(back.in(0), back.grad, zero));
                  if (back.needs(2)) back.add(2, where(back.in(0), zero, back.grad));
                });
}

Tensor masked_fill(const Tensor& x, const Tensor& mask, double value) {
  detail::require_holds("masked_fill", x, value);
  return where(mask, detail::scalar(value, x.dtype()), x);
}

Tensor operator==(const Tensor& a, const Tensor& b) { return compare("eq", Op::eq, a, b); }
Tensor operator!=(const Tensor& a, const Tensor& b) { return compare("ne", Op::ne, a, b); }
Tensor operator<(const Tensor& a, const Tensor& b) { return compare("lt", Op::lt, a, b); }
Tensor operator<=(const Tensor& a, const Tensor& b) { return compare("le", Op::le, a, b); }
Tensor operator>(const Tensor& a, const Tensor& b) { return compare("gt", Op::gt, a, b); }
Tensor operator>=(const Tensor& a, const Tensor& b) { return compare("ge", Op::ge, a, b); }
Tensor operator==(const Tensor& a, double b) { return compare("eq", Op::eq, a, b); }
Tensor operator!=(const Tensor& a, double b) { return compare("ne", Op::ne, a, b); }
Tensor operator<(const Tensor& a, double b) { return compare("lt", Op::lt, a, b); }
Tensor operator<=(const Tensor& a, double b) { return compare("le", Op::le, a, b); }
Tensor operator>(const Tensor& a, double b) { return compare("gt", Op::gt, a, b); }
Tensor operator>=(const Tensor& a, double b) { return compare("ge", Op::ge, a, b); }

}  // namespace unroll
