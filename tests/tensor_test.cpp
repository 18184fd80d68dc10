/// The tensor itself: how one is made, looked at, viewed, written and printed.

#include <doctest/doctest.h>

#include <cmath>
#include <limits>
#include <sstream>
#include <utility>

#include "tests/support.h"

using namespace unroll;
using namespace unroll::test;

namespace {

constexpr DType kDTypes[] = {DType::f32, DType::f64, DType::i64};
constexpr double kInf = std::numeric_limits<double>::infinity();

std::vector<double> values(const Tensor& x) { return to_array(x).values; }

/// What to_vector should give: element by element, through shape, strides and offset alone.
std::vector<double> by_strides(const Tensor& x) {
  std::vector<double> result;
  const void* first = x.impl().storage->data();
  for_each_index(x.shape(), [&](const Shape& index) {
    std::int64_t at = x.impl().offset;
    for (std::int64_t d = 0; d < x.dim(); ++d) at += index[d] * x.strides()[d];
    switch (x.dtype()) {
      case DType::f32: result.push_back(static_cast<const float*>(first)[at]); break;
      case DType::f64: result.push_back(static_cast<const double*>(first)[at]); break;
      case DType::i64:
        result.push_back(static_cast<double>(static_cast<const std::int64_t*>(first)[at]));
        break;
    }
  });
  return result;
}

}  // namespace

TEST_CASE("shape: holds any number of sizes, and copies and moves them") {
  Shape shape;
  CHECK(shape.empty());
  CHECK(shape.numel() == 1);
  for (std::int64_t i = 0; i < 20; ++i) {
    shape.push_back(i + 1);
    CHECK(shape.size() == i + 1);
    CHECK(shape.back() == i + 1);
    Shape copy = shape;
    CHECK(copy == shape);
    Shape assigned{1, 2};
    assigned = copy;
    CHECK(assigned == shape);
    Shape moved = std::move(copy);
    CHECK(moved == shape);
    CHECK(copy.empty());  // NOLINT: what is left is an empty shape
    assigned = std::move(moved);
    CHECK(assigned == shape);
    assigned[0] = 7;
    CHECK_FALSE(assigned == shape);
  }
  for (std::int64_t i = 0; i < 20; ++i) CHECK(shape[i] == i + 1);
  shape.insert(0, 100);
  shape.insert(21, 200);
  shape.insert(3, 300);
  CHECK(shape.size() == 23);
  CHECK(shape[0] == 100);
  CHECK(shape[3] == 300);
  CHECK(shape[4] == 3);
  CHECK(shape.back() == 200);
  shape.erase(22);
  shape.erase(3);
  shape.erase(0);
  for (std::int64_t i = 0; i < 20; ++i) CHECK(shape[i] == i + 1);
  shape.resize(3);
  CHECK(shape == Shape{1, 2, 3});
  // A short list in the memory of a long one.
  Shape copy = shape, assigned{7, 8};
  assigned = shape;
  shape[0] = 9;
  CHECK(copy == Shape{1, 2, 3});
  CHECK(assigned == copy);
  Shape moved = std::move(shape);
  shape = copy;
  CHECK(moved == Shape{9, 2, 3});
  copy = std::move(moved);
  CHECK(copy == Shape{9, 2, 3});
  CHECK(shape == assigned);
  for (std::int64_t i = 4; i <= 6; ++i) shape.push_back(i);
  CHECK(shape == Shape{1, 2, 3, 4, 5, 6});
  shape.erase(1);
  shape.resize(3);
  shape.resize(5);
  CHECK(shape == Shape{1, 3, 4, 0, 0});
  CHECK(Shape{4, 0, 5}.numel() == 0);
  CHECK(Shape(std::vector<std::int64_t>{3, 4}) == Shape{3, 4});
  CHECK(to_string(Shape{}) == "()");
  CHECK(to_string(Shape{3}) == "(3)");
  CHECK(to_string(Shape{2, 3}) == "(2, 3)");
}

TEST_CASE("tensor: streams take tensors, shapes and dtypes") {
  std::ostringstream out;
  const Tensor x = tensor({{1, 2}, {3, 4}});
  out << x << "|" << x.shape() << "|" << x.dtype() << "|" << Tensor();
  CHECK(out.str() == to_string(x) + "|(2, 2)|f32|tensor(undefined)");
}

TEST_CASE("tensor: an undefined one says so") {
  Tensor x;
  CHECK_FALSE(x.defined());
  CHECK(to_string(x) == "tensor(undefined)");
  CHECK_THROWS_WITH_AS(x.shape(), "tensor: undefined (made by Tensor())", ValueError);
  CHECK_THROWS_WITH_AS(x.item(), "tensor: undefined (made by Tensor())", ValueError);
  CHECK_THROWS_WITH_AS(x.backward(), "tensor: undefined (made by Tensor())", ValueError);
  CHECK_THROWS_WITH_AS(x.fill_(1.0), "tensor: undefined (made by Tensor())", ValueError);
  CHECK_THROWS_WITH_AS(sum(x), "tensor: undefined (made by Tensor())", ValueError);
  CHECK_THROWS_WITH_AS(stack({x}), "tensor: undefined (made by Tensor())", ValueError);
  CHECK(x.is(Tensor()));
}

TEST_CASE("tensor: makers give shape, dtype and values") {
  for (DType dtype : kDTypes) {
    CAPTURE(to_string(dtype));
    for (const Shape& shape : {Shape{}, Shape{3}, Shape{0}, Shape{2, 3}, Shape{2, 0, 3},
                               Shape{1, 2, 1, 2, 1, 2, 1, 2}}) {
      const auto n = static_cast<std::size_t>(shape.numel());
      for (const auto& [x, value] :
           {std::pair{zeros(shape, dtype), 0.0}, std::pair{ones(shape, dtype), 1.0},
            std::pair{full(shape, -7.0, dtype), -7.0},
            std::pair{zeros_like(ones(shape, dtype)), 0.0},
            std::pair{ones_like(zeros(shape, dtype)), 1.0}}) {
        CHECK(x.shape() == shape);
        CHECK(x.dtype() == dtype);
        CHECK(x.dim() == shape.size());
        CHECK(x.numel() == shape.numel());
        CHECK(x.is_contiguous());
        CHECK_FALSE(x.requires_grad());
        CHECK(x.is_leaf());
        CHECK(values(x) == std::vector<double>(n, value));
      }
      CHECK(empty(shape, dtype).shape() == shape);
    }
    CHECK(values(arange(4, dtype)) == std::vector{0.0, 1.0, 2.0, 3.0});
    CHECK(arange(0, dtype).shape() == Shape{0});
    CHECK(values(arange(1.0, 8.0, 3.0, dtype)) == std::vector{1.0, 4.0, 7.0});
    CHECK(values(arange(1.0, 7.0, 3.0, dtype)) == std::vector{1.0, 4.0});
    CHECK(values(arange(3.0, 0.0, -1.0, dtype)) == std::vector{3.0, 2.0, 1.0});
    CHECK(arange(3.0, 0.0, 1.0, dtype).shape() == Shape{0});
    CHECK(values(linspace(0.0, 6.0, 4, dtype)) == std::vector{0.0, 2.0, 4.0, 6.0});
    CHECK(values(linspace(5.0, 6.0, 1, dtype)) == std::vector{5.0});
    CHECK(values(linspace(3.0, -3.0, 3, dtype)) == std::vector{3.0, 0.0, -3.0});
    CHECK(values(eye(2, dtype)) == std::vector{1.0, 0.0, 0.0, 1.0});
    CHECK(eye(0, dtype).shape() == Shape{0, 0});
    CHECK(tensor(3.0, dtype).shape() == Shape{});
    CHECK(values(tensor({1.0, 2.0}, dtype)) == std::vector{1.0, 2.0});
    CHECK(tensor({3.0}, dtype).shape() == Shape{1});
    CHECK(tensor({{3.0}}, dtype).shape() == Shape{1, 1});
    CHECK(tensor({{1.0}, {2.0}}, dtype).shape() == Shape{2, 1});
    CHECK(values(tensor({{1}, {2}}, dtype)) == std::vector{1.0, 2.0});
    const Tensor rows = tensor({{1.0, 2.0, 3.0}, {4.0, 5.0, 6.0}}, dtype);
    CHECK(rows.shape() == Shape{2, 3});
    CHECK(rows.dtype() == dtype);
    CHECK(values(rows) == std::vector{1.0, 2.0, 3.0, 4.0, 5.0, 6.0});
  }
  CHECK(zeros({1}).dtype() == DType::f32);
  CHECK(tensor({1.0}).dtype() == DType::f32);
  CHECK(arange(3).dtype() == DType::i64);
  CHECK(arange(0.0, 1.0, 0.5).dtype() == DType::f32);
  CHECK(values(arange(0.0, 1.0, 0.25, DType::f64)) == std::vector{0.0, 0.25, 0.5, 0.75});
  CHECK(from_vector(std::vector<float>{1.0f}).dtype() == DType::f32);
  CHECK(from_vector(std::vector<double>{1.0, 2.0}, {2, 1}).dtype() == DType::f64);
  CHECK(from_vector(std::vector<std::int64_t>{5}, {}).shape() == Shape{});
  const Tensor ends = linspace(0.1, 0.7, 7, DType::f64);
  CHECK(ends[0].item() == 0.1);
  CHECK(ends[6].item() == 0.7);
}

TEST_CASE("tensor: makers refuse shapes and numbers that make no sense") {
  CHECK_THROWS_WITH_AS(zeros({2, -1}), "empty: negative size in shape (2, -1)", ShapeError);
  CHECK_THROWS_WITH_AS(empty({-1}), "empty: negative size in shape (-1)", ShapeError);
  CHECK_THROWS_WITH_AS(eye(-2), "empty: negative size in shape (-2, -2)", ShapeError);
  const std::int64_t huge = std::int64_t{1} << 40;
  CHECK_THROWS_WITH_AS(empty({huge, huge}),
                       "empty: shape (1099511627776, 1099511627776) is too large", ShapeError);
  CHECK_THROWS_WITH_AS(empty({INT64_MAX}, DType::f64),
                       "empty: shape (9223372036854775807) is too large", ShapeError);
  // Products of a part of the sizes must not overflow, either.
  CHECK_THROWS_WITH_AS(zeros({0, huge, huge}),
                       "empty: shape (0, 1099511627776, 1099511627776) is too large", ShapeError);
  CHECK(zeros({huge, 0}).numel() == 0);
  const std::int64_t root = std::int64_t{1} << 32;  // root * root is 0 in 64 bits
  CHECK_THROWS_WITH_AS(reshape(zeros({0}), {root, root}),
                       "reshape: shape (4294967296, 4294967296) is too large", ShapeError);
  CHECK_THROWS_WITH_AS(broadcast_to(zeros({}), {root, root}),
                       "broadcast_to: shape (4294967296, 4294967296) is too large", ShapeError);
  CHECK_THROWS_WITH_AS(arange(-1), "arange: n = -1 is negative", ValueError);
  CHECK_THROWS_WITH_AS(arange(0.0, 1.0, 0.0), "arange: no range from 0 to 1 in steps of 0",
                       ValueError);
  CHECK_THROWS_WITH_AS(arange(0.0, kInf, 1.0), "arange: no range from 0 to inf in steps of 1",
                       ValueError);
  CHECK_THROWS_WITH_AS(arange(0.0, 1e300, 1.0), "arange: 0 to 1e+300 in steps of 1 is too long",
                       ValueError);
  CHECK_THROWS_WITH_AS(linspace(0.0, 1.0, 0), "linspace: needs 1 step or more, got 0", ValueError);
  CHECK_THROWS_WITH_AS(tensor({{1.0, 2.0}, {3.0}}), "tensor: rows of 2 and 1 values", ShapeError);
  CHECK_THROWS_WITH_AS(from_vector(std::vector<float>{1.0f, 2.0f}, {3}),
                       "from_vector: 2 values do not fill shape (3)", ShapeError);
  CHECK_THROWS_WITH_AS(from_vector(std::vector<float>{1.0f}, {0}),
                       "from_vector: 1 values do not fill shape (0)", ShapeError);
}

TEST_CASE("tensor: size counts from both ends") {
  const Tensor x = zeros({2, 3, 4});
  CHECK(x.size(0) == 2);
  CHECK(x.size(2) == 4);
  CHECK(x.size(-1) == 4);
  CHECK(x.size(-3) == 2);
  CHECK_THROWS_WITH_AS(x.size(3),
                       "size: dimension 3 is out of range for shape (2, 3, 4): expected -3 to 2",
                       IndexError);
  CHECK_THROWS_WITH_AS(zeros({}).size(0), "size: dimension 0 is out of range for a scalar",
                       IndexError);
}

TEST_CASE("tensor: copies of a handle are the same tensor, clones are not") {
  Tensor x = tensor({1.0, 2.0});
  Tensor same = x;
  const Tensor other = x.clone();
  CHECK(same.is(x));
  CHECK_FALSE(other.is(x));
  CHECK_FALSE(x.detach().is(x));
  x.fill_(5.0);
  CHECK(values(same) == std::vector{5.0, 5.0});
  CHECK(values(other) == std::vector{1.0, 2.0});
  CHECK(shares_memory(x, x.detach()));
  CHECK_FALSE(shares_memory(x, other));
  same.requires_grad_();
  CHECK(x.requires_grad());
  CHECK_FALSE(other.requires_grad());
}

TEST_CASE("tensor: layouts are what their names say, and to_vector reads all of them") {
  Generator generator(1);
  for (DType dtype : kDTypes) {
    CAPTURE(to_string(dtype));
    for (const Shape& shape : {Shape{}, Shape{5}, Shape{3, 4}, Shape{2, 3, 4}, Shape{0},
                               Shape{2, 0}, Shape{1, 2, 1, 3, 1, 2, 1, 2}}) {
      const Tensor x = random_tensor(shape, {-9.0, 9.0}, dtype, generator);
      for (Layout layout : kLayouts) {
        INFO(to_string(layout));
        const Tensor y = lay_out(x, layout);
        CHECK(y.shape() == shape);
        CHECK(values(y) == by_strides(y));
        if (layout < Layout::first_repeated) CHECK(values(y) == values(x));
        const Tensor dense = y.contiguous();
        CHECK(dense.is_contiguous());
        CHECK(dense.is(y) == y.is_contiguous());
        CHECK(values(dense) == values(y));
        CHECK(values(y.clone()) == values(y));
        CHECK(y.clone().is_contiguous());
      }
    }
  }
  const Tensor x = zeros({2, 3, 4});
  CHECK(x.strides() == Shape{12, 4, 1});
  CHECK(lay_out(x, Layout::offset).impl().offset == 3);
  CHECK(lay_out(x, Layout::offset).is_contiguous());
  CHECK(lay_out(x, Layout::transposed).strides() == Shape{1, 2, 6});
  CHECK(lay_out(x, Layout::stepped).strides() == Shape{24, 8, 2});
  CHECK(lay_out(x, Layout::flipped).strides() == Shape{-12, -4, -1});
  CHECK(lay_out(x, Layout::first_repeated).strides() == Shape{0, 4, 1});
  CHECK(lay_out(x, Layout::last_repeated).strides() == Shape{12, 4, 0});
  for (Layout layout : kLayouts)
    CHECK(lay_out(x, layout).is_contiguous() == (layout <= Layout::offset));
}

TEST_CASE("tensor: a view is contiguous when its elements are, whatever dimensions of size 1 say") {
  const Tensor x = zeros({4, 1, 3});
  CHECK(transpose(x, 0, 1).is_contiguous());
  CHECK(slice(x, 0, 1, 3).is_contiguous());
  CHECK(slice(x, 0, 0, 1, 1).is_contiguous());
  CHECK(broadcast_to(zeros({1}), {1, 1, 1}).is_contiguous());
  CHECK(slice(x, 0, 0, 0).is_contiguous());
  CHECK(flip(zeros({1, 1}), 0).is_contiguous());
  CHECK_FALSE(slice(x, 0, 0, 4, 2).is_contiguous());
  CHECK_FALSE(transpose(x, 0, 2).is_contiguous());
  CHECK_FALSE(flip(zeros({2}), 0).is_contiguous());
}

TEST_CASE("tensor: writes show through views, and only where they were made") {
  for (DType dtype : kDTypes) {
    CAPTURE(to_string(dtype));
    Tensor x = arange(12, dtype);
    x = reshape(x, {3, 4});
    x[1].fill_(-1.0);
    CHECK(values(x) == std::vector<double>{0, 1, 2, 3, -1, -1, -1, -1, 8, 9, 10, 11});
    select(x, 1, 3).mul_(2.0);
    CHECK(values(x) == std::vector<double>{0, 1, 2, 6, -1, -1, -1, -2, 8, 9, 10, 22});
    slice(x, 1, 0, 4, 2).zero_();
    CHECK(values(x) == std::vector<double>{0, 1, 0, 6, 0, -1, 0, -2, 0, 9, 0, 22});
    flip(x[0], 0).copy_(arange(4, dtype));
    CHECK(values(x[0]) == std::vector<double>{3, 2, 1, 0});
    transpose(x).copy_(reshape(arange(12, dtype), {4, 3}));
    CHECK(values(x) == std::vector<double>{0, 3, 6, 9, 1, 4, 7, 10, 2, 5, 8, 11});
    x[2].add_(ones({4}, dtype), -2.0);
    CHECK(values(x) == std::vector<double>{0, 3, 6, 9, 1, 4, 7, 10, 0, 3, 6, 9});
    x.add_(x);
    CHECK(values(x) == std::vector<double>{0, 6, 12, 18, 2, 8, 14, 20, 0, 6, 12, 18});
    x.copy_(tensor(4.0, dtype));
    CHECK(values(x) == std::vector<double>(12, 4.0));
    x.add_(reshape(arange(3, dtype), {3, 1}));
    CHECK(values(x) == std::vector<double>{4, 4, 4, 4, 5, 5, 5, 5, 6, 6, 6, 6});
    CHECK(&x.zero_().fill_(3.0).mul_(2.0) == &x);
    CHECK(values(x) == std::vector<double>(12, 6.0));
    slice(x, 0, 1, 1).fill_(9.0);  // nothing
    CHECK(values(x) == std::vector<double>(12, 6.0));
  }
}

TEST_CASE("tensor: a write from overlapping memory reads the old values") {
  Tensor x = arange(6, DType::f64);
  slice(x, 0, 1, 6).copy_(slice(x, 0, 0, 5));
  CHECK(values(x) == std::vector<double>{0, 0, 1, 2, 3, 4});
  x.copy_(flip(x, 0));
  CHECK(values(x) == std::vector<double>{4, 3, 2, 1, 0, 0});
  x.add_(flip(x, 0));
  CHECK(values(x) == std::vector<double>{4, 3, 3, 3, 3, 4});
  Tensor m = reshape(arange(9, DType::f64), {3, 3});
  m.copy_(transpose(m));
  CHECK(values(m) == std::vector<double>{0, 3, 6, 1, 4, 7, 2, 5, 8});
  m.add_(transpose(m), -1.0);
  CHECK(values(m) == std::vector<double>{0, 2, 4, -2, 0, 2, -4, -2, 0});
  m.add_(m[0], 10.0);
  CHECK(values(m) == std::vector<double>{0, 22, 44, -2, 20, 42, -4, 18, 40});
  m.copy_(m);
  CHECK(values(m) == std::vector<double>{0, 22, 44, -2, 20, 42, -4, 18, 40});
}

TEST_CASE("tensor: writes in place refuse what does not fit") {
  Tensor x = zeros({2, 3}), i = zeros({2}, DType::i64);
  CHECK_THROWS_WITH_AS(
      x.copy_(zeros({2})),
      "copy_: shapes (2, 3) and (2) do not broadcast: sizes 3 and 2 differ at dimension -1",
      ShapeError);
  CHECK_THROWS_WITH_AS(x.copy_(zeros({2, 2, 3})),
                       "copy_: shape (2, 2, 3) does not broadcast to (2, 3)", ShapeError);
  CHECK_THROWS_WITH_AS(zeros({1}).add_(zeros({3})), "add_: shape (3) does not broadcast to (1)",
                       ShapeError);
  CHECK_THROWS_WITH_AS(x.add_(zeros({3}, DType::f64)), "add_: dtypes differ: f32 and f64",
                       DTypeError);
  CHECK_THROWS_WITH_AS(i.add_(zeros({2})), "add_: dtypes differ: i64 and f32", DTypeError);
  CHECK_THROWS_WITH_AS(i.mul_(0.5), "mul_: the tensor is i64, 0.5 is no whole number", ValueError);
  CHECK_THROWS_WITH_AS(i.fill_(kInf), "fill_: the tensor is i64, inf is no whole number",
                       ValueError);
  CHECK_THROWS_WITH_AS(i.add_(i, 1.5), "add_: the tensor is i64, 1.5 is no whole number",
                       ValueError);
  CHECK_THROWS_WITH_AS(broadcast_to(x, {4, 2, 3}).mul_(2.0),
                       "mul_: elements of the tensor of shape (4, 2, 3) share memory (it was "
                       "broadcast); write into a clone()",
                       ShapeError);
  CHECK_THROWS_WITH_AS(broadcast_to(zeros({}), {2}).fill_(2.0),
                       "fill_: elements of the tensor of shape (2) share memory (it was "
                       "broadcast); write into a clone()",
                       ShapeError);
  broadcast_to(zeros({}), {1, 1}).fill_(2.0);  // one element is itself
  CHECK(values(x) == std::vector<double>(6, 0.0));
}

TEST_CASE(
    "tensor: a leaf that requires a gradient, and what was made from it, guard their values") {
  Tensor w = ones({2, 2}).requires_grad_();
  Tensor y = w * 2.0;
  Tensor row = w[0];
  const std::string leaf =
      ": a leaf that requires a gradient is written in place only under NoGrad";
  CHECK_THROWS_WITH_AS(w.fill_(1.0), ("fill_" + leaf).c_str(), GraphError);
  CHECK_THROWS_WITH_AS(w.zero_(), ("fill_" + leaf).c_str(), GraphError);
  CHECK_THROWS_WITH_AS(w.copy_(w), ("copy_" + leaf).c_str(), GraphError);
  CHECK_THROWS_WITH_AS(w.add_(w), ("add_" + leaf).c_str(), GraphError);
  CHECK_THROWS_WITH_AS(w.mul_(2.0), ("mul_" + leaf).c_str(), GraphError);
  CHECK_THROWS_WITH_AS(w.write<float>(), ("write" + leaf).c_str(), GraphError);
  CHECK_THROWS_WITH_AS(
      y.fill_(1.0), "fill_: the tensor is the result of mul on the tape; write into a detached one",
      GraphError);
  CHECK_THROWS_WITH_AS(
      row.mul_(2.0),
      "mul_: the tensor is the result of select on the tape; write into a detached one",
      GraphError);
  {
    NoGrad no_grad;
    w.mul_(3.0);
    w[1].fill_(7.0);
    w.write<float>()[0] = 5.0f;
    CHECK_THROWS_WITH_AS(
        y.mul_(2.0), "mul_: the tensor is the result of mul on the tape; write into a detached one",
        GraphError);
  }
  CHECK(values(w) == std::vector{5.0, 3.0, 7.0, 7.0});
  w.detach().zero_();
  CHECK(values(w) == std::vector<double>(4, 0.0));
  CHECK(values(y) == std::vector<double>(4, 2.0));
}

TEST_CASE("tensor: item reads one element, data and write all of a contiguous one") {
  CHECK(tensor(2.5).item() == 2.5);
  CHECK(full({1, 1}, 3.0, DType::i64).item() == 3.0);
  CHECK(flip(tensor({1.0, 2.0}), 0)[0].item() == 2.0);
  CHECK_THROWS_WITH_AS(zeros({2}).item(), "item: needs one element, the shape is (2)", ShapeError);
  CHECK_THROWS_WITH_AS(zeros({0}).item(), "item: needs one element, the shape is (0)", ShapeError);

  Tensor x = tensor({1.0, 2.0, 3.0, 4.0}, DType::f64);
  CHECK(x.data<double>()[2] == 3.0);
  CHECK(slice(x, 0, 1, 3).data<double>()[0] == 2.0);
  CHECK_THROWS_WITH_AS(x.data<float>(), "data: the tensor is f64, not f32", DTypeError);
  CHECK_THROWS_WITH_AS(x.write<std::int64_t>(), "data: the tensor is f64, not i64", DTypeError);
  CHECK_THROWS_WITH_AS(x.to_vector<float>(), "to_vector: the tensor is f64, not f32", DTypeError);
  CHECK_THROWS_WITH_AS(flip(x, 0).data<double>(),
                       "data: the tensor of shape (4) is not contiguous; call contiguous()",
                       ShapeError);
  CHECK_THROWS_WITH_AS(flip(x, 0).write<double>(),
                       "data: the tensor of shape (4) is not contiguous; call contiguous()",
                       ShapeError);
  {
    auto view = slice(x, 0, 1, 3).write<double>();
    CHECK(view.size() == 2);
    CHECK(view.end() - view.begin() == 2);
    CHECK(view.data() == view.begin());
    for (double& v : view) v *= 10.0;
    view[0] += 1.0;
  }
  CHECK(values(x) == std::vector{1.0, 21.0, 30.0, 4.0});
  CHECK(zeros({0}).write<float>().size() == 0);
}

TEST_CASE("tensor: dtypes convert, and only where they differ") {
  const Tensor x = tensor({-1.75, 0.0, 2.5, 1e9}, DType::f64);
  CHECK(x.to(DType::f64).is(x));
  CHECK(values(x.to(DType::f32)) == std::vector{-1.75, 0.0, 2.5, 1e9});
  CHECK(x.to(DType::f32).dtype() == DType::f32);
  CHECK(values(x.to(DType::i64)) == std::vector{-1.0, 0.0, 2.0, 1e9});  // towards 0, as in C
  CHECK(values(x.to(DType::i64).to(DType::f32)) == std::vector{-1.0, 0.0, 2.0, 1e9});
  CHECK(values(flip(x, 0).to(DType::f32)) == std::vector{1e9, 2.5, 0.0, -1.75});
  CHECK(tensor({0.1}, DType::f64).to(DType::f32).item() == static_cast<double>(0.1f));
  CHECK(size_of(DType::f32) == 4);
  CHECK(size_of(DType::f64) == 8);
  CHECK(size_of(DType::i64) == 8);

  Tensor f32 = zeros({2});
  f32.copy_(from_vector(std::vector<std::int64_t>{3, 4}));
  CHECK(values(f32) == std::vector{3.0, 4.0});
  Tensor i64 = zeros({2, 2}, DType::i64);
  i64.copy_(tensor({1.5, -2.5}, DType::f64));
  CHECK(values(i64) == std::vector{1.0, -2.0, 1.0, -2.0});

  // Differentiable between floating-point types.
  Tensor leaf = tensor({1.0, 2.0}).requires_grad_();
  const Tensor g = grad(sum(square(leaf.to(DType::f64))), leaf);
  CHECK(g.dtype() == DType::f32);
  CHECK(values(g) == std::vector{2.0, 4.0});
  CHECK_FALSE(leaf.to(DType::i64).requires_grad());
  CHECK_THROWS_WITH_AS(i64.requires_grad_(),
                       "requires_grad_: needs a floating-point tensor, got i64", DTypeError);
}

TEST_CASE("tensor: clone, contiguous, to and detach and their gradients") {
  Generator generator(2);
  Tensor x = random_tensor({2, 3}, {-1.0, 1.0}, DType::f64, generator).requires_grad_();
  const Tensor copy = x.clone(), dense = transpose(x).contiguous(), off = x.detach();
  CHECK(copy.requires_grad());
  CHECK_FALSE(copy.is_leaf());
  CHECK_FALSE(off.requires_grad());
  CHECK(off.is_leaf());
  CHECK(x.contiguous().is(x));
  const Tensor w = random_tensor({3, 2}, {-1.0, 1.0}, DType::f64, generator);
  const Tensor g = grad(sum(copy * 2.0) + sum(dense * w) + sum(off * 100.0), x);
  CHECK(difference(g, transpose(w) + 2.0, 1e-15) == "");
}

TEST_CASE("tensor: printing shows shape, dtype and values, elided in the middle") {
  CHECK(to_string(tensor(3.0)) == "tensor f32 ()\n3.0000");
  CHECK(to_string(tensor(-2.0, DType::i64)) == "tensor i64 ()\n-2");
  CHECK(to_string(tensor({1.0, -2.5}, DType::f64)) == "tensor f64 (2)\n[ 1.0000, -2.5000]");
  CHECK(to_string(tensor({{1.0, 22.0}, {333.0, 4.0}}, DType::i64)) ==
        "tensor i64 (2, 2)\n[[  1,  22],\n [333,   4]]");
  CHECK(to_string(zeros({2, 0})) == "tensor f32 (2, 0)\n[]");
  CHECK(to_string(reshape(arange(8), {2, 2, 2})) ==
        "tensor i64 (2, 2, 2)\n[[[0, 1],\n  [2, 3]],\n\n [[4, 5],\n  [6, 7]]]");
  CHECK(to_string(arange(8)) == "tensor i64 (8)\n[0, 1, 2, 3, 4, 5, 6, 7]");
  CHECK(to_string(arange(100)) == "tensor i64 (100)\n[ 0,  1,  2, ..., 97, 98, 99]");
  CHECK(to_string(reshape(arange(100), {10, 10})) ==
        "tensor i64 (10, 10)\n"
        "[[ 0,  1,  2, ...,  7,  8,  9],\n"
        " [10, 11, 12, ..., 17, 18, 19],\n"
        " [20, 21, 22, ..., 27, 28, 29],\n"
        " ...,\n"
        " [70, 71, 72, ..., 77, 78, 79],\n"
        " [80, 81, 82, ..., 87, 88, 89],\n"
        " [90, 91, 92, ..., 97, 98, 99]]");
  CHECK(to_string(tensor({std::nan(""), kInf, -kInf, 0.0}, DType::f64)) ==
        "tensor f64 (4)\n[   nan,    inf,   -inf, 0.0000]");
  CHECK(to_string(tensor({1e-5, 123456.0}, DType::f64)) ==
        "tensor f64 (2)\n[1.000e-05, 1.235e+05]");
  CHECK(to_string(from_vector(std::vector<std::int64_t>{(std::int64_t{1} << 53) + 1})) ==
        "tensor i64 (1)\n[9007199254740993]");
  // Views print what they show.
  CHECK(to_string(flip(arange(3), 0)) == "tensor i64 (3)\n[2, 1, 0]");
  Tensor w = ones({1}).requires_grad_();
  CHECK(to_string(w) == "tensor f32 (1) requires_grad\n[1.0000]");
  CHECK(to_string(w * 2.0) == "tensor f32 (1) made by mul\n[2.0000]");
}

TEST_CASE("tensor: any number of dimensions works everywhere") {
  const Shape shape{2, 1, 2, 1, 2, 1, 2, 1, 2};
  Tensor x = reshape(arange(32, DType::f64), shape).requires_grad_();
  CHECK(x.size(-9) == 2);
  const Tensor y = transpose(x, 0, 8);
  CHECK(sum(y, {0, 2, 4}, true).shape() == Shape{1, 1, 1, 1, 1, 1, 2, 1, 2});
  CHECK(x[1][0][1][0][1][0][1][0][1].item() == 31.0);
  CHECK(y[1][0][1][0][1][0][1][0][0].item() == 15.0 + 0.0 * 2.0);
  CHECK(values(grad(sum(y * y), x)) == values(x * 2.0));
  CHECK(to_string(zeros({1, 1, 1, 1, 1, 1, 1})) ==
        "tensor f32 (1, 1, 1, 1, 1, 1, 1)\n[[[[[[[0.0000]]]]]]]");
}
