/// fused(f, args...) against f(args...): values, derivatives, errors; and that what can be fused
/// is.

#include "framework/fused.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <array>
#include <string>
#include <thread>
#include <tuple>
#include <utility>

#include "framework/gradcheck.h"
#include "framework/kernels/parallel.h"
#include "modules/cells.h"
#include "tests/random_chain.h"
#include "tests/support.h"

using namespace unroll;
using namespace unroll::test;

namespace {

using Tensors = std::vector<Tensor>;
using Call = std::function<Tensors(const Tensors&)>;

template <class Value>
Tensors list(Value value) {
  Tensors all;
  for_each_tensor(value, [&](Tensor& t) { all.push_back(t); });
  return all;
}

/// One function, called as it stands and fused.
struct Case {
  std::string name;
  std::vector<std::vector<Shape>> shapes;
  Call plain, fused;
};

template <std::size_t n, class F>
Case make_case(const char* name, const std::vector<std::vector<Shape>>& shapes, F f) {
  const auto with = [](const auto& call, const Tensors& x) {
    return [&]<std::size_t... i>(std::index_sequence<i...>) { return list(call(x[i]...)); }
    (std::make_index_sequence<n>());
  };
  return {name, shapes, [=](const Tensors& x) { return with(f, x); },
          [=](const Tensors& x) {
            return with([f](const auto&... args) { return unroll::fused(f, args...); }, x);
          }};
}

bool is_fused(const Tensor& x) {
  return x.impl().node && std::string(x.impl().node->op) == "fused";
}

/// The shapes of `inputs`, for every rank, width and number of rows: 0 stands for [..., width * k].
std::vector<std::vector<Shape>> in_all_sizes(const std::vector<std::int64_t>& widths) {
  std::vector<std::vector<Shape>> all;
  for (std::int64_t width : {1, 7, 16, 200, 257, 600}) {
    for (const Shape& rows : {Shape{}, Shape{1}, Shape{5}, Shape{3, 2}}) {
      std::vector<Shape> shapes;
      for (std::int64_t k : widths) {
        Shape shape = rows;
        shape.push_back(width * k);
        shapes.push_back(shape);
      }
      all.push_back(shapes);
    }
  }
  return all;
}

constexpr auto lstm = [](const Tensor& x, const Tensor& r, const Tensor& c0) {
  const auto gates = chunk(x + r, 4, -1);
  const Tensor c = sigmoid(gates[1]) * c0 + sigmoid(gates[0]) * tanh(gates[2]);
  return std::pair{sigmoid(gates[3]) * tanh(c), c};
};

const std::vector<Case>& cases() {
  static const auto two = in_all_sizes({1, 1}), one = in_all_sizes({1});
  static const std::vector<Case> table = {
      make_case<3>("lstm", in_all_sizes({4, 4, 1}), lstm),
      make_case<4>("gru",
                   {{Shape{5, 21}, Shape{5, 21}, Shape{7}, Shape{5, 7}},
                    {Shape{1, 48}, Shape{1, 48}, Shape{16}, Shape{1, 16}},
                    {Shape{3, 600}, Shape{3, 600}, Shape{1, 200}, Shape{3, 200}}},
                   [](const Tensor& x, const Tensor& u, const Tensor& b, const Tensor& h) {
                     const auto xs = chunk(x, 3, -1), hs = split(u, u.size(-1) / 3, -1);
                     const Tensor r = sigmoid(xs[0] + hs[0]), z = sigmoid(xs[1] + hs[1]);
                     const Tensor n = tanh(xs[2] + r * (hs[2] + b));
                     return (1.0 - z) * n + z * h;
                   }),
      make_case<2>("rnn", two, [](const Tensor& x, const Tensor& u) { return tanh(x + u); }),
      make_case<2>("arithmetic", two,
                   [](const Tensor& a, const Tensor& b) {
                     return std::array{a + b, a - b, a * b, a / b};
                   }),
      make_case<1>("abs sign square relu", one,
                   [](const Tensor& a) {
                     return std::array{abs(a - 1.0), sign(a - 1.0) * a, square(a), relu(a - 1.0)};
                   }),
      make_case<1>("exp log sqrt sin", one,
                   [](const Tensor& a) {
                     return std::tuple{exp(a), log(a), sqrt(a), sin(a)};
                   }),
      make_case<1>("cos tanh sigmoid softplus", one,
                   [](const Tensor& a) {
                     return std::tuple{cos(a), tanh(a), sigmoid(a), softplus(-a)};
                   }),
      make_case<2>("clamp minimum maximum where", two,
                   [](const Tensor& a, const Tensor& b) {
                     return std::tuple{clamp(a, 0.8, 1.4), minimum(a, b), maximum(a, b),
                                       where(a > b, a * b, b * 2.0)};
                   }),
      make_case<2>("pow masked_fill", two,
                   [](const Tensor& a, const Tensor& b) {
                     return std::tuple{pow(a, 3.0), pow(a, b), masked_fill(a, b > 1.0, 0.5),
                                       pow(a, 0.0) * b};
                   }),
      make_case<2>("comparisons", two,
                   [](const Tensor& a, const Tensor& b) {
                     return std::tuple{(a == b) * a + (a != b) * b, (a < b) * b + (a <= b) * a,
                                       (a > b) * b + (a >= b) * a, a};
                   }),
      make_case<1>("with numbers", one,
                   [](const Tensor& a) {
                     return std::tuple{1.0 / a + 2.0, 2.0 - a / 3.0,
                                       (a < 1.0) * a + (a >= 1.0) * 3.0 + (a == 1.0),
                                       (a > 1.2) * a - (a <= 0.7) * a * (a != 0.6)};
                   }),
      make_case<2>("pieces",
                   {{Shape{5, 48}, Shape{5, 16}},
                    {Shape{28}, Shape{14}},
                    {Shape{2, 2, 600}, Shape{2, 2, 200}}},
                   [](const Tensor& a, const Tensor&) {
                     const std::int64_t n = a.size(-1) / 4;
                     const Tensor left = narrow(a, -1, n, n), right = narrow(a, -1, 2 * n, n);
                     return std::pair{concatenate({tanh(right), left * right, right}, -1), left};
                   }),
      make_case<2>("bias",
                   {{Shape{5, 7}, Shape{7}},
                    {Shape{2, 3, 257}, Shape{257}},
                    {Shape{4, 16}, Shape{1, 16}},
                    {Shape{1, 16}, Shape{16}},
                    {Shape{2, 3, 16}, Shape{1, 1, 16}}},
                   [](const Tensor& x, const Tensor& b) { return sigmoid(x * b + b); }),
      make_case<2>("what nobody uses", two,
                   [](const Tensor& a, const Tensor& b) {
                     const Tensor unused = cos(a), wide = tanh(concatenate({b, a}, -1));
                     return sin(a) * tanh(a) * b;
                   }),
      make_case<2>("returns an argument", two, [](const Tensor& a, const Tensor&) { return a; }),
      make_case<2>("one result twice", two,
                   [](const Tensor& a, const Tensor& b) {
                     const Tensor y = a * b;
                     return std::array{y, y};
                   }),
      make_case<2>("a constant", {{Shape{5, 7}, Shape{5, 7}}},
                   [](const Tensor& a, const Tensor& b) {
                     return std::pair{a * b + ones(a.shape(), a.dtype()), zeros_like(b)};
                   }),
      make_case<3>("a chain of sums", in_all_sizes({1, 1, 1}),
                   [](const Tensor& a, const Tensor& b, const Tensor& c) {
                     return a * b + b * c + c * a + exp(a * b);
                   }),
  };
  return table;
}

/// Broadcast in ways whose gradient a program does not give, so that what requires one runs as it
/// stands.
const std::vector<Case>& columns() {
  static const std::vector<Case> table = {
      make_case<2>("mask",
                   {{Shape{5, 16}, Shape{5, 1}},
                    {Shape{3, 2, 257}, Shape{3, 2, 1}},
                    {Shape{5, 16}, Shape{}},
                    {Shape{16}, Shape{1}},
                    {Shape{5, 1}, Shape{5, 1}}},
                   [](const Tensor& x, const Tensor& m) {
                     const Tensor y = tanh(x);
                     return m * y + (1.0 - m) * x;
                   }),
  };
  return table;
}

Tensors random_leaves(const std::vector<Shape>& shapes, DType dtype, std::uint64_t seed) {
  Generator generator(seed);
  Tensors leaves;
  for (const Shape& shape : shapes)
    leaves.push_back(random_tensor(shape, {0.5, 1.8}, dtype, generator));
  return leaves;
}

Tensors lay_out_each(const Tensors& leaves, std::size_t layout) {
  Tensors inputs;
  for (std::size_t i = 0; i < leaves.size(); ++i)
    inputs.push_back(lay_out(leaves[i], kLayouts[(layout + i) % std::size(kLayouts)]));
  return inputs;
}

/// The gradients of all results, seeded, with respect to leaves that require one.
Tensors gradients(const Tensors& ys, const Tensors& leaves, bool create_graph = false) {
  Generator generator(77);
  Tensors on_tape, seeds, xs;
  for (const Tensor& y : ys) {
    if (!y.defined()) continue;
    const Tensor seed = random_tensor(y.shape(), {0.5, 1.5}, y.dtype(), generator);
    if (!y.requires_grad()) continue;
    on_tape.push_back(y);
    seeds.push_back(seed);
  }
  for (const Tensor& x : leaves)
    if (x.requires_grad()) xs.push_back(x);
  if (on_tape.empty()) return Tensors(xs.size());
  return grad(on_tape, xs,
              {.create_graph = create_graph, .grad_outputs = seeds, .allow_unused = true});
}

/// Equal, an undefined gradient counting as one of zeros.
std::string differ(const Tensor& actual, const Tensor& expected, double tolerance) {
  if (!actual.defined() && !expected.defined()) return "";
  if (!expected.defined()) return difference(actual, zeros_like(actual), tolerance, 1.0);
  if (!actual.defined()) return difference(zeros_like(expected), expected, tolerance, 1.0);
  return difference(actual, expected, tolerance, 1.0);
}

/// Values and gradients with the arguments in `subset` requiring gradients.
void compare(const Case& c, const Tensors& values, unsigned subset, std::size_t layout,
             bool must_be_fused) {
  CAPTURE(subset);
  CAPTURE(layout);
  const double tolerance = values[0].dtype() == DType::f32 ? 2e-5 : 1e-12;
  Tensors leaves;
  for (std::size_t i = 0; i < values.size(); ++i) {
    leaves.push_back(values[i].detach());
    if ((subset >> i & 1u) != 0) leaves.back().requires_grad_();
  }
  const Tensors expected = c.plain(lay_out_each(leaves, layout));
  const Tensors actual = c.fused(lay_out_each(leaves, layout));
  REQUIRE(actual.size() == expected.size());
  for (std::size_t k = 0; k < actual.size(); ++k) {
    CAPTURE(k);
    CHECK(difference(actual[k], expected[k], tolerance, 1.0) == "");
    CHECK(actual[k].requires_grad() == expected[k].requires_grad());
    if (must_be_fused && actual[k].requires_grad()) CHECK(is_fused(actual[k]));
  }
  const Tensors g = gradients(actual, leaves), want = gradients(expected, leaves);
  for (std::size_t i = 0; i < g.size(); ++i) {
    CAPTURE(i);
    CHECK(differ(g[i], want[i], tolerance) == "");
  }
}

template <class F>
void for_each_shapes(const Case& c, F&& f) {
  INFO("function ", c.name);
  for (const auto& shapes : c.shapes) {
    std::string text;
    for (const Shape& shape : shapes) text += " " + to_string(shape);
    INFO("shapes", text);
    f(shapes);
  }
}

}  // namespace

TEST_CASE("fused: values and gradients are those of the plain call") {
  for (const Case& c : cases())
    for_each_shapes(c, [&](const auto& shapes) {
      for (DType dtype : {DType::f32, DType::f64}) {
        const Tensors values = random_leaves(shapes, dtype, 1);
        compare(c, values, ~0u, 0, true);
        compare(c, values, ~0u, 0, true);  // by the program that is there now
      }
    });
}

TEST_CASE("fused: any subset of the arguments may require a gradient") {
  for (const Case& c : cases())
    for_each_shapes(c, [&](const auto& shapes) {
      if (shapes[0].numel() > 300) return;
      const Tensors values = random_leaves(shapes, DType::f64, 2);
      for (unsigned subset = 0; subset < 1u << values.size(); ++subset)
        compare(c, values, subset, 0, c.name != "bias");
    });
}

TEST_CASE("fused: arguments may lie in memory in any way") {
  for (const Case& c : cases())
    for_each_shapes(c, [&](const auto& shapes) {
      if (shapes[0].numel() > 300) return;
      for (DType dtype : {DType::f32, DType::f64})
        for (std::size_t layout = 0; layout < std::size(kLayouts); ++layout)
          compare(c, random_leaves(shapes, dtype, 3), ~0u, layout, true);
    });
}

TEST_CASE("fused: rows back to front, repeated, and columns out of a larger matrix") {
  const auto f = [](const Tensor& a, const Tensor& b) { return tanh(a) * b; };
  const Tensor a = normal({4, 3, 5}, 0, 1, DType::f64).requires_grad_();
  const Tensor b = normal({4, 3, 5}, 0, 1, DType::f64).requires_grad_();
  const std::vector<std::function<Tensor(const Tensor&)>> views = {
      [](auto& x) { return flip(x, {0}); },
      [](auto& x) { return flip(x, {1}); },
      [](auto& x) { return flip(x, {2}); },
      [](auto& x) {
        return flip(x, {0, 1});
      },
      [](auto& x) { return transpose(x, 0, 1); },
      [](auto& x) {
        return permute(x, {2, 1, 0});
      },
      [](auto& x) { return narrow(x, -1, 1, 3); },
      [](auto& x) { return slice(x, 0, 1, 4, 2); },
      [](auto& x) { return slice(x, 1, 0, 3, 2); },
      [](auto& x) {
        return broadcast_to(narrow(x, 0, 1, 1), {6, 3, 5});
      },
      [](auto& x) {
        return broadcast_to(narrow(x, 1, 1, 1), {4, 6, 5});
      },
      [](auto& x) {
        return broadcast_to(narrow(x, 2, 1, 1), {4, 3, 6});
      },
      [](auto& x) {
        return broadcast_to(x[0][0], {2, 7, 5});
      },
      [](auto& x) { return select(x, 1, 2); },
      [](auto& x) { return select(x, 2, 2); },
      [](auto& x) { return select(flip(x, {0}), 1, 0); },
  };
  for (std::size_t i = 0; i < views.size(); ++i) {
    CAPTURE(i);
    const Tensor y = fused(f, views[i](a), views[i](b)), z = f(views[i](a), views[i](b));
    CHECK(is_fused(y));
    CHECK(difference(y, z, 1e-12, 1.0) == "");
    const Tensors g = gradients({y}, {a, b}), want = gradients({z}, {a, b});
    for (std::size_t k = 0; k < 2; ++k) CHECK(difference(g[k], want[k], 1e-12, 1.0) == "");
  }
}

TEST_CASE("fused: a mask and a number broadcast along the columns") {
  for (const Case& c : columns())
    for_each_shapes(c, [&](const auto& shapes) {
      const Tensors values = random_leaves(shapes, DType::f64, 4);
      for (unsigned subset = 0; subset < 4; ++subset)
        for (std::size_t layout : std::vector<std::size_t>{0, 2, 3, 5})
          compare(c, values, subset, layout, false);
    });
  Tensor x = normal({5, 16}).requires_grad_();
  const auto masked = [](const Tensor& a, const Tensor& m) { return a * m + tanh(a); };
  CHECK(is_fused(fused(masked, x, ones({5, 1}))));
  CHECK(is_fused(fused(masked, x, ones({}))));
}

TEST_CASE("fused: derivatives of orders 2 and 3 are those of the plain call") {
  for (const Case& c : cases())
    for_each_shapes(c, [&](const auto& shapes) {
      if (shapes[0].numel() > 300) return;
      Tensors leaves = random_leaves(shapes, DType::f64, 5);
      for (Tensor& x : leaves) x.requires_grad_();
      Tensors a = c.fused(leaves), b = c.plain(leaves);
      for (int order = 1; order <= 3; ++order) {
        CAPTURE(order);
        a = gradients(a, leaves, true);
        b = gradients(b, leaves, true);
        Tensors next_a, next_b;
        for (std::size_t i = 0; i < a.size(); ++i) {
          CAPTURE(i);
          CHECK(differ(a[i], b[i], 1e-9) == "");
          if (!a[i].defined() || !b[i].defined()) continue;
          next_a.push_back(a[i]);
          next_b.push_back(b[i]);
        }
        a = next_a;
        b = next_b;
      }
    });
}

TEST_CASE("fused: passes gradcheck of orders 1 and 2") {
  for (const auto* table : {&cases(), &columns()})
    for (const Case& c : *table)
      for_each_shapes(c, [&](const auto& shapes) {
        std::int64_t total = 0;
        for (const Shape& shape : shapes) total += shape.numel();
        if (total > 60) return;
        Tensors leaves = random_leaves(shapes, DType::f64, 6);
        for (Tensor& x : leaves) x.requires_grad_();
        const auto f = [&](const Tensors& x) {
          Tensors flat;
          for (const Tensor& y : c.fused(x)) flat.push_back(reshape(y, {-1}));
          return concatenate(flat);
        };
        CHECK(gradcheck_message(f, leaves, {.order = 2}) == "");
      });
}

namespace {

/// The arguments of an LSTM step, [5, 4 * 7] and [5, 7].
struct LSTMStep {
  Tensor x = normal({5, 28}, 0, 1, DType::f64).requires_grad_();
  Tensor r = normal({5, 28}, 0, 1, DType::f64).requires_grad_();
  Tensor c = normal({5, 7}, 0, 1, DType::f64).requires_grad_();
  auto operator()() const { return fused(lstm, x, r, c); }
  auto plain() const { return lstm(x, r, c); }
  Tensors leaves() const { return {x, r, c}; }
};

}  // namespace

TEST_CASE("fused: results may be used in part, or not at all") {
  const LSTMStep step;
  for (bool h : {false, true}) {
    const auto y = step(), z = step.plain();
    const Tensors a = grad({sum(h ? y.first : y.second)}, step.leaves(), {.allow_unused = true});
    const Tensors b = grad({sum(h ? z.first : z.second)}, step.leaves(), {.allow_unused = true});
    for (std::size_t i = 0; i < 3; ++i) CHECK(differ(a[i], b[i], 1e-12) == "");
  }
  step();
  // Both, one of them several times.
  const auto loss = [](const auto& y) {
    return sum(y.first * y.second) + sum(y.second) + sum(tanh(y.second[1]));
  };
  const Tensors a = grad({loss(step())}, step.leaves());
  const Tensors b = grad({loss(step.plain())}, step.leaves());
  for (std::size_t i = 0; i < 3; ++i) CHECK(difference(a[i], b[i], 1e-12, 1.0) == "");
}

TEST_CASE("fused: one tensor may be several arguments") {
  const auto f = [](const Tensor& a, const Tensor& b) { return a * b + a; };
  const auto g = [](const Tensor& a, const Tensor& b) { return tanh(a + b); };
  const Tensor x = normal({4, 9}, 0, 1, DType::f64).requires_grad_();
  CHECK(difference(grad(sum(fused(f, x, x)), x), x.detach() * 2.0 + 1.0, 1e-12, 1.0) == "");
  CHECK(difference(grad(sum(fused(g, x, x)), x), grad(sum(tanh(x + x)), x), 1e-12, 1.0) == "");
  // As one time step twice, too.
  const Tensor xs = normal({3, 4, 9}, 0, 1, DType::f64).requires_grad_();
  const auto loss = [&](auto call) {
    Tensor total = zeros({}, DType::f64);
    for (std::int64_t t = 0; t < 3; ++t) {
      const Tensor step = xs[t];
      total = total + sum(call(step, step));
    }
    return grad(total, xs);
  };
  CHECK(difference(loss([&](auto& a, auto& b) { return fused(f, a, b); }), loss(f), 1e-12, 1.0) ==
        "");
  CHECK(difference(loss([&](auto& a, auto& b) { return fused(g, a, b); }), loss(g), 1e-12, 1.0) ==
        "");
}

TEST_CASE("fused: records nothing under NoGrad") {
  const LSTMStep step;
  const auto expected = step.plain();
  NoGrad no_grad;
  const auto [h, c] = step();
  CHECK_FALSE(h.requires_grad());
  CHECK(difference(h, expected.first, 1e-12, 1.0) == "");
  CHECK(difference(c, expected.second, 1e-12, 1.0) == "");
}

TEST_CASE("fused: what was written in place is not differentiated") {
  const auto f = [](const Tensor& a, const Tensor& b) { return tanh(a * b); };
  Tensor a = normal({2, 3}).requires_grad_(), b = normal({2, 3}).requires_grad_();
  Tensor y = fused(f, a, b);
  {
    NoGrad no_grad;
    b.zero_();
  }
  CHECK_THROWS_WITH_AS(sum(y).backward(),
                       "backward: input 1 of fused, a tensor of shape (2, 3), was written in place "
                       "after it was used; the gradient needs its old values",
                       GraphError);
  y = fused(f, a, b);
  y.detach().zero_();
  CHECK_THROWS_WITH_AS(sum(y).backward(),
                       "backward: the output of fused, a tensor of shape (2, 3), was written in "
                       "place; the gradient needs its old values",
                       GraphError);
  // What the derivative does not need may be written.
  y = fused([](const Tensor& p, const Tensor& q) { return exp(p) + q; }, a, b);
  {
    NoGrad no_grad;
    b.fill_(1.0);
  }
  sum(y).backward();
  CHECK(difference(b.grad(), ones({2, 3}), 0.0) == "");
}

TEST_CASE("fused: hooks and retain_grad work on results") {
  const LSTMStep step;
  auto [h, c] = step();
  Tensor seen;
  h.register_hook([&](const Tensor& g) {
    seen = g.clone();
    return g * 2.0;
  });
  c.retain_grad();
  (sum(h) + sum(c * 3.0)).backward();
  CHECK(difference(seen, ones({5, 7}, DType::f64), 0.0) == "");
  // c's gradient is what comes from outside; that by way of h stays inside of the step.
  CHECK(difference(c.grad(), full({5, 7}, 3.0, DType::f64), 0.0) == "");
  const auto plain = step.plain();
  const Tensors expected = grad({sum(plain.first) * 2.0 + sum(plain.second * 3.0)}, step.leaves());
  CHECK(difference(step.x.grad(), expected[0], 1e-12, 1.0) == "");
  CHECK(difference(step.r.grad(), expected[1], 1e-12, 1.0) == "");
  CHECK(difference(step.c.grad(), expected[2], 1e-12, 1.0) == "");
}

TEST_CASE("fused: a second backward needs retain_graph") {
  const LSTMStep step;
  const Tensor loss = sum(step().first);
  loss.backward({}, true);
  const Tensor once = step.x.grad().clone();
  loss.backward();
  CHECK(difference(step.x.grad(), once * 2.0, 1e-12, 1.0) == "");
  CHECK_THROWS_WITH_AS(loss.backward(),
                       "backward: the graph behind sum has been freed by an earlier backward; pass "
                       "retain_graph to the first one",
                       GraphError);
  const auto [h, c] = step();
  sum(h).backward();
  CHECK_THROWS_WITH_AS(sum(c).backward(),
                       "backward: the graph behind fused has been freed by an earlier backward; "
                       "pass retain_graph to the first one",
                       GraphError);
}

TEST_CASE("fused: more shapes than it remembers pass through one function") {
  const auto f = [](const Tensor& a, const Tensor& b) { return tanh(a) * b; };
  for (int round = 0; round < 2; ++round)
    for (std::int64_t rows = 1; rows <= 300; rows += 1) {
      const Tensor a = normal({rows, 3}, 0, 1, DType::f64).requires_grad_();
      const Tensor b = normal({rows, 3}, 0, 1, DType::f64);
      REQUIRE(difference(grad(sum(fused(f, a, b)), a), b * (1.0 - square(tanh(a.detach()))), 1e-12,
                         1.0) == "");
    }
}

TEST_CASE("fused: [thread] two threads at once, and graphs that end elsewhere") {
  const LSTMStep step;
  const Tensors expected = grad({sum(step.plain().first)}, step.leaves());
  std::string wrong[2];
  Tensor left_behind[2];
  std::vector<std::thread> threads;
  for (int i = 0; i < 2; ++i)
    threads.emplace_back([&, i] {
      for (int round = 0; round < 50; ++round) {
        const Tensors g = grad({sum(step().first)}, step.leaves());
        for (std::size_t k = 0; k < 3; ++k)
          if (wrong[i].empty()) wrong[i] = difference(g[k], expected[k], 1e-12, 1.0);
      }
      left_behind[i] = sum(step().first);
    });
  for (std::thread& t : threads) t.join();
  for (int i = 0; i < 2; ++i) {
    CHECK(wrong[i] == "");
    CHECK(difference(grad(left_behind[i], step.x), expected[0], 1e-12, 1.0) == "");
  }
}

TEST_CASE("fused: [thread] gives the same bits with every number of threads") {
  const int before = num_threads();
  for (std::int64_t width : {600, 257})
    for (std::int64_t rows : {1, 129}) {
      const Tensor x = normal({rows, 4 * width}).requires_grad_();
      const Tensor r = normal({rows, 4 * width}).requires_grad_();
      const Tensor c = normal({rows, width}).requires_grad_();
      Tensors results[2];
      for (int threads : {1, 2}) {
        set_num_threads(threads);
        const auto y = fused(lstm, x, r, c);
        Tensors all = gradients({y.first, y.second}, {x, r, c});
        all.push_back(y.first);
        const Tensor flat =
            fused([](const Tensor& a, const Tensor& b) { return a * sigmoid(b); }, x, r);
        all.push_back(flat);
        results[threads - 1] = all;
      }
      for (std::size_t i = 0; i < results[0].size(); ++i)
        CHECK(difference(results[0][i], results[1][i], 0.0) == "");
    }
  set_num_threads(before);
}

namespace {

Tensor outside;

/// What cannot be fused: the plain call's values, gradients and first two derivatives.
template <class F, class... Args>
void check_fallback(F f, const Args&... args) {
  const Tensors leaves = {args...};
  for (int round = 0; round < 2; ++round) {
    manual_seed(9);
    const Tensors expected = list(f(args...));
    manual_seed(9);
    const Tensors actual = list(fused(f, args...));
    for (std::size_t k = 0; k < actual.size(); ++k) {
      CHECK(difference(actual[k], expected[k], 0.0) == "");
      CHECK_FALSE(is_fused(actual[k]));
    }
    const Tensors a = gradients(actual, leaves, true), b = gradients(expected, leaves, true);
    for (std::size_t i = 0; i < a.size(); ++i) CHECK(differ(a[i], b[i], 1e-12) == "");
    const Tensors a2 = gradients(a, leaves), b2 = gradients(b, leaves);
    for (std::size_t i = 0; i < a2.size(); ++i) CHECK(differ(a2[i], b2[i], 1e-12) == "");
  }
}

}  // namespace

TEST_CASE("fused: what cannot be fused runs as it stands") {
  const Tensor x = uniform({4, 4}, 0.5, 1.5, DType::f64).requires_grad_();
  const Tensor y = uniform({4, 4}, 0.5, 1.5, DType::f64).requires_grad_();
  const Tensor b = uniform({4}, 0.5, 1.5, DType::f64).requires_grad_();
  const Tensor one = full({1}, 0.7, DType::f64).requires_grad_();
  outside = uniform({4, 4}, 0.5, 1.5, DType::f64);
  check_fallback([](const Tensor& p, const Tensor& q) { return tanh(matmul(p, q)); }, x, y);
  check_fallback([](const Tensor& p, const Tensor& q) { return p * sum(q, -1, true) * p; }, x, y);
  check_fallback([](const Tensor& p) { return square(reshape(p, {2, 8})); }, x);
  check_fallback([](const Tensor& p) { return square(transpose(p)) * p; }, x);
  check_fallback([](const Tensor& p) { return square(p[1]) * p * p; }, x);
  check_fallback([](const Tensor& p) { return square(dropout(p, 0.5)); }, x);
  check_fallback([](const Tensor& p, const Tensor& q) { return square(p) * q.item(); }, x, one);
  check_fallback([](const Tensor& p) { return square(p) * outside; }, x);
  check_fallback([](const Tensor& p) { return softmax(square(p)); }, x);
  // Columns added up for a gradient, here of [4, 1].
  check_fallback([](const Tensor& p, const Tensor& q) { return square(p * q); }, x,
                 slice(y, 1, 2, 3).detach().clone().requires_grad_());
  // Off the tape in part: a straight-through estimator, and a factor that counts as a constant.
  check_fallback([](const Tensor& p) { return p * p + (sign(p) - p).detach() * p; }, x);
  check_fallback([](const Tensor& p) { return sigmoid(p.detach()) * sigmoid(p); }, x);
  check_fallback(
      [](const Tensor& p) {
        Tensor weight;
        {
          NoGrad no_grad;
          weight = -p;
        }
        return weight * square(p);
      },
      x);
  // The shape of an argument counts as it is, also where the argument repeats.
  check_fallback([](const Tensor& p, const Tensor& q) { return q.dim() == 1 ? p * q : p + q; }, x,
                 b);
  check_fallback([](const Tensor& p, const Tensor& q) { return square(p) * q * double(q.numel()); },
                 x, b);
}

TEST_CASE("fused: shapes that broadcast to more rows, or not at all, do so") {
  const auto f = [](const Tensor& p, const Tensor& q) { return square(p) * q; };
  check_fallback(f, normal({3, 1, 4}, 0, 1, DType::f64).requires_grad_(),
                 normal({1, 3, 4}, 0, 1, DType::f64).requires_grad_());
  check_fallback(f, normal({3, 1}, 0, 1, DType::f64).requires_grad_(),
                 normal({4}, 0, 1, DType::f64).requires_grad_());
  const std::string text =
      "mul: shapes (6, 4) and (2, 3, 4) do not broadcast: sizes 6 and 3 differ "
      "at dimension -2";
  for (bool requires_grad : {false, true}) {
    Tensor a = zeros({6, 4}), b = zeros({2, 3, 4});
    a.requires_grad_(requires_grad);
    b.requires_grad_(requires_grad);
    CHECK_THROWS_WITH_AS(f(a, b), text.c_str(), ShapeError);
    CHECK_THROWS_WITH_AS(fused(f, a, b), text.c_str(), ShapeError);
  }
}

TEST_CASE("fused: errors are those of the plain call") {
  const auto f = [](const Tensor& a, const Tensor& b) { return a + b; };
  CHECK_THROWS_WITH_AS(fused(f, zeros({2, 3}), zeros({2, 4})),
                       "add: shapes (2, 3) and (2, 4) do not broadcast: sizes 3 and 4 differ at "
                       "dimension -1",
                       ShapeError);
  CHECK_THROWS_WITH_AS(fused(f, zeros({2}), zeros({2}, DType::f64)),
                       "add: dtypes differ: f32 and f64", DTypeError);
  CHECK_THROWS_WITH_AS(fused([](const Tensor& a) { return chunk(a, 3, -1)[0]; }, zeros({2, 4})),
                       "chunk: dimension -1 of shape (2, 4) does not divide into 3 equal parts",
                       ShapeError);
  CHECK_THROWS_WITH_AS(fused([](const Tensor& a) { return exp(a); }, zeros({2}, DType::i64)),
                       "exp: needs a floating-point tensor, got i64", DTypeError);
  CHECK(fused(f, ones({2}, DType::i64), ones({2}, DType::i64)).to_vector<std::int64_t>() ==
        std::vector<std::int64_t>{2, 2});
  CHECK(fused(f, zeros({0, 3}), zeros({0, 3})).shape() == Shape{0, 3});
  CHECK(fused(f, zeros({3, 0}), zeros({3, 0})).shape() == Shape{3, 0});
  // An argument that may be left out.
  const auto biased = [](const Tensor& a, const Tensor& b) {
    return b.defined() ? a + b : a * 2.0;
  };
  CHECK(fused(biased, ones({2}), Tensor()).to_vector<float>() == std::vector<float>{2, 2});
}

TEST_CASE("fused: one inside of another is part of it") {
  const auto f = [](const Tensor& a, const Tensor& b) {
    return fused([](const Tensor& p, const Tensor& q) { return p * tanh(q); }, a, b) + a;
  };
  const Tensor a = normal({3, 5}, 0, 1, DType::f64).requires_grad_();
  const Tensor b = normal({3, 5}, 0, 1, DType::f64).requires_grad_();
  const Tensor y = fused(f, a, b);
  CHECK(is_fused(y));
  CHECK(difference(y, (a * tanh(b) + a).detach(), 1e-12, 1.0) == "");
  CHECK(difference(grad(sum(y), b), grad(sum(a * tanh(b)), b), 1e-12, 1.0) == "");
}

TEST_CASE("fused: the memory of a temporary is used again, that of a named tensor is not") {
  const auto chain = [](const Tensor& sum, const Tensor& c) {
    const auto gates = chunk(sum, 2, -1);
    const Tensor i = sigmoid(gates[0]), g = tanh(gates[1]);
    return std::pair{i * g + c, i * c};
  };
  const Tensor a = normal({5, 8}, 0, 1, DType::f64).requires_grad_();
  const Tensor c = normal({5, 4}, 0, 1, DType::f64).requires_grad_();
  const Tensor named = a * 2.0;
  const auto before = named.to_vector<double>();
  const auto loss = [](const std::pair<Tensor, Tensor>& y) { return sum(y.first * y.second); };
  const Tensor from_named = loss(fused(chain, named, c));
  CHECK(named.to_vector<double>() == before);
  const Tensor from_temporary = loss(fused(chain, a * 2.0, c));
  const Tensor plain = loss(chain(a * 2.0, c));
  const auto want = grad({plain}, {a, c});
  for (const Tensor& y : {from_named, from_temporary}) {
    CHECK(difference(y, plain, 1e-12, 1.0) == "");
    const auto got = grad({y}, {a, c}, {.retain_graph = true});
    // Once more, with the values that were kept as they are.
    const auto again = grad({y}, {a, c}, {.create_graph = true});
    for (std::size_t i = 0; i < 2; ++i) {
      CHECK(difference(got[i], want[i], 1e-12, 1.0) == "");
      CHECK(difference(again[i].detach(), want[i], 1e-12, 1.0) == "");
    }
  }
  CHECK(gradcheck(
      [&](const std::vector<Tensor>& in) { return loss(fused(chain, in[0] * 2.0, in[1])); }, {a, c},
      {.order = 2}));
}

TEST_CASE("fused: a gradient is written over one that came in, unless somebody holds that") {
  // The second result's gradient is the larger part of the second argument's, and of its shape.
  const auto chain = [](const Tensor& x, const Tensor& c0) {
    const Tensor c = sigmoid(x) * c0 + tanh(x);
    return std::pair{x * tanh(c), c};
  };
  const Tensor x = normal({5, 8}, 0, 1, DType::f64).requires_grad_();
  const Tensor c = normal({5, 8}, 0, 1, DType::f64).requires_grad_();
  const Tensor weights = normal({5, 8}, 0, 1, DType::f64);
  const auto loss = [&](const std::pair<Tensor, Tensor>& y) {
    return sum(y.first) + sum(y.second * weights);
  };
  const auto want = grad({loss(chain(x, c))}, {x, c});
  const auto check = [&](const std::vector<Tensor>& got) {
    CHECK(difference(got[0], want[0], 1e-12, 1.0) == "");
    CHECK(difference(got[1], want[1], 1e-12, 1.0) == "");
  };
  check(grad({loss(fused(chain, x, c))}, {x, c}));

  auto held = fused(chain, x, c);
  Tensor seen;
  held.second.register_hook([&](const Tensor& g) {
    seen = g;
    return Tensor();
  });
  held.first.retain_grad();
  held.second.retain_grad();
  loss(held).backward();
  check({x.grad(), c.grad()});
  CHECK(difference(seen, weights, 0.0) == "");
  CHECK(difference(held.second.grad(), weights, 0.0) == "");
  CHECK(difference(held.first.grad(), ones({5, 8}, DType::f64), 0.0) == "");

  const auto asked = fused(chain, x, c);
  const auto gradients = grad({loss(asked)}, {asked.first, asked.second, x, c});
  CHECK(difference(gradients[0], ones({5, 8}, DType::f64), 0.0) == "");
  CHECK(difference(gradients[1], weights, 0.0) == "");
  check({gradients[2], gradients[3]});
}

TEST_CASE("fused: the steps of the library's cells are") {
  const Tensor x = normal({6, 5}), h = normal({6, 9});
  for (bool bias : {false, true}) {
    const LSTMCell lstm_cell(5, 9, {.bias = bias});
    const LSTMState next = lstm_cell.step(lstm_cell.project(x), {h, h});
    CHECK(is_fused(next.h));
    CHECK(is_fused(next.c));
    for (bool reset_after : {false, true}) {
      const GRUCell gru(5, 9, {.bias = bias, .reset_after = reset_after});
      CHECK(is_fused(gru.step(gru.project(x), h)));
    }
  }
}

// --- Random functions ---------------------------------------------------------------------------

namespace {

/// A function of fused() captures nothing, but it may depend on the shapes that it gets: they
/// choose the chain.
std::array<Tensor, 2> random_chain(const Tensor& a, const Tensor& b, const Tensor& c) {
  const std::int64_t width = a.size(-1) / 4;
  RandomChain chain(static_cast<std::uint64_t>(a.size(0) * 1000 + width), width);
  for (const Tensor& x : {a, b, c}) chain.add(x);
  chain.grow(12);
  return {tanh(chain.newest()), tanh(chain.pick(width)) * chain.pick(width)};
}

}  // namespace

TEST_CASE("fused: fuzz: random chains equal the plain call in values and derivatives") {
  const auto chain = [](const Tensor& a, const Tensor& b, const Tensor& c) {
    return random_chain(a, b, c);
  };
  int on_tape = 0, as_one = 0;
  for (std::int64_t seed = 0; seed < 400; ++seed) {
    const std::int64_t rows = 2 + seed % 100, width = 4 * (1 + seed / 100 * 2);
    const bool bias = seed % 3 == 0;
    Tensors leaves = random_leaves({{rows, width}, {rows, width}, {rows, width}}, DType::f64,
                                   static_cast<std::uint64_t>(seed));
    if (bias) leaves[2] = leaves[2][0].clone();
    for (std::size_t i = 0; i < 3; ++i) {
      leaves[i] = leaves[i] * 2.0 - 2.3;
      if ((seed >> i) % 4 != 1) leaves[i].requires_grad_();
    }
    CAPTURE(seed);
    const Tensors actual = list(fused(chain, leaves[0], leaves[1], leaves[2]));
    const Tensors expected = list(random_chain(leaves[0], leaves[1], leaves[2]));
    for (std::size_t k = 0; k < 2; ++k) {
      REQUIRE(difference(actual[k], expected[k], 1e-10, 1.0) == "");
      REQUIRE(actual[k].requires_grad() == expected[k].requires_grad());
      on_tape += actual[k].requires_grad() ? 1 : 0;
      as_one += is_fused(actual[k]) ? 1 : 0;
    }
    const Tensors a = gradients(actual, leaves, true), b = gradients(expected, leaves, true);
    for (std::size_t i = 0; i < a.size(); ++i) REQUIRE(differ(a[i], b[i], 1e-8) == "");
    Tensors defined_a, defined_b;
    for (std::size_t i = 0; i < a.size(); ++i) {
      if (!a[i].defined() || !b[i].defined()) continue;
      defined_a.push_back(a[i]);
      defined_b.push_back(b[i]);
    }
    const Tensors a2 = gradients(defined_a, leaves), b2 = gradients(defined_b, leaves);
    for (std::size_t i = 0; i < a2.size(); ++i) REQUIRE(differ(a2[i], b2[i], 1e-7) == "");
    // Without create_graph the same comes from the program.
    const Tensors once = gradients(list(fused(chain, leaves[0], leaves[1], leaves[2])), leaves);
    for (std::size_t i = 0; i < once.size(); ++i) REQUIRE(differ(once[i], b[i], 1e-8) == "");
  }
  CHECK(as_one * 10 >= on_tape * 7);
}
