/// Several threads: each its own tape, mode and generator; one model read by all.

#include <doctest/doctest.h>

#include <atomic>
#include <cmath>
#include <functional>
#include <thread>
#include <vector>

#include "framework/autograd.h"
#include "framework/kernels/parallel.h"
#include "modules/modules.h"
#include "optim/optim.h"
#include "tests/support.h"

using namespace unroll;
using namespace unroll::test;

namespace {

/// Runs f(0), ..., f(n - 1) at once, all of them started before one goes on.
void at_once(int n, const std::function<void(int)>& f) {
  std::atomic<int> waiting{n};
  std::vector<std::thread> threads;
  std::vector<std::exception_ptr> errors(static_cast<std::size_t>(n));
  for (int i = 0; i < n; ++i) {
    threads.emplace_back([&, i] {
      --waiting;
      while (waiting > 0) std::this_thread::yield();
      try {
        f(i);
      } catch (...) {
        errors[static_cast<std::size_t>(i)] = std::current_exception();
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  for (const std::exception_ptr& error : errors)
    if (error) std::rethrow_exception(error);
}

/// A recurrent model that is read only, and one pass through it.
struct Model {
  Tensor w, u, bias;

  explicit Model(std::uint64_t seed) {
    Generator generator(seed);
    w = uniform({24, 24}, -0.3, 0.3, DType::f32, generator).requires_grad_();
    u = uniform({8, 24}, -0.3, 0.3, DType::f32, generator).requires_grad_();
    bias = uniform({24}, -0.1, 0.1, DType::f32, generator).requires_grad_();
  }
  Tensor loss(const Tensor& xs) const {
    const Tensor projected = matmul(xs, u) + bias;
    Tensor h = zeros({xs.size(1), 24});
    for (std::int64_t t = 0; t < xs.size(0); ++t) h = tanh(projected[t] + matmul(h, w));
    return mean(square(h)) + mean(exp(-h));
  }
};

/// Trains a model and returns what it has learned.
std::vector<double> train(std::uint64_t seed, int steps) {
  Model model(seed);
  manual_seed(seed);
  for (int i = 0; i < steps; ++i) {
    const Tensor xs = uniform({6, 5, 8}, -1.0, 1.0);
    model.loss(dropout(xs, 0.2)).backward();
    NoGrad no_grad;
    for (Tensor parameter : {model.w, model.u, model.bias}) {
      parameter.add_(parameter.grad(), -0.1);
      parameter.set_grad(Tensor());
    }
  }
  return to_array(model.w).values;
}

/// The same with modules, an optimizer and random numbers of all kinds.
std::vector<std::vector<double>> train_modules(std::uint64_t seed, int steps) {
  manual_seed(seed);
  Embedding embed(12, 6);
  LSTM lstm(6, 8, {.num_layers = 2, .dropout = 0.2});
  Linear out(8, 12);
  Adam optimizer(parameters(embed, lstm, out));
  for (int i = 0; i < steps; ++i) {
    const Tensor x = randint(0, 12, {5, 3});
    const auto [hs, last] = lstm(embed(x));
    optimizer.zero_grad();
    cross_entropy(out(hs), x).backward();
    clip_grad_norm(optimizer.parameters(), 1.0);
    optimizer.step();
  }
  std::vector<std::vector<double>> learned;
  for (const Tensor& parameter : optimizer.parameters())
    learned.push_back(to_array(parameter).values);
  return learned;
}

}  // namespace

TEST_CASE("[thread] eight threads each training a model of its own get what one thread gets") {
  std::vector<std::vector<std::vector<double>>> alone, together(8);
  for (std::uint64_t i = 0; i < 8; ++i) alone.push_back(train_modules(i, 20));
  at_once(8, [&](int i) {
    together[static_cast<std::size_t>(i)] = train_modules(static_cast<std::uint64_t>(i), 20);
  });
  for (std::size_t i = 0; i < 8; ++i) CHECK(together[i] == alone[i]);
  CHECK(alone[0] != alone[7]);
}

TEST_CASE("[thread] two threads train two models at once as each would alone") {
  std::vector<std::vector<double>> alone, together(3);
  for (std::uint64_t i = 0; i < 3; ++i) alone.push_back(train(i, 40));
  at_once(3, [&](int i) {
    together[static_cast<std::size_t>(i)] = train(static_cast<std::uint64_t>(i), 40);
  });
  for (std::size_t i = 0; i < 3; ++i) CHECK(together[i] == alone[i]);
  CHECK(alone[0] != alone[1]);
}

TEST_CASE("[thread] several threads read one model without a tape") {
  const Model model(1);
  Generator generator(2);
  const Tensor xs = uniform({6, 5, 8}, -1.0, 1.0, DType::f32, generator);
  NoGrad no_grad;
  const double expected = model.loss(xs).item();
  std::vector<int> equal(4, 0);
  at_once(4, [&](int i) {
    NoGrad inside;
    for (int k = 0; k < 25; ++k)
      if (model.loss(xs).item() == expected) ++equal[static_cast<std::size_t>(i)];
  });
  CHECK(equal == std::vector<int>(4, 25));
}

TEST_CASE("[thread] several threads differentiate by their own inputs through one model") {
  const Model model(1);
  Generator generator(3);
  std::vector<Tensor> inputs;
  std::vector<std::vector<double>> expected;
  for (int i = 0; i < 3; ++i) {
    inputs.push_back(uniform({6, 5, 8}, -1.0, 1.0, DType::f32, generator).requires_grad_());
    expected.push_back(to_array(grad(model.loss(inputs.back()), inputs.back())).values);
  }
  std::vector<int> equal(3, 0);
  at_once(3, [&](int i) {
    const auto own = static_cast<std::size_t>(i);
    for (int k = 0; k < 25; ++k) {
      const Tensor g = grad(model.loss(inputs[own]), inputs[own]);
      if (to_array(g).values == expected[own]) ++equal[own];
    }
  });
  CHECK(equal == std::vector<int>(3, 25));
  CHECK_FALSE(model.w.grad().defined());
}

TEST_CASE("[thread] several threads take gradients of one model's weights with grad()") {
  // grad() leaves .grad alone, so a shared model stays only read.
  const Model model(1);
  Generator generator(4);
  const Tensor xs = uniform({6, 5, 8}, -1.0, 1.0, DType::f32, generator);
  const std::vector<double> expected = to_array(grad(model.loss(xs), model.w)).values;
  std::vector<int> equal(3, 0);
  at_once(3, [&](int i) {
    for (int k = 0; k < 25; ++k) {
      const auto g = grad({model.loss(xs)}, {model.w, model.u});
      if (to_array(g[0]).values == expected) ++equal[static_cast<std::size_t>(i)];
    }
  });
  CHECK(equal == std::vector<int>(3, 25));
}

TEST_CASE("[thread] many short sweeps at once over one leaf do not meet in it") {
  const Tensor w = ones({4, 4}, DType::f64).requires_grad_();
  const Tensor x = ones({2, 4}, DType::f64);
  const auto gradient = [&] {
    Tensor h = x;
    for (int t = 0; t < 3; ++t) h = matmul(h * 0.1, w) + h * 0.1;
    return sum(grad(sum(h), w)).item();
  };
  const double expected = gradient();
  std::vector<int> equal(3, 0);
  at_once(3, [&](int i) {
    for (int k = 0; k < 3000; ++k)
      if (gradient() == expected) ++equal[static_cast<std::size_t>(i)];
  });
  CHECK(equal == std::vector<int>(3, 3000));
}

TEST_CASE("[thread] large operations of several threads at once give the same bits") {
  Generator generator(5);
  const Tensor a = uniform({260, 200}, -1.0, 1.0, DType::f32, generator);
  const Tensor b = uniform({200, 270}, -1.0, 1.0, DType::f32, generator);
  const auto work = [&] {
    const Tensor c = matmul(a, b);
    return to_array(softmax(tanh(c) + sum(c, 0))).values;
  };
  const std::vector<double> expected = work();
  std::vector<int> equal(3, 0);
  at_once(3, [&](int i) {
    for (int k = 0; k < 5; ++k)
      if (work() == expected) ++equal[static_cast<std::size_t>(i)];
  });
  CHECK(equal == std::vector<int>(3, 5));
}

TEST_CASE("[thread] the grad mode and the default generator belong to a thread") {
  manual_seed(7);
  const double first = default_generator().uniform();
  NoGrad no_grad;
  bool enabled = false;
  double theirs = 0.0, other = 0.0;
  std::thread([&] {
    enabled = grad_enabled();
    manual_seed(7);
    theirs = default_generator().uniform();
    NoGrad inside;
    other = default_generator().uniform();
  }).join();
  CHECK(enabled);
  CHECK_FALSE(grad_enabled());
  CHECK(theirs == first);
  CHECK(default_generator().uniform() == other);  // nobody moved ours meanwhile
}

TEST_CASE("[thread] a graph may be made in one thread, swept in another and dropped in a third") {
  Tensor x = tensor({1.0, 2.0, 3.0}, DType::f64).requires_grad_();
  Tensor y;
  std::thread([&] {
    y = x;
    for (int i = 0; i < 1000; ++i) y = y * 1.001 + x * 0.001;
    y = sum(y);
  }).join();
  std::thread([&] { y.backward(Tensor(), true); }).join();
  std::thread([&] { y = Tensor(); }).join();
  const std::vector<double> g = to_array(x.grad()).values;
  CHECK(g[0] == doctest::Approx(std::pow(1.001, 1000) * 2.0 - 1.0).epsilon(1e-9));
  CHECK(g[1] == g[0]);
}
