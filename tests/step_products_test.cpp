/// Products of a cell's input with weights, which scan() makes for many time steps at once: they
/// must not be told from those that a loop over the time steps makes one by one.

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "framework/gradcheck.h"
#include "framework/profiler.h"
#include "modules/modules.h"
#include "tests/support.h"

using namespace unroll;
using namespace unroll::test;

namespace {

using Tensors = std::vector<Tensor>;
using StepFunction = std::function<Tensor(const Tensor& x, const Tensor& h)>;

struct FunctionCell {
  StepFunction f;
  Tensor step(const Tensor& x, const Tensor& h) const { return f(x, h); }
};

Tensor random(const Shape& shape) { return normal(shape, 0.0, 0.5, DType::f64); }
Tensor random_leaf(const Shape& shape) { return random(shape).requires_grad_(); }

/// A sequence [T, B, 3], a state [B, 4], and weights.
struct Sequence {
  std::int64_t T, B;
  Tensor xs = random_leaf({T, B, 3});
  Tensor h0 = random_leaf({B, 4});
  Tensor w = random_leaf({3, 4});
  Tensor u = random_leaf({4, 4});
  Tensor b = random_leaf({4});

  Tensors leaves() const { return {xs, h0, w, u, b}; }
  Tensor plain(const Tensor& x, const Tensor& h) const {
    return tanh(matmul(x, w) + matmul(h, u) + b);
  }
};

/// What scan(FunctionCell{f}, xs, h0) is to give.
Tensor looped(const StepFunction& f, const Tensor& xs, Tensor h, bool reverse = false) {
  const std::int64_t T = xs.size(0);
  Tensors hs(static_cast<std::size_t>(T));
  for (std::int64_t k = 0; k < T; ++k) {
    const std::int64_t t = reverse ? T - 1 - k : k;
    h = f(xs[t], h);
    hs[static_cast<std::size_t>(t)] = h;
  }
  return stack(hs);
}

/// Outputs and gradients of both ways.
void check(const Sequence& s, const StepFunction& f, const Tensors& leaves, bool reverse = false) {
  const Tensor expected = looped(f, s.xs, s.h0, reverse);
  const Tensor actual = scan(FunctionCell{f}, s.xs, s.h0, {.reverse = reverse}).outputs;
  CHECK(difference(actual, expected, 1e-12, 1.0) == "");
  const Tensor seed = random(expected.shape());
  const GradOptions options{.grad_outputs = {seed}, .allow_unused = true};
  const Tensors right = grad({expected}, leaves, options), ours = grad({actual}, leaves, options);
  for (std::size_t i = 0; i < leaves.size(); ++i) {
    CAPTURE(i);
    REQUIRE(ours[i].defined() == right[i].defined());
    if (right[i].defined()) CHECK(difference(ours[i], right[i], 1e-11, 1.0) == "");
  }
}

/// How many operations of that name f() does.
template <class F>
std::int64_t count(const std::string& op, const F& f) {
  const Profiler profiler;
  f();
  return std::count_if(profiler.events().begin(), profiler.events().end(),
                       [&](const Profiler::Event& e) { return e.op == op && !e.backward; });
}

}  // namespace

TEST_CASE("step products: a cell of plain equations gives what a loop gives") {
  manual_seed(1);
  for (const std::pair<int, int>& size : {std::pair{7, 2}, {1, 3}, {2, 1}, {40, 40}, {300, 3}}) {
    CAPTURE(size.first);
    const Sequence s{size.first, size.second};
    for (const bool reverse : {false, true})
      check(
          s, [&](const Tensor& x, const Tensor& h) { return s.plain(x, h); }, s.leaves(), reverse);
  }
}

TEST_CASE("step products: one product for all time steps, one for each piece of a long sequence") {
  manual_seed(2);
  const auto products = [](std::int64_t T, std::int64_t B) {
    const Sequence s{T, B};
    const FunctionCell cell{[&](const Tensor& x, const Tensor& h) { return s.plain(x, h); }};
    return count("matmul", [&] { scan(cell, s.xs, s.h0); }) - T;
  };
  CHECK(products(1, 2) == 1);
  CHECK(products(50, 2) == 1);
  CHECK(products(48, 64) == 1 + 11 + 1);  // pieces of 2 steps, 2 that are left over, then 4
}

TEST_CASE("step products: linear, with a bias or without, a Linear, and parts of weights") {
  manual_seed(3);
  const Sequence s{9, 2};
  const Tensor v = random_leaf({4, 3}), both = random_leaf({3, 8});
  Linear layer(3, 4);
  layer.to(DType::f64);
  const auto check_step = [&](const StepFunction& from_x, const Tensors& weights) {
    Tensors leaves = s.leaves();
    leaves.insert(leaves.end(), weights.begin(), weights.end());
    const StepFunction f = [&](const Tensor& x, const Tensor& h) {
      return tanh(from_x(x, h) + matmul(h, s.u));
    };
    check(s, f, leaves);
    CHECK(count("matmul", [&] { scan(FunctionCell{f}, s.xs, s.h0); }) +
              count("linear", [&] { scan(FunctionCell{f}, s.xs, s.h0); }) <=
          9 + 2);
  };
  check_step([&](const Tensor& x, const Tensor&) { return linear(x, v); }, {v});
  check_step([&](const Tensor& x, const Tensor&) { return linear(x, v, s.b); }, {v});
  check_step([&](const Tensor& x, const Tensor&) { return layer(x); }, layer.parameters());
  check_step(
      [&](const Tensor& x, const Tensor&) {
        const auto parts = chunk(both, 2, 1);
        return sigmoid(matmul(x, parts[0])) * matmul(x, parts[1]);
      },
      {both});
}

TEST_CASE("step products: what depends on the state, and what is no weight, is left alone") {
  manual_seed(4);
  const Sequence s{6, 2};
  const Tensor v = random_leaf({4, 3});
  check(s, [&](const Tensor& x, const Tensor& h) { return tanh(linear(x, v, matmul(h, s.u))); },
        {s.xs, s.h0, s.u, v});
  // A matrix that the state makes: [3, 4] from h.
  check(s,
        [&](const Tensor& x, const Tensor& h) {
          return tanh(matmul(x, matmul(transpose(x), h)) + matmul(x * 2.0, s.w));
        },
        {s.xs, s.h0, s.w});
  const Tensor constant = s.w.detach();
  check(s, [&](const Tensor& x, const Tensor& h) { return tanh(matmul(x, constant) + h); },
        {s.xs, s.h0});
}

TEST_CASE(
    "step products: other weights in other time steps cost no product of the whole for each") {
  manual_seed(5);
  const Sequence s{30, 2};
  Tensors ws;
  for (int t = 0; t < 30; ++t) ws.push_back(random_leaf({3, 4}));
  std::size_t t = 0;
  const StepFunction f = [&](const Tensor& x, const Tensor& h) {
    return tanh(matmul(x, ws[t++ % 30]) + h);
  };
  check(s, f, ws);
  t = 0;
  const Profiler profiler;
  scan(FunctionCell{f}, s.xs, s.h0);
  std::int64_t bytes = 0;  // of all products
  for (const Profiler::Event& e : profiler.events()) bytes += e.op == "matmul" ? e.bytes : 0;
  CHECK(bytes == (2 * 30 + 28) * 2 * 4 * 8);  // two of the whole, before it is seen
}

TEST_CASE("step products: a time step that leaves its input out finds no NaN in the gradient") {
  manual_seed(6);
  Sequence s{8, 1};
  {
    const NoGrad no_grad;
    select(s.xs, 0, 5).fill_(std::nan(""));
  }
  check(s,
        [&](const Tensor& x, const Tensor& h) {
          const Tensor from_h = matmul(h, s.u);
          return tanh(std::isnan(sum(x).item()) ? from_h : matmul(x, s.w) + from_h);
        },
        {s.w, s.u, s.h0});
}

TEST_CASE("step products: a weight that was written has a new product") {
  manual_seed(7);
  const NoGrad no_grad;
  Sequence s{6, 2};
  const Tensor start = s.w.detach().clone();
  const StepFunction f = [&](const Tensor& x, const Tensor& h) {
    Tensor w = s.w;
    const Tensor next = tanh(matmul(x, w) + h);
    w.add_(start, 0.5);
    return next;
  };
  const Tensor expected = looped(f, s.xs, s.h0);
  s.w.copy_(start);
  CHECK(difference(scan(FunctionCell{f}, s.xs, s.h0).outputs, expected, 1e-12, 1.0) == "");
}

TEST_CASE("step products: a sequence that is written on the way") {
  manual_seed(15);
  const NoGrad no_grad;
  const Sequence s{6, 2};
  const auto run = [&](const auto& through) {
    Tensor xs = s.xs.detach().clone();
    std::int64_t t = 0;
    return through(
        [&](const Tensor& x, const Tensor& h) {
          const Tensor next = tanh(matmul(x, s.w) + h);
          if (++t < 6) xs[t].copy_(narrow(next, 1, 0, 3));
          return next;
        },
        xs);
  };
  const Tensor expected =
      run([&](const StepFunction& f, const Tensor& xs) { return looped(f, xs, s.h0); });
  const Tensor actual = run([&](const StepFunction& f, const Tensor& xs) {
    return scan(FunctionCell{f}, xs, s.h0).outputs;
  });
  CHECK(difference(actual, expected, 1e-12, 1.0) == "");
}

TEST_CASE("step products: with and without a gradient in the same step") {
  manual_seed(8);
  const Sequence s{6, 2};
  check(s,
        [&](const Tensor& x, const Tensor& h) {
          Tensor constant;
          {
            const NoGrad no_grad;
            constant = matmul(x, s.w);
          }
          return tanh(constant * matmul(x, s.w) + h);
        },
        {s.xs, s.w, s.h0});
}

TEST_CASE("step products: who asks for the gradient of a time step's input gets it") {
  manual_seed(9);
  const Sequence s{4, 2};
  Tensors kept;
  int hooked = 0;
  const FunctionCell cell{[&](const Tensor& x, const Tensor& h) {
    Tensor input = x;
    if (kept.size() % 2 == 0)
      input.retain_grad();
    else
      input.register_hook([&](const Tensor&) {
        ++hooked;
        return Tensor();
      });
    kept.push_back(input);
    return s.plain(x, h);
  }};
  sum(scan(cell, s.xs, s.h0).outputs).backward();
  CHECK(hooked == 2);
  CHECK(difference(kept[0].grad(), s.xs.grad()[0], 1e-12) == "");
  CHECK(difference(kept[2].grad(), s.xs.grad()[2], 1e-12) == "");
}

TEST_CASE("step products: who looks at the tape sees the equations as they were written") {
  manual_seed(10);
  const Sequence s{5, 2};
  const FunctionCell cell{[&](const Tensor& x, const Tensor& h) { return s.plain(x, h); }};
  const Profiler profiler({}, {.open_chains = true});
  scan(cell, s.xs, s.h0);
  CHECK(std::count_if(profiler.events().begin(), profiler.events().end(),
                      [](const Profiler::Event& e) { return e.op == "matmul"; }) == 2 * 5);
}

TEST_CASE("step products: a scan in the step of another") {
  manual_seed(11);
  const Sequence s{4, 5};
  const Tensor v = random_leaf({4, 4});
  const StepFunction inner = [&](const Tensor& x, const Tensor& h) {
    return tanh(matmul(x, s.w) + matmul(h, v));
  };
  const auto outer = [&](const auto& through) {
    return [&](const Tensor& x, const Tensor& h) {
      const Tensor before = matmul(x, s.w);
      const Tensor last = through(x, narrow(h, 0, 0, 1)[0]);
      return tanh(before + last + matmul(x, s.w) + matmul(h, s.u));
    };
  };
  const auto by_loop = [&](const Tensor& x, const Tensor& h) { return looped(inner, x, h); };
  const auto by_scan = [&](const Tensor& x, const Tensor& h) {
    return scan(FunctionCell{inner}, x, h).outputs;
  };
  const Tensor expected = looped(outer(by_loop), s.xs, s.h0);
  const Tensor actual = scan(FunctionCell{outer(by_scan)}, s.xs, s.h0).outputs;
  CHECK(difference(actual, expected, 1e-12, 1.0) == "");
  const auto run = [&] { scan(FunctionCell{outer(by_scan)}, s.xs, s.h0); };
  CHECK(count("matmul", run) == (1 + 4) + 4 * (1 + 5));
  const Tensors leaves{s.xs, s.h0, s.w, s.u, v};
  const Tensors right = grad({sum(square(expected))}, leaves);
  const Tensors ours = grad({sum(square(actual))}, leaves);
  for (std::size_t i = 0; i < leaves.size(); ++i)
    CHECK(difference(ours[i], right[i], 1e-11, 1.0) == "");
}

TEST_CASE("step products: padded batches, sequences without a batch, and f32") {
  manual_seed(12);
  const Sequence s{30, 40};
  std::vector<std::int64_t> lengths;
  for (std::int64_t b = 0; b < 40; ++b) lengths.push_back(1 + (b * 7) % 30);
  const FunctionCell cell{[&](const Tensor& x, const Tensor& h) { return s.plain(x, h); }};
  const Tensor actual = scan(cell, s.xs, s.h0, {.lengths = from_vector(lengths)}).outputs;
  const Tensor whole = looped(cell.f, s.xs, s.h0);
  for (std::int64_t b = 0; b < 40; ++b)
    CHECK(difference(narrow(select(actual, 1, b), 0, 0, lengths[static_cast<std::size_t>(b)]),
                     narrow(select(whole, 1, b), 0, 0, lengths[static_cast<std::size_t>(b)]), 1e-12,
                     1.0) == "");

  const Tensor rows = select(s.xs, 1, 0), h = s.h0[0];
  CHECK(difference(scan(cell, rows, h).outputs, looped(cell.f, rows, h), 1e-12, 1.0) == "");

  const FunctionCell f32{[&](const Tensor& x, const Tensor& state) {
    return tanh(matmul(x, s.w.to(DType::f32)) + state);
  }};
  const Tensor xs = s.xs.to(DType::f32), start = s.h0.to(DType::f32);
  CHECK(difference(scan(f32, xs, start).outputs, looped(f32.f, xs, start), 1e-5, 1.0) == "");
}

TEST_CASE("step products: gradcheck of orders 1 and 2") {
  manual_seed(13);
  const Sequence s{4, 2};
  const auto f = [&](const Tensors&) {
    return scan(FunctionCell{[&](const Tensor& x, const Tensor& h) { return s.plain(x, h); }}, s.xs,
                s.h0)
        .outputs;
  };
  CHECK(gradcheck_message(f, s.leaves(), {.order = 1}) == "");
  CHECK(gradcheck_message(f, s.leaves(), {.order = 2}) == "");
}

TEST_CASE("step products: errors are about the time step") {
  const Sequence s{3, 2};
  const Tensor wrong = random_leaf({5, 4});
  const FunctionCell cell{[&](const Tensor& x, const Tensor&) { return matmul(x, wrong); }};
  CHECK_THROWS_WITH_AS(scan(cell, s.xs, s.h0),
                       doctest::Contains("inner dimensions differ: a is (2, 3), b is (5, 4)"),
                       ShapeError);
  // Nothing is left of the walk that ended there.
  const FunctionCell right{[&](const Tensor& x, const Tensor& h) { return s.plain(x, h); }};
  CHECK(difference(scan(right, s.xs, s.h0).outputs, looped(right.f, s.xs, s.h0), 1e-12, 1.0) == "");
}
