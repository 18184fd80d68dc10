#include "framework/xtensor.h"

#include <doctest/doctest.h>

#include <cstdint>
#include <limits>
#include <string>
#include <type_traits>
#include <vector>

#if __has_include(<xtensor/misc/xsort.hpp>)
#include <xtensor/generators/xbuilder.hpp>
#include <xtensor/misc/xsort.hpp>
#include <xtensor/views/xview.hpp>
#else
#include <xtensor/xbuilder.hpp>
#include <xtensor/xsort.hpp>
#include <xtensor/xview.hpp>
#endif

#include "framework/autograd.h"
#include "framework/check.h"
#include "framework/gradcheck.h"
#include "framework/memory.h"
#include "framework/ops.h"
#include "framework/random.h"

using namespace unroll;

namespace {

using Floats = std::vector<float>;
using Ints = std::vector<std::int64_t>;

/// x^3, as a user of xtensor would write it.
Tensor cube(const Tensor& x) {
  return record("cube", {x}, from_xtensor(xt::cube(view<double>(x))), Keep::inputs,
                [](Back& b) { b.add(0, b.grad * square(b.in(0)) * 3.0); });
}

/// x / sum(x) along dimension 1, from an expression with a reduction and a broadcast.
Tensor normalize(const Tensor& x) {
  const auto v = view<double>(x);
  const auto total = xt::sum(v, {1}, xt::keep_dims | xt::evaluation_strategy::immediate);
  return record("normalize", {x}, from_xtensor(v / total), Keep::inputs | Keep::output,
                [](Back& b) {
                  const Tensor g = b.grad - sum(b.grad * b.out(), 1, true);
                  b.add(0, g / sum(b.in(0), 1, true));
                });
}

/// An expression that outlives the tensor and the view that it was made of.
auto exp_of_a_tensor_that_ends() {
  const Tensor x = tensor({1.0, 2.0, 3.0}, DType::f64);
  return xt::exp(view<double>(x)) + 1.0;
}

/// The text of a ShapeError, of which xtensor writes the end; "" if there is none.
template <class F>
std::string shape_error(const F& f) {
  try {
    f();
  } catch (const ShapeError& error) {
    return error.what();
  }
  return "";
}

}  // namespace

// --- view ---------------------------------------------------------------------------------------

TEST_CASE("xtensor: a view shows the elements without a copy") {
  Tensor x = tensor({{1, 2, 3}, {4, 5, 6}});
  const auto v = view<float>(x);
  CHECK(v.data() == x.data<float>());
  CHECK(v.dimension() == 2);
  CHECK(v.shape(0) == 2);
  CHECK(v.shape(1) == 3);
  CHECK(v(1, 2) == 6.0f);
  CHECK(xt::sum(v)() == 21.0f);
  x.write<float>()[5] = 60.0f;
  CHECK(v(1, 2) == 60.0f);

  const Tensor scalar = tensor(7.0, DType::f64);
  CHECK(view<double>(scalar).dimension() == 0);
  CHECK(view<double>(scalar)() == 7.0);
  CHECK(view<std::int64_t>(zeros({0, 3}, DType::i64)).size() == 0);
  CHECK(view<std::int64_t>(arange(4))(3) == 3);
  CHECK(view<float>(select(x, 0, 1))(0) == 4.0f);
}

TEST_CASE("xtensor: a view is read-only and leaves the version alone") {
  const Tensor x = tensor({1, 2}).requires_grad_();
  auto v = view<float>(x);
  static_assert(std::is_same_v<decltype(v(0)), const float&>);
  static_assert(std::is_same_v<decltype(v.data()), const float*>);
  const std::uint32_t version = detail::version(x);
  CHECK(from_xtensor(v + 1.f).to_vector<float>() == Floats{2, 3});
  CHECK(detail::version(x) == version);
}

TEST_CASE("xtensor: a view keeps the memory alive, from within an expression, too") {
  auto v = view<float>(tensor({1, 2, 3}));
  const auto e = exp_of_a_tensor_that_ends();
  // New tensors would take the memory if it were free.
  std::vector<Tensor> others;
  for (int i = 0; i < 64; ++i) others.push_back(full({3}, -1.0, i % 2 ? DType::f32 : DType::f64));
  CHECK(v(0) + v(1) + v(2) == 6.0f);
  CHECK(e(1) == doctest::Approx(1.0 + std::exp(2.0)));

  const std::int64_t before = pool_stats().in_use;
  {
    const auto held = xt::exp(view<float>(zeros({1000})));
    CHECK(pool_stats().in_use >= before + 4000);
  }
  CHECK(pool_stats().in_use == before);
}

TEST_CASE("xtensor: another element type and gaps in memory are errors") {
  const Tensor x = ones({2, 3});
  CHECK_THROWS_WITH_AS(view<double>(x), "data: the tensor is f32, not f64", DTypeError);
  CHECK_THROWS_WITH_AS(mutable_view<std::int64_t>(x), "data: the tensor is f32, not i64",
                       DTypeError);
  CHECK_THROWS_WITH_AS(view<float>(transpose(x)),
                       "data: the tensor of shape (3, 2) is not contiguous; call contiguous()",
                       ShapeError);
  CHECK_THROWS_WITH_AS(mutable_view<float>(slice(x, 1, 0, 2)),
                       "data: the tensor of shape (2, 2) is not contiguous; call contiguous()",
                       ShapeError);
  CHECK(view<float>(transpose(x).contiguous()).shape(0) == 3);
  CHECK_THROWS_WITH_AS(view<float>(Tensor()), "tensor: undefined (made by Tensor())", ValueError);
}

// --- mutable_view -------------------------------------------------------------------------------

TEST_CASE("xtensor: a mutable view writes the elements, and counts as a write when it ends") {
  Tensor x = zeros({2, 3});
  {
    auto v = mutable_view<float>(x);
    (*v)(0, 1) = 5.0f;
    xt::view(*v, 1) = xt::arange<float>(3);
    *v += 1.0f;
    const std::uint32_t version = detail::version(x);
    v = *v * 10.0f;
    CHECK(detail::version(x) == version);
  }
  CHECK(x.to_vector<float>() == Floats{10, 60, 10, 10, 20, 30});
  const std::uint32_t version = detail::version(x);
  { auto v = mutable_view<float>(x); }
  CHECK(detail::version(x) > version);

  mutable_view<float>(x) = 4.0f;
  CHECK(x.to_vector<float>() == Floats(6, 4.0f));
  mutable_view<float>(x[1]) = xt::arange<double>(3);
  CHECK(x.to_vector<float>() == Floats{4, 4, 4, 0, 1, 2});
}

TEST_CASE("xtensor: what is assigned to a mutable view may read it, and is broadcast") {
  Tensor x = tensor({{1, 2}, {3, 4}});
  {
    auto v = mutable_view<float>(x);
    v = xt::transpose(*v);
  }
  CHECK(x.to_vector<float>() == Floats{1, 3, 2, 4});
  mutable_view<float>(x) = view<float>(reshape(tensor({7, 8}), {2, 1}));
  CHECK(x.to_vector<float>() == Floats{7, 7, 8, 8});
  mutable_view<float>(x) = view<float>(tensor({1, 2}));
  CHECK(x.to_vector<float>() == Floats{1, 2, 1, 2});
  Tensor scalar = tensor(0.0);
  mutable_view<float>(scalar) = xt::sum(view<float>(x));
  CHECK(scalar.item() == 6.0);
}

TEST_CASE("xtensor: an expression that does not fit a mutable view leaves it as it was") {
  Tensor x = tensor({1, 2, 3, 4, 5, 6});
  for (const Shape& shape : {Shape{5}, Shape{2, 6}, Shape{2, 3}, Shape{0}, Shape{7}}) {
    CAPTURE(to_string(shape));
    const Tensor other = ones(shape);
    CHECK(shape_error([&] {
            mutable_view<float>(x) = view<float>(other);
          }).starts_with("mutable_view: "));
  }
  CHECK(x.to_vector<float>() == Floats{1, 2, 3, 4, 5, 6});
}

TEST_CASE("xtensor: a mutable view follows the rules of writing in place") {
  Tensor leaf = ones({2}).requires_grad_();
  CHECK_THROWS_WITH_AS(
      mutable_view<float>(leaf),
      "write: a leaf that requires a gradient is written in place only under NoGrad", GraphError);
  CHECK_THROWS_WITH_AS(
      mutable_view<float>(leaf * 2.0),
      "write: the tensor is the result of mul on the tape; write into a detached one", GraphError);

  // A tensor that backward needs has been written through a view: an error, not a wrong gradient.
  Tensor y = square(leaf);
  {
    NoGrad no_grad;
    mutable_view<float>(leaf) = 3.0f;
  }
  CHECK_THROWS_WITH_AS(sum(y).backward(),
                       "backward: input 0 of square, a tensor of shape (2), was written in place "
                       "after it was used; the gradient needs its old values",
                       GraphError);
}

// --- from_xtensor -------------------------------------------------------------------------------

TEST_CASE("xtensor: a tensor is made from containers, lazy expressions, reductions and views") {
  const xt::xarray<double> a = {{1, 2, 3}, {4, 5, 6}};
  const Tensor x = from_xtensor(a);
  CHECK(x.dtype() == DType::f64);
  CHECK(x.shape() == Shape{2, 3});
  CHECK(x.to_vector<double>() == std::vector<double>{1, 2, 3, 4, 5, 6});
  CHECK(x.data<double>() != a.data());

  CHECK(from_xtensor(xt::view(a, xt::all(), 1)).to_vector<double>() == std::vector<double>{2, 5});
  CHECK(from_xtensor(xt::sum(a, {0})).to_vector<double>() == std::vector<double>{5, 7, 9});
  CHECK(from_xtensor(xt::transpose(a)).to_vector<double>() ==
        std::vector<double>{1, 4, 2, 5, 3, 6});
  CHECK(from_xtensor(xt::cumsum(view<double>(x), 1)).to_vector<double>() ==
        std::vector<double>{1, 3, 6, 4, 9, 15});
  CHECK(from_xtensor(xt::eval(view<double>(x) * 2.0)).shape() == Shape{2, 3});
  CHECK(from_xtensor(xt::sum(a)).shape() == Shape{});
  CHECK(from_xtensor(xt::sum(a)).item() == 21.0);
  CHECK(from_xtensor(xt::zeros<float>({0, 2})).shape() == Shape{0, 2});
  const xt::xtensor<float, 1> row = {1, 2, 3};
  CHECK(from_xtensor(row * 2.f).to_vector<float>() == Floats{2, 4, 6});
  CHECK(from_xtensor(a + row).to_vector<double>() == std::vector<double>{2, 4, 6, 5, 7, 9});
  const xt::xarray<float, xt::layout_type::column_major> columns = {{1, 2}, {3, 4}};
  CHECK(from_xtensor(columns).to_vector<float>() == Floats{1, 2, 3, 4});
  CHECK(from_xtensor(columns).is_contiguous());
}

TEST_CASE("xtensor: integers and bools become i64") {
  const xt::xarray<float> a = {{1, 9, 3}, {4, 5, 6}};
  const Tensor best = from_xtensor(xt::argmax(a, 1));
  CHECK(best.dtype() == DType::i64);
  CHECK(best.to_vector<std::int64_t>() == Ints{1, 2});
  CHECK(from_xtensor(a > 4.5f).to_vector<std::int64_t>() == Ints{0, 1, 0, 0, 1, 1});
  CHECK(from_xtensor(xt::xarray<std::int8_t>{-3, 3}).to_vector<std::int64_t>() == Ints{-3, 3});
  CHECK(from_xtensor(xt::xarray<std::int64_t>{INT64_MIN}).to_vector<std::int64_t>() ==
        Ints{INT64_MIN});
  const xt::xarray<std::uint64_t> large = {1, std::uint64_t{1} << 63};
  CHECK_THROWS_WITH_AS(from_xtensor(large),
                       "from_xtensor: 9223372036854775808 is above the largest i64", ValueError);
}

TEST_CASE("xtensor: an expression whose parts do not fit is an error") {
  const Tensor a = ones({2, 3}), b = ones({4});
  CHECK(shape_error([&] {
          from_xtensor(view<float>(a) + view<float>(b));
        }).starts_with("from_xtensor: Incompatible dimension of arrays"));
  CHECK(shape_error([&] {
          from_xtensor(xt::exp(view<float>(a)) * (view<float>(b) - 1.f));
        }).starts_with("from_xtensor: Incompatible dimension of arrays"));
}

// --- Operations ---------------------------------------------------------------------------------

TEST_CASE("xtensor: an operation whose forward is an xtensor expression has all derivatives") {
  Tensor x = uniform({3, 4}, 0.5, 1.5, DType::f64).requires_grad_();
  CHECK(gradcheck([](const auto& in) { return cube(in[0]); }, {x}, {.order = 2}));
  CHECK(gradcheck([](const auto& in) { return normalize(in[0]); }, {x}, {.order = 2}));
  sum(cube(x)).backward();
  const std::vector<double> grad = x.grad().to_vector<double>();
  for (std::size_t i = 0; i < grad.size(); ++i) {
    const double value = x.data<double>()[i];
    CHECK(grad[i] == doctest::Approx(3.0 * value * value).epsilon(1e-14));
  }
}
