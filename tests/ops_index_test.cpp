/// Indexing: the op table, gradients that land in their place, and the errors.

#include <doctest/doctest.h>

#include "framework/gradcheck.h"
#include "tests/naive.h"
#include "tests/support.h"

using namespace unroll;
using namespace unroll::test;

namespace {

using Inputs = const std::vector<Tensor>&;
using Arrays = const std::vector<Array>&;
using Indices = std::vector<std::int64_t>;

std::vector<Op> view_table() {
  std::vector<Op> rows;
  const auto add = [&](const char* name, const Shape& shape,
                       std::function<Tensor(const Tensor&)> run,
                       std::function<Array(const Array&)> expected) {
    rows.push_back({.name = name,
                    .run = [=](Inputs x) { return run(x[0]); },
                    .expected = [=](Arrays x) { return expected(x[0]); },
                    .shapes = {{shape}},
                    .takes = Takes::any,
                    .view = true});
  };

  for (const auto& [shape_, dim_, index_] :
       std::vector<std::tuple<Shape, std::int64_t, std::int64_t>>{
           {{5}, 0, 0},
           {{5}, 0, -1},
           {{3, 4}, 0, 2},
           {{3, 4}, 1, 1},
           {{3, 4}, -1, -4},
           {{2, 3, 4}, 1, 2},
           {{2, 0, 3}, 0, 1},
           {{1, 2, 1, 2, 1, 2, 1, 2}, 5, 1}}) {
    const Shape shape = shape_;
    const std::int64_t dim = dim_, index = index_, d = dim < 0 ? dim + shape.size() : dim;
    add(
        "select", shape, [=](const Tensor& x) { return select(x, dim, index); },
        [=](const Array& x) {
          return naive::select(x, d, index < 0 ? index + x.shape[d] : index);
        });
  }
  add(
      "operator[]", {3, 4}, [](const Tensor& x) { return x[1]; },
      [](const Array& x) { return naive::select(x, 0, 1); });
  add(
      "operator[]", {3, 4}, [](const Tensor& x) { return x[-1][2]; },
      [](const Array& x) { return naive::select(naive::select(x, 0, 2), 0, 2); });

  // start and end as written, and as they count from the front after they are cut.
  struct Slice {
    Shape shape;
    std::int64_t dim, start, end, step, first, last;
  };
  for (const Slice& s : std::vector<Slice>{{{7}, 0, 0, 7, 1, 0, 7},
                                           {{7}, 0, 2, 5, 1, 2, 5},
                                           {{7}, 0, 1, 7, 2, 1, 7},
                                           {{7}, 0, 0, 7, 3, 0, 7},
                                           {{7}, 0, 0, 7, 100, 0, 7},
                                           {{7}, 0, -3, -1, 1, 4, 6},
                                           {{7}, 0, -100, 100, 2, 0, 7},
                                           {{7}, 0, 5, 2, 1, 5, 5},
                                           {{7}, 0, 100, 200, 1, 7, 7},
                                           {{3, 5}, -1, 1, 5, 2, 1, 5},
                                           {{3, 5}, 0, 1, 3, 1, 1, 3},
                                           {{4, 2, 3}, 1, 0, 1, 1, 0, 1},
                                           {{0, 2}, 0, 0, 5, 1, 0, 0},
                                           {{0, 2}, 1, 1, 2, 1, 1, 2},
                                           {{7}, 0, 3, INT64_MAX, 1, 3, 7},
                                           {{7}, 0, INT64_MIN, 3, 1, 0, 3}}) {
    add(
        "slice", s.shape, [=](const Tensor& x) { return slice(x, s.dim, s.start, s.end, s.step); },
        [=](const Array& x) {
          return naive::slice(x, s.dim < 0 ? s.dim + x.shape.size() : s.dim, s.first, s.last,
                              s.step);
        });
  }
  for (const auto& [shape_, dim_, start_, length_] :
       std::vector<std::tuple<Shape, std::int64_t, std::int64_t, std::int64_t>>{
           {{5}, 0, 0, 5},
           {{5}, 0, 2, 2},
           {{5}, 0, 5, 0},
           {{3, 4}, 1, 1, 2},
           {{3, 4}, -2, 2, 1},
           {{0, 3}, 0, 0, 0},
           {{2, 3, 4}, 1, 0, 2}}) {
    const Shape shape = shape_;
    const std::int64_t dim = dim_, start = start_, length = length_;
    add(
        "narrow", shape, [=](const Tensor& x) { return narrow(x, dim, start, length); },
        [=](const Array& x) {
          return naive::slice(x, dim < 0 ? dim + x.shape.size() : dim, start, start + length, 1);
        });
  }
  return rows;
}

std::vector<Op> copy_table() {
  std::vector<Op> rows;
  const auto add = [&](const char* name, const Shape& shape,
                       std::function<Tensor(const Tensor&)> run,
                       std::function<Array(const Array&)> expected, Takes takes = Takes::any) {
    rows.push_back({.name = name,
                    .run = [=](Inputs x) { return run(x[0]); },
                    .expected = [=](Arrays x) { return expected(x[0]); },
                    .shapes = {{shape}},
                    .takes = takes});
  };

  for (const auto& [shape_, dim_, list_] :
       std::vector<std::tuple<Shape, std::int64_t, Indices>>{{{5}, 0, {4, 0, 0, 2}},
                                                             {{3, 4}, 0, {2, 2, 1}},
                                                             {{3, 4}, 1, {3, 0, 3}},
                                                             {{3, 4}, -1, {}},
                                                             {{2, 3, 4}, 1, {1}},
                                                             {{0, 3}, 1, {2, 0}},
                                                             {{2, 0, 3}, 2, {1, 1}},
                                                             {{50, 3}, 0, {49, 0, 7, 7}}}) {
    const Shape shape = shape_;
    const std::int64_t dim = dim_, d = dim < 0 ? dim + shape.size() : dim;
    const Indices list = list_;
    const Tensor index = from_vector(list);
    add(
        "index_select", shape, [=](const Tensor& x) { return index_select(x, dim, index); },
        [=](const Array& x) { return naive::index_select(x, d, list); });
  }

  for (const auto& [shape_, dim_, list_, index_shape_] :
       std::vector<std::tuple<Shape, std::int64_t, Indices, Shape>>{
           {{5}, 0, {4, 0, 0}, {3}},
           {{2, 3}, 1, {0, 2, 1, 1}, {2, 2}},
           {{2, 3}, 0, {0, 1, 1}, {1, 3}},
           {{3, 2}, -1, {1, 1, 0, 0, 1, 0, 1, 1, 1}, {3, 3}},
           {{3, 2}, 0, {2, 2, 0, 1, 0, 0, 1, 1}, {4, 2}},
           {{2, 2, 2}, 1, {1, 0, 0, 1, 1, 1}, {2, 3, 1}},
           {{2, 3}, 1, {}, {2, 0}},
           {{2, 3}, 1, {}, {0, 2}},
           {{0, 3}, 1, {}, {0, 2}}}) {
    const Shape shape = shape_, index_shape = index_shape_;
    const std::int64_t dim = dim_, d = dim < 0 ? dim + shape.size() : dim;
    const Tensor index = from_vector(list_, index_shape);
    const Array positions = to_array(index);
    add(
        "gather", shape, [=](const Tensor& x) { return gather(x, dim, index); },
        [=](const Array& x) { return naive::gather(x, d, positions); });
  }

  for (const auto& [list_, index_shape_] : std::vector<std::pair<Indices, Shape>>{
           {{2}, {}}, {{0, 3, 3, 1}, {4}}, {{0, 1, 1, 2, 3, 0}, {2, 3}}, {{}, {0}}, {{}, {2, 0}}}) {
    const Indices list = list_;
    const Tensor indices = from_vector(list, index_shape_);
    Shape shape = index_shape_;
    shape.push_back(2);
    add(
        "embedding", {4, 2}, [=](const Tensor& x) { return embedding(x, indices); },
        [=](const Array& x) { return naive::reshape(naive::index_select(x, 0, list), shape); });
  }

  for (const Shape& shape : {Shape{4, 4}, Shape{2, 5}, Shape{5, 2}, Shape{2, 3, 2}, Shape{1, 1},
                             Shape{0, 3}, Shape{3, 0}, Shape{2, 0, 3}, Shape{40, 70}}) {
    for (std::int64_t k : {0, 1, -1, -2, 10, -10}) {
      add(
          "tril", shape, [=](const Tensor& x) { return tril(x, k); },
          [=](const Array& x) {
            return naive::band([k](std::int64_t i, std::int64_t j) { return j - i <= k; }, x);
          });
      add(
          "triu", shape, [=](const Tensor& x) { return triu(x, k); },
          [=](const Array& x) {
            return naive::band([k](std::int64_t i, std::int64_t j) { return j - i >= k; }, x);
          });
    }
  }
  return rows;
}

}  // namespace

TEST_CASE("index: select, slice and narrow have the values of their definitions and share memory") {
  for (const Op& op : view_table()) check_values(op);
}
TEST_CASE("index: select, slice and narrow pass gradcheck of orders 1 and 2") {
  for (const Op& op : view_table()) check_gradients(op);
}
TEST_CASE(
    "index: index_select, gather, embedding, tril and triu have the values of their definitions") {
  for (const Op& op : copy_table()) check_values(op);
}
TEST_CASE(
    "index: index_select, gather, embedding, tril and triu pass gradcheck of orders 1 and 2") {
  for (const Op& op : copy_table()) check_gradients(op);
}

TEST_CASE("index: one_hot gives rows of the identity in every dtype") {
  for (DType dtype : {DType::f32, DType::f64, DType::i64}) {
    const Tensor y = one_hot(from_vector(Indices{2, 0, 1, 2}, {2, 2}), 3, dtype);
    CHECK(y.dtype() == dtype);
    CHECK(difference(y, {{2, 2, 3}, {0, 0, 1, 1, 0, 0, 0, 1, 0, 0, 0, 1}}, 0.0) == "");
  }
  CHECK(difference(one_hot(from_vector(Indices{1}, {}), 2), {{2}, {0, 1}}, 0.0) == "");
  CHECK(one_hot(zeros({2, 0}, DType::i64), 3).shape() == Shape{2, 0, 3});
  CHECK(one_hot(zeros({0}, DType::i64), 0).shape() == Shape{0, 0});
  // A transposed index.
  CHECK(difference(one_hot(transpose(from_vector(Indices{0, 1, 1, 1}, {2, 2})), 2),
                   {{2, 2, 2}, {1, 0, 0, 1, 0, 1, 0, 1}}, 0.0) == "");
}

TEST_CASE("index: indices may lie in any layout, and are the caller's to change afterwards") {
  Tensor table = arange(0.0, 12.0, 1.0, DType::f64);
  table = reshape(table, {6, 2});
  for (Layout layout : kLayouts) {
    INFO(to_string(layout));
    Tensor index = lay_out(from_vector(Indices{5, 1, 0, 5, 2, 2}, {2, 3}), layout);
    const Array before = to_array(index);
    Tensor w = table.clone().requires_grad_();
    const Tensor y = embedding(w, index);
    const Tensor picked = gather(transpose(w), 1, index);
    if (layout != Layout::first_repeated && layout != Layout::last_repeated) index.zero_();
    const Tensor g = grad(sum(y) + sum(picked), w);
    Array expected{{6, 2}, std::vector<double>(12, 0.0)};
    for_each_index(before.shape, [&](const Shape& at) {
      const auto row = static_cast<std::int64_t>(before.at(at));
      expected.at({row, 0}) += 1.0;
      expected.at({row, 1}) += 1.0;
      expected.at({row, at[0]}) += 1.0;
      CHECK(to_array(y).at({at[0], at[1], 1}) == static_cast<double>(2 * row + 1));
    });
    CHECK(difference(g, expected, 0.0) == "");
  }
}

TEST_CASE("index: padding_idx gets no gradient of first or second order") {
  Generator generator(2);
  Tensor w = uniform({4, 2}, -1.0, 1.0, DType::f64, generator).requires_grad_();
  const Tensor indices = from_vector(Indices{1, 0, 3, 1, 1}, {5});
  const Tensor y = embedding(w, indices, 1);
  CHECK(difference(y, naive::index_select(to_array(w), 0, {1, 0, 3, 1, 1}), 0.0) == "");
  const Tensor g = grad(sum(square(y)), w, {.create_graph = true});
  Array expected = naive::map([](double v) { return 2.0 * v; }, to_array(w));
  for (std::int64_t j = 0; j < 2; ++j) expected.at({1, j}) = expected.at({2, j}) = 0.0;
  CHECK(difference(g, expected, 1e-15) == "");
  // d/dw of sum(g^2) = 8 w in the rows that count.
  const Tensor h = grad(sum(square(g)), w);
  CHECK(difference(h, naive::map([](double v) { return 4.0 * v; }, expected), 1e-15) == "");
}

TEST_CASE("index: the gradients of many slices add up to the dense gradient") {
  Generator generator(3);
  for (DType dtype : {DType::f32, DType::f64}) {
    Tensor x = uniform({9, 4}, -1.0, 1.0, dtype, generator).requires_grad_();
    const Tensor weights = uniform({9, 4}, -1.0, 1.0, dtype, generator);
    const Tensor w1 = uniform({4}, -1.0, 1.0, dtype, generator);
    Tensor total = zeros({}, dtype);
    for (std::int64_t t = 0; t < 9; ++t) total = total + sum(square(x[t]) * weights[t]);
    for (std::int64_t t = 0; t + 1 < 9; ++t) total = total + sum(x[t] * x[t + 1]);
    for (const Tensor& column : split(x, 1, 1)) total = total + sum(column * 0.25);
    total = total + sum(slice(x, 0, 1, 9, 3) * w1) + sum(flip(x, 0) * weights) + sum(x);
    const Tensor g = grad(total, x);

    const Array plain = to_array(x), w = to_array(weights), v = to_array(w1);
    const Array expected = generate({9, 4}, [&](const Shape& i) {
      double s = 2.0 * plain.at(i) * w.at(i) + 0.25 + w.at({8 - i[0], i[1]}) + 1.0;
      if (i[0] > 0) s += plain.at({i[0] - 1, i[1]});
      if (i[0] < 8) s += plain.at({i[0] + 1, i[1]});
      if (i[0] % 3 == 1) s += v.at({i[1]});
      return s;
    });
    CHECK(difference(g, expected, dtype == DType::f32 ? 1e-5 : 1e-13, 1.0) == "");
  }
}

TEST_CASE("index: slices of slices and of results pass gradcheck of orders 1 and 2") {
  Generator generator(4);
  Tensor x = uniform({4, 5}, -1.0, 1.0, DType::f64, generator).requires_grad_();
  const Tensor index = from_vector(Indices{1, 1, 0});
  const auto f = [&](const std::vector<Tensor>& in) {
    const Tensor y = tanh(in[0]);
    const Tensor part = slice(narrow(y, 0, 1, 3), 1, 0, 5, 2);
    const Tensor rows = index_select(transpose(part), 0, index);
    return square(rows) * y[0][1] + sum(square(in[0][2])) + select(in[0], 1, -1)[3] * part[0][0];
  };
  CHECK(gradcheck_message(f, {x}, {.order = 2}) == "");
}

TEST_CASE("index: errors name the operation, the position and the range") {
  const Tensor x = zeros({3, 5});
  CHECK_THROWS_WITH_AS(select(x, 0, 5), "select: index 5 is out of range for size 3 of dimension 0",
                       IndexError);
  CHECK_THROWS_WITH_AS(select(x, -1, -6),
                       "select: index -6 is out of range for size 5 of dimension 1", IndexError);
  CHECK_THROWS_WITH_AS(x[3], "select: index 3 is out of range for size 3 of dimension 0",
                       IndexError);
  CHECK_THROWS_WITH_AS(x[0][0][0], "select: dimension 0 is out of range for a scalar", IndexError);
  CHECK_THROWS_WITH_AS(select(x, 2, 0),
                       "select: dimension 2 is out of range for shape (3, 5): expected -2 to 1",
                       IndexError);
  CHECK_THROWS_WITH_AS(slice(x, 0, 0, 3, 0), "slice: step must be 1 or more, got 0", ValueError);
  CHECK_THROWS_WITH_AS(slice(x, 0, 0, 3, -1), "slice: step must be 1 or more, got -1", ValueError);
  CHECK_THROWS_WITH_AS(slice(x, 4, 0, 3),
                       "slice: dimension 4 is out of range for shape (3, 5): expected -2 to 1",
                       IndexError);
  CHECK_THROWS_WITH_AS(narrow(x, 1, 3, 3),
                       "narrow: 3 elements from 3 are out of range for size 5 of dimension 1",
                       IndexError);
  CHECK_THROWS_WITH_AS(narrow(x, 1, -1, 3),
                       "narrow: 3 elements from -1 are out of range for size 5 of dimension 1",
                       IndexError);
  CHECK_THROWS_WITH_AS(narrow(x, 0, 1, -1),
                       "narrow: -1 elements from 1 are out of range for size 3 of dimension 0",
                       IndexError);
  CHECK_THROWS_WITH_AS(index_select(x, 1, from_vector(Indices{0, 4, 7})),
                       "index_select: index 7 at position 2 is out of range [0, 5)", IndexError);
  CHECK_THROWS_WITH_AS(index_select(x, 1, from_vector(Indices{-1})),
                       "index_select: index -1 at position 0 is out of range [0, 5)", IndexError);
  CHECK_THROWS_WITH_AS(index_select(x, 0, zeros({2, 2}, DType::i64)),
                       "index_select: the index has one dimension, got shape (2, 2)", ShapeError);
  CHECK_THROWS_WITH_AS(index_select(x, 0, zeros({2})), "index_select: indices are i64, got f32",
                       DTypeError);
  CHECK_THROWS_WITH_AS(gather(x, 1, from_vector(Indices{0, 1, 2, 5}, {2, 2})),
                       "gather: index 5 at position (1, 1) is out of range [0, 5)", IndexError);
  CHECK_THROWS_WITH_AS(
      gather(x, 1, zeros({4, 2}, DType::i64)),
      "gather: index (4, 2) does not fit (3, 5): same rank, and no size but that of "
      "dimension 1 larger",
      ShapeError);
  CHECK_THROWS_WITH_AS(gather(x, 1, zeros({3}, DType::i64)),
                       "gather: index (3) does not fit (3, 5): same rank, and no size but that of "
                       "dimension 1 larger",
                       ShapeError);
  CHECK_THROWS_WITH_AS(gather(x, 0, zeros({3, 5})), "gather: indices are i64, got f32", DTypeError);
  CHECK_THROWS_WITH_AS(embedding(x, from_vector(Indices{0, 3}, {2, 1})),
                       "embedding: index 3 at position (1, 0) is out of range [0, 3)", IndexError);
  CHECK_THROWS_WITH_AS(embedding(x, from_vector(Indices{3}, {})),
                       "embedding: index 3 at position () is out of range [0, 3)", IndexError);
  CHECK_THROWS_WITH_AS(embedding(x, zeros({2})), "embedding: indices are i64, got f32", DTypeError);
  CHECK_THROWS_WITH_AS(embedding(zeros({3}), zeros({2}, DType::i64)),
                       "embedding: the table has two dimensions, got shape (3)", ShapeError);
  CHECK_THROWS_WITH_AS(embedding(x, zeros({2}, DType::i64), 3),
                       "embedding: padding_idx 3 is out of range for 3 rows", IndexError);
  CHECK_THROWS_WITH_AS(one_hot(from_vector(Indices{0, 3}), 3),
                       "one_hot: index 3 at position 1 is out of range [0, 3)", IndexError);
  CHECK_THROWS_WITH_AS(one_hot(zeros({0}, DType::i64), -1),
                       "one_hot: classes must not be negative, got -1", ValueError);
  CHECK_THROWS_WITH_AS(one_hot(zeros({2}), 3), "one_hot: indices are i64, got f32", DTypeError);
  CHECK_THROWS_WITH_AS(tril(zeros({3})), "tril: needs two dimensions or more, got shape (3)",
                       ShapeError);
  CHECK_THROWS_WITH_AS(triu(zeros({})), "triu: needs two dimensions or more, got shape ()",
                       ShapeError);
}
