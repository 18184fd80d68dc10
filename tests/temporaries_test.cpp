/// Operations that need none of their operands again write their result over a temporary.

#include <doctest/doctest.h>

#include <functional>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "framework/profiler.h"
#include "tests/support.h"

using namespace unroll;
using namespace unroll::test;

namespace {

/// A tensor that nobody else holds, on the tape if `recorded`.
Tensor fresh(const Shape& shape, bool recorded = true) {
  const Tensor x = uniform(shape, 0.5, 2.0, DType::f64);
  return (recorded ? Tensor(x).requires_grad_() : x).clone();
}

struct Overwriter {
  std::string name;
  std::function<Tensor(Tensor)> run;
};
const std::vector<Overwriter> kOverwriters = {
    {"x + 1", [](Tensor x) { return std::move(x) + 1.0; }},
    {"x - 1", [](Tensor x) { return std::move(x) - 1.0; }},
    {"x * 2", [](Tensor x) { return std::move(x) * 2.0; }},
    {"x / 2", [](Tensor x) { return std::move(x) / 2.0; }},
    {"1 + x", [](Tensor x) { return 1.0 + std::move(x); }},
    {"1 - x", [](Tensor x) { return 1.0 - std::move(x); }},
    {"2 * x", [](Tensor x) { return 2.0 * std::move(x); }},
    {"-x", [](Tensor x) { return -std::move(x); }},
    {"exp", [](Tensor x) { return exp(std::move(x)); }},
    {"sqrt", [](Tensor x) { return sqrt(std::move(x)); }},
    {"tanh", [](Tensor x) { return tanh(std::move(x)); }},
    {"sigmoid", [](Tensor x) { return sigmoid(std::move(x)); }},
    {"relu", [](Tensor x) { return relu(std::move(x)); }},
    {"x + y",
     [](Tensor x) {
       return std::move(x) + full({2, 3}, 0.5, DType::f64);
     }},
    {"y + x",
     [](Tensor x) {
       const Tensor y = full({2, 3}, 0.5, DType::f64);
       return y + std::move(x);
     }},
    {"x - y",
     [](Tensor x) {
       return std::move(x) - full({2, 3}, 0.5, DType::f64);
     }},
    {"x + row",
     [](Tensor x) {
       return std::move(x) + tensor({1.0, 2.0, 3.0}, DType::f64);
     }},
    {"row - x",
     [](Tensor x) {
       return tensor({1.0, 2.0, 3.0}, DType::f64) - std::move(x);
     }},
    {"x + column",
     [](Tensor x) {
       return std::move(x) + full({2, 1}, 0.5, DType::f64);
     }},
    {"x - scalar", [](Tensor x) { return std::move(x) - tensor(3.0, DType::f64); }},
};

const void* memory(const Tensor& x) { return x.data<double>(); }

}  // namespace

TEST_CASE("temporaries: the result takes the memory of an operand that nobody else holds") {
  for (const Overwriter& op : kOverwriters)
    for (bool recorded : {true, false}) {
      CAPTURE(op.name);
      CAPTURE(recorded);
      Tensor x = fresh({2, 3}, recorded);
      const Tensor held = x.detach().clone();
      const Tensor expected = op.run(held);
      const void* const before = memory(x);
      const Tensor y = op.run(std::move(x));
      CHECK(memory(y) == before);
      CHECK(difference(y, expected, 0.0) == "");
      CHECK(y.requires_grad() == recorded);
    }
}

TEST_CASE("temporaries: one block of memory goes through a whole expression") {
  const Tensor row = tensor({1.0, 2.0, 3.0}, DType::f64);
  for (bool recorded : {true, false}) {
    CAPTURE(recorded);
    Tensor x = fresh({2, 3}, recorded);
    const void* const before = memory(x);
    const Tensor sums = 1.0 - (-(row + (std::move(x) + 1.0) * 2.0) - row);
    CHECK(memory(sums) == before);
  }

  Tensor leaf = uniform({2, 3}, 0.5, 2.0, DType::f64).requires_grad_();
  const Tensor product = leaf * leaf, less = row - product, power = exp(less), more = power + row,
               negative = -more, bounded = tanh(negative);
  const Tensor expected = grad(sum(bounded * leaf), leaf);
  const Tensor actual = grad(sum(tanh(-(exp(row - leaf * leaf) + row)) * leaf), leaf);
  CHECK(difference(actual, expected, 0.0) == "");
}

TEST_CASE("temporaries: gradients are those of tensors that are held") {
  for (const Overwriter& op : kOverwriters) {
    CAPTURE(op.name);
    Tensor x = uniform({2, 3}, 0.5, 2.0, DType::f64).requires_grad_();
    const Tensor held = x * x;
    const Tensor expected = grad(sum(square(op.run(held))), x, {.create_graph = true});
    const Tensor loss = sum(square(op.run(x * x)));
    const Tensor actual = grad(loss, x, {.create_graph = true});
    CHECK(difference(actual, expected, 0.0) == "");
    CHECK(difference(grad(sum(actual), x), grad(sum(expected), x), 0.0) == "");
  }
}

TEST_CASE("temporaries: what somebody needs is not written over") {
  const auto unchanged = [](const char* what, const Tensor& x, const std::function<void()>& run) {
    CAPTURE(what);
    const auto before = x.to_vector<double>();
    run();
    CHECK(x.to_vector<double>() == before);
  };
  const Tensor x = fresh({4});
  unchanged("a handle", x, [&] { (void)(Tensor(x) + 1.0); });
  unchanged("two handles", x, [&] { (void)(x + x); });

  Tensor whole = fresh({4}, false);
  const Tensor part = narrow(whole, 0, 1, 2);
  unchanged("a view", part, [&] { (void)tanh(std::move(whole)); });

  // The output of a sigmoid is what its rule needs; so are the operands of a product.
  Tensor leaf = uniform({4}, 0.5, 2.0, DType::f64).requires_grad_();
  const Tensor s = sigmoid(leaf);
  sum(sigmoid(leaf) + 1.0).backward();
  CHECK(difference(leaf.grad(), (s * (1.0 - s)).detach(), 1e-14) == "");
  leaf.set_grad(Tensor());
  Tensor twice = leaf * 2.0;
  const Tensor product = twice * leaf;
  const Tensor sum_of_both = std::move(twice) + leaf;
  (sum(product) + sum(sum_of_both)).backward();
  CHECK(difference(leaf.grad(), (leaf * 4.0 + 3.0).detach(), 1e-14) == "");
}

TEST_CASE("temporaries: a result of another shape has memory of its own") {
  Tensor row = fresh({3});
  const Tensor matrix = fresh({2, 3});
  const auto before = matrix.to_vector<double>();
  const void* const place = memory(row);
  const Tensor y = std::move(row) + matrix;
  CHECK(memory(y) != place);
  CHECK(y.shape() == Shape{2, 3});
  CHECK(matrix.to_vector<double>() == before);
  CHECK_THROWS_WITH_AS(fresh({3}) + matrix.to(DType::f32), "add: dtypes differ: f64 and f32",
                       DTypeError);
  CHECK_THROWS_WITH_AS(
      matrix + fresh({2}),
      "add: shapes (2, 3) and (2) do not broadcast: sizes 3 and 2 differ at dimension -1",
      ShapeError);
  CHECK_THROWS_AS(sigmoid(arange(3)), DTypeError);
  CHECK((arange(3) + 1.0).to_vector<std::int64_t>() == std::vector<std::int64_t>{1, 2, 3});
}

TEST_CASE("temporaries: without a tape the result is not on it") {
  Tensor x = uniform({3}, 0.5, 2.0, DType::f64).requires_grad_();
  Tensor y = x * x;
  const NoGrad no_grad;
  const void* const before = memory(y);
  const Tensor z = std::move(y) + 1.0;
  CHECK(memory(z) == before);
  CHECK_FALSE(z.requires_grad());
}

TEST_CASE("temporaries: a product takes the memory of a factor only where nothing is recorded") {
  const Tensor y = fresh({3});
  for (bool recorded : {true, false}) {
    CAPTURE(recorded);
    std::optional<NoGrad> off;
    if (!recorded) off.emplace();
    for (bool first : {true, false}) {
      Tensor x = fresh({3}, recorded);
      const Tensor values = x.detach().clone(), expected = values * y.detach();
      const void* const before = memory(x);
      const Tensor product = first ? std::move(x) * y : y * std::move(x);
      CHECK((memory(product) == before) == !recorded);
      CHECK(difference(product.detach(), expected, 0.0) == "");
    }
  }
}

TEST_CASE("temporaries: a gradient that somebody holds is not written over by a rule") {
  const std::vector<std::pair<std::string, std::function<Tensor(const Tensor&)>>> functions = {
      {"x + x", [](const Tensor& x) { return x + x; }},
      {"1 - x", [](const Tensor& x) { return 1.0 - x; }},
      {"x - 2", [](const Tensor& x) { return x - full({4}, 2.0, DType::f64); }},
      {"2 - x", [](const Tensor& x) { return full({4}, 2.0, DType::f64) - x; }},
      {"-x", [](const Tensor& x) { return -x; }},
      {"x * x", [](const Tensor& x) { return x * x; }},
      {"2 * x", [](const Tensor& x) { return 2.0 * x; }},
      {"exp", [](const Tensor& x) { return exp(x); }},
      {"tanh", [](const Tensor& x) { return tanh(x); }},
      {"sigmoid", [](const Tensor& x) { return sigmoid(x); }},
      {"relu", [](const Tensor& x) { return relu(x); }},
  };
  const Tensor weights = uniform({4}, 0.5, 2.0, DType::f64);
  for (const auto& function : functions) {
    CAPTURE(function.first);
    const auto& f = function.second;
    Tensor x = uniform({4}, -2.0, 2.0, DType::f64).requires_grad_();
    const Tensor expected = grad(sum(f(x) * weights), x);

    Tensor y = f(x), seen;
    y.register_hook([&seen](const Tensor& g) {
      seen = g;
      return Tensor();
    });
    y.retain_grad();
    sum(y * weights).backward();
    CHECK(difference(x.grad(), expected, 0.0) == "");
    CHECK(difference(y.grad(), weights, 0.0) == "");
    CHECK(difference(seen, weights, 0.0) == "");

    const Tensor again = f(x);
    const auto asked = grad({sum(again * weights)}, {again, x});
    CHECK(difference(asked[0], weights, 0.0) == "");
    CHECK(difference(asked[1], expected, 0.0) == "");
  }
}

TEST_CASE("temporaries: nothing is written over while somebody looks on") {
  const Profiler profiler;
  Tensor x = fresh({3});
  const void* const before = memory(x);
  CHECK(memory(std::move(x) + 1.0) != before);
}
