/// Equations of random cells: products of x, of states and of what is computed from them, added to
/// each other, to biases or to nothing, and random chains in between.

#include <doctest/doctest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <iterator>
#include <string>
#include <utility>
#include <vector>

#include "framework/ops.h"
#include "modules/equations.h"
#include "tests/equations.h"
#include "tests/random_chain.h"
#include "tests/support.h"

using namespace unroll;
using namespace unroll::test;

namespace {

/// What a product is added to: nothing, a bias, x if it is as wide, or another product, which
/// seldom is used for anything else then.
Tensor random_addend(RandomChain& chain, const Tensor& x, const Tensor& bias,
                     std::vector<Tensor>& products) {
  const std::int64_t choice = chain.below(4);
  if (choice == 0) return Tensor();
  if (choice == 1 && x.size(-1) == bias.size(-1)) return x;
  if (choice == 1 || products.empty()) return bias;
  const std::int64_t i = chain.below(static_cast<std::int64_t>(products.size()));
  const Tensor addend = products[static_cast<std::size_t>(i)];
  if (chain.below(16) > 0) products.erase(products.begin() + i);
  return addend;
}

/// Equations capture nothing, but may depend on shapes: the widths of x and h choose them.
/// w: [4 H, I], u: [4 H, H], v: [H, 4 H], b: [4 H], p: [1, H].
std::pair<Tensor, LSTMState> random_cell(const Tensor& x, const LSTMState& s, const Tensor& w,
                                         const Tensor& u, const Tensor& v, const Tensor& b,
                                         const Tensor& p) {
  const std::int64_t I = x.size(-1), H = s.h.size(-1);
  RandomChain chain(static_cast<std::uint64_t>(1000 * H + I), H);
  std::vector<Tensor> products;
  for (std::int64_t left = 3 + chain.below(2), first = chain.below(3); left > 0; --left) {
    const Tensor& state = chain.below(2) == 0 ? s.h : s.c;
    const std::int64_t which = (first + left) % 3;
    if (which == 0)
      products.push_back(matmul(state, v));
    else if (const Tensor addend = random_addend(chain, x, b, products); which == 1)
      products.push_back(linear(state, u, addend));
    else
      products.push_back(linear(x, w, addend));
  }
  Tensor sum = products[0];  // of some
  std::vector<Tensor> unused;
  for (const Tensor& product : products) {
    if (&product == &products[0] || chain.below(4) > 0)
      chain.add(product);
    else
      unused.push_back(product);
    if (chain.below(4) == 0) chain.add(sum = sum + product);
  }
  for (const Tensor& t : {s.h, s.c, p * s.c}) chain.add(t);
  if (I >= 4 * H && I <= 16 * H) chain.add(narrow(x, -1, I - 4 * H, 4 * H));
  if (I == H) chain.add(x);
  for (std::int64_t left = chain.below(3); left > 0; --left) {  // products of what is computed
    chain.grow(3);
    const Tensor factor = chain.pick(H);
    if (chain.below(2) == 0)
      chain.add(matmul(factor, v));
    else
      chain.add(linear(factor, u, random_addend(chain, x, b, unused)));
  }
  chain.grow(8);
  const Tensor h = tanh(chain.newest());
  const Tensor c = tanh(chain.pick(H)) * sigmoid(chain.pick(H)) + 0.3 * s.c;
  return {chain.pick(H), {h.size(-1) == H ? h : chunk(h, 4, -1)[1], c}};
}

}  // namespace

TEST_CASE("equations: fuzz: random cells at once equal the same cells step by step") {
  const auto cell = [](const Tensor& x, const LSTMState& s, const Tensor& w, const Tensor& u,
                       const Tensor& v, const Tensor& b,
                       const Tensor& p) { return random_cell(x, s, w, u, v, b, p); };
  constexpr std::int64_t T = 5;
  int at_once = 0, all = 0;
  for (std::int64_t seed = 0; seed < 300; ++seed) {
    manual_seed(static_cast<std::uint64_t>(seed));
    const std::int64_t B = 1 + seed % 7, H = 1 + seed % 3, I = H * (1 + seed / 3);
    CAPTURE(seed);
    const std::array<Shape, 5> weights = {Shape{4 * H, I}, {4 * H, H}, {H, 4 * H}, {4 * H}, {1, H}};
    const LSTMState state{random64({B, H}), random64({B, H})};
    const double scale = 1.0 / std::sqrt(1.0 + static_cast<double>(seed / 3));
    const Tensor xs = normal({T, B, I}, 0.0, scale, DType::f64);
    const Wanted& wanted = kWanted[static_cast<std::size_t>(seed) % std::size(kWanted)];
    const bool second = seed % 5 == 0;
    const auto compare_with = [&](const Tensor& values, const ScanOptions& options,
                                  const Tensor& ids) {
      all += 1;
      at_once += compare<LSTMState>(cell, weights, values, state, options, wanted, second, ids);
    };
    const ScanOptions whole{.reverse = seed % 2 == 0};
    compare_with(xs, whole, {});
    compare_with(xs, {.reverse = seed % 2 == 1, .lengths = randint(1, T + 1, {B}), .truncate = 2},
                 {});
    compare_with(narrow(xs[0], 0, 0, std::min(B, std::int64_t{2})), whole,
                 randint(0, std::min(B, std::int64_t{2}), {T, B}));  // a table of few rows

    const Tensor w = random64(weights[0]), u = random64(weights[1]), v = random64(weights[2]),
                 b = random64(weights[3]), p = random64(weights[4]);
    const auto one = Equations(cell, w, u, v, b, p).step(xs[0], state);
    const auto [output, next] = cell(xs[0], state, w, u, v, b, p);
    CHECK(difference(one.output, output, 1e-11, 1.0) == "");
    CHECK(difference(one.state.h, next.h, 1e-11, 1.0) == "");
    CHECK(difference(one.state.c, next.c, 1e-11, 1.0) == "");
  }
  CHECK(at_once * 10 >= all * 8);
}
