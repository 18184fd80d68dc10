// Errors that belong to no other test: of rules that users write, of sizes that no format holds, of
// options. Each with its exact text.

#include <doctest/doctest.h>

#include <stdexcept>
#include <string>
#include <vector>

#include "data/conll.h"
#include "framework/memory.h"
#include "framework/npy.h"
#include "framework/safetensors.h"
#include "modules/modules.h"
#include "optim/optim.h"
#include "tests/support.h"
#include "tests/temporary_directory.h"

using namespace unroll;
using namespace unroll::test;

namespace {

/// y = x, whose rule says that dx is what `gradient` gives.
Tensor with_rule(const Tensor& x, Tensor (*gradient)(const Tensor&)) {
  return record("identity", {x}, x.detach().clone(), Keep::none,
                [gradient](Back& back) { back.add(0, gradient(back.grad)); });
}

}  // namespace

TEST_CASE("errors: a rule whose gradient does not fit its input is named") {
  const Tensor x = ones({2, 3}).requires_grad_();
  CHECK_THROWS_WITH_AS(
      sum(with_rule(x, [](const Tensor& g) { return g.to(DType::f64); })).backward(),
      "backward: identity gives input 0 a gradient of dtype f64, the input is f32", DTypeError);
  CHECK_THROWS_WITH_AS(
      sum(with_rule(x, [](const Tensor& g) { return sum(g, 0); })).backward(),
      "backward: identity gives input 0 a gradient of shape (3), the input is (2, 3)", ShapeError);
  CHECK_FALSE(x.grad().defined());
}

TEST_CASE("errors: lengths are a list") {
  CHECK_THROWS_WITH_AS(sequence_mask(from_vector<std::int64_t>({1, 2}, {1, 2}), 3),
                       "sequence_mask: lengths have one dimension, got shape (1, 2)", ShapeError);
}

TEST_CASE("errors: what no header holds is not written") {
  const TemporaryDirectory directory;
  Shape many;
  many.resize(22000);
  for (std::int64_t& size : many) size = 1;
  CHECK_THROWS_WITH_AS(save_npy(directory.file("x.npy"), ones(many)),
                       "save_npy: the tensor has too many dimensions", ValueError);
  CHECK_THROWS_WITH_AS(save_safetensors(directory.file("x.safetensors"), {},
                                        {{"text", std::string(100'000'000, 'x')}}),
                       "save_safetensors: the header has 100000032 bytes, 100000000 are allowed",
                       ValueError);
  CHECK(directory.names().empty());
}

TEST_CASE("errors: columns of CoNLL files count from 1") {
  CHECK_THROWS_WITH_AS(parse_conll("a b\n", "a.conll", {.token_column = 0}),
                       "parse_conll: columns count from 1, or from -1 backwards", ValueError);
}

TEST_CASE("errors: options of Recurrent are checked, each under its name") {
  CHECK_THROWS_WITH_AS(GRU(2, 3, {.variational = {.output = 1.0}}),
                       "Recurrent: variational.output must be in [0, 1), but is 1", ValueError);
  CHECK_THROWS_WITH_AS(GRU(2, 3, {.variational = {.recurrent = -0.5}}),
                       "Recurrent: variational.recurrent must be in [0, 1), but is -0.5",
                       ValueError);
  const GRU both(2, 3, {.bidirectional = true});
  CHECK_THROWS_WITH_AS(
      both(zeros({4, 1, 2}), {zeros({1, 3})}),
      "GRU: the state must hold 2 cell states (1 layer x 2 directions), but holds 1", ValueError);
}

TEST_CASE("errors: a state that holds no tensor cannot be put out") {
  struct Stateless {
    std::vector<Tensor> initial_state(std::int64_t) const { return {}; }
    std::vector<Tensor> step(const Tensor&, const std::vector<Tensor>& s) const { return s; }
  };
  CHECK_THROWS_WITH_AS(scan(Stateless{}, zeros({2, 1, 3})), "a recurrent state must hold a tensor",
                       ValueError);
}

TEST_CASE("errors: an optimizer's parameter that changes its dtype") {
  Linear layer(2, 1, false);
  Adam optimizer(layer.parameters());
  sum(layer(ones({1, 2}))).backward();
  optimizer.step();
  layer.to(DType::f64);
  sum(layer(ones({1, 2}, DType::f64))).backward();
  CHECK_THROWS_WITH_AS(optimizer.step(),
                       "Adam: parameter 0 is f64 now and was f32 in the step before", DTypeError);
}

// --- What docs/exceptions.md promises -----------------------------------------------------------

TEST_CASE("errors: a sweep that a hook ends leaves whole tensors and no memory behind") {
  const std::int64_t before = pool_stats().in_use;
  {
    Tensor x = ones({3}).requires_grad_(), other = ones({3}).requires_grad_();
    Tensor y = x * 2.0;
    y.register_hook([](const Tensor&) -> Tensor { throw std::runtime_error("enough"); });
    CHECK_THROWS_WITH_AS(sum(y * other).backward(), "enough", std::runtime_error);
    CHECK_FALSE(x.grad().defined());
    CHECK(grad_enabled());
    CHECK_THROWS_WITH_AS(grad(sum(exp(y)), x), "enough", std::runtime_error);
    sum(x * 3.0).backward();
    CHECK(to_array(x.grad()).values == std::vector{3.0, 3.0, 3.0});
  }
  CHECK(pool_stats().in_use == before);
}

TEST_CASE("errors: a step that fails has updated the parameters before the one that failed") {
  Linear first(1, 1, false), second(1, 1, false);
  SGD optimizer(parameters(first, second), {.lr = 0.5, .momentum = 0.5});
  const auto step = [&](DType dtype) {
    optimizer.zero_grad();
    (sum(first(ones({1, 1}))) + sum(second(ones({1, 1}, dtype))).to(DType::f32)).backward();
    optimizer.step();
  };
  step(DType::f32);
  second.to(DType::f64);
  const double a = first.weight.item(), b = second.weight.item();
  CHECK_THROWS_WITH_AS(step(DType::f64),
                       "SGD: parameter 1 is f64 now and was f32 in the step before", DTypeError);
  CHECK(first.weight.item() == doctest::Approx(a - 0.75));
  CHECK(second.weight.item() == b);
}
