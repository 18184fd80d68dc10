/// Elementwise operations: the op table, the gradients at special points, and the errors.

#include <doctest/doctest.h>

#include <cmath>
#include <limits>

#include "tests/naive.h"
#include "tests/support.h"

using namespace unroll;
using namespace unroll::test;

namespace {

using Inputs = const std::vector<Tensor>&;
using Arrays = const std::vector<Array>&;

constexpr double kInf = std::numeric_limits<double>::infinity();
const double kNan = std::nan("");

// The long one has full vectors and a rest, and full blocks of gathered elements and a rest.
const std::vector<std::vector<Shape>> kUnaryShapes = {
    {Shape{}},       {Shape{1}},       {Shape{5}},       {Shape{0}},
    {Shape{3, 4}},   {Shape{2, 0, 3}}, {Shape{2, 3, 4}}, {Shape{1, 2, 1, 2, 1, 2, 1, 2}},
    {Shape{2, 1037}}};

const std::vector<std::vector<Shape>> kBinaryShapes = {
    {Shape{}, Shape{}},
    {Shape{3, 4}, Shape{3, 4}},
    {Shape{3, 4}, Shape{4}},
    {Shape{4}, Shape{3, 4}},
    {Shape{3, 1}, Shape{1, 4}},
    {Shape{2, 3, 4}, Shape{3, 1}},
    {Shape{}, Shape{5}},
    {Shape{2, 3}, Shape{}},
    {Shape{1, 1, 1}, Shape{2}},
    {Shape{2, 1, 2, 1, 2, 1, 2}, Shape{2, 1, 2, 1, 2, 1}},
    {Shape{0}, Shape{1}},
    {Shape{0, 3}, Shape{3}},
    {Shape{1}, Shape{2, 0}},
    {Shape{2, 1037}, Shape{1037}},
    {Shape{2, 1037}, Shape{2, 1}},
};

Op unary(const char* name, Tensor (*run)(const Tensor&), double (*expected)(double),
         Range range = {-3.0, 3.0}) {
  return {.name = name,
          .run = [run](Inputs x) { return run(x[0]); },
          .expected = [expected](Arrays x) { return naive::map(expected, x[0]); },
          .shapes = kUnaryShapes,
          .ranges = {range}};
}

Op binary(const char* name, Tensor (*run)(const Tensor&, const Tensor&),
          double (*expected)(double, double), std::vector<Range> ranges = {{-3.0, 3.0}}) {
  return {.name = name,
          .run = [run](Inputs x) { return run(x[0], x[1]); },
          .expected = [expected](Arrays x) { return naive::map(expected, x[0], x[1]); },
          .shapes = kBinaryShapes,
          .ranges = std::move(ranges)};
}

/// With a number in the place of one tensor.
Op with_number(const char* name, Tensor (*run)(const Tensor&), double (*expected)(double)) {
  return unary(name, run, expected, {1.0, 5.0});
}

Op any_dtype(Op op) {
  op.takes = Takes::any;
  return op;
}
Op kinked(Op op) {
  op.smooth = false;
  return op;
}
Op constant(Op op) {
  op.differentiable = false;
  return op;
}

double sign_of(double x) { return x > 0.0 ? 1.0 : x < 0.0 ? -1.0 : 0.0; }

const std::vector<Op>& unary_table() {
  static const std::vector<Op> table = {
      any_dtype(unary(
          "neg", [](const Tensor& x) { return -x; }, [](double x) { return -x; })),
      any_dtype(kinked(unary("abs", unroll::abs, std::abs))),
      any_dtype(kinked(unary("sign", unroll::sign, sign_of))),
      any_dtype(unary("square", unroll::square, [](double x) { return x * x; })),
      unary(
          "exp", [](const Tensor& x) { return exp(x); }, std::exp),
      unary("log", unroll::log, std::log, {0.3, 9.0}),
      unary("sqrt", [](const Tensor& x) { return sqrt(x); }, std::sqrt, {0.3, 9.0}),
      unary("sin", unroll::sin, std::sin),
      unary("cos", unroll::cos, std::cos, {-1.5, 1.5}),
      unary(
          "tanh", [](const Tensor& x) { return tanh(x); }, std::tanh),
      unary(
          "sigmoid", [](const Tensor& x) { return sigmoid(x); },
          [](double x) { return 1.0 / (1.0 + std::exp(-x)); }),
      kinked(unary(
          "relu", [](const Tensor& x) { return relu(x); },
          [](double x) { return x > 0.0 ? x : 0.0; })),
      unary("softplus", unroll::softplus, [](double x) { return std::log1p(std::exp(x)); }),
  };
  return table;
}

const std::vector<Op>& number_table() {
  static const std::vector<Op> table = {
      any_dtype(with_number(
          "add", [](const Tensor& x) { return x + 3.0; }, [](double x) { return x + 3.0; })),
      any_dtype(with_number(
          "add", [](const Tensor& x) { return 3.0 + x; }, [](double x) { return 3.0 + x; })),
      any_dtype(with_number(
          "sub", [](const Tensor& x) { return x - 7.0; }, [](double x) { return x - 7.0; })),
      any_dtype(with_number(
          "sub", [](const Tensor& x) { return 7.0 - x; }, [](double x) { return 7.0 - x; })),
      any_dtype(with_number(
          "mul", [](const Tensor& x) { return x * -3.0; }, [](double x) { return x * -3.0; })),
      any_dtype(with_number(
          "mul", [](const Tensor& x) { return -3.0 * x; }, [](double x) { return -3.0 * x; })),
      with_number(
          "div", [](const Tensor& x) { return x / 3.0; }, [](double x) { return x / 3.0; }),
      with_number(
          "div", [](const Tensor& x) { return 3.0 / x; }, [](double x) { return 3.0 / x; }),
      with_number(
          "pow", [](const Tensor& x) { return pow(x, 0.0); }, [](double) { return 1.0; }),
      with_number(
          "pow", [](const Tensor& x) { return pow(x, 1.0); }, [](double x) { return x; }),
      with_number(
          "pow", [](const Tensor& x) { return pow(x, 2.0); }, [](double x) { return x * x; }),
      with_number(
          "pow", [](const Tensor& x) { return pow(x, 3.0); }, [](double x) { return x * x * x; }),
      with_number(
          "pow", [](const Tensor& x) { return pow(x, -1.0); }, [](double x) { return 1.0 / x; }),
      with_number(
          "pow", [](const Tensor& x) { return pow(x, 0.5); },
          [](double x) { return std::sqrt(x); }),
      with_number(
          "pow", [](const Tensor& x) { return pow(x, -1.7); },
          [](double x) { return std::pow(x, -1.7); }),
      // x - 3 is negative for a part of the elements.
      unary(
          "pow", [](const Tensor& x) { return pow(x, 3.0); }, [](double x) { return x * x * x; }),
      any_dtype(kinked(unary(
          "clamp", [](const Tensor& x) { return clamp(x, -1.0, 2.0); },
          [](double x) { return x < -1.0  ? -1.0
                                : x > 2.0 ? 2.0
                                          : x; }))),
      any_dtype(kinked(unary(
          "clamp", [](const Tensor& x) { return clamp(x, -kInf, 1.0); },
          [](double x) { return x > 1.0 ? 1.0 : x; }))),
      any_dtype(kinked(unary(
          "clamp", [](const Tensor& x) { return clamp(x, 1.0, kInf); },
          [](double x) { return x < 1.0 ? 1.0 : x; }))),
  };
  return table;
}

const std::vector<Op>& binary_table() {
  static const std::vector<Op> table = {
      any_dtype(binary(
          "add", [](const Tensor& a, const Tensor& b) { return a + b; },
          [](double a, double b) { return a + b; })),
      any_dtype(binary(
          "sub", [](const Tensor& a, const Tensor& b) { return a - b; },
          [](double a, double b) { return a - b; })),
      any_dtype(binary(
          "mul", [](const Tensor& a, const Tensor& b) { return a * b; },
          [](double a, double b) { return a * b; })),
      binary("div", unroll::operator/, [](double a, double b) { return a / b; },
             {{-3.0, 3.0}, {0.5, 2.0}}),
      binary("div", unroll::operator/, [](double a, double b) { return a / b; },
             {{-3.0, 3.0}, {-2.0, -0.5}}),
      binary("pow", unroll::pow, [](double a, double b) { return std::pow(a, b); },
             {{0.5, 3.0}, {-2.0, 3.0}}),
      any_dtype(kinked(
          binary("minimum", unroll::minimum, [](double a, double b) { return a < b ? a : b; }))),
      any_dtype(kinked(
          binary("maximum", unroll::maximum, [](double a, double b) { return a > b ? a : b; }))),
  };
  return table;
}

/// In a range in which whole numbers, and with them equal ones, turn up; f32 and f64 meet equal
/// ones through the comparison with themselves.
const std::vector<Op>& comparison_table() {
  const auto compare = [](const char* name, Tensor (*run)(const Tensor&, const Tensor&),
                          double (*expected)(double, double)) {
    return any_dtype(constant(binary(name, run, expected, {{-2.0, 2.0}})));
  };
  const auto self = [](const char* name, Tensor (*run)(const Tensor&), double (*expected)(double)) {
    return any_dtype(constant(unary(name, run, expected, {-2.0, 2.0})));
  };
  static const std::vector<Op> table = {
      compare("eq", unroll::operator==, [](double a, double b) { return a == b ? 1.0 : 0.0; }),
      compare("ne", unroll::operator!=, [](double a, double b) { return a != b ? 1.0 : 0.0; }),
      compare("lt", unroll::operator<, [](double a, double b) { return a < b ? 1.0 : 0.0; }),
      compare("le", unroll::operator<=, [](double a, double b) { return a <= b ? 1.0 : 0.0; }),
      compare("gt", unroll::operator>, [](double a, double b) { return a > b ? 1.0 : 0.0; }),
      compare("ge", unroll::operator>=, [](double a, double b) { return a >= b ? 1.0 : 0.0; }),
      self(
          "eq", [](const Tensor& x) { return x == x; }, [](double) { return 1.0; }),
      self(
          "ne", [](const Tensor& x) { return x != x; }, [](double) { return 0.0; }),
      self(
          "lt", [](const Tensor& x) { return x < x; }, [](double) { return 0.0; }),
      self(
          "le", [](const Tensor& x) { return x <= x; }, [](double) { return 1.0; }),
      self(
          "gt", [](const Tensor& x) { return x > x; }, [](double) { return 0.0; }),
      self(
          "ge", [](const Tensor& x) { return x >= x; }, [](double) { return 1.0; }),
      self(
          "eq", [](const Tensor& x) { return x == 1.0; },
          [](double x) { return x == 1.0 ? 1.0 : 0.0; }),
      self(
          "ne", [](const Tensor& x) { return x != 1.0; },
          [](double x) { return x != 1.0 ? 1.0 : 0.0; }),
      self(
          "lt", [](const Tensor& x) { return x < 1.0; },
          [](double x) { return x < 1.0 ? 1.0 : 0.0; }),
      self(
          "le", [](const Tensor& x) { return x <= 1.0; },
          [](double x) { return x <= 1.0 ? 1.0 : 0.0; }),
      self(
          "gt", [](const Tensor& x) { return x > 1.0; },
          [](double x) { return x > 1.0 ? 1.0 : 0.0; }),
      self(
          "ge", [](const Tensor& x) { return x >= 1.0; },
          [](double x) { return x >= 1.0 ? 1.0 : 0.0; }),
  };
  return table;
}

/// A mask for three shapes that broadcast together, in any dtype.
Tensor mask(const Shape& shape, DType dtype) {
  Generator generator(7);
  return randint(0, 2, shape, generator).to(dtype);
}

Array pick(const Array& condition, const Array& a, const Array& b) {
  const auto chosen = [](double c, double v) { return c != 0.0 ? v : 0.0; };
  const auto other = [](double c, double v) { return c != 0.0 ? 0.0 : v; };
  return naive::map([](double x, double y) { return x + y; }, naive::map(chosen, condition, a),
                    naive::map(other, condition, b));
}

const std::vector<Op>& choice_table() {
  static const std::vector<Op> table = [] {
    std::vector<Op> rows;
    for (DType dtype : {DType::f32, DType::f64, DType::i64}) {
      const std::vector<std::vector<Shape>> cases = {
          // condition, a, b
          {Shape{}, Shape{}, Shape{}},         {Shape{3, 4}, Shape{3, 4}, Shape{3, 4}},
          {Shape{4}, Shape{3, 1}, Shape{}},    {Shape{3, 1}, Shape{4}, Shape{3, 4}},
          {Shape{2, 1, 1}, Shape{}, Shape{3}}, {Shape{1}, Shape{0, 2}, Shape{2}}};
      for (const auto& shapes : cases) {
        const Tensor condition = mask(shapes[0], dtype);
        rows.push_back({.name = "where",
                        .run = [=](Inputs x) { return where(condition, x[0], x[1]); },
                        .expected = [=](Arrays x) { return pick(to_array(condition), x[0], x[1]); },
                        .shapes = {{shapes[1], shapes[2]}},
                        .takes = Takes::any});
        rows.push_back({.name = "masked_fill",
                        .run = [=](Inputs x) { return masked_fill(x[0], condition, -7.0); },
                        .expected =
                            [=](Arrays x) {
                              return pick(to_array(condition), {{}, {-7.0}}, x[0]);
                            },
                        .shapes = {{shapes[1]}},
                        .takes = Takes::any});
      }
    }
    return rows;
  }();
  return table;
}

std::vector<double> values(const Tensor& x) { return to_array(x).values; }

/// The gradient of sum(f(x)) at x.
template <class F>
std::vector<double> gradient_at(std::initializer_list<double> x, F f) {
  Tensor leaf = tensor(x, DType::f64).requires_grad_();
  return values(grad(sum(f(leaf)), leaf));
}

}  // namespace

TEST_CASE("elementwise: unary operations have the values of their formulas") {
  for (const Op& op : unary_table()) check_values(op);
}
TEST_CASE("elementwise: unary operations pass gradcheck of orders 1 and 2") {
  for (const Op& op : unary_table()) check_gradients(op);
}
TEST_CASE("elementwise: operations with a number have the values of their formulas") {
  for (const Op& op : number_table()) check_values(op);
}
TEST_CASE("elementwise: operations with a number pass gradcheck of orders 1 and 2") {
  for (const Op& op : number_table()) check_gradients(op);
}
TEST_CASE("elementwise: binary operations have the values of their formulas") {
  for (const Op& op : binary_table()) check_values(op);
}
TEST_CASE("elementwise: binary operations pass gradcheck of orders 1 and 2") {
  for (const Op& op : binary_table()) check_gradients(op);
}
TEST_CASE("elementwise: comparisons give 0 and 1 and no gradient") {
  for (const Op& op : comparison_table()) {
    check_values(op);
    check_gradients(op);
  }
}
TEST_CASE("elementwise: where and masked_fill take masks of every dtype") {
  for (const Op& op : choice_table()) {
    check_values(op);
    check_gradients(op);
  }
}

TEST_CASE("elementwise: large tensors, which threads share, have the values of small ones") {
  // Row by row below the size at which threads share the work; to the last bit.
  const std::int64_t rows = 300, columns = 211;
  Generator generator(9);
  const auto all = {&unary_table(), &binary_table()};
  for (const auto* table : all) {
    for (const Op& op : *table) {
      INFO("op ", op.name);
      for (DType dtype : {DType::f32, DType::f64, DType::i64}) {
        if (dtype == DType::i64 && op.takes == Takes::floating) continue;
        INFO("dtype ", to_string(dtype));
        const Tensor x = random_tensor({rows, columns}, op.ranges[0], dtype, generator);
        const Tensor row = random_tensor({columns}, op.ranges.back(), dtype, generator);
        const Tensor column = random_tensor({rows, 1}, op.ranges.back(), dtype, generator);
        const Tensor by_columns = transpose(transpose(x).clone());
        for (const Tensor& a : {x, by_columns}) {
          for (const Tensor& b : {x, row, column, by_columns}) {
            if (op.ranges.size() > 1 && b.numel() == x.numel()) continue;
            const Tensor y = op.run({a, b});
            std::vector<Tensor> expected;
            for (std::int64_t i = 0; i < rows; ++i)
              expected.push_back(op.run({a[i], b.size(0) == rows ? b[i] : b}));
            CHECK(sum(y != stack(expected)).item() == 0.0);
          }
        }
      }
    }
  }
}

TEST_CASE("elementwise: far from 0 nothing overflows, and infinities and NaN are right") {
  for (DType dtype : {DType::f32, DType::f64}) {
    CAPTURE(to_string(dtype));
    const double tolerance = dtype == DType::f32 ? 1e-5 : 1e-12;
    const Tensor x = tensor({-kInf, -500.0, -40.0, 0.0, 40.0, 500.0, kInf, kNan}, dtype);
    const Shape n{8};
    CHECK(difference(tanh(x), {n, {-1, -1, -1, 0, 1, 1, 1, kNan}}, tolerance) == "");
    CHECK(difference(relu(x), {n, {0, 0, 0, 0, 40, 500, kInf, kNan}}, tolerance) == "");
    CHECK(difference(abs(x), {n, {kInf, 500, 40, 0, 40, 500, kInf, kNan}}, tolerance) == "");
    CHECK(difference(sign(x), {n, {-1, -1, -1, 0, 1, 1, 1, kNan}}, tolerance) == "");
    CHECK(difference(clamp(x, -1, 1), {n, {-1, -1, -1, 0, 1, 1, 1, kNan}}, tolerance) == "");
    // A mask of NaN is not 0.
    CHECK(difference(where(x, ones_like(x), zeros_like(x)), {n, {1, 1, 1, 0, 1, 1, 1, 1}},
                     tolerance) == "");
    // e^-40 is far from denormal in both types, e^-500 only in f64.
    const Tensor y = slice(x, 0, 2, 8);
    const Shape m{6};
    CHECK(difference(sigmoid(y), {m, {std::exp(-40.0), 0.5, 1, 1, 1, kNan}}, tolerance) == "");
    CHECK(difference(softplus(y), {m, {std::exp(-40.0), std::log(2.0), 40, 500, kInf, kNan}},
                     tolerance) == "");
    CHECK(values(sigmoid(tensor({-kInf}, dtype))) == std::vector{0.0});
    CHECK(values(softplus(tensor({-kInf}, dtype))) == std::vector{0.0});
    CHECK(values(exp(tensor({-kInf, 0.0, kInf, 1000.0}, dtype))) ==
          std::vector{0.0, 1.0, kInf, kInf});
    CHECK(difference(log(tensor({0.0, -0.0, 1.0, kInf, -1.0, -kInf, kNan}, dtype)),
                     {{7}, {-kInf, -kInf, 0, kInf, kNan, kNan, kNan}}, tolerance) == "");
    CHECK(difference(sqrt(tensor({0.0, kInf, -1.0, kNan}, dtype)), {{4}, {0, kInf, kNan, kNan}},
                     tolerance) == "");
    const Tensor a = tensor({1.0, kNan, 1.0, kInf}, dtype),
                 b = tensor({kNan, 1.0, 2.0, -kInf}, dtype);
    CHECK(difference(maximum(a, b), {{4}, {kNan, kNan, 2, kInf}}, tolerance) == "");
    CHECK(difference(minimum(a, b), {{4}, {kNan, kNan, 1, -kInf}}, tolerance) == "");
    CHECK(difference(tensor({1.0, -1.0, 0.0}, dtype) / zeros({3}, dtype),
                     {{3}, {kInf, -kInf, kNan}}, tolerance) == "");
    CHECK(values(tensor({kNan, kNan}, dtype) == tensor({kNan, 1.0}, dtype)) ==
          std::vector{0.0, 0.0});
    CHECK(values(tensor({kNan, kNan}, dtype) != tensor({kNan, 1.0}, dtype)) ==
          std::vector{1.0, 1.0});
  }
}

TEST_CASE("elementwise: kernels are exact to the last digits over their whole range") {
  // Logarithmically spaced sizes of both signs, against libm.
  Generator generator(3);
  for (DType dtype : {DType::f32, DType::f64}) {
    CAPTURE(to_string(dtype));
    const double tolerance = dtype == DType::f32 ? 3e-7 : 1e-15;
    std::vector<double> list;
    for (int i = 0; i < 4000; ++i) {
      const double size = std::pow(10.0, 8.0 * generator.uniform() - 6.0);
      list.push_back(generator.uniform() < 0.5 ? -size : size);
    }
    const Tensor x = from_vector(list).to(dtype);
    const Array plain = to_array(x);
    const auto check = [&](const std::string& name, Tensor (*run)(const Tensor&),
                           double (*expected)(double), double low, double high) {
      CAPTURE(name);
      Array inside{{0}, {}};
      for (double v : plain.values)
        if (v >= low && v <= high) inside.values.push_back(v);
      inside.shape[0] = static_cast<std::int64_t>(inside.values.size());
      CHECK(difference(run(to_tensor(inside, dtype)), naive::map(expected, inside), tolerance) ==
            "");
    };
    check(
        "exp", [](const Tensor& in) { return exp(in); }, std::exp, -80.0, 80.0);
    check("log", unroll::log, std::log, 0.0, 0.9);
    check("log", unroll::log, std::log, 1.1, 100.0);
    check(
        "sqrt", [](const Tensor& in) { return sqrt(in); }, std::sqrt, 0.0, 100.0);
    check("sin", unroll::sin, std::sin, -3.0, 3.0);
    check("cos", unroll::cos, std::cos, -1.5, 1.5);
    check(
        "tanh", [](const Tensor& in) { return tanh(in); }, std::tanh, -100.0, 100.0);
    check(
        "sigmoid", [](const Tensor& in) { return sigmoid(in); },
        [](double v) { return 1.0 / (1.0 + std::exp(-v)); }, -80.0, 100.0);
    check(
        "softplus", unroll::softplus,
        [](double v) { return std::max(v, 0.0) + std::log1p(std::exp(-std::abs(v))); }, -80.0,
        100.0);
  }
}

TEST_CASE("elementwise: gradients at kinks and at ties are the documented ones") {
  CHECK(gradient_at({-1.0, 0.0, 2.0}, [](auto& x) { return abs(x); }) ==
        std::vector{-1.0, 0.0, 1.0});
  CHECK(gradient_at({-1.0, 0.0, 2.0}, [](auto& x) { return relu(x); }) ==
        std::vector{0.0, 0.0, 1.0});
  CHECK(gradient_at({-1.0, 0.0, 2.0}, [](auto& x) { return sign(x); }) ==
        std::vector{0.0, 0.0, 0.0});
  CHECK(gradient_at({-2.0, -1.0, 0.0, 1.0, 2.0}, [](auto& x) { return clamp(x, -1.0, 1.0); }) ==
        std::vector{0.0, 1.0, 1.0, 1.0, 0.0});
  for (auto* choose : {&unroll::minimum, &unroll::maximum}) {
    Tensor a = tensor({1.0, 2.0}, DType::f64).requires_grad_();
    Tensor b = tensor({1.0, 2.0}, DType::f64).requires_grad_();
    const auto g = grad({sum(choose(a, b))}, {a, b});
    CHECK(values(g[0]) == std::vector{0.5, 0.5});
    CHECK(values(g[1]) == std::vector{0.5, 0.5});
  }
  // The same tensor on both sides gets the whole of it.
  CHECK(gradient_at({1.0, 2.0}, [](auto& x) { return maximum(x, x); }) == std::vector{1.0, 1.0});
  CHECK(gradient_at({0.0, 2.0}, [](auto& x) { return pow(x, 2.0); }) == std::vector{0.0, 4.0});
  CHECK(gradient_at({0.0, 2.0}, [](auto& x) { return pow(x, 1.0); }) == std::vector{1.0, 1.0});
  CHECK(gradient_at({0.0, 2.0}, [](auto& x) { return pow(x, 0.0); }) == std::vector{0.0, 0.0});
  Tensor base = tensor({0.0, 0.0, 2.0}, DType::f64).requires_grad_();
  Tensor exponent = tensor({0.0, 2.0, 1.0}, DType::f64).requires_grad_();
  const auto g = grad({sum(pow(base, exponent))}, {base, exponent});
  CHECK(values(g[0]) == std::vector{0.0, 0.0, 1.0});
  CHECK(difference(g[1], {{3}, {0.0, 0.0, 2.0 * std::log(2.0)}}, 1e-15) == "");
}

TEST_CASE("elementwise: what a mask hides does not reach the gradient, not even NaN") {
  Tensor x = tensor({0.0, 4.0}, DType::f64).requires_grad_();
  const Tensor hidden = where(x == 0.0, zeros_like(x), sqrt(masked_fill(x, x == 0.0, 1.0)));
  CHECK(values(hidden) == std::vector{0.0, 2.0});
  CHECK(values(grad(sum(hidden), x)) == std::vector{0.0, 0.25});

  Tensor y = tensor({kNan, 4.0}, DType::f64).requires_grad_();
  CHECK(values(grad(sum(masked_fill(y * y, tensor({1.0, 0.0}), 0.0)), y))[1] == 8.0);
  const Tensor seed = tensor({kInf, 1.0}, DType::f64);
  Tensor z = tensor({1.0, 2.0}, DType::f64).requires_grad_();
  const Tensor filled = masked_fill(z, tensor({1.0, 0.0}), 0.0);
  CHECK(values(grad(filled, z, {.grad_outputs = {seed}})) == std::vector{0.0, 1.0});
}

TEST_CASE("elementwise: arithmetic of i64 is exact") {
  const std::int64_t big = (std::int64_t{1} << 53) + 1;  // not a double
  const Tensor x = from_vector(std::vector<std::int64_t>{big, -big});
  CHECK((x + x).to_vector<std::int64_t>() == std::vector<std::int64_t>{2 * big, -2 * big});
  CHECK((x - x).to_vector<std::int64_t>() == std::vector<std::int64_t>{0, 0});
  CHECK((-x).to_vector<std::int64_t>() == std::vector<std::int64_t>{-big, big});
  CHECK((x * x[0]).to_vector<std::int64_t>().size() == 2);
  CHECK((x + 1.0).to_vector<std::int64_t>() == std::vector<std::int64_t>{big + 1, -big + 1});
  CHECK((1.0 - x).to_vector<std::int64_t>() == std::vector<std::int64_t>{1 - big, 1 + big});
  CHECK((x * 2.0).to_vector<std::int64_t>() == std::vector<std::int64_t>{2 * big, -2 * big});
  CHECK((x == x[0]).to_vector<std::int64_t>() == std::vector<std::int64_t>{1, 0});
  CHECK((x > from_vector(std::vector<std::int64_t>{big - 1, -big})).to_vector<std::int64_t>() ==
        std::vector<std::int64_t>{1, 0});
  CHECK(maximum(x, x - 1.0).to_vector<std::int64_t>() == std::vector<std::int64_t>{big, -big});
  CHECK(abs(x).to_vector<std::int64_t>() == std::vector<std::int64_t>{big, big});
}

TEST_CASE("elementwise: errors name the operation, what it was given and the rule") {
  const Tensor a = zeros({2, 3}), b = zeros({4}), d = zeros({2, 3}, DType::f64);
  const Tensor i = zeros({2, 3}, DType::i64);
  CHECK_THROWS_WITH_AS(
      a + b, "add: shapes (2, 3) and (4) do not broadcast: sizes 3 and 4 differ at dimension -1",
      ShapeError);
  CHECK_THROWS_WITH_AS(
      b * a, "mul: shapes (4) and (2, 3) do not broadcast: sizes 4 and 3 differ at dimension -1",
      ShapeError);
  CHECK_THROWS_WITH_AS(zeros({3, 1, 5}) - zeros({2, 5}).to(DType::f32) * zeros({4, 1, 5}),
                       "sub: shapes (3, 1, 5) and (4, 2, 5) do not broadcast: sizes 3 and 4 differ "
                       "at dimension -3",
                       ShapeError);
  CHECK_THROWS_WITH_AS(
      maximum(a, zeros({0})),
      "maximum: shapes (2, 3) and (0) do not broadcast: sizes 3 and 0 differ at dimension -1",
      ShapeError);
  CHECK_THROWS_WITH_AS(a + d, "add: dtypes differ: f32 and f64", DTypeError);
  CHECK_THROWS_WITH_AS(d / i, "div: dtypes differ: f64 and i64", DTypeError);
  CHECK_THROWS_WITH_AS(static_cast<void>(a == i), "eq: dtypes differ: f32 and i64", DTypeError);
  CHECK_THROWS_WITH_AS(minimum(i, a), "minimum: dtypes differ: i64 and f32", DTypeError);
  CHECK_THROWS_WITH_AS(pow(a, d), "pow: dtypes differ: f32 and f64", DTypeError);
  CHECK_THROWS_WITH_AS(where(a, a, d), "where: dtypes differ: f32 and f64", DTypeError);
  CHECK_THROWS_WITH_AS(
      where(b, a, a),
      "where: shapes (4) and (2, 3) do not broadcast: sizes 4 and 3 differ at dimension -1",
      ShapeError);
  CHECK_THROWS_WITH_AS(i / i, "div: needs a floating-point tensor, got i64", DTypeError);
  CHECK_THROWS_WITH_AS(i / 2.0, "div: needs a floating-point tensor, got i64", DTypeError);
  CHECK_THROWS_WITH_AS(2.0 / i, "div: needs a floating-point tensor, got i64", DTypeError);
  CHECK_THROWS_WITH_AS(pow(i, 2.0), "pow: needs a floating-point tensor, got i64", DTypeError);
  CHECK_THROWS_WITH_AS(i * 0.5, "mul: the tensor is i64, 0.5 is no whole number", ValueError);
  CHECK_THROWS_WITH_AS(1.5 - i, "sub: the tensor is i64, 1.5 is no whole number", ValueError);
  CHECK_THROWS_WITH_AS(static_cast<void>(i < 2.5), "lt: the tensor is i64, 2.5 is no whole number",
                       ValueError);
  CHECK_THROWS_WITH_AS(static_cast<void>(i == kNan),
                       "eq: the tensor is i64, nan is no whole number", ValueError);
  CHECK_THROWS_WITH_AS(masked_fill(i, i, -kInf),
                       "masked_fill: the tensor is i64, -inf is no whole number", ValueError);
  CHECK_THROWS_WITH_AS(clamp(a, 2.0, 1.0), "clamp: low = 2 is above high = 1", ValueError);
  CHECK_THROWS_WITH_AS(clamp(a, kNan, 1.0), "clamp: low = nan is above high = 1", ValueError);
  CHECK_THROWS_WITH_AS(a + Tensor(), "tensor: undefined (made by Tensor())", ValueError);
}
