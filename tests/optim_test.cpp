// Optimizers, clipping, schedules.

#include "optim/optim.h"

#include <doctest/doctest.h>

#include <cmath>
#include <limits>
#include <memory>
#include <string>
#include <type_traits>
#include <vector>

#include "framework/autograd.h"
#include "framework/ops.h"
#include "framework/random.h"
#include "tests/compare.h"
#include "tests/reference.h"

using namespace unroll;

namespace {

using Json = nlohmann::json;

std::unique_ptr<Optimizer> make_optimizer(const Json& test, std::vector<Tensor> p) {
  const std::string name = test["optimizer"];
  const Json& given = test["options"];
  /// Sets those of an optimizer's options that are given.
  const auto set = [&](const char* key, auto& option) {
    if (given.contains(key)) option = given[key].get<std::remove_reference_t<decltype(option)>>();
  };
  const auto make = [&]<class O>(auto options, O*, const auto& set_options) {
    set("lr", options.lr);
    set_options(options);
    return std::unique_ptr<Optimizer>(std::make_unique<O>(std::move(p), options));
  };
  const auto set_adam = [&](auto& o) {
    set("betas", o.betas);
    set("eps", o.eps);
    if constexpr (requires { o.weight_decay; }) set("weight_decay", o.weight_decay);
  };
  if (name == "adam") return make(AdamOptions(), static_cast<Adam*>(nullptr), set_adam);
  if (name == "adamw") return make(AdamWOptions(), static_cast<AdamW*>(nullptr), set_adam);
  if (name == "sparse_adam")
    return make(SparseAdamOptions(), static_cast<SparseAdam*>(nullptr), set_adam);
  if (name == "sgd")
    return make(SGDOptions(), static_cast<SGD*>(nullptr), [&](SGDOptions& o) {
      set("momentum", o.momentum);
      set("nesterov", o.nesterov);
      set("weight_decay", o.weight_decay);
    });
  if (name == "rmsprop")
    return make(RMSpropOptions(), static_cast<RMSprop*>(nullptr), [&](RMSpropOptions& o) {
      set("alpha", o.alpha);
      set("eps", o.eps);
      set("weight_decay", o.weight_decay);
      set("momentum", o.momentum);
      set("centered", o.centered);
    });
  if (name == "adagrad")
    return make(AdagradOptions(), static_cast<Adagrad*>(nullptr), [&](AdagradOptions& o) {
      set("lr_decay", o.lr_decay);
      set("eps", o.eps);
      set("weight_decay", o.weight_decay);
      set("initial_accumulator_value", o.initial_accumulator_value);
    });
  REQUIRE(name == "adadelta");
  return make(AdadeltaOptions(), static_cast<Adadelta*>(nullptr), [&](AdadeltaOptions& o) {
    set("rho", o.rho);
    set("eps", o.eps);
    set("weight_decay", o.weight_decay);
  });
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
  CHECK(cases == 2 * 21);
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
  for (const Json& test : read_reference("optim.json")) {
    CAPTURE(test["optimizer"].dump());
    CAPTURE(test["options"].dump());
    const auto make = [&](std::vector<Tensor> parameters) {
      auto optimizer = make_optimizer(test, std::move(parameters));
      if (test["optimizer"] == "sgd") optimizer->set_lr(1e-3);  // more, and it leaves the bowl
      return optimizer;
    };
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
    if (state.size() <= 1 + 2) continue;  // the learning rate and the steps of both parameters

    // Without the state it would have gone elsewhere.
    const Bowl fresh;
    for (int i = 0; i < 2; ++i) {
      const auto forgetful = make(fresh.parameters());
      fresh.train(*forgetful, 10);
    }
    CHECK(max_difference(whole.a, fresh.a) > 1e-5);
  }
}

TEST_CASE("optim: groups of parameters have options of their own") {
  const Bowl together, apart;
  SGD both({together.a}, {.lr = 1e-3});
  both.add_param_group({together.b}, {.lr = 2e-3, .momentum = 0.5});
  SGD one({apart.a}, {.lr = 1e-3}), other({apart.b}, {.lr = 2e-3, .momentum = 0.5});
  for (int i = 0; i < 5; ++i) {
    together.train(both, 1);
    one.zero_grad();
    apart.train(other, 1);
    one.step();
  }
  CHECK(max_difference(together.a, apart.a) == 0.0);
  CHECK(max_difference(together.b, apart.b) == 0.0);
  CHECK(both.groups() == 2);
  CHECK(both.parameters().size() == 2);

  NamedTensors state = both.state_dict();
  std::vector<std::string> names;
  for (const auto& [name, tensor] : state) names.push_back(name);
  CHECK(names == std::vector<std::string>{"lr", "0.step", "1.step", "1.momentum_buffer"});
  CHECK(find(state, "lr").to_vector<double>() == std::vector<double>{1e-3, 2e-3});

  both.set_lr(0.5, 1);
  CHECK(both.lr() == 1e-3);
  CHECK(both.lr(1) == 0.5);
  both.load_state_dict(state);
  CHECK(both.lr(1) == 2e-3);
  both.set_lr(0.25);
  CHECK(both.lr(0) == 0.25);
  CHECK(both.lr(1) == 0.25);

  CHECK_THROWS_WITH_AS(both.lr(2), "SGD: group 2 is out of range [0, 2)", IndexError);
  CHECK_THROWS_WITH_AS(both.set_lr(1.0, 2), "SGD: group 2 is out of range [0, 2)", IndexError);
  CHECK_THROWS_WITH_AS(both.add_param_group({together.a}, {}),
                       "SGD: parameter 2 is parameter 0 again", ValueError);
  CHECK_THROWS_WITH_AS(both.load_state_dict({{"lr", tensor({0.5})}}),
                       "load_state_dict: SGD: the state does not fit:\n"
                       "  lr: expected (2), but is (1)",
                       ValueError);
  CHECK(both.groups() == 2);
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
  CHECK_THROWS_WITH_AS(AdamW({w}, {.weight_decay = -1}),
                       "AdamW: weight_decay must not be negative, but is -1", ValueError);
  CHECK_THROWS_WITH_AS(SparseAdam({w}, {.betas = {-0.5, 0.9}}),
                       "SparseAdam: betas must be in [0, 1), but are -0.5 and 0.9", ValueError);
  CHECK_THROWS_WITH_AS(RMSprop({w}, {.alpha = 1}), "RMSprop: alpha must be in [0, 1), but is 1",
                       ValueError);
  CHECK_THROWS_WITH_AS(RMSprop({w}, {.momentum = -1}),
                       "RMSprop: momentum must not be negative, but is -1", ValueError);
  CHECK_THROWS_WITH_AS(Adagrad({w}, {.lr_decay = -1}),
                       "Adagrad: lr_decay must not be negative, but is -1", ValueError);
  CHECK_THROWS_WITH_AS(Adagrad({w}, {.initial_accumulator_value = -1}),
                       "Adagrad: initial_accumulator_value must not be negative, but is -1",
                       ValueError);
  CHECK_THROWS_WITH_AS(Adadelta({w}, {.rho = 1.5}), "Adadelta: rho must be in [0, 1), but is 1.5",
                       ValueError);
  Adam adam({w});
  CHECK_THROWS_WITH_AS(adam.set_lr(std::nan("")), "Adam: lr must not be negative, but is nan",
                       ValueError);
}

TEST_CASE("optim: a user's optimizer says what happens to one parameter") {
  struct SignSGD : Optimizer {
    SignSGD(std::vector<Tensor> parameters, double rate) : Optimizer("SignSGD") {
      add_group(std::move(parameters), rate, {"seen"});
    }
    void update(Tensor& parameter, const Tensor& grad, Slot& slot) override {
      slot.buffers[0].add_(grad);
      parameter.add_(sign(grad), -lr(slot.group));
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

namespace {

LRRule make_rule(const std::string& name, const Json& o);

std::vector<LRRule> make_rules(const Json& list) {
  std::vector<LRRule> rules;
  for (const Json& rule : list) rules.push_back(make_rule(rule[0], rule[1]));
  return rules;
}

LRRule make_rule(const std::string& name, const Json& o) {
  if (name == "StepLR") return StepLR{o["step_size"], o["gamma"]};
  if (name == "MultiStepLR")
    return MultiStepLR{o["milestones"].get<std::vector<std::int64_t>>(), o["gamma"]};
  if (name == "ExponentialLR") return ExponentialLR{o["gamma"]};
  if (name == "LinearLR")
    return LinearLR{o.value("start_factor", LinearLR().start_factor),
                    o.value("end_factor", LinearLR().end_factor), o["total_iters"]};
  if (name == "CosineAnnealingLR") return CosineAnnealingLR{o["T_max"], o.value("eta_min", 0.0)};
  if (name == "CosineAnnealingWarmRestarts")
    return CosineAnnealingWarmRestarts{o["T_0"], o.value("T_mult", std::int64_t{1}),
                                       o.value("eta_min", 0.0)};
  if (name == "ChainedScheduler") return ChainedScheduler{make_rules(o["rules"])};
  REQUIRE(name == "SequentialLR");
  return SequentialLR{make_rules(o["rules"]), o["milestones"].get<std::vector<std::int64_t>>()};
}

ReduceLROnPlateauOptions plateau_options(const Json& o) {
  ReduceLROnPlateauOptions options;
  if (o.value("mode", "min") == "max") options.mode = ReduceLROnPlateauOptions::Mode::max;
  if (o.value("threshold_mode", "rel") == "abs")
    options.threshold_mode = ReduceLROnPlateauOptions::ThresholdMode::abs;
  options.factor = o.value("factor", options.factor);
  options.patience = o.value("patience", options.patience);
  options.threshold = o.value("threshold", options.threshold);
  options.cooldown = o.value("cooldown", options.cooldown);
  options.min_lr = o.value("min_lr", options.min_lr);
  options.eps = o.value("eps", options.eps);
  return options;
}

}  // namespace

TEST_CASE("lr_scheduler: the learning rates are PyTorch's, also after a new start in between") {
  int cases = 0;
  for (const Json& test : read_reference("schedules.json")) {
    const std::string name = test["schedule"];
    CAPTURE(name);
    CAPTURE(test["options"].dump());
    const auto expected = test["rates"].get<std::vector<double>>();
    const auto check = [&](const Optimizer& sgd, std::size_t epoch) {
      CAPTURE(epoch);
      CHECK(std::abs(sgd.lr(0) - expected[epoch]) < 1e-14);
      CHECK(std::abs(sgd.lr(1) - expected[epoch]) < 1e-14);
    };
    // A schedule for the first half, another for the rest, which gets the state of the first.
    const auto run = [&](const auto& make, const auto& step) {
      const Bowl bowl;
      SGD sgd({bowl.a}, {.lr = test["lr"]});
      sgd.add_param_group({bowl.b}, {.lr = test["lr"]});
      auto schedule = make(sgd);
      for (std::size_t epoch = 0; epoch < expected.size(); ++epoch) {
        if (epoch == 14) {
          const NamedTensors state = copy_of(schedule->state_dict());
          schedule = make(sgd);
          schedule->load_state_dict(state);
        }
        check(sgd, epoch);
        step(*schedule, epoch);
      }
    };
    if (name == "ReduceLROnPlateau")
      run(
          [&](Optimizer& sgd) {
            return std::make_unique<ReduceLROnPlateau>(sgd, plateau_options(test["options"]));
          },
          [&](ReduceLROnPlateau& schedule, std::size_t epoch) {
            schedule.step(test["metrics"][epoch].get<double>());
          });
    else
      run(
          [&](Optimizer& sgd) {
            return std::make_unique<LRScheduler>(sgd, make_rule(name, test["options"]));
          },
          [&](LRScheduler& schedule, std::size_t) { schedule.step(); });
    ++cases;
  }
  CHECK(cases == 20);
}

TEST_CASE("lr_scheduler: any function is a rule, from epoch 0 on, for the rate of each group") {
  const Bowl bowl;
  SGD sgd({bowl.a}, {.lr = 4.0});
  sgd.add_param_group({bowl.b}, {.lr = 8.0});
  LRScheduler warm_up(sgd, [](double lr, std::int64_t epoch) {
    return lr * std::min(1.0, 0.25 * static_cast<double>(epoch + 1));
  });
  CHECK(sgd.lr(0) == 1.0);
  CHECK(sgd.lr(1) == 2.0);
  for (int i = 0; i < 5; ++i) warm_up.step();
  CHECK(sgd.lr(0) == 4.0);
  CHECK(sgd.lr(1) == 8.0);
  CHECK(warm_up.epoch() == 5);
}

TEST_CASE("lr_scheduler: goes on from a saved state, whatever the optimizer had before") {
  SGD first(Bowl().parameters(), {.lr = 8.0});
  LRScheduler schedule(first, StepLR{.step_size = 2, .gamma = 0.5});
  for (int i = 0; i < 3; ++i) schedule.step();

  SGD second(Bowl().parameters(), {.lr = 1.0});
  LRScheduler resumed(second, StepLR{.step_size = 2, .gamma = 0.5});
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
  CHECK(second.lr() == 2.0);
}

TEST_CASE("lr_scheduler: options out of their range are refused") {
  const Bowl bowl;
  SGD sgd({bowl.a}, {.lr = 1.0});
  const auto check = [&](const LRRule& rule, const char* text) {
    CHECK_THROWS_WITH_AS(LRScheduler(sgd, rule), text, ValueError);
  };
  check(StepLR{0}, "StepLR: step_size must be at least 1, but is 0");
  check(StepLR{1, -1}, "StepLR: gamma must not be negative, but is -1");
  check(MultiStepLR{{1}, -1}, "MultiStepLR: gamma must not be negative, but is -1");
  check(ExponentialLR{-0.5}, "ExponentialLR: gamma must not be negative, but is -0.5");
  check(LinearLR{.start_factor = 0},
        "LinearLR: start_factor must be above 0 and at most 1, but is 0");
  check(LinearLR{.end_factor = 2}, "LinearLR: end_factor must be in [0, 1], but is 2");
  check(LinearLR{.total_iters = 0}, "LinearLR: total_iters must be at least 1, but is 0");
  check(CosineAnnealingLR{0}, "CosineAnnealingLR: T_max must be at least 1, but is 0");
  check(CosineAnnealingWarmRestarts{0},
        "CosineAnnealingWarmRestarts: T_0 must be at least 1, but is 0");
  check(CosineAnnealingWarmRestarts{1, 0},
        "CosineAnnealingWarmRestarts: T_mult must be at least 1, but is 0");
  check(SequentialLR{{StepLR{1}}, {5}}, "SequentialLR: 1 rules need 0 milestones, but there are 1");
  check(SequentialLR{{StepLR{1}, StepLR{1}, StepLR{1}}, {5, 5}},
        "SequentialLR: milestones must rise from 1 on, but number 1 is 5");
  check([](double, std::int64_t) { return -1.0; }, "SGD: lr must not be negative, but is -1");
  CHECK(sgd.lr() == 1.0);
  CHECK_THROWS_WITH_AS(ReduceLROnPlateau(sgd, {.factor = 1.0}),
                       "ReduceLROnPlateau: factor must be in [0, 1), but is 1", ValueError);
  CHECK_THROWS_WITH_AS(ReduceLROnPlateau(sgd, {.patience = -1}),
                       "ReduceLROnPlateau: patience must not be negative, but is -1", ValueError);
  LRScheduler schedule(sgd, StepLR{1});
  sgd.add_param_group({bowl.b}, {});
  CHECK_THROWS_WITH_AS(schedule.step(),
                       "LRScheduler: the optimizer has 2 groups now and had 1 at first",
                       ValueError);
}

// --- Averages -----------------------------------------------------------------------------------

TEST_CASE("ema: the average follows its formula, and can be exchanged with the weights") {
  const Bowl bowl;
  SGD sgd(bowl.parameters(), {.lr = 1e-2});
  EMA average(bowl.parameters(), 0.75);
  std::vector<double> expected = bowl.b.detach().to(DType::f64).to_vector<double>();
  for (int step = 0; step < 4; ++step) {
    bowl.train(sgd, 1);
    average.update();
    const std::vector<double> b = bowl.b.detach().to(DType::f64).to_vector<double>();
    for (std::size_t i = 0; i < 2; ++i) expected[i] = 0.75 * expected[i] + 0.25 * b[i];
  }
  CHECK(max_difference(average.averages()[1], from_vector(expected)) < 1e-6);

  const Tensor own = bowl.b.detach().clone(), mean = average.averages()[1].clone();
  average.swap();
  CHECK(max_difference(bowl.b, mean) == 0.0);
  CHECK(bowl.b.is_leaf());
  CHECK_THROWS_WITH_AS(average.update(),
                       "EMA: update: the parameters hold the averages; call swap() first",
                       GraphError);
  CHECK_THROWS_WITH_AS(average.state_dict(),
                       "EMA: state_dict: the parameters hold the averages; call swap() first",
                       GraphError);
  average.swap();
  CHECK(max_difference(bowl.b, own) == 0.0);
  CHECK(max_difference(average.averages()[1], mean) == 0.0);

  EMA other(Bowl().parameters(), 0.75);
  other.load_state_dict(average.state_dict());
  CHECK(max_difference(other.averages()[1], mean) == 0.0);
  CHECK_THROWS_WITH_AS(other.load_state_dict({{"0", zeros({2, 2})}}),
                       "load_state_dict: EMA: the state does not fit:\n  1: missing", ValueError);
}

TEST_CASE("ema: what cannot be averaged is refused") {
  CHECK_THROWS_WITH_AS(EMA({}), "EMA: there are no parameters", ValueError);
  CHECK_THROWS_WITH_AS(EMA({Tensor()}), "EMA: parameter 0 is undefined", ValueError);
  CHECK_THROWS_WITH_AS(EMA({zeros({1}, DType::i64)}), "EMA: parameter 0 is of i64", ValueError);
  CHECK_THROWS_WITH_AS(EMA({zeros({1})}, 1.5), "EMA: decay must be in [0, 1], but is 1.5",
                       ValueError);
}

// --- The best weights ---------------------------------------------------------------------------

TEST_CASE("best weights: those of the least error come back") {
  const Bowl bowl;
  const Tensor first = bowl.b.detach().clone();
  BestWeights best(bowl.parameters());
  CHECK(best.error() == std::numeric_limits<double>::infinity());
  bowl.b.detach().fill_(1);
  best.restore();
  CHECK(max_difference(bowl.b, first) == 0.0);

  const auto after = [&](double value, double error) {
    bowl.b.detach().fill_(value);
    return best.update(error);
  };
  CHECK(after(1, 0.5));
  CHECK(after(2, 0.25));
  CHECK_FALSE(after(3, 0.25));
  CHECK_FALSE(after(4, 0.75));
  CHECK_FALSE(after(5, std::numeric_limits<double>::quiet_NaN()));
  CHECK(best.error() == 0.25);
  best.restore();
  CHECK(bowl.b.is_leaf());
  CHECK(bowl.b.requires_grad());
  CHECK(max_difference(bowl.b, full(bowl.b.shape(), 2, bowl.b.dtype())) == 0.0);

  const Bowl copy;
  BestWeights other(copy.parameters());
  other.load_state_dict(best.state_dict());
  CHECK(other.error() == 0.25);
  other.restore();
  CHECK(max_difference(copy.b, bowl.b) == 0.0);
  NamedTensors state = best.state_dict();
  state.pop_back();
  CHECK_THROWS_WITH_AS(other.load_state_dict(state),
                       "load_state_dict: BestWeights: the state does not fit:\n  error: missing",
                       ValueError);
  CHECK_THROWS_WITH_AS(BestWeights({}), "BestWeights: there are no parameters", ValueError);
  CHECK_THROWS_WITH_AS(BestWeights({Tensor()}), "BestWeights: parameter 0 is undefined",
                       ValueError);
  CHECK_THROWS_WITH_AS(BestWeights({zeros({1}, DType::i64)}), "BestWeights: parameter 0 is of i64",
                       ValueError);
}
