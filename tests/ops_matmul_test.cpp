/// The matrix product: the op table, special shapes, and the errors.

#include <doctest/doctest.h>

#include <limits>

#include "tests/naive.h"
#include "tests/support.h"

using namespace unroll;
using namespace unroll::test;

namespace {

const Op& matmul_row() {
  static const Op row = {
      .name = "matmul",
      .run = [](const std::vector<Tensor>& x) { return matmul(x[0], x[1]); },
      .expected = [](const std::vector<Array>& x) { return naive::matmul(x[0], x[1]); },
      .shapes =
          {
              {Shape{2, 3}, Shape{3, 4}},
              {Shape{1, 1}, Shape{1, 1}},
              {Shape{3}, Shape{3}},
              {Shape{2, 3}, Shape{3}},
              {Shape{3}, Shape{3, 4}},
              {Shape{2, 2, 3}, Shape{3, 2}},
              {Shape{2, 2, 3}, Shape{3}},
              {Shape{3}, Shape{2, 3, 2}},
              {Shape{2, 3}, Shape{2, 3, 2}},
              {Shape{2, 1, 3}, Shape{2, 3, 2}},
              {Shape{2, 1, 2, 3}, Shape{2, 3, 1}},
              {Shape{1, 2, 3}, Shape{2, 3, 2}},
              {Shape{2, 2, 1, 3}, Shape{2, 2, 3, 1}},
              // Nothing in one place or another: the sum over nothing is 0.
              {Shape{0, 3}, Shape{3, 4}},
              {Shape{2, 3}, Shape{3, 0}},
              {Shape{2, 0}, Shape{0, 3}},
              {Shape{0}, Shape{0}},
              {Shape{2, 0}, Shape{0}},
              {Shape{0}, Shape{0, 3}},
              {Shape{0, 2, 3}, Shape{3, 2}},
              {Shape{2, 2, 0}, Shape{0, 3}},
              {Shape{2, 0, 3}, Shape{2, 3, 2}},
              {Shape{0, 2, 3}, Shape{1, 3, 2}},
              // Blocks with a rest in each direction.
              {Shape{33, 65}, Shape{65, 47}},
              {Shape{1, 130}, Shape{130, 70}},
              {Shape{70, 130}, Shape{130, 1}},
              {Shape{130}, Shape{130, 70}},
              {Shape{3, 17, 9}, Shape{3, 9, 21}},
          },
      .floor = 1.0};
  return row;
}

const std::vector<std::vector<Shape>> kLinearShapes = {
    {Shape{2, 3}, Shape{4, 3}},
    {Shape{1, 1}, Shape{1, 1}},
    {Shape{3}, Shape{4, 3}},
    {Shape{3}, Shape{1, 3}},
    {Shape{1}, Shape{3, 1}},
    {Shape{2, 2, 3}, Shape{2, 3}},
    {Shape{1, 2, 1, 3}, Shape{2, 3}},
    // Nothing in one place or another: the sum over nothing is 0.
    {Shape{0, 3}, Shape{4, 3}},
    {Shape{2, 3}, Shape{0, 3}},
    {Shape{2, 0}, Shape{3, 0}},
    {Shape{0}, Shape{3, 0}},
    {Shape{0, 2, 3}, Shape{2, 3}},
    {Shape{2, 2, 0}, Shape{3, 0}},
    {Shape{2, 0, 3}, Shape{2, 3}},
    {Shape{3}, Shape{0, 3}},
    // Blocks with a rest in each direction.
    {Shape{33, 65}, Shape{47, 65}},
    {Shape{130}, Shape{70, 130}},
    {Shape{3, 17, 9}, Shape{21, 9}},
};

enum class Bias { none, row, rows };

/// x weight' + bias: none, the same for each row of x, or one for each.
Op linear_row(Bias bias) {
  Op row = {.name = "linear",
            .run =
                [](const std::vector<Tensor>& x) {
                  return linear(x[0], x[1], x.size() > 2 ? x[2] : Tensor());
                },
            .expected =
                [](const std::vector<Array>& x) {
                  const Array y = naive::matmul(x[0], naive::transpose(x[1], 0, 1));
                  if (x.size() == 2) return y;
                  return naive::map([](double a, double b) { return a + b; }, y, x[2]);
                },
            .shapes = kLinearShapes,
            .floor = 1.0};
  for (auto& shapes : row.shapes) {
    Shape whole = shapes[0];
    whole[whole.size() - 1] = shapes[1][0];
    if (bias == Bias::row) shapes.push_back({whole.back()});
    if (bias == Bias::rows) shapes.push_back(whole);
  }
  return row;
}

}  // namespace

TEST_CASE("linear: has the values of its definition") {
  for (Bias bias : {Bias::none, Bias::row, Bias::rows}) check_values(linear_row(bias));
}
TEST_CASE("linear: passes gradcheck of orders 1 and 2") {
  for (Bias bias : {Bias::none, Bias::row, Bias::rows}) check_gradients(linear_row(bias));
}

TEST_CASE("linear: errors name the shapes") {
  CHECK_THROWS_WITH_AS(linear(zeros({2, 3}), zeros({4, 5})),
                       "linear: needs x [..., in] and weight [out, in]: x is (2, 3), weight is "
                       "(4, 5)",
                       ShapeError);
  CHECK_THROWS_WITH_AS(linear(zeros({}), zeros({4, 1})),
                       "linear: needs x [..., in] and weight [out, in]: x is (), weight is (4, 1)",
                       ShapeError);
  CHECK_THROWS_WITH_AS(linear(zeros({3}), zeros({3})),
                       "linear: needs x [..., in] and weight [out, in]: x is (3), weight is (3)",
                       ShapeError);
  CHECK_THROWS_WITH_AS(
      linear(zeros({2, 3}), zeros({4, 3}), zeros({3})),
      "linear: bias must be [out = 4], or that for each row of x, which is (2, 3), "
      "but is (3)",
      ShapeError);
  CHECK_THROWS_WITH_AS(
      linear(zeros({2, 3}), zeros({4, 3}), zeros({1, 4})),
      "linear: bias must be [out = 4], or that for each row of x, which is (2, 3), "
      "but is (1, 4)",
      ShapeError);
  CHECK_THROWS_WITH_AS(linear(zeros({2, 3}), zeros({4, 3}, DType::f64)),
                       "linear: dtypes differ: f32 and f64", DTypeError);
  CHECK_THROWS_WITH_AS(linear(zeros({2, 3}), zeros({4, 3}), zeros({4}, DType::f64)),
                       "linear: dtypes differ: f32 and f64", DTypeError);
}

TEST_CASE("matmul: has the values of its definition") { check_values(matmul_row()); }
TEST_CASE("matmul: passes gradcheck of orders 1 and 2") { check_gradients(matmul_row()); }

TEST_CASE("matmul: large products, transposed or not, are right in both types") {
  Generator generator(5);
  for (DType dtype : {DType::f32, DType::f64}) {
    CAPTURE(to_string(dtype));
    const Tensor a = random_tensor({150, 300}, {-1.0, 1.0}, dtype, generator);
    const Tensor b = random_tensor({300, 170}, {-1.0, 1.0}, dtype, generator);
    const Array expected = naive::matmul(to_array(a), to_array(b));
    const double tolerance = dtype == DType::f32 ? 1e-5 : 1e-13;
    const Tensor at = transpose(a).clone(), bt = transpose(b).clone();
    CHECK(difference(matmul(a, b), expected, tolerance, 1.0) == "");
    CHECK(difference(matmul(transpose(at), b), expected, tolerance, 1.0) == "");
    CHECK(difference(matmul(a, transpose(bt)), expected, tolerance, 1.0) == "");
    CHECK(difference(matmul(transpose(at), transpose(bt)), expected, tolerance, 1.0) == "");
    CHECK(difference(transpose(matmul(bt, at)), expected, tolerance, 1.0) == "");
  }
}

TEST_CASE("matmul: a weight that was written since is not taken from a cache") {
  Generator generator(6);
  Tensor w = random_tensor({40, 40}, {-1.0, 1.0}, DType::f32, generator);
  const Tensor x = random_tensor({20, 40}, {-1.0, 1.0}, DType::f32, generator);
  const auto check = [&] {
    CHECK(difference(matmul(x, w), naive::matmul(to_array(x), to_array(w)), 1e-5, 1.0) == "");
    CHECK(difference(matmul(x, transpose(w)),
                     naive::matmul(to_array(x), naive::transpose(to_array(w), 0, 1)), 1e-5,
                     1.0) == "");
  };
  for (int i = 0; i < 3; ++i) check();
  w.add_(w, 0.5);
  check();
  w.write<float>()[3] = 7.0f;
  check();
  transpose(w).fill_(0.25);
  check();
  {
    auto view = w.write<float>();
    check();
    view[5] = -3.0f;
  }
  check();
}

TEST_CASE("matmul: many windows on one storage, each multiplied several times, keep apart") {
  Generator generator(8);
  const Tensor xs = random_tensor({40, 6, 5}, {-1.0, 1.0}, DType::f64, generator);
  const Tensor a = random_tensor({3, 6}, {-1.0, 1.0}, DType::f64, generator);
  const Array plain = to_array(xs), left = to_array(a);
  for (int round = 0; round < 3; ++round) {
    for (std::int64_t t = 0; t < 40; ++t) {
      const Array right = naive::select(plain, 0, t);
      CHECK(difference(matmul(a, xs[t]), naive::matmul(left, right), 1e-13, 1.0) == "");
      CHECK(difference(matmul(slice(a, 1, 1, 6), transpose(xs[t])),
                       naive::matmul(naive::slice(left, 1, 1, 6, 1), naive::transpose(right, 0, 1)),
                       1e-13, 1.0) == "");
    }
  }
}

TEST_CASE("matmul: NaN and infinity spread as they do in a sum") {
  const double inf = std::numeric_limits<double>::infinity();
  const Tensor a = tensor({{0.0, 1.0}, {2.0, 3.0}}, DType::f64);
  const Tensor b = tensor({{inf, 1.0}, {1.0, std::nan("")}}, DType::f64);
  const Tensor y = matmul(a, b);
  CHECK(std::isnan(y[0][0].item()));  // 0 * inf + 1
  CHECK(std::isnan(y[0][1].item()));
  CHECK(y[1][0].item() == inf);
  CHECK(std::isnan(y[1][1].item()));
}

TEST_CASE("matmul: errors name both shapes and the sizes that differ") {
  CHECK_THROWS_WITH_AS(
      matmul(zeros({32, 128}), zeros({64, 256})),
      "matmul: inner dimensions differ: a is (32, 128), b is (64, 256): a.size(-1) "
      "= 128, b.size(-2) = 64",
      ShapeError);
  CHECK_THROWS_WITH_AS(
      matmul(zeros({2, 3}), zeros({4})),
      "matmul: inner dimensions differ: a is (2, 3), b is (4): a.size(-1) = 3, b.size(0) = 4",
      ShapeError);
  CHECK_THROWS_WITH_AS(
      matmul(zeros({2}), zeros({3, 4})),
      "matmul: inner dimensions differ: a is (2), b is (3, 4): a.size(-1) = 2, b.size(-2) = 3",
      ShapeError);
  CHECK_THROWS_WITH_AS(
      matmul(zeros({2, 3, 4}), zeros({3, 4, 5})),
      "matmul: leading dimensions: shapes (2) and (3) do not broadcast: sizes 2 and 3 "
      "differ at dimension -1",
      ShapeError);
  CHECK_THROWS_WITH_AS(matmul(zeros({}), zeros({3})),
                       "matmul: needs one dimension or more: a is (), b is (3)", ShapeError);
  CHECK_THROWS_WITH_AS(matmul(zeros({2, 3}), zeros({3, 4}, DType::f64)),
                       "matmul: dtypes differ: f32 and f64", DTypeError);
  CHECK_THROWS_WITH_AS(matmul(zeros({2, 3}, DType::i64), zeros({3, 4}, DType::i64)),
                       "matmul: needs a floating-point tensor, got i64", DTypeError);
}
