/// What the sweep does on the way from a recurrent network's losses to its sequences and weights:
/// gradients of time steps that are written straight into the gradient of the sequence, and
/// products of a weight's gradient that are put off and summed transposed. A sweep under
/// create_graph does none of that, so it says what should come out.

#include <doctest/doctest.h>

#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "framework/fused.h"
#include "framework/gradcheck.h"
#include "tests/support.h"

using namespace unroll;
using namespace unroll::test;

namespace {

using Tensors = std::vector<Tensor>;

Tensor step(const Tensor& x, const Tensor& u) {
  return fused([](const Tensor& a, const Tensor& b) { return tanh(a + b); }, x, u);
}
Tensor gate(const Tensor& x, const Tensor& u) {
  return fused([](const Tensor& a, const Tensor& b) { return sigmoid(a) * b; }, x, u);
}

/// The gradients of loss() by a sweep, against those of one that records itself.
void check(const std::function<Tensor()>& loss, const Tensors& xs) {
  const Tensors expected = grad({loss()}, xs, {.create_graph = true});
  const Tensors actual = grad({loss()}, xs);
  for (std::size_t i = 0; i < xs.size(); ++i) {
    CAPTURE(i);
    CHECK(difference(actual[i], expected[i], 1e-10, 1.0) == "");
    if (!xs[i].is_leaf()) continue;
    Tensor x = xs[i];
    x.set_grad(Tensor());
  }
  loss().backward();
  loss().backward();
  for (std::size_t i = 0; i < xs.size(); ++i)
    if (xs[i].is_leaf())
      CHECK(difference(xs[i].grad(), expected[i].detach() * 2.0, 1e-10, 1.0) == "");
}

/// A sequence [T, B, H] and the weight of a recurrence over it.
struct Sequence {
  Tensor xs = normal({6, 3, 4}, 0, 1, DType::f64).requires_grad_();
  Tensor w = normal({4, 4}, 0, 0.5, DType::f64).requires_grad_();
  Tensor h0 = normal({3, 4}, 0, 1, DType::f64);
  /// The last state of a recurrence over these time steps.
  Tensor run(const Tensors& steps, int kind = 0) const {
    Tensor h = h0;
    for (std::size_t t = 0; t < steps.size(); ++t) {
      const Tensor u = linear(h, w);
      const std::size_t k = static_cast<std::size_t>(kind) + t;
      h = kind < 2     ? step(steps[t], u)
          : k % 3 == 0 ? tanh(steps[t] * u)
          : k % 3 == 1 ? step(steps[t], u)
                       : gate(steps[t], u);
    }
    return h;
  }
};

}  // namespace

TEST_CASE("sweep: time steps in every order, with gaps, repeated") {
  const Sequence s;
  for (const std::vector<std::int64_t>& order : {std::vector<std::int64_t>{0, 1, 2, 3, 4, 5},
                                                 {5, 4, 3, 2, 1, 0},
                                                 {1, 3, 5},
                                                 {4, 2},
                                                 {3, 0, 5, 1, 4, 2},
                                                 {2, 5, 0},
                                                 {1, 2, 5, 0},
                                                 {4, 1, 2, 5, 0},
                                                 {4, 2, 0},
                                                 {1, 4, 2, 0},
                                                 {0, 2, 4},
                                                 {4, 5, 0, 3},
                                                 {2},
                                                 {0, 5},
                                                 {1, 1, 2, 2},
                                                 {0, 1, 0, 1}})
    for (int kind : {0, 2, 3, 4})
      for (bool leaf : {true, false}) {
        CAPTURE(kind);
        CAPTURE(leaf);
        check(
            [&] {
              const Tensor whole = leaf ? s.xs : s.xs * 1.5;
              Tensors steps;
              for (std::int64_t t : order) steps.push_back(whole[t]);
              return sum(s.run(steps, kind) * s.h0);
            },
            {s.xs, s.w});
      }
}

TEST_CASE("sweep: pieces that overlap, cut by narrow, slice and select") {
  const Sequence s;
  for (bool leaf : {true, false})
    for (int kind : {0, 2, 3, 4})
      check(
          [&] {
            const Tensor whole = leaf ? s.xs : tanh(s.xs);
            const Tensor first = narrow(whole, 0, 0, 4), second = slice(whole, 0, 2, 6),
                         odd = slice(whole, 0, 1, 6, 2), columns = narrow(whole, 2, 1, 3);
            const Tensor h = s.run({first[3], second[1], odd[0], whole[2], odd[2], first[0],
                                    second[3], squeeze(narrow(whole, 0, 5, 1), 0)},
                                   kind);
            const Tensor wide = step(first, second) + gate(second, first);
            return sum(h) + sum(wide) + sum(square(columns)) + sum(square(odd));
          },
          {s.xs, s.w});
}

TEST_CASE("sweep: pieces of other lengths, within a gap and across its ends") {
  const Sequence s;
  struct Piece {
    std::int64_t begin, length;
  };
  for (const std::vector<Piece>& order : {std::vector<Piece>{{2, 2}, {5, 1}, {0, 1}},
                                          {{1, 4}, {5, 1}, {0, 1}},
                                          {{1, 2}, {2, 2}, {5, 1}, {0, 1}},
                                          {{3, 2}, {2, 2}, {5, 1}, {0, 1}},
                                          {{1, 2}, {3, 2}, {5, 1}, {0, 1}},
                                          {{4, 1}, {2, 1}, {1, 1}, {5, 1}, {0, 1}},
                                          {{1, 1}, {4, 2}, {3, 3}, {0, 1}},
                                          {{0, 6}, {5, 1}, {0, 1}},
                                          {{4, 2}, {0, 2}},
                                          {{0, 2}, {4, 2}}})
    check(
        [&] {
          Tensor loss = sum(s.h0);
          for (const auto& [begin, length] : order)
            loss = loss + sum(tanh(narrow(s.xs, 0, begin, length) * s.h0));
          return loss;
        },
        {s.xs});
}

TEST_CASE("sweep: a time step with several uses, fused and plain, before and after") {
  const Sequence s;
  for (bool leaf : {true, false}) {
    const auto whole = [&] { return leaf ? s.xs : s.xs * 0.7; };
    check(
        [&] {  // plain use first, then fused
          const Tensor x = whole()[2];
          const Tensor h = linear(s.h0 + x, s.w);
          return sum(step(x, h));
        },
        {s.xs, s.w});
    check(
        [&] {  // each state looks at its own time step and at the next one
          const Tensor all = whole();
          Tensor h = s.h0;
          for (std::int64_t t = 0; t < 5; ++t) {
            const Tensor x = all[t], after = all[t + 1];
            h = step(x, linear(h * x, s.w)) + sum(after * h);
          }
          return sum(h * s.h0);
        },
        {s.xs, s.w});
    check(
        [&] {  // fused twice
          const Tensor x = whole()[1];
          return sum(step(x, gate(x, linear(s.h0, s.w))));
        },
        {s.xs, s.w});
    check(
        [&] {  // a part of a time step beside the time step
          const Tensor x = whole()[4];
          const Tensor part = narrow(x, 1, 1, 2), rows = narrow(x, 0, 0, 2);
          return sum(step(x, linear(s.h0, s.w))) + sum(square(part)) + sum(step(rows, rows * 2.0));
        },
        {s.xs, s.w});
  }
}

TEST_CASE("sweep: the whole has other uses than its time steps") {
  const Sequence s;
  for (bool leaf : {true, false}) {
    const auto whole = [&] { return leaf ? s.xs : s.xs * 0.7; };
    check(
        [&] {  // one that comes between the use of a time step and the end of its cut
          const Tensor all = whole(), x = all[1];
          const Tensor squares = square(all);
          return sum(step(x, squares[2] * x)) + sum(step(all[3], squares[3]));
        },
        {s.xs});
    check(
        [&] {
          const Tensor all = whole(), x = all[1], y = all[2];
          const Tensor moved = tanh(narrow(all, 0, 0, 3));
          return sum(step(x, step(y, moved[1]))) + sum(square(all));
        },
        {s.xs});
    check(
        [&] {
          const Tensor all = whole();
          return sum(s.run({all[0], all[1], all[2]})) + sum(square(all)) + sum(all * all[5]);
        },
        {s.xs, s.w});
  }
}

TEST_CASE("sweep: a time step is watched, kept or asked for") {
  const Sequence s;
  for (int kind : {0, 2}) {
    const auto run = [&](Tensors& steps) {
      for (std::int64_t t = 0; t < 4; ++t) steps.push_back(s.xs[t]);
      return sum(s.run(steps, kind) * s.h0);
    };
    Tensors steps;
    const Tensor loss = run(steps);
    const Tensors expected = grad({loss}, {s.xs, s.w, steps[1], steps[2]}, {.create_graph = true});
    const Tensors asked = grad({loss}, {s.xs, s.w, steps[1], steps[2]}, {.retain_graph = true});
    for (std::size_t i = 0; i < 4; ++i) CHECK(difference(asked[i], expected[i], 1e-12, 1.0) == "");

    Tensors again;
    Tensor watched = run(again), seen;
    again[1].retain_grad();
    again[2].register_hook([&](const Tensor& g) {
      seen = g.clone();
      return g * 3.0;
    });
    Tensor xs = s.xs, w = s.w;
    xs.set_grad(Tensor());
    w.set_grad(Tensor());
    watched.backward();
    CHECK(difference(again[1].grad(), expected[2], 1e-12, 1.0) == "");
    CHECK(difference(seen, expected[3], 1e-12, 1.0) == "");
    Tensor want = expected[0].detach().clone();
    want[2].mul_(3.0);
    CHECK(difference(xs.grad(), want, 1e-12, 1.0) == "");
    CHECK(difference(w.grad(), expected[1], 1e-12, 1.0) == "");
    // What is kept is nobody else's.
    again[1].grad().zero_();
    CHECK(difference(xs.grad(), want, 1e-12, 1.0) == "");
  }
}

TEST_CASE("sweep: fuzz: pieces of a sequence in a random graph") {
  for (std::uint64_t seed = 0; seed < 300; ++seed) {
    CAPTURE(seed);
    const Sequence s;
    check(
        [&] {
          Generator random(seed);
          const Tensor whole = random.below(2) == 0 ? s.xs : s.xs * 0.7;
          Tensors wholes = {whole}, pool = {s.h0};
          const auto any = [&](const Tensors& list) {
            return list[static_cast<std::size_t>(
                random.below(static_cast<std::int64_t>(list.size())))];
          };
          for (int i = 0; i < 12; ++i) {
            const Tensor from = any(wholes);
            const std::int64_t n = from.size(0);
            switch (random.below(9)) {
              case 0: wholes.push_back(tanh(from)); break;
              case 1: {
                const std::int64_t first = random.below(n);
                wholes.push_back(narrow(from, 0, first, 1 + random.below(n - first)));
                break;
              }
              case 2:
                wholes.push_back(slice(from, 0, random.below(n), n, 1 + random.below(2)));
                break;
              case 3: pool.push_back(from[random.below(n)]); break;
              case 4: pool.push_back(any(pool) * any(pool)); break;
              case 5: pool.push_back(gate(from[random.below(n)], any(pool))); break;
              case 6: pool.push_back(step(any(pool), any(pool))); break;
              default: pool.push_back(step(from[random.below(n)], linear(any(pool), s.w)));
            }
          }
          Tensor loss = sum(square(any(wholes))) + sum(step(s.xs[0], linear(s.h0, s.w)));
          for (const Tensor& x : pool) loss = loss + sum(x * s.h0);
          return loss;
        },
        {s.xs, s.w});
  }
}

TEST_CASE("sweep: fuzz: pieces of sums with time steps") {
  const Tensor xs = normal({6, 1, 8}, 0, 1, DType::f64).requires_grad_();
  const Tensor row = normal({8}, 0, 1, DType::f64).requires_grad_();
  const Tensor w = normal({8, 8}, 0, 0.3, DType::f64).requires_grad_();
  const Tensor first = normal({1, 8}, 0, 1, DType::f64);
  for (std::uint64_t seed = 0; seed < 600; ++seed) {
    CAPTURE(seed);
    check(
        [&] {
          Generator random(seed);
          const Tensor whole = random.below(2) == 0 ? xs : xs * 0.7;
          Tensors rows = {first}, terms = {sum(row) + sum(w)};
          const auto any = [&]() -> const Tensor& {
            return rows[static_cast<std::size_t>(random.below(std::ssize(rows)))];
          };
          for (int i = 0; i < 12; ++i) switch (random.below(11)) {
              case 0: rows.push_back(tanh(any())); break;
              case 1: rows.push_back(any() + row); break;
              case 2: rows.push_back(reshape(any() + whole[random.below(6)], {1, 8})); break;
              case 3: terms.push_back(sum(square(narrow(whole, 0, random.below(5), 2)))); break;
              case 4: terms.push_back(sum(whole * any())); break;
              case 5: {
                const std::int64_t begin = random.below(8);
                const Tensor part = narrow(any(), 1, begin, 1 + random.below(8 - begin));
                terms.push_back(sum(exp(part * 0.1)));
                break;
              }
              case 7: {  // a piece of a sum as a sum with pieces
                const Tensor sums = whole[random.below(6)] + tanh(any());
                const auto outer = chunk(sums, 4, 1);
                const auto inner = chunk(narrow(sums, 1, 2, 4) + narrow(any(), 1, 0, 4), 2, 1);
                const Tensor g = tanh(outer[random.below(2) == 0 ? 0 : 3]);
                const bool early = random.below(2) == 0;
                rows.push_back(concatenate(
                    {early ? g : inner[1], inner[0] * g, sigmoid(inner[1]), early ? inner[1] : g},
                    1));
                break;
              }
              case 6: {
                const Tensor several = concatenate({any(), any(), any()}) + whole[random.below(6)];
                terms.push_back(sum(tanh(narrow(several, 0, random.below(3), 1))));
                break;
              }
              default: {
                const Tensor sums = random.below(2) == 0 ? whole[random.below(6)] + tanh(any())
                                                         : tanh(any()) + whole[random.below(6)];
                const auto gates = chunk(sums, 4, 1);
                const Tensor g = tanh(gates[2]) * sigmoid(gates[0]) + sigmoid(gates[3]);
                rows.push_back(concatenate({g, gates[1], g, square(gates[3])}, 1));
                if (random.below(3) == 0) rows.push_back(tanh(linear(sums, w)));
                if (random.below(3) == 0) rows.push_back(sums);
              }
            }
          Tensor loss = sum(square(any()));
          for (const Tensor& term : terms) loss = loss + term;
          return loss + sum(rows.back() * any());
        },
        {xs, row, w});
  }
}

TEST_CASE("sweep: a sum whose pieces get gradients is watched, kept or asked for") {
  const Tensor xs = normal({3, 1, 8}, 0, 1, DType::f64).requires_grad_();
  const Tensor h0 = normal({1, 8}, 0, 1, DType::f64).requires_grad_();
  const auto run = [&](Tensors& sums) {
    Tensor h = h0;
    for (std::int64_t t = 0; t < 3; ++t) {
      const Tensor x = xs[t], u = tanh(h), sum_of_both = x + u;
      sums.insert(sums.end(), {x, u, sum_of_both});
      const auto halves = chunk(sum_of_both, 2, 1);
      h = concatenate({tanh(halves[1]), halves[0] * halves[1]}, 1);
    }
    return sum(square(h));
  };
  Tensors all = {xs};
  const Tensor loss = run(all);
  const Tensors expected = grad({loss}, all, {.create_graph = true});
  for (std::size_t i = 1; i < all.size(); ++i) {
    CAPTURE(i);
    const Tensors asked = grad({loss}, {xs, all[i]}, {.retain_graph = true});
    CHECK(difference(asked[1], expected[i], 1e-12, 1.0) == "");
    Tensor(asked[1]).zero_();
    CHECK(difference(asked[0], expected[0], 1e-12, 1.0) == "");

    Tensors again;
    const Tensor watched = run(again);
    Tensor seen, x = xs;
    again[i - 1].retain_grad();
    again[i - 1].register_hook([&](const Tensor& g) {
      seen = g.clone();
      return Tensor();
    });
    x.set_grad(Tensor());
    watched.backward();
    CHECK(difference(again[i - 1].grad(), expected[i], 1e-12, 1.0) == "");
    CHECK(difference(seen, expected[i], 1e-12, 1.0) == "");
    again[i - 1].grad().zero_();
    CHECK(difference(xs.grad(), expected[0], 1e-12, 1.0) == "");
  }
}

TEST_CASE("sweep: weights wider and higher than they are, beside other uses, with hooks") {
  for (const Shape& shape : {Shape{12, 4}, Shape{4, 12}, Shape{5, 5}, Shape{1, 7}, Shape{7, 1}})
    for (std::int64_t steps : {1, 3, 150})
      for (bool transposed : {false, true}) {
        CAPTURE(to_string(shape));
        CAPTURE(steps);
        CAPTURE(transposed);
        Tensor w = normal(shape, 0, 1, DType::f64).requires_grad_();
        const std::int64_t in = shape[transposed ? 0 : 1], out = shape[transposed ? 1 : 0];
        const Tensor x = normal({steps, 3, in}, 0, 1, DType::f64);
        const Tensor g = normal({steps, 3, out}, 0, 1, DType::f64);
        const Tensor seed = normal(shape, 0, 1, DType::f64);
        const auto products = [&] {
          Tensor total = zeros({}, DType::f64);
          for (std::int64_t t = 0; t < steps; ++t)
            total = total + sum((transposed ? matmul(x[t], w) : linear(x[t], w)) * g[t]);
          return total;
        };
        // sum over t of g[t]' x[t]
        Tensor expected = matmul(transpose(reshape(g, {-1, out})), reshape(x, {-1, in}));
        if (transposed) expected = transpose(expected);
        CHECK(difference(grad(products(), w), expected, 1e-10, 1.0) == "");
        const Tensor with = expected + seed * 2.0 * w.detach();
        CHECK(difference(grad(products() + sum(square(w) * seed), w), with, 1e-10, 1.0) == "");
        CHECK(difference(grad(sum(square(w) * seed) + products(), w), with, 1e-10, 1.0) == "");
        // A row of it, and its transpose as a plain tensor.
        Tensor third = expected.clone();
        third[0].add_(ones({shape[1]}, DType::f64));
        third = third + seed;
        CHECK(difference(grad(sum(w[0]) + products() + sum(transpose(w) * transpose(seed)), w),
                         third, 1e-10, 1.0) == "");
        Tensor seen;
        const auto number = w.register_hook([&](const Tensor& grad) {
          seen = grad.clone();
          return grad * 2.0;
        });
        products().backward();
        products().backward();
        CHECK(difference(seen, expected, 1e-10, 1.0) == "");
        CHECK(difference(w.grad(), expected * 4.0, 1e-10, 1.0) == "");
        w.remove_hook(number);
      }
}

TEST_CASE("sweep: the gradient of a time step goes to its place through a sum with it") {
  const auto steps = [](const Tensor& xs, const Tensor& w, bool looked_at) {
    Tensor h = zeros({3, 4}, DType::f64);
    for (std::int64_t t = 0; t < xs.size(0); ++t) {
      const Tensor sum = linear(h, w, xs[t]);
      if (looked_at) sum.impl().node->keeps_grad = true;  // so it can't go straight to its place
      h = fused([](const Tensor& a, const Tensor& b) { return tanh(a) * b + a; }, sum, h + 1.0);
    }
    return h;
  };
  const Tensor xs = normal({5, 3, 4}, 0, 1, DType::f64).requires_grad_();
  const Tensor w = normal({4, 4}, 0, 0.5, DType::f64).requires_grad_();
  const auto straight = grad({sum(square(steps(xs, w, false)))}, {xs, w});
  const auto detour = grad({sum(square(steps(xs, w, true)))}, {xs, w});
  for (int i = 0; i < 2; ++i)
    CHECK(straight[static_cast<std::size_t>(i)].to_vector<double>() ==
          detour[static_cast<std::size_t>(i)].to_vector<double>());
  CHECK(gradcheck([&](const Tensors& in) { return sum(square(steps(in[0], in[1], false))); },
                  {xs, w}));
}

TEST_CASE(
    "sweep: a bias that is added to rows, in few operations and in many, and used otherwise") {
  const Sequence s;
  const Tensor b = normal({4}, 0, 1, DType::f64).requires_grad_();
  const Tensor scale = normal({1}, 0, 1, DType::f64).requires_grad_();
  const auto steps = [&](int count, bool otherwise) {
    return [&s, &b, &scale, count, otherwise] {
      Tensor h = s.h0;
      for (int t = 0; t < count; ++t) {
        h = tanh(linear(h, s.w, b) + s.xs[t % 6] + b);
        if (otherwise && t % 2 == 0) h = h + fused([](auto& x, auto& y) { return x * y; }, h, b);
        if (otherwise && t == 3) h = h * sum(b) + transpose(transpose(h) * 2.0);
        h = h + sum(h, {1}, true) * scale;
      }
      Tensor last = sum(square(h));
      if (otherwise)
        last = last + sum(b * b[1]) + sum(s.xs + b) + sum(transpose(transpose(h) + h[1][2]) + b);
      return last;
    };
  };
  check(steps(1, false), {s.xs, s.w, b, scale});
  check(steps(5, false), {s.xs, s.w, b, scale});
  check(steps(5, true), {s.xs, s.w, b, scale});
  check(steps(100, false), {b, scale});  // 300 rows are more than are put off
  check(steps(100, true), {b, s.xs});
  const Tensor columns = normal({4, 3}, 0, 1, DType::f64);  // the gradient of rows that lie apart
  check([&] { return sum(transpose(s.h0 * s.h0 + b) * columns); }, {b});
  const Tensor no_rows = zeros({0, 4}, DType::f64);
  check([&] { return sum(no_rows + b) + sum(b * 3.0); }, {b});
}

TEST_CASE("sweep: the gradient of a second result goes when its operation has read it") {
  const Tensor x = normal({500, 4}, 0, 1, DType::f64).requires_grad_();
  Tensor loss = zeros({}, DType::f64);
  for (int i = 0; i < 40; ++i) {
    const auto [a, b] = fused(
        [](const Tensor& both) {
          const auto halves = chunk(both, 2, -1);
          return std::pair(tanh(halves[0]), sigmoid(halves[1]));
        },
        x);
    loss = loss + sum(square(a)) + sum(square(b));
  }
  const std::int64_t before = pool_stats().in_use;
  reset_peak_memory();
  loss.backward({}, true);
  CHECK(pool_stats().peak_in_use - before < 12 * 8000 + 40 * 2000);  // 8000: a gradient
}
