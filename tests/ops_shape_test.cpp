/// Operations on shapes: the op table, which of them are views, and the errors.

#include <doctest/doctest.h>

#include "tests/naive.h"
#include "tests/support.h"

using namespace unroll;
using namespace unroll::test;

namespace {

using Inputs = const std::vector<Tensor>&;
using Arrays = const std::vector<Array>&;

/// A view of one input of one shape.
Op view_of(const char* name, const Shape& shape, std::function<Tensor(const Tensor&)> run,
           std::function<Array(const Array&)> expected) {
  return {.name = name,
          .run = [=](Inputs x) { return run(x[0]); },
          .expected = [=](Arrays x) { return expected(x[0]); },
          .shapes = {{shape}},
          .takes = Takes::any,
          .view = true};
}

std::vector<Op> view_table() {
  std::vector<Op> rows;
  for (const auto& [shape, d0, d1] :
       std::vector<std::tuple<Shape, std::int64_t, std::int64_t>>{{{3, 4}, 0, 1},
                                                                  {{3, 4}, -1, -2},
                                                                  {{2, 3, 4}, 0, 2},
                                                                  {{2, 3, 4}, 1, 1},
                                                                  {{5}, 0, -1},
                                                                  {{0, 3}, 0, 1},
                                                                  {{2, 1, 2, 1, 2, 1, 2}, 0, 5}}) {
    const std::int64_t a = d0, b = d1, n = shape.size();
    rows.push_back(view_of(
        "transpose", shape, [=](const Tensor& x) { return transpose(x, a, b); },
        [=](const Array& x) { return naive::transpose(x, (a + n) % n, (b + n) % n); }));
  }
  rows.push_back(view_of(
      "transpose", {2, 3, 4}, [](const Tensor& x) { return transpose(x); },
      [](const Array& x) { return naive::transpose(x, 1, 2); }));

  for (const auto& [shape, order, plain] : std::vector<std::tuple<Shape, Shape, Shape>>{
           {{2, 3, 4}, {2, 0, 1}, {2, 0, 1}},
           {{2, 3, 4}, {-1, -2, -3}, {2, 1, 0}},
           {{2, 3, 4}, {0, 1, 2}, {0, 1, 2}},
           {{}, {}, {}},
           {{2, 0, 3}, {1, 2, 0}, {1, 2, 0}},
           {{1, 2, 1, 2, 1, 2, 1}, {6, 5, 4, 3, 2, 1, 0}, {6, 5, 4, 3, 2, 1, 0}}}) {
    const Shape by = order, expected_by = plain;
    rows.push_back(view_of(
        "permute", shape, [=](const Tensor& x) { return permute(x, by); },
        [=](const Array& x) { return naive::permute(x, expected_by); }));
  }

  for (const auto& [shape, dims, plain] :
       std::vector<std::tuple<Shape, Shape, Shape>>{{{5}, {0}, {0}},
                                                    {{3, 4}, {1}, {1}},
                                                    {{3, 4}, {0, -1}, {0, 1}},
                                                    {{2, 0, 3}, {1, 2}, {1, 2}},
                                                    {{2, 3, 2}, {-2}, {1}},
                                                    {{1}, {0}, {0}}}) {
    const Axes axes(dims);
    const Shape expected_dims = plain;
    rows.push_back(view_of(
        "flip", shape, [=](const Tensor& x) { return flip(x, axes); },
        [=](const Array& x) { return naive::flip(x, expected_dims); }));
  }

  for (const auto& [from, to] :
       std::vector<std::pair<Shape, Shape>>{{{}, {}},
                                            {{}, {3}},
                                            {{}, {2, 3}},
                                            {{4}, {3, 4}},
                                            {{3, 1}, {3, 4}},
                                            {{3, 1}, {2, 3, 4}},
                                            {{1}, {0}},
                                            {{3, 1}, {3, 0}},
                                            {{0}, {2, 0}},
                                            {{2, 3}, {2, 3}},
                                            {{1, 2, 1}, {2, 1, 2, 1, 2, 1, 2, 3}}}) {
    const Shape shape = to;
    rows.push_back(view_of(
        "broadcast_to", from, [=](const Tensor& x) { return broadcast_to(x, shape); },
        [=](const Array& x) { return naive::broadcast_to(x, shape); }));
  }

  for (const auto& [shape, dim, result] : std::vector<std::tuple<Shape, std::int64_t, Shape>>{
           {{1}, 0, {}}, {{3, 1, 4}, 1, {3, 4}}, {{3, 4, 1}, -1, {3, 4}}, {{1, 0}, 0, {0}}}) {
    const std::int64_t d = dim;
    const Shape without = result, with = shape;
    rows.push_back(view_of(
        "squeeze", with, [=](const Tensor& x) { return squeeze(x, d); },
        [=](const Array& x) { return naive::reshape(x, without); }));
    rows.push_back(view_of(
        "unsqueeze", without, [=](const Tensor& x) { return unsqueeze(x, d); },
        [=](const Array& x) { return naive::reshape(x, with); }));
  }
  return rows;
}

/// reshape and flatten: a view where strides allow it, so nothing is asked about memory here.
struct Reshape {
  Shape from, wanted, to;
};
const std::vector<Reshape> kReshapes = {
    {{}, {}, {}},
    {{}, {1}, {1}},
    {{}, {1, 1, 1}, {1, 1, 1}},
    {{1}, {}, {}},
    {{6}, {2, 3}, {2, 3}},
    {{2, 3}, {6}, {6}},
    {{2, 3}, {3, 2}, {3, 2}},
    {{2, 3}, {-1}, {6}},
    {{2, 3}, {3, -1}, {3, 2}},
    {{2, 3, 4}, {-1, 4}, {6, 4}},
    {{2, 3, 4}, {2, 12}, {2, 12}},
    {{2, 3, 4}, {2, 3, 2, 2}, {2, 3, 2, 2}},
    {{2, 3, 4}, {4, 3, 2}, {4, 3, 2}},
    {{2, 1, 3}, {1, 2, 1, 3, 1}, {1, 2, 1, 3, 1}},
    {{2, 3}, {2, 3, -1}, {2, 3, 1}},
    {{0, 3}, {3, 0}, {3, 0}},
    {{0}, {2, 0, 5}, {2, 0, 5}},
    {{0, 3}, {-1, 3}, {0, 3}},
    {{2, 0}, {2, -1}, {2, 0}},
    {{2, 2, 2, 2}, {1, 2, 1, 2, 1, 2, 1, 2}, {1, 2, 1, 2, 1, 2, 1, 2}},
};

void check_reshape(const Op& op) {
  INFO("op ", op.name);
  Generator generator(3);
  for (DType dtype : {DType::f32, DType::f64, DType::i64}) {
    for (Layout layout : kLayouts) {
      INFO("from ", to_string(op.shapes[0][0]), ", layout ", to_string(layout));
      const Tensor x =
          lay_out(random_tensor(op.shapes[0][0], {-9.0, 9.0}, dtype, generator), layout);
      const Tensor y = op.run({x});
      CHECK(y.dtype() == dtype);
      CHECK(difference(y, op.expected({to_array(x)}), 0.0) == "");
      if (x.is_contiguous()) CHECK(shares_memory(x, y));
    }
  }
}

std::vector<Op> reshape_table() {
  std::vector<Op> rows;
  for (const Reshape& r : kReshapes) {
    rows.push_back({.name = "reshape",
                    .run = [=](Inputs x) { return reshape(x[0], r.wanted); },
                    .expected = [=](Arrays x) { return naive::reshape(x[0], r.to); },
                    .shapes = {{r.from}}});
  }
  for (const auto& [from, start, end, to] :
       std::vector<std::tuple<Shape, std::int64_t, std::int64_t, Shape>>{
           {{}, 0, -1, {1}},
           {{5}, 0, -1, {5}},
           {{2, 3, 4}, 0, -1, {24}},
           {{2, 3, 4}, 1, 2, {2, 12}},
           {{2, 3, 4}, 0, 1, {6, 4}},
           {{2, 3, 4}, -2, -2, {2, 3, 4}},
           {{2, 0, 3}, 0, 1, {0, 3}}}) {
    const std::int64_t first = start, last = end;
    const Shape result = to;
    rows.push_back({.name = "flatten",
                    .run = [=](Inputs x) { return flatten(x[0], first, last); },
                    .expected = [=](Arrays x) { return naive::reshape(x[0], result); },
                    .shapes = {{from}}});
  }
  return rows;
}

std::vector<Op> join_table() {
  std::vector<Op> rows;
  const auto add = [&](const char* name, const std::vector<Shape>& shapes, std::int64_t dim,
                       std::int64_t plain) {
    const bool stacks = std::string(name) == "stack";
    rows.push_back({.name = name,
                    .run = [=](Inputs x) { return stacks ? stack(x, dim) : concatenate(x, dim); },
                    .expected =
                        [=](Arrays x) {
                          return stacks ? naive::stack(x, plain) : naive::concatenate(x, plain);
                        },
                    .shapes = {shapes},
                    .takes = Takes::any});
  };
  add("concatenate", {{3}}, 0, 0);
  add("concatenate", {{3}, {2}, {4}}, 0, 0);
  add("concatenate", {{2, 3}, {2, 1}, {2, 2}}, 1, 1);
  add("concatenate", {{2, 3}, {1, 3}}, 0, 0);
  add("concatenate", {{2, 1, 3}, {2, 2, 3}}, -2, 1);
  add("concatenate", {{0, 3}, {2, 3}, {0, 3}}, 0, 0);
  add("concatenate", {{2, 0}, {2, 0}}, 1, 1);
  add("concatenate", {{0, 3}, {0, 2}}, 1, 1);
  add("concatenate", {{40, 33}, {40, 67}}, 1, 1);
  add("stack", {{}}, 0, 0);
  add("stack", {{}, {}, {}}, -1, 0);
  add("stack", {{3}, {3}}, 0, 0);
  add("stack", {{3}, {3}}, 1, 1);
  add("stack", {{2, 3}, {2, 3}, {2, 3}}, -1, 2);
  add("stack", {{2, 3}, {2, 3}}, -3, 0);
  add("stack", {{0}, {0}}, 0, 0);
  add("stack", {{1, 2, 1, 2, 1, 2}, {1, 2, 1, 2, 1, 2}}, 3, 3);
  return rows;
}

}  // namespace

TEST_CASE("shape: views have the values of their definitions and share memory") {
  for (const Op& op : view_table()) check_values(op);
}
TEST_CASE("shape: views pass gradcheck of orders 1 and 2") {
  for (const Op& op : view_table()) check_gradients(op);
}

TEST_CASE("shape: reshape and flatten keep the order of the elements, whatever the strides") {
  for (const Op& op : reshape_table()) check_reshape(op);
}
TEST_CASE("shape: reshape and flatten pass gradcheck of orders 1 and 2") {
  for (const Op& op : reshape_table()) check_gradients(op);
}

TEST_CASE("shape: reshape copies only where strides demand it") {
  const Tensor x = zeros({4, 6});
  CHECK(shares_memory(reshape(transpose(x), {6, 2, 2}), x));
  CHECK(shares_memory(reshape(transpose(x), {2, 3, 4}), x));
  CHECK(shares_memory(reshape(slice(x, 1, 0, 6, 2), {2, 2, 3}), x));
  CHECK(shares_memory(reshape(slice(x, 1, 0, 4), {4, 2, 2}), x));
  CHECK(shares_memory(reshape(broadcast_to(zeros({1}), {4, 6}), {24}), x) == false);
  CHECK(shares_memory(reshape(flip(x, 0), {2, 2, 6}), x));
  CHECK_FALSE(shares_memory(reshape(transpose(x), {24}), x));
  CHECK_FALSE(shares_memory(reshape(slice(x, 1, 0, 4), {16}), x));
  const Tensor scalar = zeros({});
  const Tensor same = broadcast_to(scalar, {4, 6});
  CHECK(shares_memory(reshape(same, {24}), scalar));
  CHECK(shares_memory(reshape(same, {2, 3, 4}), scalar));
}

TEST_CASE("shape: concatenate and stack have the values of their definitions") {
  for (const Op& op : join_table()) check_values(op);
}
TEST_CASE("shape: concatenate and stack pass gradcheck of orders 1 and 2") {
  for (const Op& op : join_table()) check_gradients(op);
}

TEST_CASE("shape: stacking and joining one tensor several times adds its gradients") {
  Tensor x = tensor({1.0, 2.0}, DType::f64).requires_grad_();
  const Tensor w = tensor({1.0, 2.0, 3.0, 4.0, 5.0, 6.0}, DType::f64);
  CHECK(to_array(grad(sum(concatenate({x, x, x}) * w), x)).values == std::vector{9.0, 12.0});
  CHECK(to_array(grad(sum(stack({x, x, x}, 1) * reshape(w, {2, 3})), x)).values ==
        std::vector{6.0, 15.0});
  // More inputs than a rule has bits for.
  const std::vector<Tensor> many(50, x);
  CHECK(to_array(grad(sum(square(stack(many))), x)).values == std::vector{100.0, 200.0});
  CHECK(to_array(grad(sum(square(concatenate(many))), x)).values == std::vector{100.0, 200.0});
}

TEST_CASE("shape: split and chunk give all of a dimension, piece by piece, as views") {
  Generator generator(4);
  const Tensor x = uniform({2, 7, 3}, 0.0, 1.0, DType::f64, generator);
  const Array plain = to_array(x);
  const auto pieces = split(x, 3, 1);
  REQUIRE(pieces.size() == 3);
  const std::int64_t bounds[] = {0, 3, 6, 7};
  for (std::size_t i = 0; i < 3; ++i) {
    CHECK(shares_memory(pieces[i], x));
    CHECK(difference(pieces[i], naive::slice(plain, 1, bounds[i], bounds[i + 1], 1), 0.0) == "");
  }
  CHECK(split(x, 7, -2).size() == 1);
  CHECK(split(x, 100, 1).size() == 1);
  CHECK(split(x, 1).size() == 2);

  const auto halves = chunk(x, 2);
  REQUIRE(halves.size() == 2);
  CHECK(difference(halves[1], naive::slice(plain, 0, 1, 2, 1), 0.0) == "");
  CHECK(shares_memory(halves[1], x));
  CHECK(chunk(x, 3, -1).size() == 3);
  CHECK(chunk(x, 1, 1)[0].shape() == Shape{2, 7, 3});
  const auto none = chunk(zeros({0, 2}), 3);
  CHECK(none.size() == 3);
  CHECK(none[2].shape() == Shape{0, 2});

  Tensor leaf = x.clone().requires_grad_();
  Tensor total = zeros({}, DType::f64);
  double factor = 1.0;
  for (const Tensor& piece : split(leaf, 3, 1)) total = total + sum(piece) * factor++;
  const Tensor g = grad(total, leaf);
  for_each_index(g.shape(), [&](const Shape& i) {
    CHECK(to_array(g).at(i) == (i[1] < 3 ? 1.0 : i[1] < 6 ? 2.0 : 3.0));
  });
}

TEST_CASE("shape: errors name the operation, what it was given and the rule") {
  const Tensor x = zeros({2, 3}), y = zeros({2, 3, 4});
  CHECK_THROWS_WITH_AS(reshape(x, {4, 2}), "reshape: 6 elements of shape (2, 3) do not fit (4, 2)",
                       ShapeError);
  CHECK_THROWS_WITH_AS(reshape(x, {4, -1}),
                       "reshape: 6 elements of shape (2, 3) do not fit (4, -1)", ShapeError);
  CHECK_THROWS_WITH_AS(reshape(x, {-1, -1}), "reshape: only one size may be -1, got (-1, -1)",
                       ShapeError);
  CHECK_THROWS_WITH_AS(reshape(x, {-2, 3}), "reshape: negative size in shape (-2, 3)", ShapeError);
  CHECK_THROWS_WITH_AS(reshape(zeros({0, 3}), {0, -1}),
                       "reshape: -1 in (0, -1) may stand for any size: (0, 3) has no elements",
                       ShapeError);
  CHECK_THROWS_WITH_AS(flatten(y, 2, 1), "flatten: dimension 2 comes after 1", ShapeError);
  CHECK_THROWS_WITH_AS(flatten(y, 3),
                       "flatten: dimension 3 is out of range for shape (2, 3, 4): "
                       "expected -3 to 2",
                       IndexError);
  CHECK_THROWS_WITH_AS(squeeze(x, 1), "squeeze: dimension 1 of shape (2, 3) has size 3, not 1",
                       ShapeError);
  CHECK_THROWS_WITH_AS(squeeze(x, 2),
                       "squeeze: dimension 2 is out of range for shape (2, 3): expected -2 to 1",
                       IndexError);
  CHECK_THROWS_WITH_AS(unsqueeze(x, 3),
                       "unsqueeze: dimension 3 is out of range for shape (2, 3): expected -3 to 2",
                       IndexError);
  CHECK_THROWS_WITH_AS(transpose(x, 0, 2),
                       "transpose: dimension 2 is out of range for shape (2, 3): expected -2 to 1",
                       IndexError);
  CHECK_THROWS_WITH_AS(transpose(zeros({3})),
                       "transpose: dimension -2 is out of range for shape (3): expected -1 to 0",
                       IndexError);
  CHECK_THROWS_WITH_AS(permute(y, {0, 1}),
                       "permute: (0, 1) is no order of the 3 dimensions of shape (2, 3, 4)",
                       ShapeError);
  CHECK_THROWS_WITH_AS(permute(y, {0, 1, -2}),
                       "permute: (0, 1, -2) is no order of the 3 dimensions of shape (2, 3, 4)",
                       ShapeError);
  CHECK_THROWS_WITH_AS(permute(y, {0, 1, 3}),
                       "permute: dimension 3 is out of range for shape (2, 3, 4): expected -3 to 2",
                       IndexError);
  CHECK_THROWS_WITH_AS(broadcast_to(x, {3, 2}),
                       "broadcast_to: shapes (2, 3) and (3, 2) do not "
                       "broadcast: sizes 3 and 2 differ at dimension -1",
                       ShapeError);
  CHECK_THROWS_WITH_AS(broadcast_to(x, {3}), "broadcast_to: shape (2, 3) does not broadcast to (3)",
                       ShapeError);
  CHECK_THROWS_WITH_AS(broadcast_to(x, {2, 1}),
                       "broadcast_to: shape (2, 3) does not broadcast to (2, 1)", ShapeError);
  CHECK_THROWS_WITH_AS(broadcast_to(zeros({1}), {-1}), "broadcast_to: negative size in shape (-1)",
                       ShapeError);
  CHECK_THROWS_WITH_AS(flip(x, {0, -2}), "flip: dimension -2 is named twice", ShapeError);
  CHECK_THROWS_WITH_AS(flip(x, 2),
                       "flip: dimension 2 is out of range for shape (2, 3): expected -2 to 1",
                       IndexError);
  CHECK_THROWS_WITH_AS(concatenate({}), "concatenate: needs one tensor or more", ShapeError);
  CHECK_THROWS_WITH_AS(concatenate({zeros({})}),
                       "concatenate: dimension 0 is out of range for a "
                       "scalar",
                       IndexError);
  CHECK_THROWS_WITH_AS(
      concatenate({x, zeros({2, 4})}),
      "concatenate: tensor 1 has shape (2, 4), tensor 0 has (2, 3): they must agree "
      "but for dimension 0",
      ShapeError);
  CHECK_THROWS_WITH_AS(concatenate({x, x, zeros({3})}, 1),
                       "concatenate: tensor 2 has shape (3), tensor 0 has (2, 3): they must agree "
                       "but for dimension 1",
                       ShapeError);
  CHECK_THROWS_WITH_AS(concatenate({x, zeros({2, 3}, DType::f64)}),
                       "concatenate: dtypes differ: f32 and f64", DTypeError);
  CHECK_THROWS_WITH_AS(stack({}), "stack: needs one tensor or more", ShapeError);
  CHECK_THROWS_WITH_AS(stack({x, zeros({3, 2})}),
                       "stack: tensor 1 has shape (3, 2), tensor 0 has (2, 3)", ShapeError);
  CHECK_THROWS_WITH_AS(stack({x, x}, 3),
                       "stack: dimension 3 is out of range for shape (2, 3): expected -3 to 2",
                       IndexError);
  CHECK_THROWS_WITH_AS(stack({x, zeros({2, 3}, DType::i64)}), "stack: dtypes differ: f32 and i64",
                       DTypeError);
  CHECK_THROWS_WITH_AS(split(x, 0), "split: needs pieces of 1 or more, got 0", ValueError);
  CHECK_THROWS_WITH_AS(chunk(x, 2, 1),
                       "chunk: dimension 1 of shape (2, 3) does not divide into 2 equal parts",
                       ShapeError);
  CHECK_THROWS_WITH_AS(chunk(x, 0),
                       "chunk: dimension 0 of shape (2, 3) does not divide into 0 equal parts",
                       ShapeError);
}
