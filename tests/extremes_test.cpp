// Numbers at the edge: +-1e4 and masks of -inf. Values and gradients against closed forms, so that
// no formula here has the overflow that it looks for.

#include <doctest/doctest.h>

#include <cmath>
#include <limits>
#include <vector>

#include "tests/support.h"

using namespace unroll;
using namespace unroll::test;

namespace {

constexpr double kInf = std::numeric_limits<double>::infinity();
constexpr double kBig = 1e4;

struct Case {
  DType dtype;
  double tolerance;
};
constexpr Case kCases[] = {{DType::f32, 1e-6}, {DType::f64, 1e-13}};

/// Rows of logits: one wins by far, all are far below 0, two share, one stands below the others.
Tensor far_logits(DType dtype) {
  return tensor(
      {{kBig, -kBig, 0.0}, {-kBig, -kBig, -kBig}, {kBig, kBig, -kBig}, {-kBig, -1.0, -1.0}}, dtype);
}
const Array kFarSoftmax{{4, 3}, {1, 0, 0, 1.0 / 3, 1.0 / 3, 1.0 / 3, 0.5, 0.5, 0, 0, 0.5, 0.5}};
const double kFarLogSumExp[] = {kBig, -kBig + std::log(3.0), kBig + std::log(2.0),
                                -1.0 + std::log(2.0)};

/// d sum(v y) / dx for y = softmax(x): p (v - <p, v>).
Array softmax_gradient(const Array& p, const std::vector<double>& v) {
  const std::int64_t n = p.shape[1];
  return generate(p.shape, [&](const Shape& at) {
    double mean = 0.0;
    for (std::int64_t j = 0; j < n; ++j) mean += p.at({at[0], j}) * v[static_cast<std::size_t>(j)];
    return p.at(at) * (v[static_cast<std::size_t>(at[1])] - mean);
  });
}

}  // namespace

TEST_CASE("extremes: softmax, log_softmax and logsumexp at +-1e4") {
  const std::vector<double> v{1.0, 2.0, 4.0};
  for (const Case& c : kCases) {
    CAPTURE(to_string(c.dtype));
    Tensor x = far_logits(c.dtype).requires_grad_();
    const Tensor y = softmax(x);
    CHECK(difference(y, kFarSoftmax, c.tolerance) == "");
    CHECK(difference(grad(sum(y * from_vector(v).to(c.dtype)), x), softmax_gradient(kFarSoftmax, v),
                     c.tolerance, 1.0) == "");

    const Tensor l = log_softmax(x);
    const double two = std::log(2.0), three = std::log(3.0);
    CHECK(difference(l,
                     {{4, 3},
                      {0, -2 * kBig, -kBig, -three, -three, -three, -two, -two, -2 * kBig - two,
                       1 - kBig - two, -two, -two}},
                     c.tolerance, 1.0) == "");
    // d sum(l) / dx = 1 - 3 p
    CHECK(difference(grad(sum(l), x),
                     generate({4, 3}, [](const Shape& at) { return 1 - 3 * kFarSoftmax.at(at); }),
                     3 * c.tolerance, 1.0) == "");

    const Tensor z = logsumexp(x, 1);
    CHECK(difference(z, {{4}, {std::begin(kFarLogSumExp), std::end(kFarLogSumExp)}}, c.tolerance) ==
          "");
    CHECK(difference(grad(sum(z), x), kFarSoftmax, c.tolerance) == "");
  }
}

TEST_CASE("extremes: cross_entropy and nll_loss at +-1e4") {
  const Tensor targets = from_vector<std::int64_t>({1, 0, 2, 1});
  const std::vector<double> expected{2 * kBig, std::log(3.0), 2 * kBig + std::log(2.0),
                                     std::log(2.0)};
  // d/dx sum = p - onehot
  const Array gradient = generate({4, 3}, [&](const Shape& at) {
    const double target = at[1] == std::vector{1, 0, 2, 1}[static_cast<std::size_t>(at[0])];
    return kFarSoftmax.at(at) - target;
  });
  for (const Case& c : kCases) {
    CAPTURE(to_string(c.dtype));
    Tensor x = far_logits(c.dtype).requires_grad_();
    for (const Tensor& loss : {cross_entropy(x, targets, {.reduction = Reduction::none}),
                               nll_loss(log_softmax(x), targets, {.reduction = Reduction::none})}) {
      CHECK(difference(loss, {{4}, expected}, c.tolerance) == "");
      CHECK(difference(grad(sum(loss), x), gradient, c.tolerance, 1.0) == "");
    }
    // Smoothing gives a part of the probability to classes that are 2e4 away.
    const Tensor smooth =
        cross_entropy(x, targets, {.reduction = Reduction::sum, .label_smoothing = 0.3});
    CHECK(difference(grad(smooth, x),
                     generate({4, 3},
                              [&](const Shape& at) {
                                const double target = kFarSoftmax.at(at) - gradient.at(at);
                                return kFarSoftmax.at(at) - 0.7 * target - 0.1;
                              }),
                     c.tolerance, 1.0) == "");
    CHECK(std::isfinite(smooth.item()));
  }
}

TEST_CASE("extremes: sigmoid, softplus, tanh and binary cross entropy at +-1e4") {
  for (const Case& c : kCases) {
    CAPTURE(to_string(c.dtype));
    Tensor x = tensor({-kBig, -30.0, 30.0, kBig}, c.dtype).requires_grad_();
    const double small = std::exp(-30.0) / (1.0 + std::exp(-30.0));
    // sigmoid(30) is rounded to a number whose distance to 1 has few digits left: floor 1.
    CHECK(difference(sigmoid(x), {{4}, {0.0, small, 1.0 - small, 1.0}}, c.tolerance, 1e-30) == "");
    CHECK(difference(grad(sum(sigmoid(x)), x), {{4}, {0.0, small, small, 0.0}}, c.tolerance, 1.0) ==
          "");
    CHECK(difference(softplus(x), {{4}, {0.0, small, 30.0 + small, kBig}}, c.tolerance, 1e-30) ==
          "");
    CHECK(difference(grad(sum(softplus(x)), x), {{4}, {0.0, small, 1.0 - small, 1.0}}, c.tolerance,
                     1e-30) == "");
    CHECK(difference(tanh(x), {{4}, {-1, -1, 1, 1}}, c.tolerance) == "");
    CHECK(difference(grad(sum(tanh(x)), x), {{4}, {0, 0, 0, 0}}, c.tolerance, 1.0) == "");

    for (double target : {0.0, 0.25, 1.0}) {
      CAPTURE(target);
      const Tensor y = full({4}, target, c.dtype);
      const Tensor loss = binary_cross_entropy_with_logits(x, y, {.reduction = Reduction::none});
      // max(x, 0) - x y + log(1 + e^-|x|)
      CHECK(difference(loss,
                       {{4},
                        {kBig * target, 30 * target + small, 30 - 30 * target + small,
                         kBig - kBig * target}},
                       2 * c.tolerance, 1e-12) == "");
      CHECK(difference(grad(sum(loss), x),
                       {{4}, {-target, small - target, 1 - small - target, 1 - target}},
                       c.tolerance, 1.0) == "");
    }
  }
}

TEST_CASE(
    "extremes: what a mask sets to -inf has probability 0, and the rest is as if it were not") {
  for (const Case& c : kCases) {
    CAPTURE(to_string(c.dtype));
    Tensor x = tensor({{3.0, kBig, -1.0, 2.0}, {kBig, kBig, 0.5, -kBig}}, c.dtype).requires_grad_();
    const Tensor mask = tensor({{0, 1, 0, 0}, {1, 1, 0, 0}}, c.dtype);
    const auto masked = [&] { return masked_fill(x, mask, -kInf); };
    const double all = std::exp(3.0) + std::exp(-1.0) + std::exp(2.0);
    const Array p{{2, 4},
                  {std::exp(3.0) / all, 0, std::exp(-1.0) / all, std::exp(2.0) / all, 0, 0, 1, 0}};
    const std::vector<double> v{1.0, 2.0, 4.0, 8.0};

    CHECK(difference(softmax(masked()), p, c.tolerance) == "");
    CHECK(difference(grad(sum(softmax(masked()) * from_vector(v).to(c.dtype)), x),
                     softmax_gradient(p, v), 8 * c.tolerance, 1.0) == "");
    CHECK(difference(logsumexp(masked(), 1), {{2}, {std::log(all), 0.5}}, c.tolerance) == "");
    CHECK(difference(grad(sum(logsumexp(masked(), 1)), x), p, c.tolerance, 1.0) == "");

    const Tensor targets = from_vector<std::int64_t>({3, 2});
    for (const Tensor& loss :
         {cross_entropy(masked(), targets, {.reduction = Reduction::sum}),
          nll_loss(log_softmax(masked()), targets, {.reduction = Reduction::sum})}) {
      CHECK(loss.item() == doctest::Approx(std::log(all) - 2.0).epsilon(1e-6));
      CHECK(difference(grad(loss, x),
                       generate({2, 4},
                                [&](const Shape& at) {
                                  const bool target = at[1] == (at[0] == 0 ? 3 : 2);
                                  return p.at(at) - (target ? 1.0 : 0.0);
                                }),
                       c.tolerance, 1.0) == "");
    }
    CHECK(difference(sigmoid(masked()),
                     generate({2, 4},
                              [&](const Shape& at) {
                                const double z = to_array(masked()).at(at);
                                return 1.0 / (1.0 + std::exp(-z));
                              }),
                     c.tolerance, 1e-30) == "");
    const Array gate = to_array(grad(sum(sigmoid(masked())), x));
    for (double g : gate.values) CHECK(std::isfinite(g));
    CHECK(gate.at({0, 1}) == 0.0);

    // A logit of -inf is a certain "no"; of the other target nothing but infinity can be said.
    Tensor certain = full({2}, -kInf, c.dtype).requires_grad_();
    const Tensor bce = binary_cross_entropy_with_logits(certain, zeros({2}, c.dtype));
    CHECK(bce.item() == 0.0);
    CHECK(to_array(grad(bce, certain)).values == std::vector{0.0, 0.0});
  }
}
