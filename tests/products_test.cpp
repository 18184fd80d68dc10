// A weight that is multiplied many times: its packed copy must never be stale, and the products of
// its gradient that are put off must never be missing.
#include <doctest/doctest.h>

#include <cmath>
#include <vector>

#include "framework/framework.h"

using namespace unroll;

namespace {

/// The largest distance between elements.
double distance(const Tensor& a, const Tensor& b) {
  return max(abs(a.detach() - b.detach())).item();
}

/// sum over t of x[t] w, with its gradient by the definition: sum over t of x[t]' g[t].
struct Repeated {
  Tensor w = normal({5, 7}, 0, 1, DType::f64).requires_grad_();
  Tensor x, g;
  Repeated(std::int64_t steps, std::int64_t batch)
      : x(normal({steps, batch, 5}, 0, 1, DType::f64)),
        g(normal({steps, batch, 7}, 0, 1, DType::f64)) {}

  /// `use` makes of the weight what the rows are multiplied by.
  template <class F>
  Tensor loss(F&& use) const {
    Tensor total = zeros({}, DType::f64);
    for (std::int64_t t = 0; t < x.size(0); ++t) total = total + sum(matmul(x[t], use(w)) * g[t]);
    return total;
  }
  Tensor expected() const { return matmul(transpose(reshape(x, {-1, 5})), reshape(g, {-1, 7})); }
};

const auto as_it_is = [](const Tensor& w) { return w; };

}  // namespace

TEST_CASE("products: a packed weight follows every write in place") {
  for (DType dtype : {DType::f32, DType::f64}) {
    Tensor x = normal({6, 33}, 0, 1, dtype), w = normal({33, 50}, 0, 1, dtype);
    const auto check = [&] {
      // Without a batch the same product goes row by row, and is never packed.
      for (int repeat = 0; repeat < 3; ++repeat) {
        const Tensor y = matmul(x, w), z = matmul(transpose(w), transpose(x));
        for (std::int64_t i = 0; i < 6; ++i) CHECK(distance(y[i], matmul(x[i], w)) < 1e-4);
        CHECK(distance(z, transpose(y)) < 1e-4);
      }
    };
    check();
    w.mul_(-2.0);
    check();
    narrow(w, 1, 3, 20).fill_(1.5);
    check();
    if (dtype == DType::f32) {
      auto values = w.write<float>();
      matmul(x, w);
      for (float& v : values) v = 0.25f;
    }
    check();
    Tensor row = w[4];
    row.copy_(normal({50}, 0, 1, dtype));
    check();
  }
}

TEST_CASE("products: views of one weight are packed apart") {
  const Tensor w = normal({40, 40}, 0, 1, DType::f64), x = normal({9, 20}, 0, 1, DType::f64);
  for (int repeat = 0; repeat < 3; ++repeat)
    for (std::int64_t i : {0, 20})
      for (std::int64_t j : {0, 20}) {
        const Tensor part = narrow(narrow(w, 0, i, 20), 1, j, 20);
        CHECK(distance(matmul(x, part), matmul(x, part.clone())) == 0.0);
        CHECK(distance(matmul(x, transpose(part)), matmul(x, transpose(part).clone())) < 1e-12);
      }
}

TEST_CASE("products: a parameter gives the same bits the first time and later, a vector too") {
  // Validation between two steps of training must not change what the second step computes.
  const Tensor x = normal({50, 128}), matrix = normal({128, 24}), vector = normal({128});
  for (const Tensor& values : {matrix, vector}) {
    const Tensor w = values.clone().requires_grad_();
    const Tensor first = matmul(x, w);
    CHECK(distance(matmul(x, w), first) == 0.0);
    CHECK(distance(matmul(x, w), first) == 0.0);
  }
  // So do views on a parameter, and views on those, also with few rows.
  const auto check = [&](const Tensor& values, Tensor (*view)(const Tensor& w)) {
    for (const Tensor& rows : {x, narrow(x, 0, 0, 3)}) {
      const Tensor w = values.clone().requires_grad_();
      const Tensor first = matmul(rows, view(w));
      CHECK(distance(matmul(rows, view(w)), first) == 0.0);
    }
  };
  check(transpose(matrix).contiguous(), [](const Tensor& w) { return transpose(w); });
  check(normal({128, 100}), [](const Tensor& w) { return narrow(w, 1, 30, 50); });
  check(normal({50, 256}), [](const Tensor& w) { return transpose(narrow(w, 1, 100, 128)); });
  check(normal({64, 2, 24}), [](const Tensor& w) { return reshape(w, {128, 24}); });
}

TEST_CASE("products: the gradient of a repeated weight is the sum over all steps") {
  // 256 rows are done at once: below, exactly, above, and with steps larger than that.
  for (const auto& size : {std::pair{1, 3}, {40, 3}, {64, 4}, {300, 1}, {101, 8}, {3, 300}}) {
    CAPTURE(size.first);
    Repeated r(size.first, size.second);
    r.loss(as_it_is).backward();
    CHECK(distance(r.w.grad(), r.expected()) < 1e-10);
    r.loss(as_it_is).backward();  // .grad sums up
    CHECK(distance(r.w.grad(), r.expected() * 2.0) < 1e-10);
  }
}

TEST_CASE("products: through a transpose, made once or in every step") {
  Repeated r(50, 4);
  Tensor v = transpose(r.w).detach().clone().requires_grad_();
  r.loss([&](const Tensor&) { return transpose(v); }).backward();
  CHECK(distance(transpose(v.grad()), r.expected()) < 1e-10);

  v.set_grad(Tensor());
  const Tensor once = transpose(v);
  r.loss([&](const Tensor&) { return once; }).backward();
  CHECK(distance(transpose(v.grad()), r.expected()) < 1e-10);
}

TEST_CASE("products: on the left side") {
  const Tensor w = normal({7, 5}, 0, 1, DType::f64).requires_grad_();
  Tensor total = zeros({}, DType::f64), expected = zeros({7, 5}, DType::f64);
  for (int t = 0; t < 90; ++t) {
    const Tensor x = normal({5, 4}, 0, 1, DType::f64), g = normal({7, 4}, 0, 1, DType::f64);
    total = total + sum(matmul(w, x) * g);
    expected = expected + matmul(g, transpose(x));
  }
  total.backward();
  CHECK(distance(w.grad(), expected) < 1e-10);
}

TEST_CASE("products: beside other uses of the weight") {
  Repeated r(70, 5);
  (r.loss(as_it_is) + sum(square(r.w)) + sum(r.w[2])).backward();
  Tensor expected = r.expected() + r.w.detach() * 2.0;
  Tensor row = expected[2];
  row.add_(ones({7}, DType::f64));
  CHECK(distance(r.w.grad(), expected) < 1e-10);
}

TEST_CASE("products: hooks and grad() see the whole gradient") {
  Repeated r(70, 5);
  Tensor seen;
  r.w.register_hook([&](const Tensor& g) {
    seen = g.clone();
    return Tensor();
  });
  CHECK(distance(grad(r.loss(as_it_is), r.w), r.expected()) < 1e-10);
  CHECK(distance(seen, r.expected()) < 1e-10);
  CHECK_FALSE(r.w.grad().defined());

  // The transpose itself is asked for, watched, or kept.
  const Tensor v = transpose(r.w).detach().clone().requires_grad_();
  Tensor t = transpose(v);
  const auto loss = [&] { return r.loss([&](const Tensor&) { return t; }); };
  const auto both = grad({loss()}, {v, t}, {.retain_graph = true});
  CHECK(distance(both[1], r.expected()) < 1e-10);
  CHECK(distance(both[0], transpose(r.expected())) < 1e-10);
  t.register_hook([](const Tensor& g) { return g * 3.0; });
  CHECK(distance(grad(loss(), v, {.retain_graph = true}), transpose(r.expected()) * 3.0) < 1e-9);
  t.retain_grad();
  loss().backward();
  CHECK(distance(t.grad(), r.expected() * 3.0) < 1e-9);
}

TEST_CASE("products: under create_graph they are ordinary operations") {
  const Tensor w = normal({3, 3}, 0, 0.5, DType::f64).requires_grad_();
  const Tensor x = normal({2, 3}, 0, 1, DType::f64).requires_grad_();
  gradcheck(
      [](const std::vector<Tensor>& in) {
        Tensor h = in[1];
        for (int t = 0; t < 4; ++t) h = tanh(matmul(h, transpose(in[0])));
        return h;
      },
      {w, x}, {.order = 2});
}

TEST_CASE("products: nothing is left behind when a backward throws") {
  Repeated r(20, 2);
  Tensor x = r.x.detach().clone().requires_grad_();
  const auto number = x.register_hook([](const Tensor&) -> Tensor { throw ValueError("stop"); });
  const auto loss = [&] {
    Tensor total = zeros({}, DType::f64);
    for (std::int64_t t = 0; t < 20; ++t) total = total + sum(matmul(x[t], r.w) * r.g[t]);
    return total;
  };
  CHECK_THROWS_WITH_AS(loss().backward(), "stop", ValueError);
  x.remove_hook(number);
  r.w.set_grad(Tensor());
  loss().backward();
  CHECK(distance(r.w.grad(), r.expected()) < 1e-10);
}
