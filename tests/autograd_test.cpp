/// The tape: backward, grad, modes, hooks, errors, long graphs, and that nothing leaks.

#include "framework/autograd.h"

#include <doctest/doctest.h>
#include <pthread.h>

#include <cmath>
#include <functional>
#include <stdexcept>

#include "framework/gradcheck.h"
#include "framework/memory.h"
#include "tests/support.h"

using namespace unroll;
using namespace unroll::test;

namespace {

std::vector<double> values(const Tensor& x) { return to_array(x).values; }

Tensor leaf(std::initializer_list<double> x) { return tensor(x, DType::f64).requires_grad_(); }
Tensor leaf(double x) { return tensor(x, DType::f64).requires_grad_(); }

/// Runs f in a thread with a small stack; what recurses into a long graph crashes there.
void with_small_stack(const std::function<void()>& f) {
  struct Call {
    const std::function<void()>& f;
    std::exception_ptr error;
  } call{f, nullptr};
  pthread_attr_t attributes;
  REQUIRE(pthread_attr_init(&attributes) == 0);
  REQUIRE(pthread_attr_setstacksize(&attributes, 256 * 1024) == 0);
  pthread_t thread;
  const auto run = [](void* argument) -> void* {
    auto& c = *static_cast<Call*>(argument);
    try {
      c.f();
    } catch (...) {
      c.error = std::current_exception();
    }
    return nullptr;
  };
  REQUIRE(pthread_create(&thread, &attributes, run, &call) == 0);
  pthread_join(thread, nullptr);
  pthread_attr_destroy(&attributes);
  if (call.error) std::rethrow_exception(call.error);
}

}  // namespace

TEST_CASE("autograd: backward adds into .grad of every leaf") {
  Tensor a = leaf({1.0, 2.0}), b = leaf({3.0, 4.0});
  const Tensor c = tensor({5.0, 6.0}, DType::f64);
  CHECK_FALSE(a.grad().defined());
  sum(a * b * c).backward();
  CHECK(values(a.grad()) == std::vector{15.0, 24.0});
  CHECK(values(b.grad()) == std::vector{5.0, 12.0});
  CHECK_FALSE(c.grad().defined());
  CHECK_FALSE(a.grad().requires_grad());
  sum(a * 2.0).backward();
  CHECK(values(a.grad()) == std::vector{17.0, 26.0});
  CHECK(values(b.grad()) == std::vector{5.0, 12.0});
  a.set_grad(Tensor());
  CHECK_FALSE(a.grad().defined());
  sum(a).backward();
  CHECK(values(a.grad()) == std::vector{1.0, 1.0});
  a.set_grad(tensor({10.0, 20.0}, DType::f64));
  sum(a).backward();
  CHECK(values(a.grad()) == std::vector{11.0, 21.0});
}

TEST_CASE("autograd: what backward stored is not changed behind its owner's back") {
  Tensor a = leaf({1.0, 2.0}), b = leaf({3.0, 4.0});
  const Tensor seed = tensor({1.0, 1.0}, DType::f64);
  // Both leaves get the very gradient that came in.
  const Tensor y = a + b;
  y.backward(seed);
  CHECK_FALSE(shares_memory(a.grad(), seed));
  CHECK_FALSE(shares_memory(a.grad(), b.grad()));
  const Tensor first = a.grad();
  (a * 3.0).backward(seed);
  CHECK(values(a.grad()) == std::vector{4.0, 4.0});
  CHECK(values(first) == std::vector{1.0, 1.0});
  CHECK(values(b.grad()) == std::vector{1.0, 1.0});
  CHECK(values(seed) == std::vector{1.0, 1.0});
  // A gradient that the user gave is the user's.
  const Tensor given = tensor({10.0, 20.0}, DType::f64);
  a.set_grad(given);
  (a * 3.0).backward(seed);
  CHECK(values(given) == std::vector{10.0, 20.0});
  CHECK(values(a.grad()) == std::vector{13.0, 23.0});
  // A leaf is its own result.
  a.set_grad(Tensor());
  a.backward(seed);
  a.backward(seed);
  CHECK(values(a.grad()) == std::vector{2.0, 2.0});
  CHECK(values(seed) == std::vector{1.0, 1.0});
}

TEST_CASE("autograd: seeds weight the results, and several results go in one sweep") {
  Tensor x = leaf({1.0, 2.0, 3.0});
  square(x).backward(tensor({1.0, 10.0, 100.0}, DType::f64));
  CHECK(values(x.grad()) == std::vector{2.0, 40.0, 600.0});
  x.set_grad(Tensor());
  const Tensor h = x * 2.0;
  backward({sum(h), square(h)}, {tensor(7.0, DType::f64), tensor({1.0, 0.0, 1.0}, DType::f64)});
  CHECK(values(x.grad()) == std::vector{14.0 + 8.0, 14.0, 14.0 + 24.0});
  x.set_grad(Tensor());
  // The same result twice, a result that others depend on, and a default seed.
  const Tensor y = sum(x), z = y * y;
  backward({y, z, y});
  CHECK(values(x.grad()) == std::vector<double>(3, 1.0 + 12.0 + 1.0));
  x.set_grad(Tensor());
  backward({sum(x) * 2.0, sum(x * x)}, {Tensor(), tensor(3.0, DType::f64)});
  CHECK(values(x.grad()) == std::vector{2.0 + 6.0, 2.0 + 12.0, 2.0 + 18.0});
}

TEST_CASE("autograd: diamonds, shared subgraphs and repeated inputs count every path once") {
  Tensor x = leaf({2.0, 3.0});
  const Tensor a = x * x;                          // the same tensor twice
  const Tensor b = a + a;                          // the same result twice
  const Tensor c = tanh(x), d = b * c, e = d + c;  // c on two ways
  const Tensor g = grad(sum(e * d), x);
  for (std::size_t i = 0; i < 2; ++i) {
    const double v = values(x)[i], t = std::tanh(v), dt = 1.0 - t * t;
    const double dd = 4.0 * v * t + 2.0 * v * v * dt, dv = 2.0 * v * v * t;
    CHECK(values(g)[i] == doctest::Approx((dd + dt) * dv + (dv + t) * dd).epsilon(1e-13));
  }
  // 2^40 paths through 40 nodes.
  Tensor y = leaf(1.0), z = y;
  for (int i = 0; i < 40; ++i) z = z + z;
  CHECK(grad(z, y).item() == std::pow(2.0, 40));
  // An input in all places of one operation.
  Tensor w = leaf({1.0, 2.0});
  CHECK(values(grad(sum(where(tensor({1.0, 0.0}), w, w) * maximum(w, w)), w)) ==
        std::vector{2.0, 4.0});
  CHECK(values(grad(sum(concatenate({w, w, stack({w, w})[1]})), w)) == std::vector{3.0, 3.0});
  Tensor m = tensor({{1.0, 2.0}, {3.0, 4.0}}, DType::f64).requires_grad_();
  CHECK(values(grad(sum(matmul(m, m)), m)) == std::vector{7.0, 11.0, 9.0, 13.0});
}

TEST_CASE("autograd: views of leaves and views of views pass gradients to the leaf") {
  Tensor x = reshape(arange(6, DType::f64), {2, 3}).requires_grad_();
  CHECK(x.is_leaf());
  const Tensor v = transpose(x)[1];  // column 1
  sum(square(v)).backward();
  CHECK(values(x.grad()) == std::vector{0.0, 2.0, 0.0, 0.0, 8.0, 0.0});
  // A view that is a leaf of its own on shared memory.
  Tensor own = x.detach()[0].requires_grad_();
  sum(own * 5.0 + x[0]).backward();
  CHECK(values(own.grad()) == std::vector{5.0, 5.0, 5.0});
  CHECK(values(x.grad()) == std::vector{1.0, 3.0, 1.0, 0.0, 8.0, 0.0});
}

TEST_CASE("autograd: grad leaves every .grad alone and stops at what is asked for") {
  Tensor x = leaf({1.0, 2.0}), w = leaf({3.0, 4.0});
  const Tensor h = x * w, y = sum(square(h));
  int behind = 0;
  x.register_hook([&](const Tensor&) {
    ++behind;
    return Tensor();
  });
  const Tensor gh = grad(y, h, {.retain_graph = true});
  CHECK(values(gh) == std::vector{6.0, 16.0});
  CHECK(behind == 0);
  const std::vector<Tensor> g = grad({y}, {x, h, w, y});
  CHECK(values(g[0]) == std::vector{18.0, 64.0});
  CHECK(values(g[1]) == std::vector{6.0, 16.0});
  CHECK(values(g[2]) == std::vector{6.0, 32.0});
  CHECK(g[3].item() == 1.0);
  CHECK(behind == 1);
  CHECK_FALSE(x.grad().defined());
  CHECK_FALSE(w.grad().defined());
  for (const Tensor& each : g) CHECK_FALSE(each.requires_grad());
  // One x twice.
  const std::vector<Tensor> twice = grad({sum(x * 3.0)}, {x, x});
  CHECK(values(twice[0]) == std::vector{3.0, 3.0});
  CHECK(values(twice[1]) == std::vector{3.0, 3.0});
}

TEST_CASE("autograd: grad_outputs, several ys, and x that no y depends on") {
  Tensor x = leaf({1.0, 2.0}), z = leaf(5.0);
  const Tensor seed = tensor({1.0, 10.0}, DType::f64);
  CHECK(values(grad(square(x), x, {.grad_outputs = {seed}})) == std::vector{2.0, 40.0});
  const auto g = grad({square(x), sum(x)}, {x}, {.grad_outputs = {seed, Tensor()}});
  CHECK(values(g[0]) == std::vector{3.0, 41.0});
  CHECK_THROWS_WITH_AS(grad(sum(x), z),
                       "grad: no y depends on x number 0 of shape (); pass allow_unused to get an "
                       "undefined gradient",
                       GraphError);
  const auto unused = grad({sum(x)}, {z, x}, {.allow_unused = true});
  CHECK_FALSE(unused[0].defined());
  CHECK(values(unused[1]) == std::vector{1.0, 1.0});
  CHECK_FALSE(grad(sum(x), z, {.allow_unused = true}).defined());
}

TEST_CASE("autograd: create_graph makes gradients differentiable, to any order") {
  Tensor x = leaf({-1.2, 0.3, 0.9});
  const Tensor y = tanh(x);
  const Tensor g1 = grad(sum(y), x, {.create_graph = true});
  const Tensor g2 = grad(sum(g1), x, {.create_graph = true});
  const Tensor g3 = grad(sum(g2), x);
  for (std::size_t i = 0; i < 3; ++i) {
    const double t = std::tanh(values(x)[i]), s = 1.0 - t * t;
    CHECK(values(g1)[i] == doctest::Approx(s).epsilon(1e-14));
    CHECK(values(g2)[i] == doctest::Approx(-2.0 * t * s).epsilon(1e-14));
    CHECK(values(g3)[i] == doctest::Approx(s * (6.0 * t * t - 2.0)).epsilon(1e-13));
  }
  CHECK(g2.requires_grad());
  CHECK_FALSE(g3.requires_grad());
  // x^6, six times.
  Tensor p = leaf(1.5);
  Tensor d = pow(p, 6.0);
  double expected[] = {6.0 * std::pow(1.5, 5),
                       30.0 * std::pow(1.5, 4),
                       120.0 * std::pow(1.5, 3),
                       360.0 * 1.5 * 1.5,
                       720.0 * 1.5,
                       720.0};
  for (double value : expected) {
    d = grad(d, p, {.create_graph = true});
    CHECK(d.item() == doctest::Approx(value).epsilon(1e-12));
  }
  // backward through a gradient: a penalty on its size.
  Tensor w = leaf({1.0, 2.0});
  const Tensor g = grad(sum(square(w) * w), w, {.create_graph = true});
  sum(square(g)).backward();  // (3 w^2)^2 -> 36 w^3
  CHECK(values(w.grad()) == std::vector{36.0, 288.0});
  // backward with create_graph.
  Tensor v = leaf(2.0);
  pow(v, 3.0).backward(Tensor(), false, true);
  CHECK(v.grad().item() == 12.0);
  CHECK(v.grad().requires_grad());
  CHECK(grad(v.grad(), v).item() == 12.0);
  v.set_grad(Tensor());
}

TEST_CASE("autograd: the gradient of a gradient with respect to the seed") {
  Tensor x = leaf({1.0, 2.0}), seed = leaf({3.0, 4.0});
  const Tensor g = grad(square(x), x, {.create_graph = true, .grad_outputs = {seed}});
  const auto h = grad({sum(g)}, {x, seed});
  CHECK(values(h[0]) == std::vector{6.0, 8.0});
  CHECK(values(h[1]) == std::vector{2.0, 4.0});
}

TEST_CASE("autograd: the graph is freed by a sweep unless it is to stay") {
  Tensor x = leaf({1.0, 2.0});
  const Tensor y = sum(tanh(x) * x);
  y.backward(Tensor(), true);
  const std::vector<double> once = values(x.grad());
  y.backward(Tensor(), true);
  CHECK(values(x.grad())[0] == 2.0 * once[0]);
  (void)grad(y, x, {.retain_graph = true});
  (void)grad(y, x, {.create_graph = true});
  (void)grad(y, x, {.create_graph = true, .retain_graph = false});
  const char* gone =
      "backward: the graph behind sum has been freed by an earlier backward; pass retain_graph to "
      "the first one";
  CHECK_THROWS_WITH_AS(y.backward(), gone, GraphError);
  CHECK_THROWS_WITH_AS(grad(y, x), gone, GraphError);

  // Where only a part is gone, the message names where it begins.
  const Tensor h = exp(x), a = sum(h), b = sum(h * 2.0);
  a.backward();
  CHECK_THROWS_WITH_AS(b.backward(),
                       "backward: the graph behind exp has been freed by an earlier backward; pass "
                       "retain_graph to the first one",
                       GraphError);
  // A sweep that does not pass through a part leaves it usable.
  const Tensor k = exp(x), l = k * 2.0;
  (void)grad(sum(l), k);
  sum(k).backward();
}

TEST_CASE("autograd: buffers are let go of as soon as the sweep is past them") {
  const std::int64_t before = pool_stats().in_use;
  Tensor x = zeros({1000}, DType::f64).requires_grad_();
  Tensor y = x;
  for (int i = 0; i < 100; ++i) y = tanh(y);
  const Tensor loss = sum(y);
  y = Tensor();
  const std::int64_t forward = pool_stats().in_use - before;
  CHECK(forward > 100 * 8000);
  reset_peak_memory();
  loss.backward();
  CHECK(pool_stats().peak_in_use - before < forward + 6 * 9000);
  CHECK(pool_stats().in_use - before < 6 * 9000 + 100 * 1000);  // values are gone, nodes still here
}

TEST_CASE("autograd: NoGrad records nothing, nests, and ends with its scope") {
  Tensor x = leaf({1.0, 2.0});
  CHECK(grad_enabled());
  {
    NoGrad off;
    CHECK_FALSE(grad_enabled());
    {
      NoGrad again;
      CHECK_FALSE(grad_enabled());
    }
    CHECK_FALSE(grad_enabled());
    CHECK_FALSE((x * 2.0).requires_grad());
    CHECK_FALSE(x[0].requires_grad());
    CHECK((x * 2.0).is_leaf());
    CHECK(x.requires_grad());
    CHECK(ones({2}).requires_grad_().requires_grad());
  }
  CHECK(grad_enabled());
  try {
    NoGrad off;
    (void)x[7];
  } catch (const IndexError&) {
  }
  CHECK(grad_enabled());
  // A sweep switches recording off for its rules and hooks, and back on.
  bool inside = true;
  Tensor y = x * 2.0;
  y.register_hook([&](const Tensor&) {
    inside = grad_enabled();
    return Tensor();
  });
  sum(y).backward();
  CHECK_FALSE(inside);
  CHECK(grad_enabled());
  // backward runs under NoGrad, too.
  const Tensor z = sum(x * x);
  x.set_grad(Tensor());
  {
    NoGrad off;
    z.backward();
    CHECK_FALSE(grad_enabled());
  }
  CHECK(values(x.grad()) == std::vector{2.0, 4.0});
}

TEST_CASE("autograd: what is no part of the tape gets no gradient") {
  Tensor x = leaf({1.0, 2.0});
  CHECK(values(grad(sum(x.detach() * x), x)) == std::vector{1.0, 2.0});
  CHECK_FALSE((x.detach() * 2.0).requires_grad());
  CHECK_FALSE((x > 1.0).requires_grad());
  CHECK_FALSE(argmax(x).requires_grad());
  CHECK((x * 2.0).requires_grad());
  CHECK_FALSE((x * 2.0).is_leaf());
  // requires_grad_ off again.
  x.requires_grad_(false);
  CHECK_FALSE(x.requires_grad());
  CHECK_FALSE((x * 2.0).requires_grad());
  // On a result: it stays what it is, and cannot be switched off.
  Tensor w = leaf({1.0});
  Tensor y = w * 2.0;
  CHECK(y.requires_grad_().requires_grad());
  CHECK_FALSE(y.is_leaf());
  CHECK_THROWS_WITH_AS(y.requires_grad_(false),
                       "requires_grad_: the tensor is the result of mul; use detach()", GraphError);
}

TEST_CASE("autograd: retain_grad keeps the gradient of a result") {
  Tensor x = leaf({1.0, 2.0});
  Tensor h = x * x;
  CHECK_FALSE(h.grad().defined());
  Tensor kept = h * 2.0;
  kept.retain_grad();
  sum(kept * kept).backward();
  CHECK_FALSE(h.grad().defined());
  CHECK(values(kept.grad()) == std::vector{4.0, 16.0});
  CHECK(values(x.grad()) == std::vector{16.0, 128.0});
}

TEST_CASE("autograd: hooks see the whole gradient, in order, and may replace it") {
  Tensor x = leaf({1.0, 2.0});
  Tensor h = x * 3.0;
  std::vector<std::string> calls;
  h.register_hook([&](const Tensor& g) {
    calls.push_back("first " + std::to_string(g[0].item()));
    return g * 10.0;
  });
  const auto second = h.register_hook([&](const Tensor& g) {
    calls.push_back("second " + std::to_string(g[0].item()));
    return Tensor();
  });
  const auto third = h.register_hook([&](const Tensor& g) {
    calls.push_back("third " + std::to_string(g[0].item()));
    return g + 1.0;
  });
  h.retain_grad();
  // Two ways to h: hooks run once, with the sum of both.
  const Tensor y = sum(h * 2.0) + sum(h * 5.0);
  y.backward(Tensor(), true);
  CHECK(calls == std::vector<std::string>{"first 7.000000", "second 70.000000", "third 70.000000"});
  CHECK(values(h.grad()) == std::vector{71.0, 71.0});
  CHECK(values(x.grad()) == std::vector{213.0, 213.0});

  h.remove_hook(second);
  h.remove_hook(third);
  h.remove_hook(third);  // gone already
  calls.clear();
  x.set_grad(Tensor());
  y.backward(Tensor(), true);
  CHECK(calls == std::vector<std::string>{"first 7.000000"});
  CHECK(values(x.grad()) == std::vector{210.0, 210.0});
  // A number that was given out is not given out again.
  const auto fourth = h.register_hook([&](const Tensor&) { return Tensor(); });
  CHECK(fourth != second);
  CHECK(fourth != third);

  // grad runs them on the way, and on what is asked for.
  CHECK(values(grad(y, h, {.retain_graph = true})) == std::vector{70.0, 70.0});
  CHECK(values(grad(y, x, {.retain_graph = true})) == std::vector{210.0, 210.0});
}

TEST_CASE("autograd: hooks on leaves change what .grad takes") {
  Tensor x = leaf({1.0, -2.0});
  int calls = 0;
  const auto id = x.register_hook([&](const Tensor& g) {
    ++calls;
    return clamp(g, -1.0, 1.0);
  });
  const Tensor y = sum(x * 3.0) + sum(x * x);
  y.backward(Tensor(), true);
  CHECK(calls == 1);
  CHECK(values(x.grad()) == std::vector{1.0, -1.0});
  CHECK(values(grad(y, x, {.retain_graph = true})) == std::vector{1.0, -1.0});
  CHECK(calls == 2);
  x.remove_hook(id);
  y.backward();
  CHECK(calls == 2);
  CHECK(values(x.grad()) == std::vector{6.0, -2.0});
}

TEST_CASE("autograd: a hook may remove itself, start a sweep of its own, and throw") {
  Tensor x = leaf({1.0, 2.0});
  int calls = 0;
  std::int64_t id = 0;
  id = x.register_hook([&](const Tensor&) {
    ++calls;
    x.remove_hook(id);
    return Tensor();
  });
  sum(x).backward();
  sum(x).backward();
  CHECK(calls == 1);

  // A sweep inside of a sweep, over the same nodes.
  x.set_grad(Tensor());
  Tensor h = x * 2.0;
  const Tensor inner = sum(square(h));
  std::vector<double> seen;
  const auto sweeps = h.register_hook([&](const Tensor&) {
    if (seen.empty()) {
      seen.push_back(0.0);  // its own hook runs again inside
      seen = values(grad(inner, x, {.retain_graph = true}));
    }
    return Tensor();
  });
  (sum(h) + inner).backward(Tensor(), true);
  CHECK(seen == std::vector{8.0, 16.0});
  CHECK(values(x.grad()) == std::vector{10.0, 18.0});
  h.remove_hook(sweeps);

  // And over nodes that the outer one has yet to come to.
  x.set_grad(Tensor());
  Tensor later = h * 3.0;
  const auto before = later.register_hook([&](const Tensor&) {
    seen = values(grad(inner, x, {.retain_graph = true}));
    return Tensor();
  });
  sum(later).backward(Tensor(), true);
  CHECK(seen == std::vector{8.0, 16.0});
  CHECK(values(x.grad()) == std::vector{6.0, 6.0});
  later.remove_hook(before);

  // An error leaves the engine as it was, and the graph can be used again.
  const auto throws =
      h.register_hook([](const Tensor&) -> Tensor { throw std::runtime_error("from a hook"); });
  x.set_grad(Tensor());
  CHECK_THROWS_WITH_AS(inner.backward(Tensor(), true), "from a hook", std::runtime_error);
  CHECK(grad_enabled());
  CHECK_FALSE(x.grad().defined());
  h.remove_hook(throws);
  inner.backward(Tensor(), true);
  CHECK(values(x.grad()) == std::vector{8.0, 16.0});

  const auto wrong = h.register_hook([](const Tensor&) { return ones({3}); });
  CHECK_THROWS_WITH_AS(inner.backward(Tensor(), true),
                       "hook: a gradient of shape (2) and dtype f64 was replaced by (3) and f32",
                       ShapeError);
  h.remove_hook(wrong);
}

TEST_CASE("autograd: under create_graph a hook's work is recorded") {
  Tensor x = leaf({1.0, 2.0});
  Tensor h = x * x;
  h.register_hook([&](const Tensor& g) { return g * x; });
  const Tensor g = grad(sum(h), x, {.create_graph = true});  // x * 2 x
  CHECK(values(g) == std::vector{2.0, 8.0});
  CHECK(values(grad(sum(g), x)) == std::vector{4.0, 8.0});
}

TEST_CASE("autograd: errors say what is wrong and what to do") {
  Tensor x = leaf({1.0, 2.0}), plain = tensor({1.0, 2.0}, DType::f64);
  CHECK_THROWS_WITH_AS((x * 2.0).backward(),
                       "backward: a tensor of shape (2) needs a seed: the gradient is defined for "
                       "one element, such as a loss",
                       GraphError);
  CHECK_THROWS_WITH_AS(grad(x * 2.0, x),
                       "grad: a tensor of shape (2) needs a seed: the gradient is defined for one "
                       "element, such as a loss",
                       GraphError);
  CHECK_THROWS_WITH_AS(plain.backward(),
                       "backward: the tensor of shape (2) is not on the tape: nothing that it was "
                       "computed from requires a gradient, or it was computed under NoGrad",
                       GraphError);
  CHECK_THROWS_WITH_AS(grad(sum(plain), x),
                       "grad: the tensor of shape () is not on the tape: nothing that it was "
                       "computed from requires a gradient, or it was computed under NoGrad",
                       GraphError);
  CHECK_THROWS_WITH_AS(grad(sum(x), plain),
                       "grad: x number 0 of shape (2) does not require a gradient", GraphError);
  CHECK_THROWS_WITH_AS((x * 2.0).backward(ones({3}, DType::f64)),
                       "backward: the seed has shape (3), the tensor (2)", ShapeError);
  CHECK_THROWS_WITH_AS((x * 2.0).backward(ones({2})), "backward: the seed is f32, the tensor f64",
                       DTypeError);
  CHECK_THROWS_WITH_AS(backward(std::vector<Tensor>{}), "backward: nothing to start from",
                       GraphError);
  CHECK_THROWS_WITH_AS(backward({sum(x), sum(x)}, {tensor(1.0, DType::f64)}),
                       "backward: 1 seeds for 2 tensors", ValueError);
  CHECK_THROWS_WITH_AS(plain.retain_grad(), "retain_grad: the tensor does not require a gradient",
                       GraphError);
  CHECK_THROWS_WITH_AS(plain.register_hook([](const Tensor& g) { return g; }),
                       "register_hook: the tensor does not require a gradient", GraphError);
  CHECK_THROWS_WITH_AS(plain.remove_hook(0), "remove_hook: the tensor does not require a gradient",
                       GraphError);
  CHECK_THROWS_WITH_AS(plain.set_grad(plain), "set_grad: the tensor does not require a gradient",
                       GraphError);
  CHECK_THROWS_WITH_AS(x.set_grad(ones({3}, DType::f64)),
                       "set_grad: the gradient has shape (3), the tensor (2)", ShapeError);
  CHECK_THROWS_WITH_AS(x.set_grad(ones({2})), "set_grad: the gradient is f32, the tensor f64",
                       DTypeError);
  // An operation of one's own names an undefined input wherever it stands.
  const auto rule = [](Back& back) { back.add(0, back.grad); };
  for (const auto& [a, b] : {std::pair{x, Tensor()}, {Tensor(), x}})
    for (const Keep keep : {Keep::none, Keep::inputs})
      CHECK_THROWS_WITH_AS(record("own", {a, b}, zeros({2}, DType::f64), keep, rule),
                           "tensor: undefined (made by Tensor())", ValueError);
  CHECK_FALSE(plain.grad().defined());
  // None of this left anything behind.
  CHECK_FALSE(x.grad().defined());
  CHECK(grad_enabled());
}

TEST_CASE("autograd: a value that backward needs must not have been written since") {
  const auto write = [](Tensor x) {
    NoGrad no_grad;
    x.add_(ones_like(x));
  };
  const char* message =
      "backward: input 0 of square, a tensor of shape (2), was written in place after it was used; "
      "the gradient needs its old values";
  {
    Tensor x = leaf({1.0, 2.0});
    const Tensor y = sum(square(x));
    write(x);
    CHECK_THROWS_WITH_AS(y.backward(), message, GraphError);
  }
  {  // through a view, and through WriteView
    Tensor x = leaf({1.0, 2.0});
    const Tensor y = sum(square(x));
    write(x.detach()[0]);
    CHECK_THROWS_WITH_AS(y.backward(), message, GraphError);
    const Tensor z = sum(square(x));
    x.detach().write<double>()[0] = 3.0;
    CHECK_THROWS_WITH_AS(z.backward(), message, GraphError);
  }
  {  // a write that began before and ends after the use
    Tensor x = leaf({1.0, 2.0});
    Tensor y;
    {
      auto view = x.detach().write<double>();
      y = sum(square(x));
      view[0] = 9.0;
    }
    CHECK_THROWS_WITH_AS(y.backward(), message, GraphError);
  }
  {  // the output
    Tensor x = leaf({1.0, 2.0});
    const Tensor h = tanh(x), y = sum(h);
    h.detach().zero_();
    CHECK_THROWS_WITH_AS(y.backward(),
                         "backward: the output of tanh, a tensor of shape (2), was written in "
                         "place; the gradient needs its old values",
                         GraphError);
  }
  {  // the second input; an operand that needs no gradient itself
    Tensor x = leaf({1.0, 2.0}), c = tensor({3.0, 4.0}, DType::f64);
    const Tensor y = sum(x * c);
    c.fill_(1.0);
    CHECK_THROWS_WITH_AS(y.backward(),
                         "backward: input 1 of mul, a tensor of shape (2), was written in place "
                         "after it was used; the gradient needs its old values",
                         GraphError);
  }
  {  // a mask
    Tensor x = leaf({1.0, 2.0}), mask = tensor({1.0, 0.0}, DType::f64);
    const Tensor y = sum(where(mask, x, zeros_like(x)));
    mask.fill_(1.0);
    CHECK_THROWS_WITH_AS(y.backward(),
                         "backward: input 0 of where, a tensor of shape (2), was written in place "
                         "after it was used; the gradient needs its old values",
                         GraphError);
  }
  {  // what no rule reads may be written
    Tensor x = leaf({1.0, 2.0});
    const Tensor y = sum(x * 2.0 + 1.0);
    write(x);
    y.backward();
    CHECK(values(x.grad()) == std::vector{2.0, 2.0});
  }
  {  // a matrix that is multiplied
    Tensor w = ones({2, 2}, DType::f64).requires_grad_();
    Tensor x = ones({2, 2}, DType::f64).requires_grad_();
    const Tensor y = sum(matmul(x, w));
    write(w);
    CHECK_THROWS_WITH_AS(y.backward(),
                         "backward: input 1 of matmul, a tensor of shape (2, 2), was written in "
                         "place after it was used; the gradient needs its old values",
                         GraphError);
  }
}

TEST_CASE("autograd: gradients of T slices equal the dense gradient, and add up over uses") {
  Generator generator(1);
  const std::int64_t steps = 50;
  Tensor x = uniform({steps, 2, 3}, -1.0, 1.0, DType::f64, generator).requires_grad_();
  const Tensor w = uniform({3, 3}, -0.5, 0.5, DType::f64, generator);
  // The same recurrence on slices of x, and on separate leaves.
  std::vector<Tensor> parts;
  for (std::int64_t t = 0; t < steps; ++t) parts.push_back(x[t].detach().clone().requires_grad_());
  const auto run = [&](const std::function<Tensor(std::int64_t)>& input) {
    Tensor h = zeros({2, 3}, DType::f64);
    for (std::int64_t t = 0; t < steps; ++t) h = tanh(matmul(h, w) + input(t) + input(t / 2));
    return sum(square(h)) + sum(h * input(0));
  };
  const Tensor whole = grad(run([&](std::int64_t t) { return x[t]; }), x);
  const std::vector<Tensor> each =
      grad({run([&](std::int64_t t) { return parts[static_cast<std::size_t>(t)]; })}, parts);
  CHECK(difference(whole, stack(each), 1e-13, 1e-3) == "");
}

TEST_CASE("autograd: the gradient of a shared weight is the sum of the gradients of its uses") {
  Generator generator(2);
  for (DType dtype : {DType::f32, DType::f64}) {
    Tensor w = uniform({5, 5}, -0.5, 0.5, dtype, generator).requires_grad_();
    const Tensor x = uniform({300, 4, 5}, -1.0, 1.0, dtype, generator);
    std::vector<Tensor> copies;
    for (int t = 0; t < 300; ++t) copies.push_back(w.detach().clone().requires_grad_());
    const auto run = [&](const std::function<const Tensor&(std::size_t)>& weight) {
      Tensor h = zeros({4, 5}, dtype);
      for (std::size_t t = 0; t < 300; ++t)
        h = tanh(matmul(h, weight(t)) + x[static_cast<std::int64_t>(t)]);
      return sum(square(h));
    };
    const Tensor shared = grad(run([&](std::size_t) -> const Tensor& { return w; }), w);
    const auto each =
        grad({run([&](std::size_t t) -> const Tensor& { return copies[t]; })}, copies);
    const double tolerance = dtype == DType::f32 ? 1e-5 : 1e-13;
    CHECK(difference(shared, sum(stack(each), 0), tolerance, 1.0) == "");
    // The weight used in other ways besides, and transposed.
    Tensor v = w.detach().clone().requires_grad_();
    const auto mixed = [&](const std::vector<Tensor>& in) {
      return sum(matmul(matmul(x[0], in[0]), transpose(in[1]))) + sum(in[2] * in[2]) +
             sum(matmul(x[1], in[3])) + sum(tanh(matmul(in[4], x[2][0])));
    };
    const Tensor all = grad(mixed({v, v, v, v, v}), v);
    std::vector<Tensor> five;
    for (int i = 0; i < 5; ++i) five.push_back(v.detach().clone().requires_grad_());
    CHECK(difference(all, sum(stack(grad({mixed(five)}, five)), 0), tolerance, 1.0) == "");
  }
}

TEST_CASE("autograd: a weight that is itself a result, with hooks, gets the same gradient") {
  // What delays the products of a weight's gradient must deliver before anybody looks.
  Generator generator(3);
  Tensor base = uniform({4, 4}, -0.5, 0.5, DType::f64, generator).requires_grad_();
  const Tensor x = uniform({6, 3, 4}, -1.0, 1.0, DType::f64, generator);
  std::vector<double> seen;
  const auto run = [&](const std::vector<Tensor>& in) {
    Tensor w = tanh(in[0]);
    if (seen.empty()) {
      w.register_hook([&](const Tensor& g) {
        seen = values(g);
        return g * 2.0;
      });
    }
    Tensor h = zeros({3, 4}, DType::f64);
    for (std::int64_t t = 0; t < 6; ++t) h = tanh(matmul(h, w) + x[t]);
    return sum(h * h);
  };
  const Tensor hooked = grad(run({base}), base);
  REQUIRE(seen.size() == 16);
  const Tensor without = grad(run({base}), base);
  CHECK(difference(hooked, without * 2.0, 1e-13, 1e-3) == "");
  Tensor w = tanh(base.detach());
  CHECK(difference(without, from_vector(seen, {4, 4}) * (1.0 - w * w), 1e-13, 1e-3) == "");
  CHECK(gradcheck_message(run, {base}, {.order = 2}) == "");
}

TEST_CASE("autograd: a tape of 200,000 steps goes forward, backward and away, on a small stack") {
  with_small_stack([] {
    Tensor x = leaf({0.5, -0.5});
    const auto chain = [&] {
      Tensor y = x;
      for (int i = 0; i < 100000; ++i) y = (y + x) * 0.5;
      return sum(y);
    };
    chain().backward();
    CHECK(difference(x.grad(), {{2}, {1.0, 1.0}}, 1e-12) == "");
    // Released without a backward.
    { const Tensor dropped = chain(); }
    // A part of it, then all of it, under retain_graph; then released.
    const Tensor kept = chain();
    (void)grad(kept, x, {.retain_graph = true});
    CHECK(difference(grad(kept, x), {{2}, {1.0, 1.0}}, 1e-12) == "");
    // With values that rules keep, and views.
    Tensor h = x;
    for (int i = 0; i < 100000; ++i) h = tanh(h)[0] * x;
    CHECK(std::isfinite(grad(sum(h), x)[0].item()));
    { Tensor dropped = h; }
    h = Tensor();
    // A gradient that has a graph of its own.
    Tensor y = x;
    for (int i = 0; i < 50000; ++i) y = y * x;
    const Tensor g = grad(sum(y), x, {.create_graph = true});
    CHECK(g.requires_grad());
  });
}

TEST_CASE("autograd: nothing is left in memory when all handles are gone") {
  const auto work = [] {
    Generator generator(4);
    Tensor w = uniform({4, 4}, -0.5, 0.5, DType::f64, generator).requires_grad_();
    Tensor x = uniform({5, 3, 4}, -1.0, 1.0, DType::f64, generator).requires_grad_();
    const auto run = [&] {
      Tensor h = zeros({3, 4}, DType::f64);
      for (std::int64_t t = 0; t < 5; ++t) h = tanh(matmul(h, w) + x[t]);
      return sum(square(h));
    };
    run().backward();                              // the usual way
    (void)run();                                   // a graph that is dropped
    (void)grad(run(), w, {.retain_graph = true});  // one that is kept, then dropped
    const Tensor y = run();
    const Tensor g = grad(y, w, {.create_graph = true});  // gradients with a graph
    sum(square(g)).backward();
    (void)grad(run(), x, {.create_graph = true});
    Tensor kept = w * 2.0;  // .grad of a result
    kept.retain_grad();
    sum(kept).backward();
    Tensor hooked = w * 3.0;  // hooks that hold tensors
    hooked.register_hook([w, x](const Tensor& gradient) { return gradient * w; });
    sum(hooked).backward();
    const Tensor again = run();
    CHECK_THROWS_AS(sum(again + zeros({7, 7})), Error);  // errors in the middle of work
    Tensor failing = run();
    hooked = w * 3.0;
    hooked.register_hook([](const Tensor&) -> Tensor { throw std::runtime_error("no"); });
    CHECK_THROWS_AS(sum(hooked).backward(), std::runtime_error);
    {
      NoGrad no_grad;
      w.mul_(2.0);
    }
    CHECK_THROWS_AS(failing.backward(), GraphError);
  };
  work();
  const std::int64_t before = pool_stats().in_use;
  for (int i = 0; i < 3; ++i) {
    work();
    CHECK(pool_stats().in_use == before);
  }
}
