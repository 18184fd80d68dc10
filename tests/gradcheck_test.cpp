#include "framework/gradcheck.h"

#include <doctest/doctest.h>

#include <cmath>
#include <stdexcept>
#include <string>
#include <vector>

#include "framework/autograd.h"
#include "framework/check.h"
#include "framework/fused.h"
#include "framework/ops.h"
#include "framework/random.h"

using namespace unroll;

namespace {

Tensor leaf(const Tensor& x) { return x.detach().clone().requires_grad_(); }

/// x^2 with the gradient factor * x; right for factor = 2.
Tensor squared(const Tensor& x, double factor) {
  return record("squared", {x}, x.detach() * x.detach(), Keep::inputs,
                [factor](Back& b) { b.add(0, b.grad * b.in(0) * factor); });
}

/// x^2 whose gradient is right but off the tape in `x`: its derivative by x is lost.
Tensor squared_once(const Tensor& x) {
  return record("squared_once", {x}, x.detach() * x.detach(), Keep::inputs,
                [](Back& b) { b.add(0, b.grad * b.in(0).detach() * 2.0); });
}

/// x^2 whose gradient is right but off the tape in the gradient that arrives.
Tensor squared_detached_grad(const Tensor& x) {
  return record("squared_detached_grad", {x}, x.detach() * x.detach(), Keep::inputs,
                [](Back& b) { b.add(0, b.grad.detach() * b.in(0) * 2.0); });
}

/// x^2 that is right but while the sweep is recorded.
Tensor squared_wrong_when_recorded(const Tensor& x) {
  return record("squared", {x}, x.detach() * x.detach(), Keep::inputs,
                [](Back& b) { b.add(0, b.grad * b.in(0) * (b.create_graph() ? 3.0 : 2.0)); });
}

/// a * b with a wrong gradient for element (1, 2) of b alone.
Tensor product_wrong_in_one(const Tensor& a, const Tensor& b) {
  return record("product", {a, b}, a.detach() * b.detach(), Keep::inputs, [](Back& back) {
    Tensor wrong = ones({2, 3}, DType::f64);
    wrong.write<double>()[5] = 0.5;
    back.add(0, back.grad * back.in(1));
    back.add(1, back.grad * back.in(0) * wrong);
  });
}

}  // namespace

TEST_CASE("gradcheck: right gradients pass, of orders 1 and 2") {
  const Tensor x = leaf(uniform({2, 3}, -1.0, 1.0, DType::f64));
  const Tensor w = leaf(uniform({3, 2}, -1.0, 1.0, DType::f64));
  for (int order : {1, 2}) {
    CAPTURE(order);
    CHECK(gradcheck([](const auto& in) { return tanh(matmul(in[0], in[1])); }, {x, w},
                    {.order = order}));
    CHECK(gradcheck([](const auto& in) { return sum(exp(in[0])); }, {x}, {.order = order}));
    CHECK(gradcheck([](const auto& in) { return squared(in[0], 2.0); }, {x}, {.order = order}));
  }
}

TEST_CASE("gradcheck: a wrong gradient is named with input, element and both values") {
  const Tensor one = leaf(tensor(1.5, DType::f64));
  const auto triple = [](const auto& in) { return squared(in[0], 3.0); };
  CHECK(gradcheck_message(triple, {one}) ==
        "gradcheck: order 1: input 0, element (): analytic 4.5, numeric 3, difference 1.5e+00 "
        "(1 of 1 elements of () differ)\n"
        "gradcheck: the rule of \"squared\" with inputs () is wrong: along a random direction its "
        "gradient is 3.18969, its value changes by 2.12646");
  CHECK_THROWS_WITH_AS(
      gradcheck(triple, {one}),
      "gradcheck: order 1: input 0, element (): analytic 4.5, numeric 3, difference 1.5e+00 "
      "(1 of 1 elements of () differ)\n"
      "gradcheck: the rule of \"squared\" with inputs () is wrong: along a random direction its "
      "gradient is 3.18969, its value changes by 2.12646",
      GraphError);

  // sum() reduces with weight 1, so that the numbers are those of the function.
  const Tensor a = leaf(tensor({{1, 2, 3}, {4, 5, 6}}, DType::f64)), b = leaf(a);
  CHECK(gradcheck_message([](const auto& in) { return sum(product_wrong_in_one(in[0], in[1])); },
                          {a, b}) ==
        "gradcheck: order 1: input 1, element (1, 2): analytic 3, numeric 6, difference 3.0e+00 "
        "(1 of 6 elements of (2, 3) differ)\n"
        "gradcheck: the rule of \"product\" with inputs (2, 3), (2, 3) is wrong: along a random "
        "direction its gradient is -16.7247, its value changes by -15.7216");
  // The worst element stands for the others; each failing input has its line.
  CHECK(gradcheck_message(
            [](const auto& in) {
              const Tensor first = sum(squared(in[0], 3.0));  // before the second on the tape
              return first + sum(squared(in[1], 2.5));
            },
            {a, b}) ==
        "gradcheck: order 1: input 0, element (1, 2): analytic 18, numeric 12, difference 6.0e+00 "
        "(6 of 6 elements of (2, 3) differ)\n"
        "gradcheck: order 1: input 1, element (1, 2): analytic 15, numeric 12, difference 3.0e+00 "
        "(6 of 6 elements of (2, 3) differ)\n"
        "gradcheck: the rule of \"squared\" with inputs (2, 3) is wrong: along a random direction "
        "its gradient is -25.0311, its value changes by -16.6874\n"
        "gradcheck: the rule of \"squared\" with inputs (2, 3) is wrong: along a random direction "
        "its gradient is 32.575, its value changes by 26.06");
}

TEST_CASE("gradcheck: an operation with a wrong rule is named among many") {
  const Tensor x = leaf(uniform({4, 3}, -1.0, 1.0, DType::f64));
  const Tensor w = leaf(uniform({3, 3}, -1.0, 1.0, DType::f64));
  // A tanh whose rule lacks the square, in a small network with views, sums and a chain.
  const auto wrong_tanh = [](const Tensor& t) {
    return record("wrong_tanh", {t}, tanh(t.detach()), Keep::output,
                  [](Back& b) { b.add(0, b.grad * (1.0 - b.out())); });
  };
  const std::string message = gradcheck_message(
      [&](const auto& in) {
        const Tensor h =
            fused([](const Tensor& a, const Tensor& b) { return sigmoid(a) * tanh(b); },
                  matmul(in[0], in[1]), in[0]);
        const Tensor part = wrong_tanh(narrow(h, 1, 1, 2));
        return logsumexp(concatenate({part, h * sum(part)}, 1), 1);
      },
      {x, w});
  const std::size_t first = message.find("gradcheck: the rule of ");
  REQUIRE(first != std::string::npos);
  CHECK(message.find("gradcheck: the rule of \"wrong_tanh\" with inputs (4, 2) is wrong: ") ==
        first);
  CHECK(message.find("gradcheck: the rule of ", first + 1) == std::string::npos);
}

TEST_CASE("gradcheck: gradients of the right sum at the wrong elements are found") {
  const Tensor x = leaf(tensor({1.0, 1.0}, DType::f64));
  const auto swapped = [](const auto& in) {
    return record("swapped", {in[0]}, in[0].detach() * 1.0, Keep::none,
                  [](Back& b) { b.add(0, flip(b.grad, 0)); });
  };
  CHECK(gradcheck([&](const auto& in) { return sum(swapped(in)); }, {x}));  // all weights are 1
  CHECK_THROWS_WITH_AS(
      gradcheck(swapped, {x}),
      "gradcheck: order 1: input 0, element (0): analytic -0.882239297, numeric -0.824575268, "
      "difference 5.8e-02 (2 of 2 elements of (2) differ)\ngradcheck: the rule of \"swapped\" with "
      "inputs (2) is wrong: along a random direction its gradient is -0.985308, its value changes "
      "by -1.09005",
      GraphError);
}

TEST_CASE("gradcheck: a gradient that is NaN or nobody gives is wrong") {
  const Tensor x = leaf(tensor({1.0, 4.0}, DType::f64));
  CHECK(gradcheck_message(
            [](const auto& in) {
              return sum(record("nan", {in[0]}, in[0].detach() * 2.0, Keep::none,
                                [](Back& b) { b.add(0, b.grad * std::nan("")); }));
            },
            {x}) ==
        "gradcheck: order 1: input 0, element (0): analytic nan, numeric 2, difference nan "
        "(2 of 2 elements of (2) differ)\n"
        "gradcheck: the rule of \"nan\" with inputs (2) is wrong: along a random direction its "
        "gradient is nan, its value changes by -2.55988");
  // Nothing is wrong with any operation where something was taken off the tape.
  CHECK(gradcheck_message([](const auto& in) { return sum(in[0].detach() * 2.0); }, {x}) ==
        "gradcheck: order 1: input 0, element (0): analytic 0, numeric 2, difference 2.0e+00 "
        "(2 of 2 elements of (2) differ)");
}

TEST_CASE("gradcheck: a wrong second derivative is found by order 2 only") {
  const Tensor x = leaf(tensor({0.5, 2.0}, DType::f64));
  CHECK(gradcheck([](const auto& in) { return squared_once(in[0]); }, {x}));
  const std::string lost =
      gradcheck_message([](const auto& in) { return sum(squared_once(in[0])); }, {x}, {.order = 2});
  CHECK(lost.find("gradcheck: order 2: input 0, element (") == 0);
  CHECK(lost.find("analytic 0, numeric ") != std::string::npos);
  CHECK(lost.find("(2 of 2 elements of (2) differ)") != std::string::npos);

  CHECK(gradcheck([](const auto& in) { return squared_detached_grad(in[0]); }, {x}));
  const std::string detached = gradcheck_message(
      [](const auto& in) { return squared_detached_grad(in[0]); }, {x}, {.order = 2});
  CHECK(detached.find("gradcheck: order 2: grad_output, element (") == 0);

  CHECK(gradcheck([](const auto& in) { return squared_wrong_when_recorded(in[0]); }, {x}));
  CHECK(gradcheck_message([](const auto& in) { return sum(squared_wrong_when_recorded(in[0])); },
                          {x}, {.order = 2}) ==
        "gradcheck: order 1 under create_graph: input 0, element (1): analytic 6, numeric 4, "
        "difference 2.0e+00 (2 of 2 elements of (2) differ)\n"
        "gradcheck: the rule of \"squared\" with inputs (2) is wrong: along a random direction its "
        "gradient is -3.98659, its value changes by -2.65773");
}

TEST_CASE("gradcheck: linear, constant and partly unused functions have zero second derivatives") {
  const Tensor x = leaf(uniform({2, 3}, -1.0, 1.0, DType::f64)), y = leaf(x);
  const GradcheckOptions second{.order = 2};
  CHECK(gradcheck([](const auto& in) { return in[0] * 3.0; }, {x}, second));
  CHECK(gradcheck([](const auto& in) { return in[0]; }, {x}, second));
  CHECK(gradcheck([](const auto& in) { return sum(in[0] + in[1]); }, {x, y}, second));
  CHECK(gradcheck([](const auto& in) { return sum(square(in[1])); }, {x, y}, second));
  CHECK(gradcheck([](const auto&) { return ones({2}, DType::f64); }, {x}, second));
}

TEST_CASE("gradcheck: shapes without elements and without dimensions pass") {
  const GradcheckOptions second{.order = 2};
  CHECK(gradcheck([](const auto& in) { return square(in[0]); }, {leaf(zeros({0, 3}, DType::f64))},
                  second));
  CHECK(gradcheck([](const auto& in) { return square(in[0]); }, {leaf(tensor(2.0, DType::f64))},
                  second));
}

TEST_CASE("gradcheck: only inputs that require a gradient are checked, under their own number") {
  const Tensor index = arange(2), scale = full({2}, 3.0, DType::f64);
  const Tensor x = leaf(uniform({4, 2}, -1.0, 1.0, DType::f64));
  const auto right = [](const auto& in) { return square(index_select(in[2], 0, in[0])) * in[1]; };
  CHECK(gradcheck(right, {index, scale, x}, {.order = 2}));
  const auto wrong = [](const auto& in) { return sum(squared(in[2], 1.0) * in[1]); };
  CHECK(gradcheck_message(wrong, {index, scale, x}).find("gradcheck: order 1: input 2, ") == 0);
}

TEST_CASE("gradcheck: the parameters of a module are moved where they are") {
  struct {
    Tensor weight = leaf(uniform({2, 3}, -1.0, 1.0, DType::f64));
    Tensor bias = leaf(uniform({2}, -1.0, 1.0, DType::f64));
    Tensor operator()(const Tensor& x) const { return matmul(x, transpose(weight)) + bias; }
  } linear;
  const Tensor x = leaf(uniform({4, 3}, -1.0, 1.0, DType::f64));
  CHECK(gradcheck([&](const auto& in) { return tanh(linear(in[0])); },
                  {x, linear.weight, linear.bias}, {.order = 2}));
  CHECK(gradcheck_message([&](const auto& in) { return linear(in[0]) * linear.bias.detach(); },
                          {x, linear.bias})
            .find("gradcheck: order 1: input 1, element (") == 0);
}

TEST_CASE("gradcheck: inputs are as they were afterwards, whatever happens") {
  const std::vector<double> values{0.1, -0.7, 1.3};
  Tensor x = leaf(from_vector(values));
  x.set_grad(ones({3}, DType::f64));
  CHECK(gradcheck([](const auto& in) { return exp(in[0]); }, {x}, {.order = 2}));
  CHECK(x.to_vector<double>() == values);
  int calls = 0;
  CHECK_THROWS_AS(gradcheck(
                      [&](const auto& in) {
                        if (++calls == 6) throw std::logic_error("in the middle");
                        return exp(in[0]);
                      },
                      {x}),
                  std::logic_error);
  CHECK(x.to_vector<double>() == values);
  CHECK(x.grad().to_vector<double>() == std::vector<double>{1.0, 1.0, 1.0});
}

TEST_CASE("gradcheck: tolerances are the caller's") {
  const Tensor x = leaf(tensor({1.0}, DType::f64));
  const auto slightly = [](const auto& in) { return squared(in[0], 2.02); };
  CHECK_THROWS_WITH_AS(
      gradcheck(slightly, {x}),
      "gradcheck: order 1: input 0, element (0): analytic 2.02, numeric 2, difference 2.0e-02 (1 "
      "of 1 elements of (1) differ)\ngradcheck: the rule of \"squared\" with inputs (1) is wrong: "
      "along a random direction its gradient is 1.43181, its value changes by 1.41764",
      GraphError);
  CHECK(gradcheck(slightly, {x}, {.rtol = 0.011}));
  CHECK(gradcheck(slightly, {x}, {.atol = 0.021}));
}

TEST_CASE("gradcheck: what cannot be checked is an error") {
  const auto id = [](const auto& in) { return in[0] * 1.0; };
  const Tensor x = leaf(uniform({2, 2}, -1.0, 1.0, DType::f64));
  CHECK_THROWS_WITH_AS(gradcheck(id, {x.detach()}), "gradcheck: no input requires a gradient",
                       ValueError);
  CHECK_THROWS_WITH_AS(gradcheck(id, {x, leaf(ones({2}))}),
                       "gradcheck: input 1 must be f64, is f32", ValueError);
  CHECK_THROWS_WITH_AS(gradcheck(id, {x * 2.0}),
                       "gradcheck: input 0 must be a leaf, is the result of an operation",
                       ValueError);
  CHECK_THROWS_WITH_AS(gradcheck(id, {transpose(x.detach()).requires_grad_()}),
                       "gradcheck: input 0 must be contiguous", ValueError);
  CHECK_THROWS_WITH_AS(gradcheck(id, {x}, {.order = 3}), "gradcheck: order must be 1 or 2, got 3",
                       ValueError);
  CHECK_THROWS_WITH_AS(gradcheck([](const auto& in) { return in[0].to(DType::f32); }, {x}),
                       "gradcheck: the result must be f64, is f32", ValueError);
  const auto noisy = [](const auto& in) { return in[0] * normal({2, 2}, 0.0, 1.0, DType::f64); };
  CHECK_THROWS_WITH_AS(gradcheck(noisy, {x}),
                       "gradcheck: two calls with the same inputs gave different results",
                       ValueError);
  NoGrad no_grad;
  CHECK_THROWS_WITH_AS(gradcheck(id, {x}), "gradcheck: called under NoGrad, nothing is recorded",
                       GraphError);
}
