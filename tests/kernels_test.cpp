#include <doctest/doctest.h>

#include <atomic>
#include <chrono>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <limits>
#include <random>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "framework/kernels/kernels.h"
#include "framework/kernels/parallel.h"

using namespace unroll;
using namespace unroll::kernels;

namespace {

template <class T>
const FloatKernels<T>& of(const Kernels& table) {
  if constexpr (std::is_same_v<T, float>) {
    return table.f32;
  } else {
    return table.f64;
  }
}

/// Runs f on the table of every instruction set that this CPU has.
template <class F>
void for_each_isa(F&& f) {
  for (const Kernels* table : available()) {
    CAPTURE(std::string(table->isa));
    f(*table);
  }
}

template <class T>
std::vector<T> random_values(std::size_t n, std::uint64_t seed, double low = -1, double high = 1) {
  std::mt19937_64 engine(seed);
  std::uniform_real_distribution<double> uniform(low, high);
  std::vector<T> values(n);
  for (T& v : values) v = static_cast<T>(uniform(engine));
  return values;
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

using Real = long double;
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

// --- Matrix products ----------------------------------------------------------------------------

namespace {

/// A matrix with room around it, laid out in one of several ways.
template <class T>
struct TestMatrix {
  std::vector<T> values;
  MatrixRef<T> ref;
};

enum class Layout { rows, columns, padded_rows, every_other, row_repeated, reversed };
constexpr Layout kLayouts[] = {Layout::rows,        Layout::columns,      Layout::padded_rows,
                               Layout::every_other, Layout::row_repeated, Layout::reversed};

template <class T>
TestMatrix<T> make_matrix(std::int64_t rows, std::int64_t cols, Layout layout, std::uint64_t seed) {
  TestMatrix<T> m;
  std::int64_t row_stride = cols, col_stride = 1, offset = 0, size = rows * cols;
  switch (layout) {
    case Layout::rows: break;
    case Layout::columns:
      row_stride = 1;
      col_stride = rows;
      break;
    case Layout::padded_rows:
      row_stride = cols + 5;
      size = rows * row_stride;
      break;
    case Layout::every_other:
      row_stride = 2 * cols;
      col_stride = 2;
      size *= 2;
      break;
    case Layout::row_repeated:
      row_stride = 0;
      size = cols;
      break;
    case Layout::reversed:
      row_stride = -cols;
      offset = (rows - 1) * cols;
      break;
  }
  m.values = random_values<T>(static_cast<std::size_t>(size < 1 ? 1 : size), seed);
  m.ref = {m.values.data() + (rows > 0 ? offset : 0), row_stride, col_stride};
  return m;
}

/// Compares C with A B, or with C + A B, in long double, and what stands beside C with what stood
/// there before.
template <class T>
void check_product(std::int64_t m, std::int64_t n, std::int64_t k, MatrixRef<T> a, MatrixRef<T> b,
                   const std::vector<T>& before, const std::vector<T>& after, std::int64_t ldc,
                   bool accumulate) {
  const Real epsilon = std::numeric_limits<T>::epsilon();
  double worst = 0;  // error as a share of what is allowed
  for (std::int64_t i = 0; i < m; ++i) {
    for (std::int64_t j = 0; j < ldc; ++j) {
      const auto at = static_cast<std::size_t>(i * ldc + j);
      if (j >= n) {
        if (after[at] != before[at]) worst = 1e30;  // written beside C
        continue;
      }
      Real sum = accumulate ? Real(before[at]) : 0, scale = std::fabs(sum);
      for (std::int64_t p = 0; p < k; ++p) {
        const Real term = Real(a.data[i * a.row_stride + p * a.col_stride]) *
                          b.data[p * b.row_stride + j * b.col_stride];
        sum += term;
        scale += std::fabs(term);
      }
      const Real error = std::fabs(after[at] - sum);
      // k products and sums in sequence: (k + 2) / 2 in the worst case, far less on average.
      const Real allowed =
          epsilon * scale *
          std::fmin((static_cast<Real>(k) + 2) / 2, 2 + std::sqrt(static_cast<Real>(k)) / 4);
      if (!(error <= allowed)) worst = std::fmax(worst, static_cast<double>(error / allowed));
    }
  }
  CHECK(worst == 0);
}

template <class T>
void check_gemm(const FloatKernels<T>& kernels, std::int64_t m, std::int64_t n, std::int64_t k,
                Layout layout_a, Layout layout_b, bool accumulate) {
  CAPTURE(m);
  CAPTURE(n);
  CAPTURE(k);
  CAPTURE(static_cast<int>(layout_a));
  CAPTURE(static_cast<int>(layout_b));
  CAPTURE(accumulate);
  const TestMatrix<T> a = make_matrix<T>(m, k, layout_a, 11),
                      b = make_matrix<T>(k, n, layout_b, 12);
  const std::int64_t ldc = n + 3;
  // Without `accumulate` C may hold anything, a NaN too.
  std::vector<T> before = random_values<T>(static_cast<std::size_t>(m * ldc), 13);
  std::vector<T> c = before;
  if (!accumulate) {
    for (std::int64_t i = 0; i < m; ++i) {
      for (std::int64_t j = 0; j < n; ++j) {
        c[static_cast<std::size_t>(i * ldc + j)] = std::numeric_limits<T>::quiet_NaN();
      }
    }
  }
  std::vector<T> packed_c = c;
  kernels.gemm(m, n, k, a.ref, b.ref, c.data(), ldc, accumulate, {});
  check_product(m, n, k, a.ref, b.ref, before, c, ldc, accumulate);

  // The packed copy, aligned and with a guard, and C in ranges of its columns.
  const auto size = static_cast<std::size_t>(kernels.packed_size(k, n));
  std::vector<T> memory(size + 17, T(77));
  T* packed = memory.data();
  while (reinterpret_cast<std::uintptr_t>(packed) % 64 != 0) ++packed;
  kernels.pack(k, n, b.ref, packed);
  CHECK(packed[size] == T(77));
  const std::int64_t middle = n / 2 / kernels.panel_columns * kernels.panel_columns;
  kernels.gemm_packed(m, n, k, a.ref, packed, packed_c.data(), ldc, accumulate, {}, 0, middle);
  kernels.gemm_packed(m, n, k, a.ref, packed, packed_c.data(), ldc, accumulate, {}, middle, n);
  check_product(m, n, k, a.ref, b.ref, before, packed_c, ldc, accumulate);
}

template <class T>
void check_all_gemms(const FloatKernels<T>& kernels) {
  // Every size of tile, with whole and partial vectors, and both sides of every block size.
  for (std::int64_t m = 1; m <= 20; ++m) {
    for (std::int64_t n : {1, 2, 3, 7, 8, 15, 16, 17, 33, 48, 50, 100}) {
      for (std::int64_t k : {0, 1, 2, 5, 16, 37}) {
        check_gemm(kernels, m, n, k, Layout::rows, Layout::rows, (m + n + k) % 2 == 0);
      }
    }
  }
  for (Layout layout_a : kLayouts) {
    for (Layout layout_b : kLayouts) {
      for (bool accumulate : {false, true}) {
        for (std::int64_t m : {1, 2, 13, 40}) {
          for (std::int64_t n : {1, 5, 64, 101}) {
            for (std::int64_t k : {1, 3, 19, 70}) {
              check_gemm(kernels, m, n, k, layout_a, layout_b, accumulate);
            }
          }
        }
      }
    }
  }
  for (Layout layout_a : {Layout::rows, Layout::columns}) {
    for (Layout layout_b : {Layout::rows, Layout::columns}) {
      check_gemm(kernels, 3, 40, 2500, layout_a, layout_b, true);
      check_gemm(kernels, 20, 70, 2500, layout_a, layout_b, true);
      check_gemm(kernels, 300, 530, 30, layout_a, layout_b, false);
      check_gemm(kernels, 129, 49, 600, layout_a, layout_b, false);
    }
  }
}

}  // namespace

TEST_CASE("kernels: gemm f32 agrees with the triple loop") {
  for_each_isa([](const Kernels& table) { check_all_gemms(table.f32); });
}

TEST_CASE("kernels: gemm f64 agrees with the triple loop") {
  for_each_isa([](const Kernels& table) { check_all_gemms(table.f64); });
}

TEST_CASE("kernels: columns can be packed apart") {
  for_each_isa([](const Kernels& table) {
    const FloatKernels<float>& kernels = table.f32;
    const std::int64_t k = 9, n = 3 * kernels.panel_columns + 5, middle = 2 * kernels.panel_columns;
    const TestMatrix<float> b = make_matrix<float>(k, n, Layout::rows, 1);
    const auto size = static_cast<std::size_t>(kernels.packed_size(k, n));
    std::vector<float> memory(2 * size + 32);
    float* whole = memory.data();
    while (reinterpret_cast<std::uintptr_t>(whole) % 64 != 0) ++whole;
    float* parts = whole + (size + 15) / 16 * 16;
    kernels.pack(k, n, b.ref, whole);
    kernels.pack(k, middle, b.ref, parts);
    kernels.pack(k, n - middle, {b.ref.data + middle, b.ref.row_stride, b.ref.col_stride},
                 parts + k * middle);
    CHECK(std::vector<float>(whole, whole + size) == std::vector<float>(parts, parts + size));
  });
}

TEST_CASE("kernels: products with infinities and NaNs say so") {
  for_each_isa([](const Kernels& table) {
    // 21 = one vector and a rest in every instruction set; the infinity is in neither's padding.
    for (Layout layout : {Layout::rows, Layout::columns}) {
      for (std::int64_t m : {1, 4, 20}) {
        TestMatrix<float> b = make_matrix<float>(21, 21, layout, 3);
        std::vector<float> a(static_cast<std::size_t>(m * 21), 1.0F);
        const auto at = b.ref.row_stride * 20 + b.ref.col_stride * 17;
        b.values[static_cast<std::size_t>(at)] = std::numeric_limits<float>::infinity();
        std::vector<float> c(static_cast<std::size_t>(m * 21));
        table.f32.gemm(m, 21, 21, {a.data(), 21, 1}, b.ref, c.data(), 21, false, {});
        for (std::size_t i = 0; i < c.size(); ++i) CHECK(std::isinf(c[i]) == (i % 21 == 17));
      }
    }
  });
}

TEST_CASE("kernels: the shared gemm gives the same with every number of threads") {
  const int threads_before = num_threads();
  struct Shape {
    std::int64_t m, n, k;
  };
  for (const Shape s :
       {Shape{20, 800, 200}, Shape{700, 300, 64}, Shape{1, 2000, 1500}, Shape{2000, 1, 1500},
        Shape{3, 5, 7}, Shape{600, 40, 600}, Shape{280, 100, 600}, Shape{40, 30, 2500}}) {
    for (Layout layout : {Layout::rows, Layout::columns}) {
      CAPTURE(s.m);
      CAPTURE(s.n);
      const TestMatrix<float> a = make_matrix<float>(s.m, s.k, layout, 1);
      const TestMatrix<float> b = make_matrix<float>(s.k, s.n, layout, 2);
      const std::vector<float> before =
          random_values<float>(static_cast<std::size_t>(s.m * s.n), 3);
      const FloatKernels<float>& kernels = float_kernels<float>();
      std::vector<float> memory(static_cast<std::size_t>(kernels.packed_size(s.k, s.n)) + 16);
      float* packed = memory.data();
      while (reinterpret_cast<std::uintptr_t>(packed) % 64 != 0) ++packed;
      kernels.pack(s.k, s.n, b.ref, packed);
      const auto product = [&](int threads, bool from_packed) {
        set_num_threads(threads);
        std::vector<float> c = before;
        if (from_packed) {
          gemm_packed<float>(s.m, s.n, s.k, a.ref, packed, c.data(), s.n, true);
        } else {
          gemm<float>(s.m, s.n, s.k, a.ref, b.ref, c.data(), s.n, true);
        }
        return c;
      };
      for (bool from_packed : {false, true}) {
        const std::vector<float> alone = product(1, from_packed);
        check_product(s.m, s.n, s.k, a.ref, b.ref, before, alone, s.n, true);
        for (int threads : {2, 3, 5}) CHECK(product(threads, from_packed) == alone);
      }
    }
  }
  set_num_threads(threads_before);
}

namespace {

/// C = A B + D, by gemm and by gemm_packed; D is one row that repeats, or a matrix.
template <class T>
void check_bias(const FloatKernels<T>& kernels, std::int64_t m, std::int64_t n, std::int64_t k,
                Layout layout_a, Layout layout_b, std::int64_t stride) {
  CAPTURE(m);
  CAPTURE(n);
  CAPTURE(k);
  CAPTURE(stride);
  CAPTURE(static_cast<int>(layout_a));
  CAPTURE(static_cast<int>(layout_b));
  const TestMatrix<T> a = make_matrix<T>(m, k, layout_a, 21),
                      b = make_matrix<T>(k, n, layout_b, 22);
  const std::vector<T> bias = random_values<T>(static_cast<std::size_t>(n + (m - 1) * stride), 23);
  const Addend<T> d{bias.data(), stride};
  const std::int64_t ldc = n + 2;
  // What check_product takes for C before: D, and a guard behind each row.
  std::vector<T> before(static_cast<std::size_t>(m * ldc), T(77)), c = before;
  for (std::int64_t i = 0; i < m; ++i)
    std::copy_n(bias.begin() + i * stride, n, before.begin() + i * ldc);
  for (std::size_t i = 0; i < c.size(); ++i)
    if (static_cast<std::int64_t>(i) % ldc < n) c[i] = std::numeric_limits<T>::quiet_NaN();
  std::vector<T> packed_c = c;
  kernels.gemm(m, n, k, a.ref, b.ref, c.data(), ldc, false, d);
  check_product(m, n, k, a.ref, b.ref, before, c, ldc, true);

  std::vector<T> memory(static_cast<std::size_t>(kernels.packed_size(k, n)) + 16);
  T* packed = memory.data();
  while (reinterpret_cast<std::uintptr_t>(packed) % 64 != 0) ++packed;
  kernels.pack(k, n, b.ref, packed);
  const std::int64_t middle = n / 2 / kernels.panel_columns * kernels.panel_columns;
  kernels.gemm_packed(m, n, k, a.ref, packed, packed_c.data(), ldc, false, d, 0, middle);
  kernels.gemm_packed(m, n, k, a.ref, packed, packed_c.data(), ldc, false, d, middle, n);
  check_product(m, n, k, a.ref, b.ref, before, packed_c, ldc, true);
}

template <class T>
void check_all_biases(const FloatKernels<T>& kernels) {
  for (Layout layout_a : {Layout::rows, Layout::columns, Layout::reversed})
    for (Layout layout_b : kLayouts) {
      for (std::int64_t m : {1, 3, 5, 14})
        for (std::int64_t n : {1, 3, 16, 17, 70})
          for (std::int64_t k : {0, 1, 37})
            for (std::int64_t stride : {std::int64_t{0}, n + 1})
              check_bias(kernels, m, n, k, layout_a, layout_b, stride);
      check_bias(kernels, 3, 40, 2500, layout_a, layout_b, 0);
      check_bias(kernels, 20, 70, 600, layout_a, layout_b, 71);
    }
}

/// Where the B of the terms of a sum lie: apart, each in a layout of its own, or one after the
/// other in the order of the terms or in the opposite one.
enum class Lying { apart, joined, joined_last_first };

/// Terms of a sum, side by side: A [m, sum of k], B [sum of k, n], compared with the one product.
template <class T>
struct TestSum {
  std::vector<TestMatrix<T>> parts;
  std::vector<Term<T>> terms;
  std::vector<T> a, b;    ///< all of them as one product, with contiguous rows
  std::vector<T> in_one;  ///< the B that are joined
  std::int64_t m, n, k = 0;

  TestSum(std::int64_t rows, std::int64_t columns, const std::vector<std::int64_t>& ks,
          std::size_t first_layout, Lying lying = Lying::apart)
      : m(rows), n(columns) {
    const std::size_t layouts = std::size(kLayouts);
    for (std::size_t t = 0; t < ks.size(); ++t) {
      parts.push_back(make_matrix<T>(m, ks[t], kLayouts[(first_layout + t) % layouts], 2 * t));
      parts.push_back(
          make_matrix<T>(ks[t], n, kLayouts[(first_layout + 2 * t) % layouts], 2 * t + 1));
      k += ks[t];
    }
    for (std::size_t t = 0; t < ks.size(); ++t)
      terms.push_back({ks[t], parts[2 * t].ref, parts[2 * t + 1].ref});
    for (std::int64_t i = 0; i < m; ++i)
      for (const Term<T>& t : terms)
        for (std::int64_t p = 0; p < t.k; ++p)
          a.push_back(t.a.data[i * t.a.row_stride + p * t.a.col_stride]);
    for (const Term<T>& t : terms)
      for (std::int64_t p = 0; p < t.k; ++p)
        for (std::int64_t j = 0; j < n; ++j)
          b.push_back(t.b.data[p * t.b.row_stride + j * t.b.col_stride]);
    if (lying != Lying::apart) join(lying == Lying::joined_last_first);
  }

  void join(bool last_first) {
    const std::int64_t stride = n + 2;
    in_one.resize(static_cast<std::size_t>(k * stride));
    std::int64_t first = 0;  // row of this term in b
    for (Term<T>& t : terms) {
      T* to = in_one.data() + (last_first ? k - first - t.k : first) * stride;
      for (std::int64_t p = 0; p < t.k; ++p)
        std::copy_n(b.data() + (first + p) * n, n, to + p * stride);
      t.b = {to, stride, 1};
      first += t.k;
    }
  }
  MatrixRef<T> whole_a() const { return {a.data(), k, 1}; }
  MatrixRef<T> whole_b() const { return {b.data(), n, 1}; }
  std::int64_t count() const { return static_cast<std::int64_t>(terms.size()); }
};

template <class T>
void check_sum(const FloatKernels<T>& kernels, std::int64_t m, std::int64_t n,
               const std::vector<std::int64_t>& ks, std::size_t layout, bool accumulate,
               Lying lying = Lying::apart) {
  CAPTURE(m);
  CAPTURE(n);
  CAPTURE(ks.size());
  CAPTURE(layout);
  CAPTURE(accumulate);
  CAPTURE(static_cast<int>(lying));
  const TestSum<T> sum(m, n, ks, layout, lying);
  const std::int64_t ldc = n + 3;
  const std::vector<T> before = random_values<T>(static_cast<std::size_t>(m * ldc), 13);
  std::vector<T> c = before;
  for (std::size_t i = 0; !accumulate && i < c.size(); ++i)
    if (static_cast<std::int64_t>(i) % ldc < n) c[i] = std::numeric_limits<T>::quiet_NaN();
  // In four parts, as threads would do it.
  const std::int64_t row = m / 2, column = n / 2;
  std::vector<T> parts = c;
  kernels.gemm_sum(m, n, sum.terms.data(), sum.count(), 0, 0, c.data(), ldc, accumulate);
  check_product(m, n, sum.k, sum.whole_a(), sum.whole_b(), before, c, ldc, accumulate);
  for (std::int64_t i : {std::int64_t{0}, row})
    for (std::int64_t j : {std::int64_t{0}, column})
      kernels.gemm_sum(i == 0 ? row : m - row, j == 0 ? column : n - column, sum.terms.data(),
                       sum.count(), i, j, parts.data() + i * ldc + j, ldc, accumulate);
  if (row > 0 && column > 0)
    check_product(m, n, sum.k, sum.whole_a(), sum.whole_b(), before, parts, ldc, accumulate);
}

template <class T>
void check_all_sums(const FloatKernels<T>& kernels) {
  const std::vector<std::vector<std::int64_t>> ks = {{},
                                                     {0},
                                                     {1},
                                                     {0, 0},
                                                     {3, 0, 2},
                                                     {1, 1, 1, 1, 1},
                                                     {20, 7, 300},
                                                     {200, 200, 113},
                                                     std::vector<std::int64_t>(100, 3),
                                                     std::vector<std::int64_t>(64, 4)};
  for (std::size_t i = 0; i < ks.size(); ++i)
    for (std::int64_t m : {1, 2, 5, 13, 40})
      for (std::int64_t n : {1, 3, 16, 17, 70, 101})
        for (Lying lying : {Lying::apart, Lying::joined, Lying::joined_last_first})
          check_sum(kernels, m, n, ks[i], i + static_cast<std::size_t>(m + n),
                    (i + static_cast<std::size_t>(m)) % 2 == 0, lying);
  check_sum(kernels, 30, 2100, {20, 20, 20}, 0, false);  // wider than a block of B
  check_sum(kernels, 0, 5, {2, 3}, 0, false);
  check_sum(kernels, 5, 0, {2, 3}, 0, false);
}

}  // namespace

TEST_CASE("kernels: a product adds a row or a matrix") {
  for_each_isa([](const Kernels& table) {
    check_all_biases(table.f32);
    check_all_biases(table.f64);
  });
}

TEST_CASE("kernels: a sum of products is the product of what is put side by side") {
  for_each_isa([](const Kernels& table) {
    check_all_sums(table.f32);
    check_all_sums(table.f64);
  });
}

TEST_CASE("kernels: a sum of products is the same with every number of threads") {
  const int before = num_threads();
  for (const auto& size : {std::pair<std::int64_t, std::int64_t>{200, 800},
                           {33, 700},
                           {300, 90},
                           {700, 90},
                           {1, 600},
                           {600, 1}})
    for (const std::vector<std::int64_t>& ks :
         {std::vector<std::int64_t>(32, 8), std::vector<std::int64_t>{300, 600}})
      for (Lying lying : {Lying::apart, Lying::joined, Lying::joined_last_first}) {
        const std::int64_t m = size.first, n = size.second;
        CAPTURE(m);
        CAPTURE(n);
        CAPTURE(ks.size());
        const TestSum<float> sum(m, n, ks, 0, lying);
        const auto compute = [&](int threads) {
          set_num_threads(threads);
          std::vector<float> c(static_cast<std::size_t>(m * n));
          gemm_sum<float>(m, n, sum.terms.data(), sum.count(), c.data(), n, false);
          return c;
        };
        const std::vector<float> alone = compute(1);
        check_product(m, n, sum.k, sum.whole_a(), sum.whole_b(), alone, alone, n, false);
        for (int threads : {2, 3}) CHECK(compute(threads) == alone);
      }
  set_num_threads(before);
}

TEST_CASE("kernels: transpose") {
  for_each_isa([](const Kernels& table) {
    const auto check = [](const auto& transpose, auto value) {
      using T = decltype(value);
      for (std::int64_t m : {0, 1, 3, 4, 7, 32, 33, 70})
        for (std::int64_t n : {0, 1, 2, 4, 5, 31, 64, 65}) {
          const auto size = static_cast<std::size_t>(m * n);
          const std::vector<T> x = random_values<T>(size, 5);
          std::vector<T> y(size + 1, T(77)), expected = y;
          for (std::int64_t i = 0; i < m; ++i)
            for (std::int64_t j = 0; j < n; ++j)
              expected[static_cast<std::size_t>(j * m + i)] =
                  x[static_cast<std::size_t>(i * n + j)];
          transpose(m, n, x.data(), y.data());
          CAPTURE(m);
          CAPTURE(n);
          CHECK(y == expected);
        }
    };
    check(table.f32.transpose, 0.0F);
    check(table.f64.transpose, 0.0);
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

// --- Threads ------------------------------------------------------------------------------------

namespace {

/// Restores the number of threads at the end of a test.
struct Threads {
  explicit Threads(int n) : before(num_threads()) { set_num_threads(n); }
  ~Threads() { set_num_threads(before); }
  int before;
};

}  // namespace

TEST_CASE("[thread] parallel_for: covers the range once, whatever its size") {
  for (int threads : {1, 2, 3, 7}) {
    const Threads guard(threads);
    CHECK(num_threads() == threads);
    for (std::int64_t n : {0, 1, 2, 5, 64, 1000}) {
      for (std::int64_t grain : {0, 1, 10, 2000}) {
        std::vector<std::atomic<int>> hits(static_cast<std::size_t>(n));
        std::atomic<int> calls = 0;
        std::atomic<bool> small = false;
        parallel_for(100, 100 + n, grain, [&](std::int64_t first, std::int64_t last) {
          calls.fetch_add(1);
          if (last - first < grain && last - first < n) small = true;
          for (std::int64_t i = first; i < last; ++i) ++hits[static_cast<std::size_t>(i - 100)];
        });
        CHECK(calls.load() <= threads);
        CHECK(!small.load());
        for (const auto& hit : hits) CHECK(hit.load() == 1);
      }
    }
  }
}

TEST_CASE("[thread] parallel_for: really runs in several threads") {
  const Threads guard(2);
  // Each half waits for the other, so that neither thread can do both.
  std::atomic<int> arrived = 0;
  std::atomic<bool> together = true;
  parallel_for(0, 2, 1, [&](std::int64_t, std::int64_t) {
    ++arrived;
    const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(20);
    while (arrived.load() < 2) {
      if (std::chrono::steady_clock::now() > deadline) {
        together = false;
        break;
      }
      std::this_thread::yield();
    }
  });
  CHECK(together.load());
}

TEST_CASE("[thread] parallel_for: wakes its workers after a pause, many times") {
  const Threads guard(2);
  std::atomic<std::int64_t> sum = 0;
  for (int round = 0; round < 300; ++round) {
    parallel_for(0, 10, 1, [&](std::int64_t first, std::int64_t last) {
      for (std::int64_t i = first; i < last; ++i) sum += i;
    });
    if (round % 100 == 0) std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  CHECK(sum.load() == 300 * 45);
}

TEST_CASE("[thread] parallel_for: what a job has written the next one reads, whoever does it") {
  constexpr std::size_t n = 97;  // no multiple of any number of threads
  for (int threads : {2, 3, 5}) {
    const Threads guard(threads);
    std::vector<std::int64_t> values(n), expected(n);
    for (std::size_t round = 0; round < 500; ++round) {
      parallel_for(0, n, 1, [&](std::int64_t first, std::int64_t last) {
        for (auto i = static_cast<std::size_t>(first); i < static_cast<std::size_t>(last); ++i)
          values[i] = 3 * values[i] % 1009 + first;
      });
      const std::int64_t parts = std::min<std::int64_t>(threads, n);
      for (std::int64_t part = 0, i = 0; part < parts; ++part) {
        const std::int64_t first = i;
        const auto whole = static_cast<std::int64_t>(n);
        const std::int64_t size = whole / parts + (part < whole % parts);
        for (; i < first + size; ++i) {
          std::int64_t& e = expected[static_cast<std::size_t>(i)];
          e = 3 * e % 1009 + first;
        }
      }
      values[round % n] += 1;  // and what the caller has written in between
      expected[round % n] += 1;
    }
    CHECK(values == expected);
  }
}

TEST_CASE("[thread] parallel_for: a nested call runs in its own thread") {
  const Threads guard(3);
  std::atomic<int> total = 0;
  std::atomic<bool> moved = false;
  parallel_for(0, 3, 1, [&](std::int64_t first, std::int64_t last) {
    const std::thread::id here = std::this_thread::get_id();
    for (std::int64_t i = first; i < last; ++i) {
      parallel_for(0, 100, 1, [&](std::int64_t a, std::int64_t b) {
        if (std::this_thread::get_id() != here) moved = true;
        total += static_cast<int>(b - a);
      });
    }
  });
  CHECK(total.load() == 300);
  CHECK(!moved.load());
}

TEST_CASE("[thread] parallel_for: two user threads at once") {
  const Threads guard(2);
  std::atomic<int> total = 0;
  const auto user = [&] {
    for (int i = 0; i < 200; ++i) {
      parallel_for(0, 50, 1,
                   [&](std::int64_t a, std::int64_t b) { total += static_cast<int>(b - a); });
    }
  };
  std::thread other(user);
  user();
  other.join();
  CHECK(total.load() == 2 * 200 * 50);
}

TEST_CASE("[thread] parallel_for: rethrows the exception of any thread, and goes on working") {
  const Threads guard(2);
  for (std::int64_t thrower : {0, 1}) {
    const auto failing = [&] {
      parallel_for(0, 2, 1, [&](std::int64_t first, std::int64_t) {
        if (first == thrower) throw std::runtime_error("chunk " + std::to_string(first));
      });
    };
    CHECK_THROWS_WITH_AS(failing(), ("chunk " + std::to_string(thrower)).c_str(),
                         std::runtime_error);
  }
  std::atomic<int> total = 0;
  parallel_for(0, 10, 1, [&](std::int64_t a, std::int64_t b) { total += static_cast<int>(b - a); });
  CHECK(total.load() == 10);
}

TEST_CASE("set_num_threads: n < 1 is an error and changes nothing") {
  const int before = num_threads();
  CHECK_THROWS_WITH_AS(set_num_threads(0), "set_num_threads: n must be from 1 to 4096, not 0",
                       std::invalid_argument);
  CHECK(num_threads() == before);
}

TEST_CASE("FlushDenormals: flushes while it lives, in the workers as in the thread that asks") {
  volatile float small = std::numeric_limits<float>::min();
  const auto halves_to_zero = [&] {
    volatile float half = small * 0.5F;
    return half == 0.0F;
  };
  CHECK(!halves_to_zero());
  {
    const FlushDenormals outer;
    CHECK(halves_to_zero());
    {
      const FlushDenormals inner;
      CHECK(halves_to_zero());
    }
    CHECK(halves_to_zero());
  }
  CHECK(!halves_to_zero());

  const Threads guard(2);
  const auto flushed = [&] {  // by how many of two threads
    std::atomic<int> yes = 0, arrived = 0;
    parallel_for(0, 2, 1, [&](std::int64_t first, std::int64_t last) {
      arrived += static_cast<int>(last - first);
      while (arrived < 2) std::this_thread::yield();  // nobody does both
      if (halves_to_zero()) yes += static_cast<int>(last - first);
    });
    return yes.load();
  };
  for (int i = 0; i < 3; ++i) {
    CHECK(flushed() == 0);
    const FlushDenormals flush;
    CHECK(flushed() == 2);
  }
}
