// Shapes and indices of every operation. The input's bytes choose an operation, shapes, layouts and
// arguments, right and wrong ones. What the definition allows must give the numbers of the naive
// reference, and a gradient of the input's shape; all else must be refused with an Error.

#define DOCTEST_CONFIG_IMPLEMENT  // tests/support.cpp has test cases' checks in it
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <optional>
#include <string>
#include <vector>

#include "framework/kernels/parallel.h"
#include "tests/fuzz/fuzz.h"
#include "tests/naive.h"

using namespace unroll;
using namespace unroll::fuzz;
using test::Array;
using test::to_array;
namespace naive = unroll::test::naive;

namespace {

using List = std::vector<std::int64_t>;
using Binary = double (*)(double, double);

/// A dimension counted from the front, if there is one.
std::optional<std::int64_t> wrap(std::int64_t dim, std::int64_t rank) {
  if (dim < -rank || dim >= rank) return {};
  return dim < 0 ? dim + rank : dim;
}

bool broadcast_together(const Shape& a, const Shape& b) {
  for (std::int64_t d = 1; d <= std::min(a.size(), b.size()); ++d) {
    const std::int64_t m = a[a.size() - d], n = b[b.size() - d];
    if (m != n && m != 1 && n != 1) return false;
  }
  return true;
}

bool broadcasts_to(const Shape& from, const Shape& to) {
  return from.size() <= to.size() && broadcast_together(from, to) &&
         naive::broadcast_shape(from, to) == to;
}

class Trial {
 public:
  explicit Trial(Bytes& bytes) : bytes_(bytes) {
    static const auto once = [] {
      set_num_threads(1);
      return true;
    }();
    (void)once;
  }

  void run();

 private:
  // --- Arguments ---

  std::int64_t size() {
    const std::int64_t s = bytes_.below(8);
    return s == 7 ? 0 : 1 + s % 3;
  }
  Shape shape(std::int64_t ranks = 5) {
    Shape result;
    for (std::int64_t n = bytes_.below(ranks); n > 0; --n) result.push_back(size());
    return result;
  }
  /// Another shape that fits more often than chance would have it.
  Shape near(const Shape& shape) {
    Shape result;
    for (std::int64_t d = shape.size() > 0 ? bytes_.below(4) / 3 : 0; d < shape.size(); ++d) {
      const std::int64_t choice = bytes_.below(8);
      result.push_back(choice == 0 ? size() : choice <= 2 ? 1 : shape[d]);
    }
    if (bytes_.below(8) == 0) result.insert(0, size());
    return result;
  }
  /// Mostly about as large as n, from either end; now and then as large as a number can be.
  std::int64_t number(std::int64_t n) {
    const std::int64_t choice = bytes_.below(64);
    if (choice == 0) return std::numeric_limits<std::int64_t>::min();
    if (choice == 1) return std::numeric_limits<std::int64_t>::max();
    n = std::clamp<std::int64_t>(n, 0, 100);
    return choice % (2 * n + 3) - n - 1;
  }
  std::int64_t dim(const Tensor& x) { return number(x.dim()); }

  /// Whole and half numbers, some of them equal, in any layout.
  Tensor values(const Shape& shape, double low = -2.0) {
    std::vector<double> list;
    for (std::int64_t i = 0; i < shape.numel(); ++i)
      list.push_back(low + 0.5 * static_cast<double>((i * 5 + seed_) % 9));
    ++seed_;
    return test::lay_out(from_vector(list, shape), test::kLayouts[bytes_.below(7)]);
  }
  /// Most of them from 0 to n - 1.
  Tensor indices(const Shape& shape, std::int64_t n) {
    List list;
    for (std::int64_t i = 0; i < shape.numel(); ++i)
      list.push_back(bytes_.below(16) == 0 ? number(n)
                                           : bytes_.below(std::max<std::int64_t>(n, 1)));
    return from_vector(list, shape);
  }
  static bool all_below(const Tensor& indices, std::int64_t n) {
    const List list = indices.contiguous().to_vector<std::int64_t>();
    return std::all_of(list.begin(), list.end(), [n](auto i) { return i >= 0 && i < n; });
  }
  /// Dimensions as a user writes them; `dims` gets them from the front if they are right.
  Shape axes(std::int64_t rank, std::optional<Shape>& dims) {
    Shape written;
    dims = Shape();
    for (std::int64_t n = bytes_.below(4); n > 0; --n) {
      written.push_back(number(rank));
      const auto d = wrap(written.back(), rank);
      if (!d || (dims && naive::contains(*dims, *d))) dims.reset();
      if (dims) dims->push_back(*d);
    }
    return written;
  }

  // --- Checks ---

  void check(const std::string& name, bool allowed, const std::vector<Tensor>& inputs,
             const std::function<Tensor(const std::vector<Tensor>&)>& f,
             const std::function<Array()>& expected) {
    std::string what = name;
    std::vector<Tensor> leaves;
    for (const Tensor& x : inputs) {
      what += " " + to_string(x.shape());
      Tensor leaf = x.detach();
      if (is_floating(leaf.dtype())) leaf.requires_grad_();
      leaves.push_back(leaf);
    }
    Tensor y;
    try {
      y = f(leaves);
    } catch (const Error& error) {
      require(!allowed, what + " was refused: " + error.what());
      return;
    }
    require(allowed, what + " was taken");
    const std::string difference = test::difference(y, expected(), 1e-9, 1.0);
    require(difference.empty(), what + ": " + difference);
    if (!y.requires_grad()) return;
    sum(y).backward();
    for (const Tensor& leaf : leaves)
      if (leaf.requires_grad() && leaf.grad().defined())
        require(leaf.grad().shape() == leaf.shape(), what + ": a gradient of another shape");
  }
  void check(const std::string& name, bool allowed, const Tensor& x,
             const std::function<Tensor(const Tensor&)>& f,
             const std::function<Array()>& expected) {
    check(
        name, allowed, std::vector{x}, [&](const auto& in) { return f(in[0]); }, expected);
  }

  void elementwise();
  void broadcasting();
  void products();
  void reductions();
  void along_a_dimension();
  void shapes();
  void joined();
  void cut();
  void indexed();
  void losses();

  Bytes& bytes_;
  std::int64_t seed_ = 0;
};

void Trial::elementwise() {
  struct Unary {
    const char* name;
    Tensor (*op)(const Tensor&);
    double (*expected)(double);
    bool positive = false;
  };
  static const Unary table[] = {
      {"neg", [](const Tensor& x) { return -x; }, [](double v) { return -v; }},
      {"abs", abs, [](double v) { return std::abs(v); }},
      {"sign", sign, [](double v) { return static_cast<double>((v > 0) - (v < 0)); }},
      {"square", square, [](double v) { return v * v; }},
      {"exp", [](const Tensor& x) { return exp(x); }, [](double v) { return std::exp(v); }},
      {"log", log, [](double v) { return std::log(v); }, true},
      {"sqrt", [](const Tensor& x) { return sqrt(x); }, [](double v) { return std::sqrt(v); },
       true},
      {"sin", sin, [](double v) { return std::sin(v); }},
      {"cos", cos, [](double v) { return std::cos(v); }},
      {"tanh", [](const Tensor& x) { return tanh(x); }, [](double v) { return std::tanh(v); }},
      {"sigmoid", [](const Tensor& x) { return sigmoid(x); },
       [](double v) { return 1 / (1 + std::exp(-v)); }},
      {"relu", [](const Tensor& x) { return relu(x); }, [](double v) { return v > 0 ? v : 0; }},
      {"softplus", softplus, [](double v) { return std::log1p(std::exp(v)); }},
      {"pow", [](const Tensor& x) { return pow(x, 3.0); }, [](double v) { return v * v * v; }},
      {"clamp", [](const Tensor& x) { return clamp(x, -1.0, 0.5); },
       [](double v) { return v < -1    ? -1
                             : v > 0.5 ? 0.5
                                       : v; }},
      {"+ 2", [](const Tensor& x) { return x + 2.0; }, [](double v) { return v + 2; }},
      {"2 -", [](const Tensor& x) { return 2.0 - x; }, [](double v) { return 2 - v; }},
      {"* 3", [](const Tensor& x) { return 3.0 * x; }, [](double v) { return 3 * v; }},
      {"1 /", [](const Tensor& x) { return 1.0 / x; }, [](double v) { return 1 / v; }, true},
      {"> 0", [](const Tensor& x) { return x > 0.0; },
       [](double v) { return static_cast<double>(v > 0); }},
  };
  const Unary& op = table[bytes_.below(std::size(table))];
  const Tensor x = values(shape(), op.positive ? 0.5 : -2.0);
  check(op.name, true, x, op.op, [&] { return naive::map(op.expected, to_array(x)); });
}

void Trial::broadcasting() {
  struct Row {
    const char* name;
    Tensor (*op)(const Tensor&, const Tensor&);
    Binary expected;
  };
  static const Row table[] = {
      {"add", [](const Tensor& a, const Tensor& b) { return a + b; },
       [](double a, double b) { return a + b; }},
      {"sub", [](const Tensor& a, const Tensor& b) { return a - b; },
       [](double a, double b) { return a - b; }},
      {"mul", [](const Tensor& a, const Tensor& b) { return a * b; },
       [](double a, double b) { return a * b; }},
      {"div", operator/, [](double a, double b) { return a / b; }},
      {"pow", pow, [](double a, double b) { return std::pow(a, b); }},
      {"minimum", minimum, [](double a, double b) { return a < b ? a : b; }},
      {"maximum", maximum, [](double a, double b) { return a > b ? a : b; }},
      {"==", operator==, [](double a, double b) { return static_cast<double>(a == b); }},
      {"!=", operator!=, [](double a, double b) { return static_cast<double>(a != b); }},
      {"<", operator<, [](double a, double b) { return static_cast<double>(a < b); }},
      {"<=", operator<=, [](double a, double b) { return static_cast<double>(a <= b); }},
      {">", operator>, [](double a, double b) { return static_cast<double>(a > b); }},
      {">=", operator>=, [](double a, double b) { return static_cast<double>(a >= b); }},
  };
  const std::int64_t choice = bytes_.below(std::size(table) + 2);
  const Tensor a = values(shape(), 0.5), b = values(near(a.shape()), 0.5);
  const bool fit = broadcast_together(a.shape(), b.shape());
  if (choice < std::ssize(table)) {
    const Row& op = table[choice];
    check(
        op.name, fit, {a, b}, [&](const auto& in) { return op.op(in[0], in[1]); },
        [&] { return naive::map(op.expected, to_array(a), to_array(b)); });
    return;
  }
  const Tensor mask = indices(near(a.shape()), 2);
  const auto chosen = [&](const Array& x, const Array& y) {
    const Shape all =
        naive::broadcast_shape(naive::broadcast_shape(x.shape, y.shape), mask.shape());
    const Array m = naive::broadcast_to(to_array(mask), all), p = naive::broadcast_to(x, all),
                q = naive::broadcast_to(y, all);
    return test::generate(all, [&](const Shape& i) { return m.at(i) != 0 ? p.at(i) : q.at(i); });
  };
  const bool masked = broadcast_together(a.shape(), mask.shape());
  if (choice == std::ssize(table)) {
    const bool all =
        fit && broadcast_together(naive::broadcast_shape(a.shape(), b.shape()), mask.shape());
    check(
        "where", all, {a, b}, [&](const auto& in) { return where(mask, in[0], in[1]); },
        [&] { return chosen(to_array(a), to_array(b)); });
  } else {
    check(
        "masked_fill " + to_string(mask.shape()), masked, a,
        [&](const Tensor& x) { return masked_fill(x, mask, 7.0); },
        [&] {
          return chosen({Shape(), {7.0}}, to_array(a));
        });
  }
}

void Trial::products() {
  const Tensor a = values(shape(4));
  Shape other = near(a.shape());
  if (bytes_.flag() && other.size() > 1)
    std::swap(other[other.size() - 1], other[other.size() - 2]);
  const auto leading = [](const Shape& s) {
    return Shape(s.data(), static_cast<std::size_t>(std::max<std::int64_t>(s.size() - 2, 0)));
  };
  if (bytes_.flag()) {
    const Tensor b = values(other);
    const Shape &s = a.shape(), &t = other;
    const bool fit = s.size() > 0 && t.size() > 0 &&
                     s.back() == (t.size() == 1 ? t[0] : t[t.size() - 2]) &&
                     broadcast_together(leading(s), leading(t));
    check(
        "matmul", fit, {a, b}, [](const auto& in) { return matmul(in[0], in[1]); },
        [&] { return naive::matmul(to_array(a), to_array(b)); });
    return;
  }
  const bool biased = bytes_.flag();
  Shape wanted{size(), a.dim() > 0 && bytes_.below(8) ? a.shape().back() : size()};
  if (bytes_.below(16) == 0) wanted.push_back(1);
  const Tensor weight = values(wanted);
  const Tensor bias = biased ? values(Shape{bytes_.below(8) ? wanted[0] : size()}) : Tensor();
  const bool fit = a.dim() > 0 && weight.dim() == 2 && a.shape().back() == wanted[1] &&
                   (!biased || bias.shape() == Shape{wanted[0]});
  std::vector<Tensor> inputs{a, weight};
  if (biased) inputs.push_back(bias);
  check(
      "linear", fit, inputs,
      [&](const auto& in) { return linear(in[0], in[1], biased ? in[2] : Tensor()); },
      [&] {
        const Array y = naive::matmul(to_array(a), naive::transpose(to_array(weight), 0, 1));
        const auto plus = [](double u, double v) { return u + v; };
        return biased ? naive::map(plus, y, to_array(bias)) : y;
      });
}

void Trial::reductions() {
  struct Row {
    const char* name;
    Tensor (*op)(const Tensor&, const Axes&, bool);
    double (*expected)(const std::vector<double>&);
    bool needs_elements = false;
  };
  static const Row table[] = {
      {"sum", sum, naive::sum},
      {"mean", mean, naive::mean},
      {"max", max, naive::max, true},
      {"min", min, naive::min, true},
      {"logsumexp", logsumexp, naive::logsumexp},
      {"var", [](const Tensor& x, const Axes& a, bool keep) { return var(x, a, keep, 0.0); },
       [](const std::vector<double>& v) {
         double s = 0;
         for (double e : v) s += (e - naive::mean(v)) * (e - naive::mean(v));
         return s / static_cast<double>(v.size());
       }},
      {"norm", [](const Tensor& x, const Axes& a, bool keep) { return norm(x, 2.0, a, keep); },
       [](const std::vector<double>& v) {
         double s = 0;
         for (double e : v) s += e * e;
         return std::sqrt(s);
       }},
  };
  const Row& op = table[bytes_.below(std::size(table))];
  const Tensor x = values(shape());
  std::optional<Shape> dims;
  const Shape written = axes(x.dim(), dims);
  const bool keep = bytes_.flag();
  bool allowed = dims.has_value();
  if (allowed && op.needs_elements) {
    for (std::int64_t d = 0; d < x.dim(); ++d)
      if ((dims->empty() || naive::contains(*dims, d)) && x.shape()[d] == 0) allowed = false;
  }
  check(
      op.name + to_string(written), allowed, x,
      [&](const Tensor& t) { return op.op(t, written, keep); },
      [&] { return naive::reduce(op.expected, to_array(x), *dims, keep); });
}

void Trial::along_a_dimension() {
  const Tensor x = values(shape());
  const std::int64_t written = dim(x);
  const auto d = wrap(written, x.dim());
  const std::string at = " " + std::to_string(written);
  switch (bytes_.below(5)) {
    case 0: {
      const bool keep = bytes_.flag();
      check(
          "argmax" + at, d && x.shape()[*d] > 0, x,
          [&](const Tensor& t) { return argmax(t, written, keep); },
          [&] { return naive::reduce(naive::argmax, to_array(x), {*d}, keep); });
      return;
    }
    case 1:
      check(
          "cumsum" + at, d.has_value(), x, [&](const Tensor& t) { return cumsum(t, written); },
          [&] { return naive::cumsum(to_array(x), *d); });
      return;
    case 2:
      check(
          "softmax" + at, d.has_value(), x, [&](const Tensor& t) { return softmax(t, written); },
          [&] {
            return naive::normalise([](double v, double s) { return std::exp(v) / s; }, to_array(x),
                                    *d);
          });
      return;
    case 3:
      check(
          "log_softmax" + at, d.has_value(), x,
          [&](const Tensor& t) { return log_softmax(t, written); },
          [&] {
            return naive::normalise([](double v, double s) { return v - std::log(s); }, to_array(x),
                                    *d);
          });
      return;
    default: {
      const Shape to = near(x.shape());
      check(
          "sum_to " + to_string(to), broadcasts_to(to, x.shape()), x,
          [&](const Tensor& t) { return sum_to(t, to); },
          [&] {
            Shape reduced;
            const std::int64_t extra = x.dim() - to.size();
            for (std::int64_t k = 0; k < x.dim(); ++k)
              if (k < extra || to[k - extra] == 1) reduced.push_back(k);
            Array y = reduced.empty() ? to_array(x) : naive::sum(to_array(x), reduced, true);
            y.shape = to;
            return y;
          });
    }
  }
}

void Trial::shapes() {
  const Tensor x = values(shape());
  const std::int64_t rank = x.dim();
  const auto same = [&](const Shape& s) {
    return [&x, s] { return Array{s, to_array(x).values}; };
  };
  switch (bytes_.below(8)) {
    case 0: {
      Shape to = bytes_.flag() ? near(x.shape()) : shape();
      const std::int64_t unknown = to.size() > 0 && bytes_.flag() ? bytes_.below(to.size()) : -1;
      if (unknown >= 0) to[unknown] = bytes_.below(16) ? -1 : number(3);
      Shape full = to;
      std::int64_t holes = 0, known = 1;
      bool negative = false, huge = false;
      for (std::int64_t s : to) {
        holes += s == -1;
        negative |= s < -1;
        huge |= s > 1000;
        if (s >= 0 && s <= 1000) known *= s;
      }
      bool allowed = holes <= 1 && !negative && !huge && (holes == 0 || known > 0);
      if (allowed && holes)
        for (std::int64_t& s : full)
          if (s == -1) s = x.numel() / known;
      allowed = allowed && full.numel() == x.numel();
      check(
          "reshape " + to_string(to), allowed, x, [&](const Tensor& t) { return reshape(t, to); },
          same(full));
      return;
    }
    case 1: {
      const std::int64_t first = dim(x), last = dim(x);
      const auto a = wrap(first, rank), b = wrap(last, rank);
      Shape to;
      if (rank == 0) to = {1};
      for (std::int64_t d = 0; d < rank && a && b; ++d) {
        if (d > *a && d <= *b)
          to[*a] *= x.shape()[d];
        else
          to.push_back(x.shape()[d]);
      }
      check(
          "flatten " + to_string(Shape{first, last}), rank == 0 || (a && b && *a <= *b), x,
          [&](const Tensor& t) { return flatten(t, first, last); }, same(to));
      return;
    }
    case 2: {
      const std::int64_t written = dim(x);
      const auto d = wrap(written, rank);
      Shape to = x.shape();
      if (d) to.erase(*d);
      check(
          "squeeze " + std::to_string(written), d && x.shape()[*d] == 1, x,
          [&](const Tensor& t) { return squeeze(t, written); }, same(to));
      return;
    }
    case 3: {
      const std::int64_t written = number(rank + 1);
      const auto d = wrap(written, rank + 1);
      Shape to = x.shape();
      if (d) to.insert(*d, 1);
      check(
          "unsqueeze " + std::to_string(written), d.has_value(), x,
          [&](const Tensor& t) { return unsqueeze(t, written); }, same(to));
      return;
    }
    case 4: {
      const std::int64_t p = dim(x), q = dim(x);
      const auto a = wrap(p, rank), b = wrap(q, rank);
      check(
          "transpose " + to_string(Shape{p, q}), a && b, x,
          [&](const Tensor& t) { return transpose(t, p, q); },
          [&] { return naive::transpose(to_array(x), *a, *b); });
      return;
    }
    case 5: {
      Shape written, order;
      for (std::int64_t d = 0; d < rank; ++d) written.insert(bytes_.below(d + 1), d);
      if (bytes_.below(8) == 0) written.push_back(number(rank));
      if (written.size() > 0 && bytes_.flag()) written[bytes_.below(written.size())] = dim(x);
      bool allowed = written.size() == rank;
      for (std::int64_t w : written) {
        const auto d = wrap(w, rank);
        if (!d || naive::contains(order, *d)) allowed = false;
        if (d) order.push_back(*d);
      }
      check(
          "permute " + to_string(written), allowed, x,
          [&](const Tensor& t) { return permute(t, written); },
          [&] { return naive::permute(to_array(x), order); });
      return;
    }
    case 6: {
      Shape to = near(x.shape());
      if (to.size() > 0 && bytes_.below(16) == 0) to[0] = -bytes_.below(3);
      const bool negative = std::any_of(to.begin(), to.end(), [](auto s) { return s < 0; });
      check(
          "broadcast_to " + to_string(to), !negative && broadcasts_to(x.shape(), to), x,
          [&](const Tensor& t) { return broadcast_to(t, to); },
          [&] { return naive::broadcast_to(to_array(x), to); });
      return;
    }
    default: {
      std::optional<Shape> dims;
      const Shape written = axes(rank, dims);
      check(
          "flip " + to_string(written), dims.has_value(), x,
          [&](const Tensor& t) { return flip(t, written); },
          [&] { return naive::flip(to_array(x), *dims); });
    }
  }
}

void Trial::joined() {
  const bool stacked = bytes_.flag();
  std::vector<Tensor> tensors;
  for (std::int64_t n = bytes_.below(4); n > 0; --n) {
    const bool fits = !tensors.empty() && bytes_.below(8);
    tensors.push_back(values(fits ? tensors[0].shape() : shape(4)));
  }
  const Shape first = tensors.empty() ? Shape() : tensors[0].shape();
  const std::int64_t written = number(first.size());
  const auto d = wrap(written, first.size() + (stacked ? 1 : 0));
  bool allowed = !tensors.empty() && d;
  std::vector<Array> arrays;
  for (const Tensor& x : tensors) {
    arrays.push_back(to_array(x));
    Shape other = x.shape();
    if (allowed && !stacked && other.size() == first.size()) other[*d] = first[*d];
    allowed = allowed && other == first;
  }
  const std::string at = std::to_string(written);
  if (stacked)
    check(
        "stack " + at, allowed, tensors, [&](const auto& in) { return stack(in, written); },
        [&] { return naive::stack(arrays, *d); });
  else
    check(
        "concatenate " + at, allowed, tensors,
        [&](const auto& in) { return concatenate(in, written); },
        [&] { return naive::concatenate(arrays, *d); });
}

void Trial::cut() {
  const Tensor x = values(shape());
  const std::int64_t written = dim(x);
  const auto d = wrap(written, x.dim());
  const std::int64_t n = d ? x.shape()[*d] : 0;
  const std::int64_t i = number(n), j = number(n), k = number(3);
  const std::string text = to_string(Shape{written, i, j, k});
  switch (bytes_.below(5)) {
    case 0: {
      const auto at = wrap(i, n);
      check(
          "select " + text, d && at, x, [&](const Tensor& t) { return select(t, written, i); },
          [&] { return naive::select(to_array(x), *d, *at); });
      return;
    }
    case 1: {
      const auto clip = [n](std::int64_t v) {
        return std::clamp<std::int64_t>(v < 0 ? v + n : v, 0, n);
      };
      check(
          "slice " + text, d && k > 0, x,
          [&](const Tensor& t) { return slice(t, written, i, j, k); },
          [&] { return naive::slice(to_array(x), *d, clip(i), clip(j), std::min(k, n + 1)); });
      return;
    }
    case 2:
      check(
          "narrow " + text, d && i >= 0 && j >= 0 && i <= n && j <= n - i, x,
          [&](const Tensor& t) { return narrow(t, written, i, j); },
          [&] { return naive::slice(to_array(x), *d, i, i + j, 1); });
      return;
    case 3:
      check(
          "split " + text, d && k > 0, x,
          [&](const Tensor& t) {
            const auto pieces = split(t, k, written);
            return pieces.empty() ? t * 1.0 : concatenate(pieces, written);
          },
          [&] { return to_array(x); });
      return;
    default: {
      // Nothing can be cut into any number of parts, more than memory holds.
      const std::int64_t parts = std::min<std::int64_t>(k, 100), part = parts > 0 ? n / parts : 0;
      check(
          "chunk " + text, d && parts > 0 && n % parts == 0, x,
          [&](const Tensor& t) { return chunk(t, parts, written).back(); },
          [&] { return naive::slice(to_array(x), *d, n - part, n, 1); });
    }
  }
}

void Trial::indexed() {
  const Tensor x = values(shape());
  const std::int64_t written = dim(x);
  const auto d = wrap(written, x.dim());
  const std::int64_t n = d ? x.shape()[*d] : 0;
  const std::string at = std::to_string(written);
  switch (bytes_.below(5)) {
    case 0: {
      const Tensor index = indices(bytes_.below(8) ? Shape{bytes_.below(4)} : shape(3), n);
      check(
          "index_select " + at, d && index.dim() == 1 && all_below(index, n), x,
          [&](const Tensor& t) { return index_select(t, written, index); },
          [&] { return naive::index_select(to_array(x), *d, index.to_vector<std::int64_t>()); });
      return;
    }
    case 1: {
      Shape to = x.shape();
      for (std::int64_t& s : to) s = std::max<std::int64_t>(s - bytes_.below(4) / 3, 0);
      if (d) to[*d] = bytes_.below(4);
      if (bytes_.below(8) == 0) to = near(to);
      const Tensor index = indices(to, n);
      bool fits = d && to.size() == x.dim();
      for (std::int64_t k = 0; fits && k < x.dim(); ++k) fits = k == *d || to[k] <= x.shape()[k];
      check(
          "gather " + at + to_string(to), fits && all_below(index, n), x,
          [&](const Tensor& t) { return gather(t, written, index); },
          [&] { return naive::gather(to_array(x), *d, to_array(index)); });
      return;
    }
    case 2: {
      const std::int64_t rows = x.dim() > 0 ? x.shape()[0] : 0;
      const Tensor index = indices(shape(3), rows);
      const std::int64_t padding = number(rows);
      const bool sparse = bytes_.flag();
      const bool allowed =
          x.dim() == 2 && all_below(index, rows) && padding >= -1 && padding < rows;
      check(
          "embedding " + to_string(index.shape()), allowed, x,
          [&](const Tensor& t) { return embedding(t, index, padding, sparse); },
          [&] {
            Array y = naive::index_select(
                to_array(x), 0, reshape(index, {index.numel()}).to_vector<std::int64_t>());
            y.shape = index.shape();
            y.shape.push_back(x.shape()[1]);
            return y;
          });
      return;
    }
    case 3: {
      const std::int64_t classes = std::min<std::int64_t>(number(4), 100);
      const Tensor index = indices(shape(3), classes);
      check(
          "one_hot " + std::to_string(classes), classes >= 0 && all_below(index, classes), index,
          [&](const Tensor& t) { return one_hot(t, classes, DType::f64); },
          [&] {
            Shape to = index.shape();
            to.push_back(classes);
            const Array chosen = to_array(index);
            return test::generate(to, [&](Shape i) {
              const std::int64_t c = i.back();
              i.erase(i.size() - 1);
              return chosen.at(i) == static_cast<double>(c) ? 1.0 : 0.0;
            });
          });
      return;
    }
    default: {
      const std::int64_t diagonal = number(4);
      const bool lower = bytes_.flag();
      check((lower ? "tril " : "triu ") + std::to_string(diagonal), x.dim() >= 2, x,
            [&](const Tensor& t) { return lower ? tril(t, diagonal) : triu(t, diagonal); },
            [&] {
              return naive::band(
                  [&](std::int64_t r, std::int64_t c) {
                    return lower ? c - r <= diagonal : c - r >= diagonal;
                  },
                  to_array(x));
            });
    }
  }
}

void Trial::losses() {
  const Tensor x = values(shape(4));
  const Tensor mask = bytes_.flag() ? indices(near(x.shape()), 2) : Tensor();
  const auto counts = [&](const Shape& i) {
    if (!mask.defined()) return true;
    Shape first = i;
    first.resize(mask.dim());
    return to_array(mask).at(first) != 0;
  };
  const auto mask_fits = [&](const Shape& of) {
    if (!mask.defined()) return true;
    bool fits = mask.dim() <= of.size();
    for (std::int64_t d = 0; fits && d < mask.dim(); ++d) fits = mask.shape()[d] == of[d];
    return fits;
  };
  const std::int64_t choice = bytes_.below(7);
  if (choice < 2) {
    const std::int64_t classes = x.dim() > 0 ? x.shape().back() : 0;
    Shape wanted = x.shape();
    if (x.dim() > 0) wanted.resize(x.dim() - 1);
    const Tensor targets = indices(bytes_.below(8) ? wanted : near(wanted), classes);
    bool allowed = x.dim() > 0 && targets.shape() == wanted && mask_fits(wanted);
    if (allowed)
      test::for_each_index(wanted, [&](const Shape& i) {
        const double t = to_array(targets).at(i);
        if (counts(i) && !(t >= 0 && t < static_cast<double>(classes))) allowed = false;
      });
    const auto expected = [&] {
      const Array values = to_array(x), wants = to_array(targets);
      const Array logs = choice == 0
                             ? naive::normalise([](double v, double s) { return v - std::log(s); },
                                                values, x.dim() - 1)
                             : values;
      return test::generate(wanted, [&](const Shape& i) {
        if (!counts(i)) return 0.0;
        Shape at = i;
        at.push_back(static_cast<std::int64_t>(wants.at(i)));
        return -logs.at(at);
      });
    };
    if (choice == 0)
      check(
          "cross_entropy " + to_string(targets.shape()), allowed, x,
          [&](const Tensor& t) {
            return cross_entropy(t, targets, {.reduction = Reduction::none, .mask = mask});
          },
          expected);
    else
      check(
          "nll_loss " + to_string(targets.shape()), allowed, x,
          [&](const Tensor& t) {
            return nll_loss(t, targets, {.reduction = Reduction::none, .mask = mask});
          },
          expected);
    return;
  }
  if (choice == 2) {
    const std::int64_t steps = std::min<std::int64_t>(number(4), 100);
    const Tensor lengths = indices(bytes_.below(8) ? Shape{bytes_.below(4)} : shape(3), steps + 1);
    const bool allowed = steps >= 0 && lengths.dim() == 1 && all_below(lengths, steps + 1);
    check(
        "sequence_mask " + std::to_string(steps), allowed, lengths,
        [&](const Tensor& t) { return sequence_mask(t, steps, DType::f64); },
        [&] {
          const Array length = to_array(lengths);
          return test::generate({steps, lengths.numel()}, [&](const Shape& i) {
            return static_cast<double>(static_cast<double>(i[0]) < length.at({i[1]}));
          });
        });
    return;
  }
  struct Row {
    const char* name;
    Tensor (*op)(const Tensor&, const Tensor&, const Tensor& mask);
    Binary expected;
  };
  static const Row table[] = {
      {"mse_loss",
       [](const Tensor& a, const Tensor& b, const Tensor& m) {
         return mse_loss(a, b, {.reduction = Reduction::none, .mask = m});
       },
       [](double a, double b) { return (a - b) * (a - b); }},
      {"l1_loss",
       [](const Tensor& a, const Tensor& b, const Tensor& m) {
         return l1_loss(a, b, {.reduction = Reduction::none, .mask = m});
       },
       [](double a, double b) { return std::abs(a - b); }},
      {"huber_loss",
       [](const Tensor& a, const Tensor& b, const Tensor& m) {
         return huber_loss(a, b, {.reduction = Reduction::none, .mask = m});
       },
       [](double a, double b) {
         const double d = std::abs(a - b);
         return d <= 1 ? d * d / 2 : d - 0.5;
       }},
      {"binary_cross_entropy_with_logits",
       [](const Tensor& a, const Tensor& b, const Tensor& m) {
         return binary_cross_entropy_with_logits(a, b, {.reduction = Reduction::none, .mask = m});
       },
       [](double a, double b) { return std::log1p(std::exp(a)) - a * b; }},
  };
  const Row& op = table[choice - 3];
  const Tensor y = values(bytes_.below(8) ? x.shape() : near(x.shape()), 0.0);
  const bool allowed = x.shape() == y.shape() && mask_fits(x.shape());
  check(
      op.name, allowed, {x, y}, [&](const auto& in) { return op.op(in[0], in[1], mask); },
      [&] {
        const Array loss = naive::map(op.expected, to_array(x), to_array(y));
        return test::generate(x.shape(),
                              [&](const Shape& i) { return counts(i) ? loss.at(i) : 0.0; });
      });
}

void Trial::run() {
  static constexpr void (Trial::*kinds[])() = {
      &Trial::elementwise,       &Trial::broadcasting, &Trial::products, &Trial::reductions,
      &Trial::along_a_dimension, &Trial::shapes,       &Trial::joined,   &Trial::cut,
      &Trial::indexed,           &Trial::losses};
  (this->*kinds[bytes_.below(std::size(kinds))])();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  Bytes bytes(data, size);
  Trial(bytes).run();
  return 0;
}
