// Optimizers, clipping, schedules.

#include "optim/optim.h"

#include <doctest/doctest.h>

#include <cmath>
#include <limits>
#include <memory>
#include <string>
#include <vector>

#include "framework/autograd.h"
#include "framework/ops.h"
#include "framework/random.h"
#include "tests/compare.h"
#include "tests/reference.h"

using namespace unroll;

namespace {

using Json = nlohmann::json;

std::unique_ptr<Optimizer> make_optimizer(const Json& test, std::vector<Tensor> parameters) {
  const Json& options = test["options"];
  const double weight_decay = options.value("weight_decay", 0.0);
  if (test["optimizer"] == "sgd")
    return std::make_unique<SGD>(std::move(parameters),
                                 SGDOptions{.lr = options["lr"],
                                            .momentum = options.value("momentum", 0.0),
                                            .nesterov = options.value("nesterov", false),
                                            .weight_decay = weight_decay});
  AdamOptions adam{.lr = options["lr"],
                   .eps = options.value("eps", AdamOptions().eps),
                   .weight_decay = weight_decay};
  if (options.contains("betas")) adam.betas = {options["betas"][0], options["betas"][1]};
  return std::make_unique<Adam>(std::move(parameters), adam);
}

/// A quadratic of two parameters, for tests that need some training.
struct Bowl {
  Tensor a = tensor({{1, -2}, {3, 4}}).requires_grad_();
  Tensor b = tensor({5, -6}).requires_grad_();
  std::vector<Tensor> parameters() const { return {a, b}; }
  void train(Optimizer& optimizer, int steps) const {
    for (int i = 0; i < steps; ++i) {
      optimizer.zero_grad();
      sum(square(matmul(a, b)) + square(b - 1.0)).backward();
      optimizer.step();
    }
  }
};

NamedTensors copy_of(const NamedTensors& state) {
  NamedTensors copy;
  for (const auto& [name, tensor] : state) copy.emplace_back(name, tensor.clone());
  return copy;
}

}  // namespace

TEST_CASE("optim: 20 steps end where PyTorch's do") {
  int cases = 0;
  for (const Json& test : read_reference("optim.json")) {
    for (const DType dtype : {DType::f32, DType::f64}) {
      CAPTURE(test["optimizer"].dump());
      CAPTURE(test["options"].dump());
      CAPTURE(to_string(dtype));
      const Tensor x = read_tensor(test["x"], dtype), y = read_tensor(test["y"], dtype);
      const Tensor w = read_tensor(test["start"]["w"], dtype).requires_grad_();
      const Tensor b = read_tensor(test["start"]["b"], dtype).requires_grad_();
      const Tensor s = read_tensor(test["start"]["s"], dtype).requires_grad_();
      const auto optimizer = make_optimizer(test, {w, b, s});
      for (int step = 0; step < 20; ++step) {
        optimizer->zero_grad();
        Tensor loss = mean(square(matmul(x, transpose(w)) + b - y));
        if (step % 2 == 0) loss = loss + mean(square(s)) / 2.0;
        loss.backward();
        optimizer->step();
      }
      const Json& end = test["end_" + to_string(dtype)];
      const double tolerance = dtype == DType::f32 ? 1e-6 : 1e-12;
      CHECK(max_difference(w, read_tensor(end["w"], DType::f64)) < tolerance);
      CHECK(max_difference(b, read_tensor(end["b"], DType::f64)) < tolerance);
      CHECK(max_difference(s, read_tensor(end["s"], DType::f64)) < tolerance);
      ++cases;
    }
  }
  CHECK(cases == 18);
}

TEST_CASE("optim: a large parameter is updated as a small one, element by element") {
  // Large enough to be shared between threads, and not a multiple of any vector length.
  const std::int64_t n = 300'001;
  manual_seed(40);
  const Tensor large = normal({n}).requires_grad_();
  const Tensor g = normal({n});
  const Tensor part = narrow(large.detach(), 0, n - 1000, 1000).clone().requires_grad_();
  const Tensor part_g = narrow(g, 0, n - 1000, 1000);
  const auto train = [](Optimizer& optimizer, Tensor parameter, const Tensor& grad) {
    for (int i = 0; i < 3; ++i) {
      parameter.set_grad(grad);
      optimizer.step();
    }
  };
  SUBCASE("Adam") {
    Adam one({large}), other({part});
    train(one, large, g);
    train(other, part, part_g);
  }
  SUBCASE("SGD") {
    SGD one({large}, {.lr = 0.1, .momentum = 0.9}), other({part}, {.lr = 0.1, .momentum = 0.9});
    train(one, large, g);
    train(other, part, part_g);
  }
  CHECK(max_difference(narrow(large.detach(), 0, n - 1000, 1000), part) < 1e-6);
}

TEST_CASE("optim: parameters without a gradient stay as they are") {
  const Bowl bowl;
  Adam adam(bowl.parameters(), {.lr = 0.1});
  const Tensor before = bowl.a.detach().clone();
  sum(square(bowl.b)).backward();
  adam.step();
  CHECK(max_difference(bowl.a, before) == 0.0);
  CHECK(max_difference(bowl.b, tensor({4.9, -5.9})) < 1e-6);
  CHECK(adam.state_dict().size() == 4);  // lr, and three of parameter 1
}

TEST_CASE("optim: a gradient of any layout is taken") {
  const Tensor w = zeros({2, 3}).requires_grad_();
  SGD sgd({w}, {.lr = 1.0});
  Tensor(w).set_grad(transpose(tensor({{1, 2}, {3, 4}, {5, 6}})));
  sgd.step();
  CHECK(max_difference(w, tensor({{-1, -3, -5}, {-2, -4, -6}})) == 0.0);
}

TEST_CASE("optim: zero_grad leaves no gradient") {
  const Bowl bowl;
  SGD sgd(bowl.parameters());
  sum(bowl.a).backward();
  CHECK(bowl.a.grad().defined());
  sgd.zero_grad();
  CHECK_FALSE(bowl.a.grad().defined());
}

TEST_CASE("optim: training goes on from a saved state to the same bits") {
  const auto check = [](const auto& make) {
    const Bowl whole, parts;
    const auto once = make(whole.parameters());
    whole.train(*once, 20);

    NamedTensors state;
    {
      const auto first = make(parts.parameters());
      parts.train(*first, 10);
      state = copy_of(first->state_dict());
    }
    const auto second = make(parts.parameters());
    second->load_state_dict(state);
    parts.train(*second, 10);
    CHECK(max_difference(whole.a, parts.a) == 0.0);
    CHECK(max_difference(whole.b, parts.b) == 0.0);

    // Without the state it would have gone elsewhere.
    const Bowl fresh;
    for (int i = 0; i < 2; ++i) {
      const auto forgetful = make(fresh.parameters());
      fresh.train(*forgetful, 10);
    }
    CHECK(max_difference(whole.a, fresh.a) > 1e-4);
  };
  SUBCASE("Adam") {
    check([](std::vector<Tensor> p) {
      return std::make_unique<Adam>(std::move(p), AdamOptions{.lr = 0.05});
    });
  }
  SUBCASE("SGD with momentum") {
    check([](std::vector<Tensor> p) {
      return std::make_unique<SGD>(std::move(p), SGDOptions{.lr = 1e-3, .momentum = 0.9});
    });
  }
}

TEST_CASE("optim: the saved state has PyTorch's names") {
  const Bowl bowl;
  Adam adam(bowl.parameters(), {.lr = 0.25});
  bowl.train(adam, 3);
  std::vector<std::string> names;
  for (const auto& [name, tensor] : adam.state_dict()) names.push_back(name);
  CHECK(names == std::vector<std::string>{"lr", "0.step", "0.exp_avg", "0.exp_avg_sq", "1.step",
                                          "1.exp_avg", "1.exp_avg_sq"});
  CHECK(find(adam.state_dict(), "lr").item() == 0.25);
  CHECK(find(adam.state_dict(), "1.step").item() == 3);
  CHECK(find(adam.state_dict(), "1.step").dtype() == DType::i64);

  SGD sgd(bowl.parameters(), {.lr = 1e-3, .momentum = 0.5});
  bowl.train(sgd, 1);
  CHECK(find(sgd.state_dict(), "0.momentum_buffer").shape() == Shape{2, 2});
}

TEST_CASE("optim: a state that does not fit is refused as a whole") {
  const Bowl bowl;
  Adam adam(bowl.parameters(), {.lr = 0.25});
  bowl.train(adam, 2);
  const NamedTensors before = copy_of(adam.state_dict());
  NamedTensors bad = copy_of(before);
  bad[0].second = tensor({0.5}, DType::f64);
  bad[2].second = zeros({3});
  bad.pop_back();
  bad.emplace_back("2.step", tensor(1.0));
  CHECK_THROWS_WITH_AS(adam.load_state_dict(bad),
                       "load_state_dict: Adam: the state does not fit:\n"
                       "  0.exp_avg: expected (2, 2), but is (3)\n"
                       "  2.step: unexpected\n"
                       "  1.exp_avg_sq: missing",
                       ValueError);
  bad = copy_of(before);
  bad[0].second = tensor({0.5}, DType::f64);
  bad[1].second = tensor(0.0, DType::i64);
  CHECK_THROWS_WITH_AS(adam.load_state_dict(bad),
                       "load_state_dict: Adam: 0.step must be at least 1, but is 0", ValueError);
  bad = copy_of(before);
  bad[0].second = tensor({-1.0}, DType::f64);
  CHECK_THROWS_WITH_AS(adam.load_state_dict(bad), "Adam: lr must not be negative, but is -1",
                       ValueError);
  CHECK(adam.lr() == 0.25);
  const NamedTensors after = adam.state_dict();
  REQUIRE(after.size() == before.size());
  for (std::size_t i = 0; i < before.size(); ++i)
    CHECK(max_difference(before[i].second, after[i].second) == 0.0);
}

TEST_CASE("optim: what cannot be optimized is refused") {
  const Tensor w = zeros({2, 3}).requires_grad_();
  CHECK_THROWS_WITH_AS(SGD({}), "SGD: there are no parameters", ValueError);
  CHECK_THROWS_WITH_AS(Adam({w, Tensor()}), "Adam: parameter 1 is undefined", ValueError);
  CHECK_THROWS_WITH_AS(Adam({w, w}), "Adam: parameter 1 is parameter 0 again", ValueError);
  CHECK_THROWS_WITH_AS(Adam({w * 2.0}),
                       "Adam: parameter 0 is not a leaf: an operation on the tape made it",
                       ValueError);
  CHECK_THROWS_WITH_AS(Adam({zeros({2}, DType::i64)}), "Adam: parameter 0 is of i64", ValueError);
  CHECK_THROWS_WITH_AS(Adam({transpose(zeros({2, 3}))}), "Adam: parameter 0 is not contiguous",
                       ValueError);

  CHECK_THROWS_WITH_AS(SGD({w}, {.lr = -1}), "SGD: lr must not be negative, but is -1", ValueError);
  CHECK_THROWS_WITH_AS(SGD({w}, {.momentum = -1}), "SGD: momentum must not be negative, but is -1",
                       ValueError);
  CHECK_THROWS_WITH_AS(SGD({w}, {.nesterov = true}), "SGD: nesterov needs a momentum", ValueError);
  CHECK_THROWS_WITH_AS(SGD({w}, {.weight_decay = -1}),
                       "SGD: weight_decay must not be negative, but is -1", ValueError);
  CHECK_THROWS_WITH_AS(Adam({w}, {.betas = {0.9, 1.0}}),
                       "Adam: betas must be in [0, 1), but are 0.9 and 1", ValueError);
  CHECK_THROWS_WITH_AS(Adam({w}, {.eps = -1}), "Adam: eps must not be negative, but is -1",
                       ValueError);
  Adam adam({w});
  CHECK_THROWS_WITH_AS(adam.set_lr(std::nan("")), "Adam: lr must not be negative, but is nan",
                       ValueError);
}

TEST_CASE("optim: a user's optimizer says what happens to one parameter") {
  struct SignSGD : Optimizer {
    SignSGD(std::vector<Tensor> parameters, double lr)
        : Optimizer("SignSGD", std::move(parameters), lr, {"seen"}) {}
    void update(Tensor& parameter, const Tensor& grad, Slot& slot) override {
      slot.buffers[0].add_(grad);
      parameter.add_(sign(grad), -lr());
    }
  };
  const Bowl bowl;
  SignSGD optimizer(bowl.parameters(), 0.5);
  sum(bowl.a * tensor({{2, -3}, {0, 1}})).backward();
  optimizer.step();
  CHECK(max_difference(bowl.a, tensor({{0.5, -1.5}, {3, 3.5}})) == 0.0);
  CHECK(max_difference(find(optimizer.state_dict(), "0.seen"), tensor({{2, -3}, {0, 1}})) == 0.0);
}

// --- Clipping -----------------------------------------------------------------------------------

TEST_CASE("clip_grad_norm: scales all gradients together, and returns their norm") {
  Tensor a = zeros({2}).requires_grad_();
  Tensor b = zeros({9}, DType::f64).requires_grad_();
  const Tensor unused = zeros({2}).requires_grad_();
  a.set_grad(tensor({3, 0}));
  b.set_grad(tensor({0, 0, 0, 0, 0, 0, 0, 0, -4}, DType::f64));
  CHECK(clip_grad_norm({a, unused, b}, 10.0) == doctest::Approx(5.0).epsilon(1e-12));
  CHECK(max_difference(a.grad(), tensor({3, 0})) == 0.0);

  CHECK(clip_grad_norm({a, unused, b}, 2.0) == doctest::Approx(5.0).epsilon(1e-12));
  const double factor = 2.0 / (5.0 + 1e-6);
  CHECK(max_difference(a.grad(), tensor({3 * factor, 0})) < 1e-7);
  CHECK(b.grad().to_vector<double>()[8] == doctest::Approx(-4 * factor).epsilon(1e-14));
  CHECK_FALSE(unused.grad().defined());
  CHECK(clip_grad_norm({unused}, 1.0) == 0.0);
  CHECK_THROWS_WITH_AS(clip_grad_norm({a}, -1.0),
                       "clip_grad_norm: max_norm must not be negative, but is -1", ValueError);
}

TEST_CASE("clip_grad_norm: two parameters that share a gradient are scaled once each") {
  Tensor a = zeros({2}).requires_grad_(), b = zeros({2}).requires_grad_();
  const Tensor shared = tensor({3, 4});
  a.set_grad(shared);
  b.set_grad(shared);
  const double norm = std::sqrt(50.0);
  CHECK(clip_grad_norm({a, b}, norm / 2) == doctest::Approx(norm));
  CHECK(max_difference(a.grad(), tensor({1.5, 2})) < 1e-6);
  CHECK(max_difference(b.grad(), tensor({1.5, 2})) < 1e-6);
}

TEST_CASE("clip_grad_norm: a gradient that is not finite shows in the norm") {
  Tensor a = zeros({2}).requires_grad_();
  a.set_grad(tensor({1, std::numeric_limits<double>::infinity()}));
  CHECK(std::isinf(clip_grad_norm({a}, 1.0)));
  a.set_grad(tensor({1, std::nan("")}));
  CHECK(std::isnan(clip_grad_norm({a}, 1.0)));
}

TEST_CASE("clip_grad_value: moves every element into the range") {
  Tensor a = zeros({4}).requires_grad_();
  const Tensor unused = zeros({2}).requires_grad_();
  a.set_grad(tensor({-3, -0.5, 0.25, 8}));
  clip_grad_value({a, unused}, 0.5);
  CHECK(max_difference(a.grad(), tensor({-0.5, -0.5, 0.25, 0.5})) == 0.0);
  CHECK_THROWS_WITH_AS(clip_grad_value({a}, -1.0),
                       "clip_grad_value: limit must not be negative, but is -1", ValueError);
}

// --- Schedules ----------------------------------------------------------------------------------

TEST_CASE("lr_scheduler: StepLR multiplies by gamma every step_size epochs") {
  SGD sgd(Bowl().parameters(), {.lr = 8.0});
  StepLR schedule(sgd, 2, 0.5);
  std::vector<double> rates;
  for (int epoch = 0; epoch < 6; ++epoch) {
    rates.push_back(sgd.lr());
    schedule.step();
  }
  CHECK(rates == std::vector<double>{8, 8, 4, 4, 2, 2});
  CHECK(schedule.epoch() == 6);
  CHECK_THROWS_WITH_AS(StepLR(sgd, 0), "StepLR: step_size must be at least 1, but is 0",
                       ValueError);
}

TEST_CASE("lr_scheduler: any function is a schedule, from epoch 0 on") {
  SGD sgd(Bowl().parameters(), {.lr = 4.0});
  LRScheduler warm_up(
      sgd, [](std::int64_t epoch) { return std::min(1.0, 0.25 * static_cast<double>(epoch + 1)); });
  CHECK(sgd.lr() == 1.0);
  for (int i = 0; i < 5; ++i) warm_up.step();
  CHECK(sgd.lr() == 4.0);
}

TEST_CASE("lr_scheduler: goes on from a saved state") {
  SGD first(Bowl().parameters(), {.lr = 8.0});
  StepLR schedule(first, 2, 0.5);
  for (int i = 0; i < 3; ++i) schedule.step();

  SGD second(Bowl().parameters(), {.lr = 1.0});
  StepLR resumed(second, 2, 0.5);
  resumed.load_state_dict(schedule.state_dict());
  CHECK(resumed.epoch() == 3);
  CHECK(second.lr() == 4.0);
  resumed.step();
  CHECK(second.lr() == 2.0);
  CHECK_THROWS_WITH_AS(resumed.load_state_dict({{"epoch", tensor(1.0)}}),
                       "load_state_dict: LRScheduler: the state does not fit:\n  base_lr: missing",
                       ValueError);
  CHECK_THROWS_WITH_AS(
      resumed.load_state_dict({{"epoch", tensor(-1.0)}, {"base_lr", tensor({1.0})}}),
      "load_state_dict: LRScheduler: epoch must not be negative, but is -1", ValueError);
  CHECK(resumed.epoch() == 4);
}
