/// Reductions, cumulative sums, softmax and cross entropy: the op table, special values, and the
/// errors.

#include <doctest/doctest.h>

#include <cmath>
#include <limits>

#include "framework/gradcheck.h"
#include "tests/naive.h"
#include "tests/support.h"

using namespace unroll;
using namespace unroll::test;

namespace {

using Inputs = const std::vector<Tensor>&;
using Arrays = const std::vector<Array>&;

constexpr double kInf = std::numeric_limits<double>::infinity();
const double kNan = std::nan("");

std::vector<double> values(const Tensor& x) { return to_array(x).values; }

/// Dimensions counted from the front, as the naive reductions want them.
Shape wrapped(const Shape& dims, std::int64_t rank) {
  Shape result;
  for (std::int64_t d : dims) result.push_back(d < 0 ? d + rank : d);
  return result;
}

/// A case of a reduction: the shape, and what is reduced.
struct Case {
  Shape shape;
  Shape axes;
};

const std::vector<Case> kCases = {{{}, {}},
                                  {{5}, {}},
                                  {{5}, {0}},
                                  {{3, 4}, {}},
                                  {{3, 4}, {0}},
                                  {{3, 4}, {1}},
                                  {{3, 4}, {-1}},
                                  {{3, 4}, {1, 0}},
                                  {{2, 3, 4}, {0}},
                                  {{2, 3, 4}, {1}},
                                  {{2, 3, 4}, {-1}},
                                  {{2, 3, 4}, {0, 2}},
                                  {{2, 3, 4}, {2, 1}},
                                  {{2, 3, 4}, {-3, 1}},
                                  {{3, 1, 2}, {1}},
                                  {{1, 1}, {0}},
                                  {{2, 1, 2, 1, 2, 1, 2}, {0, 3, 6}},
                                  {{4, 50, 3}, {1}},
                                  {{4, 5, 30}, {0, 2}},
                                  {{9001}, {}},
                                  {{30, 70}, {0}},
                                  {{30, 70}, {1}}};

/// Cases in which results, but no elements, are missing.
const std::vector<Case> kNoResults = {{{0, 3}, {1}}, {{2, 0, 3}, {0}}, {{2, 0, 3}, {-1}}};
/// Cases in which results are made of nothing.
const std::vector<Case> kNoElements = {{{0}, {}},        {{0}, {0}},          {{0, 3}, {0}},
                                       {{2, 0, 3}, {1}}, {{2, 0, 3}, {1, 2}}, {{2, 0, 3}, {}}};

using Reduction_ = Tensor (*)(const Tensor&, const Axes&, bool);

/// Rows for one reduction: one for each case and keepdim.
void add_rows(std::vector<Op>& table, const Op& prototype, Reduction_ run,
              double (*expected)(const std::vector<double>&),
              std::initializer_list<const std::vector<Case>*> lists) {
  for (const std::vector<Case>* cases : lists) {
    for (const Case& c : *cases) {
      for (bool keepdim : {false, true}) {
        Op op = prototype;
        const Axes axes(c.axes);
        op.run = [=](Inputs x) { return run(x[0], axes, keepdim); };
        op.expected = [=](Arrays x) {
          return naive::reduce(expected, x[0], wrapped(c.axes, x[0].shape.size()), keepdim);
        };
        op.shapes = {{c.shape}};
        table.push_back(op);
      }
    }
  }
}

double squared_distances(const std::vector<double>& x) {
  const double m = naive::mean(x);
  double s = 0.0;
  for (double v : x) s += (v - m) * (v - m);
  return s;
}

double p_norm(const std::vector<double>& x, double p) {
  double s = 0.0;
  for (double v : x) s += std::pow(std::abs(v), p);
  return std::pow(s, 1.0 / p);
}

const std::vector<Op>& reduction_table() {
  static const std::vector<Op> table = [] {
    std::vector<Op> rows;
    const auto all = {&kCases, &kNoResults, &kNoElements};
    const auto not_of_nothing = {&kCases, &kNoResults};
    add_rows(rows, {.name = "sum", .takes = Takes::any, .floor = 1.0}, unroll::sum, naive::sum,
             all);
    add_rows(rows, {.name = "mean", .floor = 1.0}, unroll::mean, naive::mean, all);
    add_rows(rows, {.name = "max", .takes = Takes::any, .smooth = false}, unroll::max, naive::max,
             not_of_nothing);
    add_rows(rows, {.name = "min", .takes = Takes::any, .smooth = false}, unroll::min, naive::min,
             not_of_nothing);
    add_rows(rows, {.name = "logsumexp", .floor = 1.0}, unroll::logsumexp, naive::logsumexp, all);
    add_rows(
        rows, {.name = "var", .floor = 1.0},
        [](const Tensor& x, const Axes& axes, bool keepdim) { return var(x, axes, keepdim); },
        [](const std::vector<double>& x) {
          // 0 / 0 for one element, 0 / -1 for none.
          return squared_distances(x) / (static_cast<double>(x.size()) - 1.0);
        },
        not_of_nothing);
    add_rows(
        rows, {.name = "var", .floor = 1.0},
        [](const Tensor& x, const Axes& axes, bool keepdim) { return var(x, axes, keepdim, 0.0); },
        [](const std::vector<double>& x) {
          return squared_distances(x) / static_cast<double>(x.size());
        },
        not_of_nothing);
    add_rows(
        rows, {.name = "norm"},
        [](const Tensor& x, const Axes& axes, bool keepdim) { return norm(x, 2.0, axes, keepdim); },
        [](const std::vector<double>& x) { return p_norm(x, 2.0); }, all);
    add_rows(
        rows, {.name = "norm"},
        [](const Tensor& x, const Axes& axes, bool keepdim) { return norm(x, 1.0, axes, keepdim); },
        [](const std::vector<double>& x) { return p_norm(x, 1.0); }, all);
    add_rows(
        rows, {.name = "norm"},
        [](const Tensor& x, const Axes& axes, bool keepdim) { return norm(x, 3.0, axes, keepdim); },
        [](const std::vector<double>& x) { return p_norm(x, 3.0); }, not_of_nothing);
    return rows;
  }();
  return table;
}

/// Operations along one dimension that keep the shape, or drop it (argmax).
const std::vector<Op>& along_table() {
  static const std::vector<Op> table = [] {
    std::vector<Op> rows;
    const std::vector<std::pair<Shape, std::int64_t>> cases = {
        {{5}, 0},        {{3, 4}, 0},     {{3, 4}, 1},     {{3, 4}, -1},  {{2, 3, 4}, 0},
        {{2, 3, 4}, 1},  {{2, 3, 4}, -3}, {{2, 3, 4}, -1}, {{4, 1}, 1},   {{0, 3}, 1},
        {{2, 0, 3}, -1}, {{5, 70, 3}, 1}, {{3, 1000}, 1},  {{1000, 3}, 0}};
    for (const auto& [shape_, dim_] : cases) {
      const Shape shape = shape_;
      const std::int64_t dim = dim_, d = dim < 0 ? dim + shape.size() : dim;
      rows.push_back({.name = "cumsum",
                      .run = [=](Inputs x) { return cumsum(x[0], dim); },
                      .expected = [=](Arrays x) { return naive::cumsum(x[0], d); },
                      .shapes = {{shape}},
                      .takes = Takes::any,
                      .floor = 10.0});
      rows.push_back({.name = "softmax",
                      .run = [=](Inputs x) { return softmax(x[0], dim); },
                      .expected =
                          [=](Arrays x) {
                            return naive::normalise(
                                [](double v, double total) { return std::exp(v) / total; }, x[0],
                                d);
                          },
                      .shapes = {{shape}}});
      rows.push_back({.name = "log_softmax",
                      .run = [=](Inputs x) { return log_softmax(x[0], dim); },
                      .expected =
                          [=](Arrays x) {
                            return naive::normalise(
                                [](double v, double total) { return v - std::log(total); }, x[0],
                                d);
                          },
                      .shapes = {{shape}},
                      .floor = 1.0});
      for (bool keepdim : {false, true}) {
        rows.push_back(
            {.name = "argmax",
             .run = [=](Inputs x) { return argmax(x[0], dim, keepdim); },
             .expected = [=](Arrays x) { return naive::reduce(naive::argmax, x[0], {d}, keepdim); },
             .shapes = {{shape}},
             .takes = Takes::any,
             .differentiable = false,
             .result_dtype = [](DType) { return DType::i64; }});
      }
    }
    // A dimension of nothing.
    for (const Shape& shape : {Shape{0}, Shape{2, 0}}) {
      rows.push_back({.name = "cumsum",
                      .run = [](Inputs x) { return cumsum(x[0], -1); },
                      .expected = [](Arrays x) { return x[0]; },
                      .shapes = {{shape}},
                      .takes = Takes::any});
      rows.push_back({.name = "softmax",
                      .run = [](Inputs x) { return softmax(x[0]); },
                      .expected = [](Arrays x) { return x[0]; },
                      .shapes = {{shape}}});
      rows.push_back({.name = "log_softmax",
                      .run = [](Inputs x) { return log_softmax(x[0]); },
                      .expected = [](Arrays x) { return x[0]; },
                      .shapes = {{shape}}});
    }
    return rows;
  }();
  return table;
}

std::vector<Op> cross_entropy_table() {
  std::vector<Op> rows;
  struct Target {
    Shape shape;
    std::int64_t classes;
    std::vector<std::int64_t> list;
  };
  const std::vector<Target> cases = {{{}, 4, {2}},
                                     {{3}, 4, {0, 3, 3}},
                                     {{2, 3}, 3, {0, 1, 2, 2, 1, 0}},
                                     {{3}, 2, {-100, 1, -100}},
                                     {{2}, 3, {-100, -100}},
                                     {{0}, 3, {}},
                                     {{2, 1}, 1, {0, 0}},
                                     {{4}, 5, {7, 1, 7, 4}}};
  for (const Target& c : cases) {
    const std::int64_t ignore = c.list.size() == 4 ? 7 : -100;
    const Tensor targets = from_vector(c.list, c.shape);
    for (Reduction reduction : {Reduction::none, Reduction::mean, Reduction::sum}) {
      Shape shape = c.shape;
      shape.push_back(c.classes);
      rows.push_back(
          {.name = "cross_entropy",
           .run =
               [=](Inputs x) {
                 return cross_entropy(x[0], targets,
                                      {.ignore_index = ignore, .reduction = reduction});
               },
           .expected =
               [=](Arrays x) {
                 const Array logits =
                     naive::normalise([](double v, double total) { return v - std::log(total); },
                                      x[0], c.shape.size());
                 Array losses{c.shape, {}};
                 double counted = 0.0;
                 for (std::size_t i = 0; i < c.list.size(); ++i) {
                   const bool counts = c.list[i] != ignore;
                   counted += counts ? 1.0 : 0.0;
                   losses.values.push_back(
                       counts ? -logits.values[i * static_cast<std::size_t>(c.classes) +
                                               static_cast<std::size_t>(c.list[i])]
                              : 0.0);
                 }
                 if (reduction == Reduction::none) return losses;
                 const double total = naive::sum(losses.values);
                 return Array{{}, {reduction == Reduction::sum ? total : total / counted}};
               },
           .shapes = {{shape}},
           // The mean over no target is NaN, and so are its gradients.
           .floor = 1.0});
    }
  }
  return rows;
}

bool is_nan(const Array& x) { return x.values.size() == 1 && std::isnan(x.values[0]); }

}  // namespace

TEST_CASE("reduce: reductions have the values of their formulas") {
  for (const Op& op : reduction_table()) check_values(op);
}

TEST_CASE("reduce: reductions pass gradcheck of orders 1 and 2") {
  Generator generator(1);
  for (const Op& op : reduction_table()) {
    // Where a result is NaN (the variance of one number), there is no gradient to check.
    const Array x = to_array(random_tensor(op.shapes[0][0], {-1.0, 1.0}, DType::f64, generator));
    bool finite = true;
    for (double v : op.expected({x}).values) finite = finite && std::isfinite(v);
    if (finite) check_gradients(op);
  }
}

TEST_CASE("reduce: argmax, cumsum, softmax and log_softmax have the values of their formulas") {
  for (const Op& op : along_table()) check_values(op);
}
TEST_CASE("reduce: cumsum, softmax and log_softmax pass gradcheck of orders 1 and 2") {
  for (const Op& op : along_table()) check_gradients(op);
}

TEST_CASE("reduce: cross_entropy has the values of its formula") {
  for (const Op& op : cross_entropy_table()) check_values(op);
}
TEST_CASE("reduce: cross_entropy passes gradcheck of orders 1 and 2") {
  for (const Op& op : cross_entropy_table()) {
    const Tensor x = zeros(op.shapes[0][0], DType::f64);
    if (!is_nan(op.expected({to_array(x)}))) check_gradients(op);
  }
}

TEST_CASE("reduce: sum_to undoes a broadcast") {
  Generator generator(4);
  for (const auto& shapes : std::vector<std::pair<Shape, Shape>>{{{2, 3, 4}, {2, 3, 4}},
                                                                 {{2, 3, 4}, {3, 4}},
                                                                 {{2, 3, 4}, {3, 1}},
                                                                 {{2, 3, 4}, {1}},
                                                                 {{2, 3, 4}, {}},
                                                                 {{2, 3}, {1, 3}},
                                                                 {{2, 1}, {2, 1}},
                                                                 {{5}, {}},
                                                                 {{}, {}},
                                                                 {{0, 3}, {3}},
                                                                 {{2, 0}, {2, 1}},
                                                                 {{2, 0}, {}}}) {
    const Shape &from = shapes.first, &to = shapes.second;
    CAPTURE(to_string(from));
    CAPTURE(to_string(to));
    for (DType dtype : {DType::f32, DType::f64, DType::i64}) {
      const Tensor x = random_tensor(from, {-3.0, 3.0}, dtype, generator);
      // Element by element onto the place that a broadcast would take it from.
      Array expected{to, std::vector<double>(static_cast<std::size_t>(to.numel()), 0.0)};
      const Array plain = to_array(x);
      for_each_index(from, [&](const Shape& index) {
        Shape target = to;
        for (std::int64_t d = 0; d < to.size(); ++d)
          target[d] = to[d] == 1 ? 0 : index[from.size() - to.size() + d];
        expected.at(target) += plain.at(index);
      });
      CHECK(difference(sum_to(x, to), expected, 1e-6, 1.0) == "");
    }
    Tensor x = random_tensor(from, {-3.0, 3.0}, DType::f64, generator).requires_grad_();
    const Shape shape = to;
    const auto f = [&](const std::vector<Tensor>& xs) { return square(sum_to(xs[0], shape)); };
    CHECK(gradcheck_message(f, {x}, {.order = 2}) == "");
  }
  CHECK_THROWS_WITH_AS(
      sum_to(zeros({2, 3}), {2}),
      "sum_to: shapes (2, 3) and (2) do not broadcast: sizes 3 and 2 differ at dimension -1",
      ShapeError);
  CHECK_THROWS_WITH_AS(sum_to(zeros({3}), {2, 3}), "sum_to: shape (2, 3) does not broadcast to (3)",
                       ShapeError);
  CHECK_THROWS_WITH_AS(sum_to(zeros({1}), {3}), "sum_to: shape (3) does not broadcast to (1)",
                       ShapeError);
}

TEST_CASE("reduce: reductions over nothing have their neutral values") {
  for (DType dtype : {DType::f32, DType::f64}) {
    const Tensor x = zeros({2, 0}, dtype);
    CHECK(values(sum(x, 1)) == std::vector{0.0, 0.0});
    CHECK(std::isnan(mean(x).item()));
    CHECK(values(logsumexp(x, 1)) == std::vector{-kInf, -kInf});
    CHECK(values(norm(x, 2.0, 1)) == std::vector{0.0, 0.0});
    CHECK(std::isnan(var(x, 1)[0].item()) == false);  // -0 / 1: no distances, divided by 0 - 1
    CHECK(std::isnan(var(x, 1, false, 0.0)[0].item()));
    CHECK(std::isnan(var(ones({1}, dtype)).item()));
  }
  CHECK_THROWS_WITH_AS(max(zeros({2, 0}), 1), "max: nothing to choose from in shape (2, 0)",
                       ShapeError);
  CHECK_THROWS_WITH_AS(min(zeros({0})), "min: nothing to choose from in shape (0)", ShapeError);
  CHECK_THROWS_WITH_AS(argmax(zeros({0, 3}), 0), "argmax: nothing to choose from in shape (0, 3)",
                       ShapeError);
}

TEST_CASE("reduce: infinities and NaN are right, and nothing overflows on the way") {
  for (DType dtype : {DType::f32, DType::f64}) {
    CAPTURE(to_string(dtype));
    const double tolerance = dtype == DType::f32 ? 1e-6 : 1e-14;
    // Rows and, transposed, columns: both ways through the kernels.
    const Tensor rows =
        tensor({{1.0, kNan, 2.0}, {-kInf, 0.0, kInf}, {-kInf, -kInf, -kInf}}, dtype);
    for (bool columns : {false, true}) {
      CAPTURE(columns);
      const Tensor x = columns ? transpose(rows).clone() : rows;
      const std::int64_t dim = columns ? 0 : 1;
      CHECK(difference(max(x, dim), {{3}, {kNan, kInf, -kInf}}, tolerance) == "");
      CHECK(difference(min(x, dim), {{3}, {kNan, -kInf, -kInf}}, tolerance) == "");
      CHECK(difference(sum(x, dim), {{3}, {kNan, kNan, -kInf}}, tolerance) == "");
      CHECK(values(argmax(x, dim)) == std::vector{1.0, 2.0, 0.0});
      CHECK(difference(logsumexp(x, dim), {{3}, {kNan, kInf, -kInf}}, tolerance) == "");
      const Tensor large = tensor({{1000.0, 1000.0}, {-1000.0, -1000.0}, {-kInf, 3.0}}, dtype);
      const Tensor y = columns ? transpose(large).clone() : large;
      CHECK(difference(logsumexp(y, dim),
                       {{3}, {1000.0 + std::log(2.0), -1000.0 + std::log(2.0), 3.0}},
                       tolerance) == "");
      const Tensor p = softmax(y, dim), q = log_softmax(y, dim);
      const Array expected{{3, 2}, {0.5, 0.5, 0.5, 0.5, 0.0, 1.0}};
      const Array expected_log{
          {3, 2}, {-std::log(2.0), -std::log(2.0), -std::log(2.0), -std::log(2.0), -kInf, 0.0}};
      CHECK(difference(columns ? transpose(p) : p, expected, tolerance) == "");
      CHECK(difference(columns ? transpose(q) : q, expected_log, tolerance) == "");
    }
  }
}

TEST_CASE("reduce: the gradient of a masked softmax and of logsumexp is finite") {
  Tensor x = tensor({{-kInf, 3.0, 4.0}, {1.0, -kInf, 2.0}}, DType::f64).requires_grad_();
  const Tensor weights = tensor({1.0, 2.0, 3.0}, DType::f64);
  for (const Tensor& y : {sum(softmax(x) * weights), sum(logsumexp(x, 1))}) {
    const Array g = to_array(grad(y, x));
    for (double v : g.values) CHECK(std::isfinite(v));
    CHECK(g.at({0, 0}) == 0.0);
    CHECK(g.at({1, 1}) == 0.0);
  }
  Tensor nothing = full({2}, -kInf, DType::f64).requires_grad_();
  CHECK(values(grad(logsumexp(nothing), nothing)) == std::vector{0.0, 0.0});
}

TEST_CASE("reduce: ties share the gradient of max and min evenly, and norm has one at 0") {
  for (auto* choose : {&unroll::max, &unroll::min}) {
    Tensor x = full({2, 4}, 3.0, DType::f64).requires_grad_();
    CHECK(values(grad(sum(choose(x, 1, false)), x)) == std::vector<double>(8, 0.25));
    CHECK(values(grad(choose(x, {}, false), x)) == std::vector<double>(8, 0.125));
  }
  Tensor x = zeros({2, 2}, DType::f64).requires_grad_();
  CHECK(values(grad(sum(norm(x, 2.0, 1)), x)) == std::vector<double>(4, 0.0));
}

TEST_CASE("reduce: the argmax is the first of equals") {
  const Tensor x = tensor({{1.0, 3.0, 3.0}, {2.0, 2.0, 2.0}});
  CHECK(values(argmax(x)) == std::vector{1.0, 0.0});
  CHECK(values(argmax(x, 0)) == std::vector{1.0, 0.0, 0.0});
  CHECK(values(argmax(flip(x, 1))) == std::vector{0.0, 0.0});
}

TEST_CASE("reduce: sums of many f32 numbers stay exact to 1e-6, along and across memory") {
  Generator generator(8);
  const std::int64_t n = 200000;
  const Tensor x = uniform({n, 4}, 0.0, 1.0, DType::f32, generator);
  const Array expected = naive::sum(to_array(x), {0}, false);
  CHECK(difference(sum(x, 0), expected, 1e-6) == "");
  CHECK(difference(sum(transpose(x).clone(), 1), expected, 1e-6) == "");
  CHECK(difference(sum(x), Array{{}, {naive::sum(expected.values)}}, 1e-6) == "");
  CHECK(difference(mean(x, 0) * static_cast<double>(n), expected, 1e-6) == "");
  CHECK(difference(sum_to(x, {4}), expected, 1e-6) == "");
}

TEST_CASE("reduce: sums and extremes of i64 are exact") {
  const std::int64_t big = (std::int64_t{1} << 53) + 1;  // not a double
  const Tensor x = from_vector(std::vector<std::int64_t>{big, 2, -big, 5}, {2, 2});
  CHECK(sum(x, 1).to_vector<std::int64_t>() == std::vector<std::int64_t>{big + 2, -big + 5});
  CHECK(sum(x, 0).to_vector<std::int64_t>() == std::vector<std::int64_t>{0, 7});
  CHECK(sum(x).to_vector<std::int64_t>() == std::vector<std::int64_t>{7});
  CHECK(max(x, 1).to_vector<std::int64_t>() == std::vector<std::int64_t>{big, 5});
  CHECK(min(x).to_vector<std::int64_t>() == std::vector<std::int64_t>{-big});
  CHECK(cumsum(x, 0).to_vector<std::int64_t>() == std::vector<std::int64_t>{big, 2, 0, 7});
  const Tensor y = from_vector(std::vector<std::int64_t>{big - 1, big, big - 1});
  CHECK(argmax(y).item() == 1.0);
}

TEST_CASE("reduce: errors name the operation, what it was given and the rule") {
  const Tensor x = zeros({2, 3}), i = zeros({2, 3}, DType::i64);
  CHECK_THROWS_WITH_AS(
      sum(x, 3), "sum: dimension 3 is out of range for shape (2, 3): expected -2 to 1", IndexError);
  CHECK_THROWS_WITH_AS(mean(x, {0, -3}),
                       "mean: dimension -3 is out of range for shape (2, 3): expected -2 to 1",
                       IndexError);
  CHECK_THROWS_WITH_AS(sum(zeros({}), 0), "sum: dimension 0 is out of range for a scalar",
                       IndexError);
  CHECK_THROWS_WITH_AS(max(x, {1, -1}), "max: dimension -1 is named twice", ShapeError);
  CHECK_THROWS_WITH_AS(argmax(zeros({})), "argmax: dimension -1 is out of range for a scalar",
                       IndexError);
  CHECK_THROWS_WITH_AS(softmax(x, 2),
                       "softmax: dimension 2 is out of range for shape (2, 3): expected -2 to 1",
                       IndexError);
  CHECK_THROWS_WITH_AS(
      log_softmax(x, -3),
      "log_softmax: dimension -3 is out of range for shape (2, 3): expected -2 to 1", IndexError);
  CHECK_THROWS_WITH_AS(cumsum(x, 2),
                       "cumsum: dimension 2 is out of range for shape (2, 3): expected -2 to 1",
                       IndexError);
  CHECK_THROWS_WITH_AS(
      var(x, 5), "var: dimension 5 is out of range for shape (2, 3): expected -2 to 1", IndexError);
  CHECK_THROWS_WITH_AS(norm(x, 2.0, 5),
                       "norm: dimension 5 is out of range for shape (2, 3): expected -2 to 1",
                       IndexError);
  CHECK_THROWS_WITH_AS(norm(x, 1.0, 5),
                       "norm: dimension 5 is out of range for shape (2, 3): expected -2 to 1",
                       IndexError);
  CHECK_THROWS_WITH_AS(norm(x, 0.0), "norm: needs 0 < p < inf, got 0", ValueError);
  CHECK_THROWS_WITH_AS(mean(i), "mean: needs a floating-point tensor, got i64", DTypeError);
}

TEST_CASE("reduce: cross_entropy says what does not fit, and where") {
  const Tensor logits = zeros({2, 3, 4}), targets = zeros({2, 3}, DType::i64);
  CHECK_THROWS_WITH_AS(cross_entropy(logits, zeros({2, 2}, DType::i64)),
                       "cross_entropy: logits (2, 3, 4) need targets (2, 3), got (2, 2)",
                       ShapeError);
  CHECK_THROWS_WITH_AS(cross_entropy(zeros({}), zeros({}, DType::i64)),
                       "cross_entropy: logits () have no dimension of classes", ShapeError);
  CHECK_THROWS_WITH_AS(cross_entropy(logits, zeros({2, 3})),
                       "cross_entropy: indices are i64, got f32", DTypeError);
  CHECK_THROWS_WITH_AS(cross_entropy(zeros({2, 3}, DType::i64), zeros({2}, DType::i64)),
                       "cross_entropy: needs a floating-point tensor, got i64", DTypeError);
  Tensor wrong = targets.clone();
  wrong.write<std::int64_t>()[4] = 4;
  CHECK_THROWS_WITH_AS(cross_entropy(logits, wrong),
                       "cross_entropy: target 4 at position (1, 1) is out of range [0, 4)",
                       IndexError);
  wrong.write<std::int64_t>()[1] = -1;
  CHECK_THROWS_WITH_AS(cross_entropy(logits, wrong),
                       "cross_entropy: target -1 at position (0, 1) is out of range [0, 4)",
                       IndexError);
  CHECK_THROWS_WITH_AS(cross_entropy(zeros({4}), from_vector(std::vector<std::int64_t>{9}, {})),
                       "cross_entropy: target 9 at position () is out of range [0, 4)", IndexError);
}
