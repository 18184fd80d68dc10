/// Random chains of operations on shapes, indices and sums, in f64, against the same chain on plain
/// arrays. Every chain is linear, so its gradient g satisfies <g, v> = <seed, chain(v)> for any v,
/// which asks the naive chain, too, and needs no difference quotient.

#include <doctest/doctest.h>

#include <algorithm>
#include <functional>
#include <string>
#include <vector>

#include "tests/naive.h"
#include "tests/support.h"

using namespace unroll;
using namespace unroll::test;

namespace {

using List = std::vector<std::int64_t>;

/// One operation with its random arguments.
struct Link {
  std::string text;
  std::function<Tensor(const Tensor&)> run;
  std::function<Array(const Array&)> expected;
};

std::string to_text(const List& list) { return to_string(Shape(list)); }

class Fuzzer {
 public:
  explicit Fuzzer(std::uint64_t seed) : generator_(seed) {}

  std::int64_t below(std::int64_t n) { return generator_.below(n); }
  bool chance(double p) { return generator_.uniform() < p; }

  Shape shape() {
    Shape result;
    for (std::int64_t n = below(6); n > 0; --n) result.push_back(chance(0.02) ? 0 : 1 + below(4));
    return result;
  }
  Tensor values(const Shape& shape) { return uniform(shape, -1.0, 1.0, DType::f64, generator_); }

  /// An operation that takes a tensor of that shape.
  Link link(const Shape& shape) {
    for (;;) {
      Link result = any(shape);
      if (result.run) return result;
    }
  }

 private:
  /// d as a user may write it: from the front or from the back.
  std::int64_t either(std::int64_t d, std::int64_t rank) { return chance(0.5) ? d : d - rank; }

  /// Most often above start, at most size.
  std::int64_t rarely_less(std::int64_t start, std::int64_t size) {
    return start == size || chance(0.1) ? below(size + 1) : start + 1 + below(size - start);
  }

  List some_indices(std::int64_t count, std::int64_t size) {
    List list;
    for (std::int64_t i = 0; i < count; ++i) list.push_back(below(size));
    return list;
  }

  List some_order(std::int64_t n) {
    List order;
    for (std::int64_t i = 0; i < n; ++i) order.insert(order.begin() + below(i + 1), i);
    return order;
  }

  /// The same number of elements in other sizes.
  Shape other_sizes(const Shape& shape) {
    Shape result;
    for (std::int64_t size : shape) {
      for (std::int64_t f = 2; f < size && chance(0.7); ++f) {
        if (size % f != 0) continue;
        result.push_back(f);
        size /= f;
      }
      if (result.size() > 0 && chance(0.4))
        result[result.size() - 1] *= size;
      else
        result.push_back(size);
      if (chance(0.15)) result.push_back(1);
    }
    return result;
  }

  /// May come back without a function where the shape does not allow the operation.
  Link any(const Shape& shape) {
    const std::int64_t rank = shape.size(), n = shape.numel();
    const std::int64_t kind = below(20);
    const std::int64_t d = rank > 0 ? below(rank) : 0, e = either(d, rank);
    const std::int64_t size = rank > 0 ? shape[d] : 0;
    if (rank == 0 && kind >= 5) return {};
    if (n > 400 && (kind == 0 || kind == 1 || kind == 12 || kind == 13)) return {};

    switch (kind) {
      case 0: {  // broadcast_to: sizes of 1 grow, new ones come in front
        Shape to = shape;
        for (std::int64_t& s : to)
          if (s == 1 && chance(0.7)) s = 1 + below(3);
        for (std::int64_t k = rank < 5 ? below(2) : 0; k > 0; --k) to.insert(0, 1 + below(3));
        return {"broadcast_to " + to_string(to), [=](auto& x) { return broadcast_to(x, to); },
                [=](auto& x) { return naive::broadcast_to(x, to); }};
      }
      case 1: {  // stack with itself back to front
        if (rank > 5) return {};
        const std::int64_t at = below(rank + 1), where = either(at, rank + 1);
        Shape all;
        for (std::int64_t k = 0; k < rank; ++k) all.push_back(k);
        const auto flipped = [=](const Tensor& x) { return rank > 0 ? flip(x, all) : x; };
        return {"stack " + std::to_string(where),
                [=](auto& x) {
                  return stack({x, flipped(x), x}, where);
                },
                [=](auto& x) {
                  return naive::stack({x, naive::flip(x, all), x}, at);
                }};
      }
      case 2: {
        const Shape to = other_sizes(shape);
        Shape wanted = to;
        if (to.size() > 0 && n > 0 && chance(0.3)) wanted[below(to.size())] = -1;
        return {"reshape " + to_string(wanted), [=](auto& x) { return reshape(x, wanted); },
                [=](auto& x) { return naive::reshape(x, to); }};
      }
      case 3: {
        if (rank > 5) return {};
        const std::int64_t at = below(rank + 1), where = either(at, rank + 1);
        Shape to = shape;
        to.insert(at, 1);
        return {"unsqueeze " + std::to_string(where), [=](auto& x) { return unsqueeze(x, where); },
                [=](auto& x) { return naive::reshape(x, to); }};
      }
      case 4: {
        const double factor = generator_.uniform() + 0.5;
        return {"mul", [=](auto& x) { return x * factor; },
                [=](auto& x) { return naive::map([=](double v) { return v * factor; }, x); }};
      }
      case 5: {
        if (size != 1) return {};
        Shape to = shape;
        to.erase(d);
        return {"squeeze " + std::to_string(e), [=](auto& x) { return squeeze(x, e); },
                [=](auto& x) { return naive::reshape(x, to); }};
      }
      case 6: {
        const List order = some_order(rank);
        return {"permute " + to_text(order), [=](auto& x) { return permute(x, Shape(order)); },
                [=](auto& x) { return naive::permute(x, Shape(order)); }};
      }
      case 7: {
        const std::int64_t other = below(rank), f = either(other, rank);
        return {"transpose " + std::to_string(e) + " " + std::to_string(f),
                [=](auto& x) { return transpose(x, e, f); },
                [=](auto& x) { return naive::transpose(x, d, other); }};
      }
      case 8: {
        return {"flip " + std::to_string(e), [=](auto& x) { return flip(x, e); },
                [=](auto& x) { return naive::flip(x, {d}); }};
      }
      case 9: {
        const std::int64_t start = below(size + 1), step = 1 + below(3);
        const std::int64_t end = rarely_less(start, size);
        const std::int64_t from = start < size ? either(start, size) : start;
        const std::int64_t to = end < size ? either(end, size) : end;
        return {"slice " + to_text({e, from, to, step}),
                [=](auto& x) { return slice(x, e, from, to, step); },
                [=](auto& x) { return naive::slice(x, d, start, end, step); }};
      }
      case 10: {
        if (size == 0) return {};
        const std::int64_t i = below(size), at = either(i, size);
        return {"select " + to_text({e, at}), [=](auto& x) { return select(x, e, at); },
                [=](auto& x) { return naive::select(x, d, i); }};
      }
      case 11: {
        const std::int64_t start = below(size + 1);
        const std::int64_t length = std::max<std::int64_t>(rarely_less(start, size) - start, 0);
        return {"narrow " + to_text({e, start, length}),
                [=](auto& x) { return narrow(x, e, start, length); },
                [=](auto& x) { return naive::slice(x, d, start, start + length, 1); }};
      }
      case 12: {  // with itself, in another layout, and a part of itself
        const std::int64_t part = below(size + 1);
        return {"concatenate " + std::to_string(e),
                [=](auto& x) {
                  return concatenate({x, flip(x, d), narrow(x, d, 0, part)}, e);
                },
                [=](auto& x) {
                  return naive::concatenate(
                      {x, naive::flip(x, {d}), naive::slice(x, d, 0, part, 1)}, d);
                }};
      }
      case 13: {
        if (size == 0) return {};
        const List list = some_indices(chance(0.05) ? 0 : 1 + below(5), size);
        return {"index_select " + std::to_string(e) + " " + to_text(list),
                [=](auto& x) { return index_select(x, e, from_vector(list)); },
                [=](auto& x) { return naive::index_select(x, d, list); }};
      }
      case 14: {
        if (n == 0) return {};
        Shape to = shape;
        for (std::int64_t& s : to) s -= below(s);
        to[d] = 1 + below(4);
        const List list = some_indices(to.numel(), size);
        const Tensor index = from_vector(list, to);
        return {"gather " + std::to_string(e) + " " + to_string(to),
                [=](auto& x) { return gather(x, e, index); },
                [=](auto& x) { return naive::gather(x, d, to_array(index)); }};
      }
      case 15: {
        Shape axes, written;
        for (std::int64_t k : some_order(rank)) {
          if (axes.size() > 0 && chance(0.6)) continue;
          axes.push_back(k);
          written.push_back(either(k, rank));
        }
        const bool keepdim = chance(0.5);
        return {"sum " + to_string(written) + (keepdim ? " keepdim" : ""),
                [=](auto& x) { return sum(x, written, keepdim); },
                [=](auto& x) { return naive::sum(x, axes, keepdim); }};
      }
      case 16:
        return {"cumsum " + std::to_string(e), [=](auto& x) { return cumsum(x, e); },
                [=](auto& x) { return naive::cumsum(x, d); }};
      case 17: {
        if (rank < 2) return {};
        const std::int64_t k = below(5) - 2;
        if (chance(0.5)) {
          return {
              "tril " + std::to_string(k), [=](auto& x) { return tril(x, k); },
              [=](auto& x) { return naive::band([=](auto i, auto j) { return j - i <= k; }, x); }};
        }
        return {
            "triu " + std::to_string(k), [=](auto& x) { return triu(x, k); },
            [=](auto& x) { return naive::band([=](auto i, auto j) { return j - i >= k; }, x); }};
      }
      case 18: {  // with a constant matrix or vector, from either side
        const Tensor right = values(chance(0.3) ? Shape{shape.back()} : Shape{shape.back(), 2});
        if (rank < 2 || chance(0.6)) {
          return {"matmul by " + to_string(right.shape()),
                  [=](auto& x) { return matmul(x, right); },
                  [=](auto& x) { return naive::matmul(x, to_array(right)); }};
        }
        const Tensor left = values({3, shape[rank - 2]});
        return {"matmul of " + to_string(left.shape()), [=](auto& x) { return matmul(left, x); },
                [=](auto& x) { return naive::matmul(to_array(left), x); }};
      }
      default: {  // used twice, the second time summed and broadcast
        const Tensor factor = values({shape.back()});
        return {"x + factor * sum " + std::to_string(e),
                [=](auto& x) { return x + factor * sum(x, e, true); },
                [=](auto& x) {
                  const auto times = [](double a, double b) { return a * b; };
                  const auto plus = [](double a, double b) { return a + b; };
                  return naive::map(plus, x,
                                    naive::map(times, to_array(factor), naive::sum(x, {d}, true)));
                }};
      }
    }
  }

  Generator generator_;
};

double dot(const Array& a, const Array& b) {
  double s = 0.0;
  for (std::size_t i = 0; i < a.values.size(); ++i) s += a.values[i] * b.values.at(i);
  return s;
}

void check_chain(std::uint64_t seed) {
  Fuzzer fuzzer(seed);
  const Shape start = fuzzer.shape();
  Tensor x = fuzzer.values(start).requires_grad_();
  Array expected = to_array(x);
  Tensor y = x;
  std::vector<Link> chain;
  std::string text = to_string(start);
  for (int i = 0; i < 8; ++i) {
    chain.push_back(fuzzer.link(y.shape()));
    text += " " + chain.back().text;
    INFO("seed ", seed, ": ", text);
    y = chain.back().run(y);
    expected = chain.back().expected(expected);
    REQUIRE(difference(y, expected, 1e-11, 1.0) == "");
  }

  INFO("seed ", seed, ": ", text);
  const Tensor weights = fuzzer.values(y.shape());
  const Tensor g = grad(y, x, {.retain_graph = true, .grad_outputs = {weights}});
  const Array direction = to_array(fuzzer.values(start));
  Array image = direction;
  for (const Link& link : chain) image = link.expected(image);
  const double left = dot(to_array(g), direction), right = dot(to_array(weights), image);
  CHECK(left == doctest::Approx(right).epsilon(1e-9).scale(1.0));
  // What is recorded under create_graph is the same, and its own gradient with respect to the seed
  // leads back to the chain: d<g, v>/d(seed) = chain(v).
  Tensor variable = weights.clone().requires_grad_();
  const Tensor h = grad(y, x, {.create_graph = true, .grad_outputs = {variable}});
  REQUIRE(difference(h, g, 1e-12, 1.0) == "");
  if (!h.requires_grad()) return;
  const Tensor back = grad(sum(h * to_tensor(direction, DType::f64)), variable);
  REQUIRE(difference(back, image, 1e-11, 1.0) == "");
}

}  // namespace

TEST_CASE("fuzz: random chains of operations equal the same chains on plain arrays") {
  for (std::uint64_t seed = 0; seed < 3000; ++seed) check_chain(seed);
}
