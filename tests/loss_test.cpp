// Losses: PyTorch's numbers, gradients, what counts, and errors. tests/ops_reduce_test.cpp holds
// cross_entropy against its formula.

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "framework/autograd.h"
#include "framework/gradcheck.h"
#include "framework/ops.h"
#include "framework/random.h"
#include "tests/compare.h"
#include "tests/reference.h"

using namespace unroll;

namespace {

using Json = nlohmann::json;

constexpr double kNan = std::numeric_limits<double>::quiet_NaN();

/// Any of the losses, with what a case of the reference says.
Tensor run_loss(const Json& test, const Tensor& x, const Tensor& y) {
  const std::string name = test["loss"], reduced = test["reduction"];
  const Reduction reduction = reduced == "none"   ? Reduction::none
                              : reduced == "mean" ? Reduction::mean
                                                  : Reduction::sum;
  const auto option = [&](const char* key, double otherwise) {
    return test["options"].value(key, otherwise);
  };
  const auto given = [&](const char* key) {
    return test["tensors"].contains(key) ? read_tensor(test["tensors"][key], x.dtype()) : Tensor();
  };
  if (name == "cross_entropy")
    return cross_entropy(x, y,
                         {.weight = given("weight"),
                          .reduction = reduction,
                          .label_smoothing = option("label_smoothing", 0.0)});
  if (name == "nll_loss")
    return nll_loss(x, y, {.weight = given("weight"), .reduction = reduction});
  if (name == "mse_loss") return mse_loss(x, y, {.reduction = reduction});
  if (name == "l1_loss") return l1_loss(x, y, {.reduction = reduction});
  if (name == "huber_loss")
    return huber_loss(x, y, {.reduction = reduction, .delta = option("delta", 1.0)});
  REQUIRE(name == "binary_cross_entropy_with_logits");
  return binary_cross_entropy_with_logits(
      x, y, {.weight = given("weight"), .reduction = reduction, .pos_weight = given("pos_weight")});
}

bool of_classes(const Json& test) { return test["target"]["shape"] != test["input"]["shape"]; }

/// Logits [T, B, C] for two sequences of 3 and 1 steps; `padding` stands behind the end.
Tensor padded_logits(double padding) {
  manual_seed(7);
  Tensor x = uniform({3, 2, 4}, -2.0, 2.0, DType::f64);
  slice(slice(x, 0, 1, 3), 1, 1, 2).fill_(padding);
  return x.requires_grad_();
}
const std::vector<std::int64_t> kTargets{1, 3, 0, 2, 2, 2};
Tensor padded_targets() { return from_vector(kTargets, {3, 2}); }
Tensor lengths() { return from_vector<std::int64_t>({3, 1}); }

}  // namespace

TEST_CASE("loss: values and gradients are PyTorch's") {
  int cases = 0;
  for (const Json& test : read_reference("losses.json")) {
    for (const DType dtype : {DType::f32, DType::f64}) {
      CAPTURE(test["loss"].dump());
      CAPTURE(test["reduction"].dump());
      CAPTURE(test["options"].dump());
      CAPTURE(test["tensors"].dump());
      CAPTURE(to_string(dtype));
      const Tensor x = read_tensor(test["input"], dtype).requires_grad_();
      const Tensor y = read_tensor(test["target"], of_classes(test) ? DType::i64 : dtype);
      const Tensor value = run_loss(test, x, y);
      sum(value * read_tensor(test["seed"], dtype)).backward();
      // Relative to the largest element: a sum of 24 squares is some 20.
      const auto check = [&](const Tensor& got, const Tensor& want) {
        const double tolerance = dtype == DType::f32 ? 3e-6 : 1e-13;
        CHECK(max_difference(got, want) < tolerance * std::max(1.0, max(abs(want)).item()));
      };
      check(value, read_tensor(test["value"], DType::f64));
      check(x.grad(), read_tensor(test["input_grad"], DType::f64));
      ++cases;
    }
  }
  CHECK(cases == 2 * 72);
}

TEST_CASE("loss: gradcheck of orders 1 and 2") {
  for (const Json& test : read_reference("losses.json")) {
    if (test["loss"] == "l1_loss" && test["reduction"] != "mean") continue;
    CAPTURE(test["loss"].dump());
    CAPTURE(test["options"].dump());
    const bool classes = of_classes(test);
    const Tensor x = read_tensor(test["input"], DType::f64).requires_grad_();
    Tensor y = read_tensor(test["target"], classes ? DType::i64 : DType::f64);
    if (!classes) y.requires_grad_();
    CHECK(gradcheck_message([&](const auto&) { return run_loss(test, x, y); }, {x, y},
                            {.order = 2}) == "");
  }
}

// --- What counts --------------------------------------------------------------------------------

TEST_CASE("loss: mask, lengths and ignore_index are three ways to say the same") {
  const Tensor x = padded_logits(0.5), y = padded_targets();
  const Tensor mask = tensor({{1, 1}, {1, 0}, {1, 0}});
  std::vector<std::int64_t> ignored = kTargets;
  ignored[3] = ignored[5] = -100;
  for (const Reduction reduction : {Reduction::none, Reduction::mean, Reduction::sum}) {
    const Tensor expected =
        cross_entropy(x, from_vector(ignored, {3, 2}), {.reduction = reduction});
    CHECK(max_difference(cross_entropy(x, y, {.reduction = reduction, .lengths = lengths()}),
                         expected) == 0.0);
    CHECK(max_difference(cross_entropy(x, y, {.reduction = reduction, .mask = mask}), expected) ==
          0.0);
    const Tensor log_probs = log_softmax(x);
    CHECK(max_difference(nll_loss(log_probs, y, {.reduction = reduction, .lengths = lengths()}),
                         expected) < 1e-14);
  }
  // The mean over four targets, by hand.
  const Tensor each = cross_entropy(x, y, {.reduction = Reduction::none});
  const std::vector<double> v = each.to_vector<double>();
  CHECK(cross_entropy(x, y, {.lengths = lengths()}).item() ==
        doctest::Approx((v[0] + v[1] + v[2] + v[4]) / 4).epsilon(1e-14));
  // What counts must count in all ways.
  CHECK(cross_entropy(x, y, {.mask = tensor({0, 1, 1}), .lengths = lengths()}).item() ==
        doctest::Approx((v[2] + v[4]) / 2).epsilon(1e-14));
}

TEST_CASE("loss: elementwise ones have the mean over what counts") {
  const Tensor x = tensor({{1, 2}, {3, 4}, {5, 6}}), y = zeros({3, 2});
  CHECK(mse_loss(x, y, {.lengths = lengths()}).item() == doctest::Approx((1 + 4 + 9 + 25) / 4.0));
  CHECK(l1_loss(x, y, {.mask = tensor({0, 1, 0})}).item() == doctest::Approx(3.5));
  CHECK(l1_loss(x, y, {.reduction = Reduction::sum, .mask = tensor({0, 0.5, -1})}).item() == 18.0);
  CHECK(std::isnan(mse_loss(x, y, {.mask = tensor({0, 0, 0})}).item()));
  CHECK(max_difference(huber_loss(x, y, {.reduction = Reduction::none, .lengths = lengths()}),
                       tensor({{0.5, 1.5}, {2.5, 0}, {4.5, 0}})) == 0.0);
  // Of values [T, B, F] a step counts or not.
  const Tensor wide = ones({3, 2, 5});
  CHECK(
      l1_loss(wide, zeros({3, 2, 5}), {.reduction = Reduction::sum, .lengths = lengths()}).item() ==
      20.0);
}

TEST_CASE("loss: what stands where nothing counts leaves no trace, NaN included") {
  const auto gradient = [](double padding, const auto& loss) {
    const Tensor x = padded_logits(padding);
    const Tensor value = loss(x);
    CHECK(std::isfinite(value.item()));
    value.backward();
    return x.grad();
  };
  const auto same = [&](const auto& loss) {
    CHECK(max_difference(gradient(kNan, loss), gradient(0.25, loss)) == 0.0);
  };
  same([](const Tensor& x) { return cross_entropy(x, padded_targets(), {.lengths = lengths()}); });
  same([](const Tensor& x) {
    return cross_entropy(x, padded_targets(), {.label_smoothing = 0.1, .lengths = lengths()});
  });
  same([](const Tensor& x) {
    const Tensor first =
        grad(cross_entropy(x, padded_targets(), {.lengths = lengths()}), x, {.create_graph = true});
    return sum(square(first));
  });
  same([](const Tensor& x) { return nll_loss(x, padded_targets(), {.lengths = lengths()}); });
  const Tensor y = full({3, 2, 4}, 0.5, DType::f64);
  same([&](const Tensor& x) { return mse_loss(x, y, {.lengths = lengths()}); });
  same([&](const Tensor& x) { return l1_loss(x, y, {.lengths = lengths()}); });
  same([&](const Tensor& x) { return huber_loss(x, y, {.lengths = lengths()}); });
  same([&](const Tensor& x) {
    return binary_cross_entropy_with_logits(x, y, {.lengths = lengths()});
  });
}

TEST_CASE("loss: of no classes, where no target counts, it is 0") {
  const Tensor logits = zeros({3, 0}).requires_grad_(), targets = zeros({3}, DType::i64);
  const Tensor mask = zeros({3}), weight = zeros({0});
  for (const Reduction reduction : {Reduction::none, Reduction::sum})
    for (const Tensor& loss :
         {nll_loss(logits, targets, {.weight = weight, .reduction = reduction, .mask = mask}),
          cross_entropy(logits, targets,
                        {.weight = weight, .reduction = reduction, .mask = mask})}) {
      CHECK(sum(abs(loss)).item() == 0.0);
      sum(loss).backward();
      CHECK(logits.grad().shape() == Shape{3, 0});
    }
}

TEST_CASE("loss: sequence_mask is 1 as long as a sequence lasts") {
  CHECK(max_difference(sequence_mask(from_vector<std::int64_t>({2, 0, 3}), 3),
                       tensor({{1, 0, 1}, {1, 0, 1}, {0, 0, 1}})) == 0.0);
  CHECK(sequence_mask(lengths(), 4, DType::f64).dtype() == DType::f64);
  CHECK(sequence_mask(zeros({0}, DType::i64), 2).shape() == Shape{2, 0});
  CHECK_THROWS_WITH_AS(sequence_mask(lengths(), 2),
                       "sequence_mask: length 3 of sequence 0 is not in [0, 2]", ValueError);
  CHECK_THROWS_WITH_AS(sequence_mask(lengths(), -1),
                       "sequence_mask: steps must not be negative, but is -1", ValueError);
}

// --- Large numbers ------------------------------------------------------------------------------

TEST_CASE("loss: nothing overflows, and nothing is lost beside large numbers") {
  const Tensor x = tensor({{1e4, 1e4 - 1, -3e38}}).requires_grad_();
  const Tensor y = from_vector<std::int64_t>({1});
  const Tensor loss = cross_entropy(x, y);
  CHECK(loss.item() == doctest::Approx(1.0 + std::log(1.0 + std::exp(-1.0))).epsilon(1e-7));
  loss.backward();
  const double p = 1.0 / (1.0 + std::exp(-1.0));
  CHECK(max_difference(x.grad(), tensor({{p, -p, 0.0}})) < 1e-7);

  // One class has all the probability: the loss is as small as it should be.
  CHECK(cross_entropy(tensor({{30, 0}}), from_vector<std::int64_t>({0})).item() < 1e-12);
  const Tensor far = tensor({-200, 200, 50, -50}).requires_grad_();
  const Tensor bce =
      binary_cross_entropy_with_logits(far, tensor({0, 1, 1, 0}), {.reduction = Reduction::none});
  CHECK(max_difference(bce * 1e22, tensor({0, 0, 1.928749847963918, 1.928749847963918})) < 1e-5);
  CHECK(max_difference(binary_cross_entropy_with_logits(far, tensor({1, 0, 0, 1}),
                                                        {.reduction = Reduction::none}),
                       tensor({200, 200, 50, 50})) == 0.0);
}

TEST_CASE("loss: the gradient of a large cross entropy is shared between threads") {
  manual_seed(3);
  const Tensor x = normal({1500, 70}).requires_grad_();
  const Tensor y = randint(0, 70, {1500});
  cross_entropy(x, y).backward();
  const Tensor expected = (softmax(x.detach()) - one_hot(y, 70)) / 1500.0;
  CHECK(max_difference(x.grad(), expected) < 1e-9);
  CHECK(perplexity(x, y) == doctest::Approx(std::exp(cross_entropy(x, y).item())).epsilon(1e-12));
}

TEST_CASE("loss: perplexity of equal logits is the number of classes") {
  const Tensor x = zeros({3, 2, 7}).requires_grad_();
  CHECK(perplexity(x, padded_targets()) == doctest::Approx(7.0).epsilon(1e-6));
  CHECK(perplexity(padded_logits(kNan), padded_targets(), {.lengths = lengths()}) ==
        doctest::Approx(std::exp(
            cross_entropy(padded_logits(0), padded_targets(), {.lengths = lengths()}).item())));
}

// --- Errors -------------------------------------------------------------------------------------

TEST_CASE("loss: what does not fit is said") {
  const Tensor x = zeros({3, 2, 4}), y = zeros({3, 2}, DType::i64);
  CHECK_THROWS_WITH_AS(cross_entropy(x, y, {.weight = ones({3})}),
                       "cross_entropy: 4 classes need weights (4), got (3)", ShapeError);
  CHECK_THROWS_WITH_AS(cross_entropy(x, y, {.weight = ones({4}, DType::f64)}),
                       "cross_entropy: dtypes differ: f32 and f64", DTypeError);
  CHECK_THROWS_WITH_AS(cross_entropy(x, y, {.label_smoothing = 1.5}),
                       "cross_entropy: label_smoothing must be in [0, 1], but is 1.5", ValueError);
  CHECK_THROWS_WITH_AS(cross_entropy(x, y, {.label_smoothing = kNan}),
                       "cross_entropy: label_smoothing must be in [0, 1], but is nan", ValueError);
  CHECK_THROWS_WITH_AS(
      cross_entropy(x, y, {.mask = ones({2, 3})}),
      "cross_entropy: the mask (2, 3) is not of the shape (3, 2), or of its first dimensions",
      ShapeError);
  CHECK_THROWS_WITH_AS(
      cross_entropy(x, y, {.lengths = zeros({3}, DType::i64)}),
      "cross_entropy: lengths (3) do not fit (3, 2): needed are (B) and (T, B, ...)", ShapeError);
  CHECK_THROWS_WITH_AS(cross_entropy(x, y, {.lengths = zeros({2})}),
                       "cross_entropy: indices are i64, got f32", DTypeError);
  CHECK_THROWS_WITH_AS(cross_entropy(x, y, {.lengths = from_vector<std::int64_t>({3, 4})}),
                       "cross_entropy: length 4 of sequence 1 is not in [0, 3]", ValueError);
  CHECK_THROWS_WITH_AS(cross_entropy(x, y, {.lengths = from_vector<std::int64_t>({-1, 3})}),
                       "cross_entropy: length -1 of sequence 0 is not in [0, 3]", ValueError);

  CHECK_THROWS_WITH_AS(nll_loss(x, zeros({3}, DType::i64)),
                       "nll_loss: log_probs (3, 2, 4) need targets (3, 2), got (3)", ShapeError);
  CHECK_THROWS_WITH_AS(nll_loss(zeros({}), y),
                       "nll_loss: log_probs () have no dimension of classes", ShapeError);
  CHECK_THROWS_WITH_AS(nll_loss(x, full({3, 2}, 4, DType::i64)),
                       "nll_loss: target 4 at position (0, 0) is out of range [0, 4)", IndexError);

  const Tensor a = zeros({3, 2});
  CHECK_THROWS_WITH_AS(mse_loss(a, zeros({2})),
                       "mse_loss: the input has shape (3, 2), the target (2)", ShapeError);
  CHECK_THROWS_WITH_AS(l1_loss(a, zeros({3, 2}, DType::f64)), "l1_loss: dtypes differ: f32 and f64",
                       DTypeError);
  CHECK_THROWS_WITH_AS(mse_loss(y, y), "mse_loss: needs a floating-point tensor, got i64",
                       DTypeError);
  CHECK_THROWS_WITH_AS(huber_loss(a, a, {.delta = 0}),
                       "huber_loss: delta must be above 0, but is 0", ValueError);
  CHECK_THROWS_WITH_AS(huber_loss(a, a, {.lengths = lengths().to(DType::f32)}),
                       "huber_loss: indices are i64, got f32", DTypeError);
  CHECK_THROWS_WITH_AS(
      binary_cross_entropy_with_logits(a, a, {.pos_weight = ones({4, 3, 2})}),
      "binary_cross_entropy_with_logits: pos_weight (4, 3, 2) does not broadcast to the input (3, "
      "2)",
      ShapeError);
}

TEST_CASE("loss: a value that changed under the tape is an error") {
  const Tensor w = ones({2, 3}).requires_grad_();
  Tensor x = w * 1.0;
  const Tensor loss = cross_entropy(x, zeros({2}, DType::i64));
  x.detach().fill_(2.0);
  CHECK_THROWS_WITH_AS(loss.backward(),
                       "backward: input 0 of cross_entropy, a tensor of shape (2, 3), was written "
                       "in place after it was used; the gradient needs its old values",
                       GraphError);
}
