/// Kernels: elementwise operations and reductions in every instruction set, against the standard
/// library; and the choice of the instruction set.

#include <doctest/doctest.h>

#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <limits>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <vector>

#include "framework/kernels/kernels.h"
#include "tests/kernels.h"

using namespace unroll;
using namespace unroll::kernels;
using namespace unroll::test;

namespace {

template <class T>
const FloatKernels<T>& of(const Kernels& table) {
  if constexpr (std::is_same_v<T, float>) {
    return table.f32;
  } else {
    return table.f64;
  }
}

/// The distance of `got` from `want` in units of the last place of T at `want`. Equal NaN, infinity
/// and overflow are no distance; below the smallest normal number the unit is that of the smallest
/// normal number, and a result flushed to zero is right.
template <class T>
double ulps(T got, long double want) {
  using Limits = std::numeric_limits<T>;
  constexpr double wrong = 1e30;
  if (std::isnan(want)) return std::isnan(got) ? 0 : wrong;
  if (std::fabs(want) > static_cast<long double>(Limits::max())) {
    return std::isinf(got) && std::signbit(got) == std::signbit(want) ? 0 : wrong;
  }
  if (!std::isfinite(got)) return wrong;
  if (std::fabs(want) < static_cast<long double>(Limits::min()) && got == 0) return 0;
  int exponent = Limits::min_exponent;
  if (want != 0) std::frexp(want, &exponent);
  if (exponent < Limits::min_exponent) exponent = Limits::min_exponent;
  return static_cast<double>(std::fabs(static_cast<long double>(got) - want) /
                             std::ldexp(1.0L, exponent - Limits::digits));
}

/// What an Op should give, in the widest type, and how many ulps a kernel may be off.
struct Reference {
  Op op;
  const char* name;
  double tolerance;
  std::function<long double(long double, long double, long double)> f;
};

constexpr Real kNaN = std::numeric_limits<Real>::quiet_NaN();
constexpr double kImmediates[2] = {-0.75, 0.5};

// The products of two roundings (affine, muladd, the gradients) are tested with operands that do
// not cancel: there an ulp of the result says nothing about the kernel.
const std::vector<Reference>& references() {
  static const std::vector<Reference> table = {
      {Op::copy, "copy", 0, [](Real a, Real, Real) { return a; }},
      {Op::affine, "affine", 1.5, [](Real a, Real, Real) { return -0.75L * a + 0.5L; }},
      {Op::neg, "neg", 0, [](Real a, Real, Real) { return -a; }},
      {Op::abs, "abs", 0, [](Real a, Real, Real) { return std::fabs(a); }},
      {Op::sign, "sign", 0,
       [](Real a, Real, Real) { return std::isnan(a) ? a : Real(a > 0) - Real(a < 0); }},
      {Op::square, "square", 0.5, [](Real a, Real, Real) { return a * a; }},
      {Op::relu, "relu", 0, [](Real a, Real, Real) { return a < 0 ? 0 : a; }},
      {Op::clamp, "clamp", 0,
       [](Real a, Real, Real) { return a < -0.75L ? -0.75L
                                       : a > 0.5L ? 0.5L
                                                  : a; }},
      {Op::add, "add", 0.5, [](Real a, Real b, Real) { return a + b; }},
      {Op::sub, "sub", 0.5, [](Real a, Real b, Real) { return a - b; }},
      {Op::mul, "mul", 0.5, [](Real a, Real b, Real) { return a * b; }},
      {Op::minimum, "minimum", 0,
       [](Real a, Real b, Real) {
         return std::isnan(a) || std::isnan(b) ? kNaN : std::fmin(a, b);
       }},
      {Op::maximum, "maximum", 0,
       [](Real a, Real b, Real) {
         return std::isnan(a) || std::isnan(b) ? kNaN : std::fmax(a, b);
       }},
      {Op::eq, "eq", 0, [](Real a, Real b, Real) { return Real(a == b); }},
      {Op::ne, "ne", 0, [](Real a, Real b, Real) { return Real(a != b); }},
      {Op::lt, "lt", 0, [](Real a, Real b, Real) { return Real(a < b); }},
      {Op::le, "le", 0, [](Real a, Real b, Real) { return Real(a <= b); }},
      {Op::gt, "gt", 0, [](Real a, Real b, Real) { return Real(a > b); }},
      {Op::ge, "ge", 0, [](Real a, Real b, Real) { return Real(a >= b); }},
      {Op::where, "where", 0, [](Real a, Real b, Real c) { return a != 0 ? b : c; }},
      {Op::muladd, "muladd", 1.5, [](Real a, Real b, Real c) { return a * b + c; }},
      {Op::scaled_mul, "scaled_mul", 1.5, [](Real a, Real b, Real) { return -0.75L * a * b; }},
      {Op::div, "div", 0.5, [](Real a, Real b, Real) { return a / b; }},
      {Op::exp, "exp", 2, [](Real a, Real, Real) { return std::exp(a); }},
      {Op::log, "log", 1, [](Real a, Real, Real) { return std::log(a); }},
      {Op::sqrt, "sqrt", 0.5, [](Real a, Real, Real) { return std::sqrt(a); }},
      {Op::sin, "sin", 1, [](Real a, Real, Real) { return std::sin(a); }},
      {Op::cos, "cos", 1, [](Real a, Real, Real) { return std::cos(a); }},
      {Op::tanh, "tanh", 3, [](Real a, Real, Real) { return std::tanh(a); }},
      {Op::sigmoid, "sigmoid", 3, [](Real a, Real, Real) { return 1 / (1 + std::exp(-a)); }},
      {Op::softplus, "softplus", 2.5,
       [](Real a, Real, Real) {
         return std::isnan(a) ? a : std::fmax(a, 0.0L) + std::log1p(std::exp(-std::fabs(a)));
       }},
      {Op::pow, "pow", 1, [](Real a, Real b, Real) { return std::pow(a, b); }},
      {Op::tanh_grad, "tanh_grad", 3, [](Real a, Real b, Real) { return a * (1 - b * b); }},
      {Op::sigmoid_grad, "sigmoid_grad", 3, [](Real a, Real b, Real) { return a * b * (1 - b); }},
      {Op::tanh_of_sum, "tanh_of_sum", 4, [](Real a, Real b, Real) { return std::tanh(a + b); }},
      {Op::sigmoid_of_sum, "sigmoid_of_sum", 4,
       [](Real a, Real b, Real) { return 1 / (1 + std::exp(-(a + b))); }},
      {Op::tanh_mul, "tanh_mul", 4, [](Real a, Real b, Real) { return std::tanh(a) * b; }},
      {Op::sigmoid_mul_tanh, "sigmoid_mul_tanh", 5,
       [](Real a, Real b, Real) { return std::tanh(b) / (1 + std::exp(-a)); }},
      {Op::tanh_grad_of_mul, "tanh_grad_of_mul", 4,
       [](Real a, Real b, Real c) { return a * b * (1 - c * c); }},
      {Op::sigmoid_grad_of_mul, "sigmoid_grad_of_mul", 4,
       [](Real a, Real b, Real c) { return a * b * c * (1 - c); }},
      {Op::tanh_grad_add, "tanh_grad_add", 4,
       [](Real a, Real b, Real c) { return a * (1 - b * b) + c; }},
  };
  return table;
}

const double* immediates(Op op) {
  const bool has = op == Op::affine || op == Op::clamp || op == Op::scaled_mul;
  return has ? kImmediates : nullptr;
}

template <class T>
T run_one(const FloatKernels<T>& kernels, Op op, T a, T b, T c) {
  T out = 0;
  kernels.elementwise[static_cast<std::size_t>(op)](1, &out, &a, arity(op) > 1 ? &b : nullptr,
                                                    arity(op) > 2 ? &c : nullptr, immediates(op));
  return out;
}

/// One Op on n random values, out of place and in place, with a guard behind the end.
template <class T>
void check_op(const FloatKernels<T>& kernels, const Reference& r, std::int64_t n) {
  CAPTURE(std::string(r.name));
  CAPTURE(n);
  const auto size = static_cast<std::size_t>(n);
  const bool unary = arity(r.op) == 1;
  std::vector<T> a = random_values<T>(size, 1, unary ? -9 : 0.1, unary ? -0.1 : 0.9);
  for (std::size_t i = 0; unary && i < size; i += 2) a[i] = -a[i];
  if (r.op == Op::where) {
    for (std::size_t i = 0; i < size; i += 3) a[i] = 0;
  }
  if (r.op == Op::affine) {  // no cancellation in -0.75 a + 0.5
    for (T& v : a) v = -std::fabs(v);
  }
  std::vector<T> b = random_values<T>(size, 2, 0.1, 0.9), c = random_values<T>(size, 3, 0.1, 0.9);
  for (std::size_t i = 0; i < size; i += 5) b[i] = a[i];
  std::vector<T> out(size + 1, T(77));
  const auto run = kernels.elementwise[static_cast<std::size_t>(r.op)];
  const T* operand_b = arity(r.op) > 1 ? b.data() : nullptr;
  const T* operand_c = arity(r.op) > 2 ? c.data() : nullptr;
  run(n, out.data(), a.data(), operand_b, operand_c, immediates(r.op));
  double worst = 0;
  for (std::size_t i = 0; i < size; ++i) {
    worst = std::fmax(worst, ulps<T>(out[i], r.f(a[i], b[i], c[i])));
  }
  CHECK(worst <= r.tolerance);
  CHECK(out[size] == T(77));

  std::vector<T>& operand = arity(r.op) == 3 ? c : arity(r.op) == 2 ? b : a;
  operand.push_back(T(77));
  run(n, operand.data(), a.data(), operand_b == nullptr ? nullptr : b.data(),
      operand_c == nullptr ? nullptr : c.data(), immediates(r.op));
  // By their bits, since a NaN does not equal itself.
  CHECK(std::memcmp(operand.data(), out.data(), out.size() * sizeof(T)) == 0);
}

/// One Op on the special values and on their combinations.
template <class T>
void check_special(const FloatKernels<T>& kernels, const Reference& r) {
  using Limits = std::numeric_limits<T>;
  CAPTURE(std::string(r.name));
  const std::vector<T> values = {T(0),
                                 -T(0),
                                 T(1),
                                 -T(1),
                                 T(0.3),
                                 T(-2.5),
                                 T(3),
                                 T(-40),
                                 T(88),
                                 T(1e-6),
                                 T(1e10),
                                 Limits::min(),
                                 Limits::max(),
                                 Limits::lowest(),
                                 Limits::infinity(),
                                 -Limits::infinity(),
                                 Limits::quiet_NaN()};
  for (T a : values) {
    for (T b : arity(r.op) > 1 ? values : std::vector<T>{0}) {
      for (T c : arity(r.op) > 2 ? values : std::vector<T>{0}) {
        CAPTURE(a);
        CAPTURE(b);
        CAPTURE(c);
        const T got = run_one(kernels, r.op, a, b, c);
        CAPTURE(got);
        if (r.op == Op::tanh_grad || r.op == Op::sigmoid_grad) {
          // b is an output of tanh or sigmoid there; no finite b outside of them is of interest.
          if (std::isnan(a) || std::isnan(b)) CHECK(std::isnan(got));
          continue;
        }
        if (r.op == Op::tanh_of_sum || r.op == Op::sigmoid_of_sum) {  // of the rounded sum
          volatile T sum = a + b;
          const Op plain = r.op == Op::tanh_of_sum ? Op::tanh : Op::sigmoid;
          CHECK(ulps<T>(got, run_one<T>(kernels, plain, sum, 0, 0)) == 0);
          continue;
        }
        if (r.op == Op::tanh_grad_of_mul || r.op == Op::sigmoid_grad_of_mul ||
            r.op == Op::tanh_grad_add) {
          if (std::isnan(a) || std::isnan(b) || std::isnan(c)) CHECK(std::isnan(got));
          continue;
        }
        if (r.op == Op::muladd) {
          // Where the product and c cancel, or the product overflows, one rounding and two differ
          // much; both are right.
          volatile T product = a * b;
          const T fused = std::fma(a, b, c);
          CHECK((ulps<T>(got, fused) == 0 || ulps<T>(got, product + c) == 0));
          continue;
        }
        if (r.op == Op::scaled_mul) {  // the first product may overflow or be denormal
          volatile T scaled = static_cast<T>(kImmediates[0]) * a;
          CHECK(ulps<T>(got, scaled * b) == 0);
          continue;
        }
        const Real want = r.f(a, b, c);
        CHECK(ulps<T>(got, want) <= r.tolerance);
      }
    }
  }
}

template <class T>
void check_elementwise() {
  for_each_isa([](const Kernels& table) {
    for (const Reference& r : references()) {
      for (std::int64_t n = 0; n <= 70; ++n) check_op(of<T>(table), r, n);
      check_op(of<T>(table), r, 1000);
      check_special(of<T>(table), r);
    }
  });
}

}  // namespace

TEST_CASE("kernels: every Op has a reference in these tests") {
  REQUIRE(references().size() == static_cast<std::size_t>(kOpCount));
  for (int i = 0; i < kOpCount; ++i) {
    CHECK(references()[static_cast<std::size_t>(i)].op == static_cast<Op>(i));
  }
}

TEST_CASE("kernels: elementwise f32 agrees with the standard library") {
  check_elementwise<float>();
}

TEST_CASE("kernels: elementwise f64 agrees with the standard library") {
  check_elementwise<double>();
}

TEST_CASE("kernels: rows of elementwise operations") {
  for_each_isa([](const Kernels& table) {
    for (const Reference& r : references()) {
      CAPTURE(std::string(r.name));
      for (const std::int64_t n : {1, 5, 16, 33}) {
        const std::int64_t rows = 3;
        // What is asked for ahead changes nothing, wherever it lies.
        const RowStrides strides{.out = n + 2,
                                 .a = n + 1,
                                 .b = 0,
                                 .c = n,
                                 .ahead_out = 3 * n,
                                 .ahead_a = -n,
                                 .ahead_c = n,
                                 .asks = true};
        const auto size = static_cast<std::size_t>(rows * (n + 2));
        const auto a = random_values<float>(size, 1, 0.1, 0.9);
        const auto b = random_values<float>(size, 2, 0.1, 0.9);
        const auto c = random_values<float>(size, 3, 0.1, 0.9);
        std::vector<float> out(size, 77), want(size, 77);
        const auto run = table.f32.elementwise[static_cast<std::size_t>(r.op)];
        run.rows(rows, n, out.data(), a.data(), b.data(), c.data(), strides, immediates(r.op));
        for (std::int64_t row = 0; row < rows; ++row)
          run(n, want.data() + row * strides.out, a.data() + row * strides.a, b.data(),
              c.data() + row * strides.c, immediates(r.op));
        CHECK(out == want);
      }
    }
  });
}

TEST_CASE("kernels: functions keep their relative accuracy over the whole range") {
  struct Range {
    Op op;
    double low, high;
  };
  // The tails that a naive formula loses: sigmoid and softplus far below 0, tanh near 0.
  const std::vector<Range> ranges = {
      {Op::exp, -87, 88},      {Op::log, 1e-30, 1e-3},  {Op::log, 0.5, 2},
      {Op::log, 1, 1e30},      {Op::sigmoid, -87, -10}, {Op::sigmoid, -10, 30},
      {Op::softplus, -87, -3}, {Op::softplus, -3, 50},  {Op::tanh, -1e-3, 1e-3},
      {Op::tanh, -20, 20},     {Op::sin, -1e5, 1e5},    {Op::cos, -1e5, 1e5}};
  const auto check = [&](const auto& kernels, auto zero) {
    using T = decltype(zero);
    for (const Range& range : ranges) {
      const Reference& r = references()[static_cast<std::size_t>(range.op)];
      CAPTURE(std::string(r.name));
      CAPTURE(range.low);
      const std::vector<T> x = random_values<T>(4000, 5, range.low, range.high);
      std::vector<T> y(x.size());
      kernels.elementwise[static_cast<std::size_t>(r.op)](4000, y.data(), x.data(), nullptr,
                                                          nullptr, nullptr);
      double worst = 0;
      for (std::size_t i = 0; i < x.size(); ++i) {
        worst = std::fmax(worst, ulps<T>(y[i], r.f(x[i], 0, 0)));
      }
      CHECK(worst <= r.tolerance);
    }
  };
  for_each_isa([&](const Kernels& table) {
    check(table.f32, 0.0F);
    check(table.f64, 0.0);
  });
}

TEST_CASE("kernels: the sign of zero and denormals") {
  for_each_isa([](const Kernels& table) {
    const auto check = [](const auto& kernels, auto zero) {
      using T = decltype(zero);
      CHECK(std::signbit(run_one<T>(kernels, Op::neg, zero, zero, zero)));
      CHECK(!std::signbit(run_one<T>(kernels, Op::abs, -zero, zero, zero)));
      CHECK(std::signbit(run_one<T>(kernels, Op::tanh, -zero, zero, zero)));
      CHECK(std::signbit(run_one<T>(kernels, Op::copy, -zero, zero, zero)));
      // Outside of FlushDenormals a denormal is a number like any other.
      const T denormal = std::numeric_limits<T>::denorm_min() * 1000;
      CHECK(run_one<T>(kernels, Op::copy, denormal, zero, zero) == denormal);
      CHECK(run_one<T>(kernels, Op::add, denormal, denormal, zero) == 2 * denormal);
      CHECK(run_one<T>(kernels, Op::exp, denormal, zero, zero) == T(1));
      CHECK(run_one<T>(kernels, Op::sigmoid, denormal, zero, zero) == T(0.5));
      CHECK(run_one<T>(kernels, Op::gt, denormal, zero, zero) == T(1));
    };
    check(table.f32, 0.0F);
    check(table.f64, 0.0);
  });
}

TEST_CASE("kernels: elementwise i64") {
  const double immediates_i64[2] = {-3, 5};
  const auto want = [](Op op, std::int64_t a, std::int64_t b, std::int64_t c) -> std::int64_t {
    switch (op) {
      case Op::copy: return a;
      case Op::affine: return -3 * a + 5;
      case Op::neg: return -a;
      case Op::abs: return a < 0 ? -a : a;
      case Op::sign: return (a > 0) - (a < 0);
      case Op::square: return a * a;
      case Op::relu: return a > 0 ? a : 0;
      case Op::clamp: return a < -3 ? -3 : a > 5 ? 5 : a;
      case Op::add: return a + b;
      case Op::sub: return a - b;
      case Op::mul: return a * b;
      case Op::minimum: return a < b ? a : b;
      case Op::maximum: return a > b ? a : b;
      case Op::eq: return a == b;
      case Op::ne: return a != b;
      case Op::lt: return a < b;
      case Op::le: return a <= b;
      case Op::gt: return a > b;
      case Op::ge: return a >= b;
      case Op::where: return a != 0 ? b : c;
      case Op::muladd: return a * b + c;
      case Op::scaled_mul: return -3 * a * b;
      default: return 0;
    }
  };
  for_each_isa([&](const Kernels& table) {
    for (int i = 0; i < kOpCount; ++i) {
      const Op op = static_cast<Op>(i);
      const auto run = table.i64[static_cast<std::size_t>(i)];
      CAPTURE(i);
      REQUIRE(!run == (op >= kFirstFloatOp));
      if (!run) continue;
      for (std::int64_t n : {0, 1, 3, 8, 33, 100}) {
        std::vector<std::int64_t> a, b, c;
        for (std::int64_t j = 0; j < n; ++j) {
          a.push_back(j % 7 - 3);
          b.push_back(j % 5 - 2 + (j % 2 != 0 ? 1'000'000'007 : 0));
          c.push_back(j);
        }
        std::vector<std::int64_t> out(a.size()), expected;
        for (std::size_t j = 0; j < a.size(); ++j) expected.push_back(want(op, a[j], b[j], c[j]));
        run(n, out.data(), a.data(), arity(op) > 1 ? b.data() : nullptr,
            arity(op) > 2 ? c.data() : nullptr, immediates_i64);
        CHECK(out == expected);
        run(n, a.data(), a.data(), arity(op) > 1 ? b.data() : nullptr,
            arity(op) > 2 ? c.data() : nullptr, immediates_i64);
        CHECK(a == expected);
      }
    }
  });
}

namespace {

template <class T>
void check_reductions(const FloatKernels<T>& kernels) {
  using Limits = std::numeric_limits<T>;
  const double epsilon = static_cast<double>(Limits::epsilon());
  std::vector<std::int64_t> sizes = {1000, 4096, 4097, 10000};
  for (std::int64_t n = 0; n <= 70; ++n) sizes.push_back(n);
  for (std::int64_t n : sizes) {
    CAPTURE(n);
    const std::vector<T> x = random_values<T>(static_cast<std::size_t>(n), 7);
    const std::vector<T> y = random_values<T>(static_cast<std::size_t>(n), 8);
    Real sum = 0, dot = 0, exp_sum = 0, scale = 1;
    T max = -Limits::infinity(), min = Limits::infinity();
    for (std::size_t i = 0; i < x.size(); ++i) {
      sum += x[i];
      dot += Real(x[i]) * y[i];
      exp_sum += std::exp(Real(x[i]) - 0.5L);
      scale += std::fabs(Real(x[i]));
      max = std::fmax(max, x[i]);
      min = std::fmin(min, x[i]);
    }
    const double bound = 8 * epsilon * static_cast<double>(scale);
    CHECK(std::fabs(kernels.sum(n, x.data()) - sum) <= bound);
    CHECK(std::fabs(kernels.dot(n, x.data(), y.data()) - dot) <= bound);
    CHECK(kernels.max(n, x.data()) == max);
    CHECK(kernels.min(n, x.data()) == min);
    std::vector<T> out(x.size() + 1, T(77));
    CHECK(std::fabs(kernels.exp_sum(n, x.data(), T(0.5), out.data()) - exp_sum) <= 2 * bound);
    for (std::size_t i = 0; i < x.size(); ++i) {
      CHECK(std::fabs(out[i] - std::exp(Real(x[i]) - 0.5L)) <= 4 * epsilon);
    }
    CHECK(out.back() == T(77));
    CHECK(std::fabs(kernels.exp_sum(n, x.data(), T(0.5), nullptr) - exp_sum) <= 2 * bound);
    std::vector<T> in_place = x;
    kernels.exp_sum(n, in_place.data(), T(0.5), in_place.data());
    out.pop_back();
    CHECK(in_place == out);

    // A NaN anywhere is found, an infinity too.
    for (std::size_t at : {std::size_t{0}, x.size() / 2, x.size() - 1}) {
      if (at >= x.size()) continue;
      std::vector<T> z = x;
      z[at] = Limits::quiet_NaN();
      CHECK(std::isnan(kernels.sum(n, z.data())));
      CHECK(std::isnan(kernels.max(n, z.data())));
      CHECK(std::isnan(kernels.min(n, z.data())));
      z[at] = Limits::infinity();
      CHECK(kernels.max(n, z.data()) == Limits::infinity());
      z[at] = -Limits::infinity();
      CHECK(kernels.min(n, z.data()) == -Limits::infinity());
      CHECK(std::isfinite(kernels.exp_sum(n, z.data(), T(0), nullptr)));
    }
  }
}

}  // namespace

TEST_CASE("kernels: reductions") {
  for_each_isa([](const Kernels& table) {
    check_reductions(table.f32);
    check_reductions(table.f64);
  });
}

TEST_CASE("kernels: the error of a sum does not grow with its length") {
  const std::vector<float> x(std::size_t{1} << 22, 0.1F);
  const auto n = static_cast<std::int64_t>(x.size());
  const double want = 0.1F * static_cast<double>(n);  // adding up in float gives 430,000 of 419,430
  for_each_isa([&](const Kernels& table) {
    CHECK(table.f32.sum(n, x.data()) == doctest::Approx(want).epsilon(1e-5));
    CHECK(table.f32.dot(n, x.data(), x.data()) == doctest::Approx(0.1F * want).epsilon(1e-5));
  });
}

// --- Choice of the instruction set --------------------------------------------------------------

TEST_CASE("kernels: find names the choices") {
  for (const Kernels* table : available()) CHECK(&find(table->isa) == table);
  std::string choices;
  for (const Kernels* table : available()) {
    choices += (choices.empty() ? "" : ", ") + std::string(table->isa);
  }
  CHECK_THROWS_WITH_AS(find("mmx"),
                       ("UNROLL_ISA: there are no kernels for 'mmx' in this build that this CPU "
                        "runs; choose from " +
                        choices)
                           .c_str(),
                       std::runtime_error);
  const char* forced = std::getenv("UNROLL_ISA");
  CHECK(std::string(active().isa) == (forced != nullptr ? forced : available().front()->isa));
}
