// Module, initialisers, and the modules without a time axis.

#include "modules/modules.h"

#include <doctest/doctest.h>

#include <barrier>
#include <cmath>
#include <string>
#include <thread>
#include <vector>

#include "framework/autograd.h"
#include "framework/gradcheck.h"
#include "framework/ops.h"
#include "tests/compare.h"

using namespace unroll;

namespace {

struct Block : Module {
  Linear inner;
  Dropout drop;
  Tensor gain;
  explicit Block(std::int64_t n)
      : inner(child("inner", Linear(n, n))),
        drop(child("drop", Dropout(0.5))),
        gain(param("gain", ones({n}))) {}
  Tensor operator()(const Tensor& x) const { return drop(inner(x)) * gain; }
};

struct Net : Module {
  std::vector<Block> blocks;
  Linear out;
  Net() : out(child("out", Linear(3, 2))) {
    for (int i = 0; i < 2; ++i) blocks.push_back(child("block" + std::to_string(i), Block(3)));
  }
  Tensor operator()(const Tensor& x) const {
    Tensor y = x;
    for (const Block& block : blocks) y = block(y);
    return out(y);
  }
};

/// Encoder and decoder share one matrix.
struct Tied : Module {
  Tensor a, b;
  Tied() : a(param("a", normal({2, 2}))), b(param("b", a)) {}
  Tensor operator()(const Tensor& x) const { return matmul(matmul(x, a), b); }
};

/// Makes the protected registration functions callable.
struct Registry : Module {
  using Module::absorb;
  using Module::child;
  using Module::param;
};

std::vector<std::string> names(const NamedTensors& tensors) {
  std::vector<std::string> list;
  for (const auto& [name, tensor] : tensors) list.push_back(name);
  return list;
}

std::vector<Tensor> with(const Tensor& x, const Module& module) {
  std::vector<Tensor> list{x};
  for (const Tensor& parameter : module.parameters()) list.push_back(parameter);
  return list;
}

double mean_of(const Tensor& x) { return mean(x.to(DType::f64)).item(); }
double std_of(const Tensor& x) { return std::sqrt(var(x.to(DType::f64)).item()); }

}  // namespace

// --- The tree -----------------------------------------------------------------------------------

TEST_CASE("module: parameters are listed by their path, a module's own ones first") {
  const Net net;
  CHECK(names(net.named_parameters()) ==
        std::vector<std::string>{"out.weight", "out.bias", "block0.gain", "block0.inner.weight",
                                 "block0.inner.bias", "block1.gain", "block1.inner.weight",
                                 "block1.inner.bias"});
  CHECK(net.parameters().size() == 8);
  CHECK(net.parameter_count() == 2 * (9 + 3 + 3) + 8);
  CHECK(find(net.named_parameters(), "block1.gain").is(net.blocks[1].gain));
  for (const Tensor& parameter : net.parameters()) {
    CHECK(parameter.requires_grad());
    CHECK(parameter.is_leaf());
  }
}

TEST_CASE("module: a tied tensor has two names and counts once") {
  const Tied tied;
  CHECK(names(tied.named_parameters()) == std::vector<std::string>{"a", "b"});
  CHECK(tied.parameters().size() == 1);
  CHECK(tied.parameter_count() == 4);
}

TEST_CASE("module: parameters(...) takes several modules and lists each tensor once") {
  const Net net;
  const Linear other(2, 2);
  CHECK(parameters(net, other, net.out).size() == 10);
  CHECK(parameters(net, other)[8].is(other.weight));
}

TEST_CASE("module: a copy is the same module") {
  Net net;
  Net copy = net;
  copy.eval();
  CHECK_FALSE(net.is_training());
  CHECK_FALSE(net.blocks[0].drop.is_training());
  CHECK(copy.out.weight.is(net.out.weight));
  CHECK(copy.parameters()[0].is(net.parameters()[0]));
}

TEST_CASE("module: names are checked when something is registered") {
  Registry module;
  module.param("w", zeros({2}));
  module.child("layer", Linear(1, 1));
  module.absorb(Linear(1, 1), "_l0");
  CHECK_THROWS_WITH_AS(module.param("", zeros({1})), "param: a name must not be empty", ValueError);
  CHECK_THROWS_WITH_AS(module.param("a.b", zeros({1})), "param: a name must not have a '.': a.b",
                       ValueError);
  CHECK_THROWS_WITH_AS(module.param("w", zeros({1})), "param: the name is taken: w", ValueError);
  CHECK_THROWS_WITH_AS(module.param("layer", zeros({1})), "param: the name is taken: layer",
                       ValueError);
  CHECK_THROWS_WITH_AS(module.child("", Linear(1, 1)), "child: a name must not be empty",
                       ValueError);
  CHECK_THROWS_WITH_AS(module.child("w", Linear(1, 1)), "child: the name is taken: w", ValueError);
  CHECK_THROWS_WITH_AS(module.child("bias_l0", Linear(1, 1)), "child: the name is taken: bias_l0",
                       ValueError);
  CHECK_THROWS_WITH_AS(module.absorb(Linear(1, 1), "_l0"), "absorb: the name is taken: weight_l0",
                       ValueError);
  CHECK(names(module.named_parameters()) ==
        std::vector<std::string>{"w", "layer.weight", "layer.bias", "weight_l0", "bias_l0"});
}

TEST_CASE("module: a parameter is a contiguous floating-point leaf") {
  Registry module;
  const Tensor leaf = ones({2, 3}).requires_grad_();
  CHECK(module.param("leaf", leaf).is(leaf));
  CHECK_THROWS_WITH_AS(module.param("result", leaf * 2.0),
                       "param: result is not a leaf: an operation on the tape made it", GraphError);
  CHECK_THROWS_WITH_AS(module.param("indices", zeros({2}, DType::i64)),
                       "param: indices must be f32 or f64, but is i64", DTypeError);
  const Tensor turned = module.param("turned", transpose(reshape(arange(0.0, 6.0, 1.0), {2, 3})));
  CHECK(turned.is_contiguous());
}

TEST_CASE("module: describe() prints the tree") {
  Net net;
  net.blocks[0].inner.freeze();
  net.out.to(DType::f64);
  CHECK(net.describe() ==
        "Net, 38 parameters\n"
        "  out: Linear, 8 parameters\n"
        "    weight: (2, 3), f64\n"
        "    bias: (2), f64\n"
        "  block0: Block, 15 parameters\n"
        "    gain: (3)\n"
        "    inner: Linear, 12 parameters\n"
        "      weight: (3, 3), frozen\n"
        "      bias: (3), frozen\n"
        "    drop: Dropout, 0 parameters\n"
        "  block1: Block, 15 parameters\n"
        "    gain: (3)\n"
        "    inner: Linear, 12 parameters\n"
        "      weight: (3, 3)\n"
        "      bias: (3)\n"
        "    drop: Dropout, 0 parameters\n");
  CHECK(Tied().describe() ==
        "Tied, 4 parameters\n"
        "  a: (2, 2)\n"
        "  b: (2, 2), tied to a\n");
  CHECK(GRU(100, 200).describe() ==
        "GRU, 181,200 parameters\n"
        "  weight_ih_l0: (600, 100)\n"
        "  weight_hh_l0: (600, 200)\n"
        "  bias_ih_l0: (600)\n"
        "  bias_hh_l0: (600)\n");
}

TEST_CASE("module: type names lose their namespaces") {
  struct Local {};
  CHECK(detail::type_name(typeid(Linear)) == "Linear");
  CHECK(detail::type_name(typeid(Net)) == "Net");
  CHECK(detail::type_name(typeid(Local)) == "Local");
  CHECK(detail::type_name(typeid(Recurrent<GRUCell>)) == "Recurrent<GRUCell>");
  CHECK(detail::type_name(typeid(std::pair<Net, Recurrent<LSTMCell>>)) ==
        "pair<Net, Recurrent<LSTMCell> >");
}

// --- State --------------------------------------------------------------------------------------

TEST_CASE("module: state_dict shares memory, and is off the tape") {
  const Net net;
  const NamedTensors state = net.state_dict();
  CHECK(names(state) == names(net.named_parameters()));
  Tensor bias = find(state, "out.bias");
  CHECK_FALSE(bias.requires_grad());
  bias.fill_(7.0);
  CHECK(max_difference(net.out.bias, full({2}, 7.0)) == 0.0);
}

TEST_CASE("module: load_state_dict copies by name and converts") {
  const Net source;
  Net target;
  target.to(DType::f64);
  NamedTensors state = source.state_dict();
  std::swap(state.front(), state.back());
  target.load_state_dict(state);
  CHECK(target.out.weight.dtype() == DType::f64);
  for (const auto& entry : source.named_parameters()) {
    CAPTURE(entry.first);
    CHECK(max_difference(entry.second, find(target.named_parameters(), entry.first)) == 0.0);
    CHECK(find(target.named_parameters(), entry.first).requires_grad());
  }
}

TEST_CASE("module: load_state_dict lists everything that does not fit, and changes nothing") {
  Linear linear(3, 2);
  const Tensor before = linear.weight.detach().clone();
  CHECK_THROWS_WITH_AS(linear.load_state_dict({{"weight", zeros({2, 3})}}),
                       "load_state_dict: Linear: the state does not fit:\n  bias: missing",
                       ValueError);
  CHECK_THROWS_WITH_AS(linear.load_state_dict({{"weight", zeros({3, 2})},
                                               {"bias", zeros({2})},
                                               {"bias", zeros({2})},
                                               {"scale", zeros({2})}}),
                       "load_state_dict: Linear: the state does not fit:\n"
                       "  weight: expected (2, 3), but is (3, 2)\n"
                       "  bias: given twice\n"
                       "  scale: unexpected",
                       ValueError);
  CHECK_THROWS_WITH_AS(linear.load_state_dict({{"weight", zeros({2, 3})}, {"bias", Tensor()}}),
                       "load_state_dict: Linear: the state does not fit:\n  bias: undefined",
                       ValueError);
  CHECK(max_difference(linear.weight, before) == 0.0);
}

// --- Modes --------------------------------------------------------------------------------------

TEST_CASE("module: train and eval reach every child") {
  Net net;
  const Tensor x = ones({4, 3});
  net.eval();
  CHECK_FALSE(net.blocks[1].drop.is_training());
  CHECK(max_difference(net(x), net(x)) == 0.0);
  net.train();
  CHECK(net.blocks[1].drop.is_training());
  manual_seed(1);
  const Tensor first = net(x);
  CHECK(max_difference(first, net(x)) > 0.0);
}

TEST_CASE("module: a frozen part gets no gradient, and the rest does") {
  Net net;
  net.eval();
  net.blocks[0].inner.freeze();
  sum(net(ones({1, 3}))).backward();
  CHECK_FALSE(net.blocks[0].inner.weight.grad().defined());
  CHECK(net.blocks[0].gain.grad().defined());
  net.blocks[0].inner.freeze(false);
  sum(net(ones({1, 3}))).backward();
  CHECK(net.blocks[0].inner.weight.grad().defined());
  net.zero_grad();
  for (const Tensor& parameter : net.parameters()) CHECK_FALSE(parameter.grad().defined());
}

TEST_CASE("module: to(f64) converts what every handle sees") {
  Net net;
  const Net copy = net;
  const Tensor weight = net.out.weight;
  const Tensor before = weight.detach().clone();
  net.blocks[0].inner.freeze();
  sum(net(ones({1, 3}))).backward();
  net.to(DType::f64);
  CHECK(weight.dtype() == DType::f64);
  CHECK(copy.blocks[1].gain.dtype() == DType::f64);
  CHECK(max_difference(weight, before) == 0.0);
  CHECK(weight.requires_grad());
  CHECK_FALSE(weight.grad().defined());
  CHECK_FALSE(copy.blocks[0].inner.weight.requires_grad());
  const Tensor y = copy(ones({1, 3}, DType::f64));
  CHECK(y.dtype() == DType::f64);
  sum(y).backward();
  CHECK(weight.grad().dtype() == DType::f64);
  CHECK_THROWS_WITH_AS(net.to(DType::i64), "Module::to: parameters are f32 or f64, not i64",
                       DTypeError);
}

// --- clone --------------------------------------------------------------------------------------

TEST_CASE("clone: same values and modes, other parameters") {
  Net net;
  net.blocks[1].eval();
  net.blocks[0].inner.freeze();
  sum(net(ones({1, 3}))).backward();
  Net copy = clone(net);
  REQUIRE(names(copy.named_parameters()) == names(net.named_parameters()));
  for (std::size_t i = 0; i < net.parameters().size(); ++i) {
    const Tensor a = net.parameters()[i];
    const Tensor b = copy.parameters()[i];
    CHECK_FALSE(a.is(b));
    CHECK(max_difference(a, b) == 0.0);
    CHECK(b.is_leaf());
    CHECK(a.requires_grad() == b.requires_grad());
    CHECK_FALSE(b.grad().defined());
  }
  // What the copy computes with is what it has registered.
  CHECK(copy.blocks[1].inner.weight.is(find(copy.named_parameters(), "block1.inner.weight")));
  CHECK(copy.out.bias.is(find(copy.named_parameters(), "out.bias")));

  CHECK(copy.is_training());
  CHECK_FALSE(copy.blocks[1].drop.is_training());
  copy.eval();
  CHECK(net.is_training());
  CHECK(net.blocks[0].drop.is_training());
}

TEST_CASE("clone: original and clone train independently") {
  Net net;
  net.eval();
  const Net copy = clone(net);
  const Tensor x = ones({1, 3});
  const Tensor before = copy(x).detach();
  {
    NoGrad no_grad;
    for (Tensor& parameter : net.parameters()) parameter.fill_(0.5);
  }
  CHECK(max_difference(copy(x), before) == 0.0);
  CHECK(max_difference(net(x), before) > 0.0);
  sum(copy(x)).backward();
  CHECK(copy.out.weight.grad().defined());
  CHECK_FALSE(net.out.weight.grad().defined());
}

TEST_CASE("clone: what is tied stays tied") {
  const Tied tied;
  const Tied copy = clone(tied);
  CHECK(copy.a.is(copy.b));
  CHECK_FALSE(copy.a.is(tied.a));
  CHECK(copy.parameters().size() == 1);
  CHECK(copy.parameters()[0].is(copy.a));
}

TEST_CASE("clone: type-erased layers and recurrent modules are cloned as well") {
  Sequential net(Linear(2, 3), relu, Linear(3, 2));
  const Sequential copy = clone(net);
  const Tensor x = normal({4, 2});
  const Tensor before = copy(x).detach();
  {
    NoGrad no_grad;
    for (Tensor& parameter : net.parameters()) parameter.zero_();
  }
  CHECK(max_difference(copy(x), before) == 0.0);
  sum(copy(x)).backward();
  for (const Tensor& parameter : copy.parameters()) CHECK(parameter.grad().defined());

  const LSTM lstm(2, 3);
  const LSTM other = clone(lstm);
  CHECK(other.cell().weight_hh.is(find(other.named_parameters(), "weight_hh_l0")));
  CHECK_FALSE(other.cell().weight_hh.is(lstm.cell().weight_hh));
}

TEST_CASE("clone: copies made afterwards are handles again") {
  const Linear linear(2, 2);
  const Linear copy = clone(linear);
  const Linear handle = linear;
  CHECK(handle.weight.is(linear.weight));
  CHECK(clone(copy).weight.is(copy.weight) == false);
}

TEST_CASE("clone: several threads may clone one module at once") {
  // Being copied, it waits until all threads are in the middle of their cloning.
  struct Meeting {
    std::barrier<>* all = nullptr;
    Meeting() = default;
    Meeting(const Meeting& other) : all(other.all) {
      if (all) all->arrive_and_wait();
    }
  };
  struct Waiting : Module {
    Meeting meeting;
    Linear linear = child("linear", Linear(3, 2));
  };
  constexpr int kThreads = 4;
  std::barrier<> barrier(kThreads);
  Waiting module;
  module.meeting.all = &barrier;
  std::vector<int> good(kThreads, 0);
  std::vector<std::thread> threads;
  for (int& one : good)
    threads.emplace_back([&] {
      const Waiting copy = clone(module);
      const Tensor weight = copy.linear.weight;
      one = weight.is(copy.parameters()[0]) && !weight.is(module.linear.weight) &&
            max_difference(weight, module.linear.weight) == 0.0;
    });
  for (std::thread& thread : threads) thread.join();
  CHECK(good == std::vector<int>(kThreads, 1));
}

// --- Linear, Embedding, Dropout, Sequential -----------------------------------------------------

TEST_CASE("Linear: x W' + b, for any leading dimensions") {
  Linear linear(3, 2);
  NoGrad no_grad;
  linear.weight.copy_(tensor({{1, 2, 3}, {4, 5, 6}}));
  linear.bias.copy_(tensor({10, 20}));
  CHECK(max_difference(linear(tensor({1, 0, -1})), tensor({8, 18})) == 0.0);
  CHECK(max_difference(linear(tensor({{1, 0, -1}, {0, 1, 0}})), tensor({{8, 18}, {12, 25}})) ==
        0.0);
  CHECK(linear(zeros({5, 4, 3})).shape() == Shape{5, 4, 2});
  CHECK(linear(zeros({0, 3})).shape() == Shape{0, 2});
}

TEST_CASE("Linear: starts as in PyTorch, with or without a bias") {
  manual_seed(3);
  const Linear linear(100, 400);
  const double k = 0.1;
  CHECK(max(abs(linear.weight)).item() <= k);
  CHECK(max(abs(linear.bias)).item() <= k);
  CHECK(std_of(linear.weight) == doctest::Approx(k / std::sqrt(3.0)).epsilon(0.02));
  CHECK_FALSE(Linear(3, 2, false).bias.defined());
  CHECK(Linear(3, 2, false).parameters().size() == 1);
}

TEST_CASE("Linear: errors") {
  const Linear linear(3, 2);
  CHECK_THROWS_WITH_AS(linear(zeros({3, 2})),
                       "Linear: x must be [..., in_features = 3], but is (3, 2)", ShapeError);
  CHECK_THROWS_WITH_AS(linear(zeros({})), "Linear: x must be [..., in_features = 3], but is ()",
                       ShapeError);
  CHECK_THROWS_WITH_AS(Linear(0, 2),
                       "Linear: sizes are at least 1, but in_features is 0 and out_features is 2",
                       ValueError);
}

TEST_CASE("Linear: gradcheck of orders 1 and 2") {
  manual_seed(5);
  Linear linear(3, 2);
  linear.to(DType::f64);
  const Tensor x = normal({2, 2, 3}, 0, 1, DType::f64).requires_grad_();
  const auto f = [&](const std::vector<Tensor>& in) { return tanh(linear(in[0])); };
  CHECK(gradcheck(f, with(x, linear), {.order = 1}));
  CHECK(gradcheck(f, with(x, linear), {.order = 2}));
}

TEST_CASE("Embedding: rows of the table, and the padding row is 0 and stays so") {
  manual_seed(6);
  Embedding embed(4, 3, {.padding_idx = 1});
  CHECK(max_difference(embed.weight.detach()[1], zeros({3})) == 0.0);
  const Tensor indices = from_vector<std::int64_t>({2, 1, 2, 3}, {2, 2});
  const Tensor y = embed(indices);
  CHECK(y.shape() == Shape{2, 2, 3});
  CHECK(max_difference(y[0][0], embed.weight[2]) == 0.0);
  CHECK(max_difference(y[1][1], embed.weight[3]) == 0.0);
  sum(y).backward();
  CHECK(max_difference(embed.weight.grad(), tensor({{0, 0, 0}, {0, 0, 0}, {2, 2, 2}, {1, 1, 1}})) ==
        0.0);
}

TEST_CASE("Embedding: starts standard normal, and errors") {
  manual_seed(7);
  const Embedding embed(200, 100);
  CHECK(std::abs(mean_of(embed.weight)) < 0.02);
  CHECK(std_of(embed.weight) == doctest::Approx(1.0).epsilon(0.02));
  CHECK_THROWS_WITH_AS(embed(from_vector<std::int64_t>({200})),
                       "embedding: index 200 at position 0 is out of range [0, 200)", IndexError);
  CHECK_THROWS_WITH_AS(
      Embedding(0, 3),
      "Embedding: sizes are at least 1, but num_embeddings is 0 and embedding_dim is 3",
      ValueError);
  CHECK_THROWS_WITH_AS(Embedding(4, 3, {.padding_idx = 4}),
                       "Embedding: padding_idx is 4, but the rows are 0 to 3", ValueError);
}

TEST_CASE("Embedding: gradcheck of orders 1 and 2") {
  manual_seed(8);
  Embedding embed(5, 2);
  embed.to(DType::f64);
  const Tensor indices = from_vector<std::int64_t>({4, 0, 4, 2});
  const auto f = [&](const std::vector<Tensor>&) { return tanh(embed(indices)); };
  CHECK(gradcheck(f, embed.parameters(), {.order = 1}));
  CHECK(gradcheck(f, embed.parameters(), {.order = 2}));
}

TEST_CASE("Dropout: zeros and scales in training, does nothing in evaluation") {
  manual_seed(9);
  Dropout drop(0.25);
  const Tensor x = ones({100, 100});
  const Tensor y = drop(x);
  double zeroed = 0;
  for (const float value : y.to_vector<float>()) {
    CHECK((value == 0.0f || value == doctest::Approx(1 / 0.75)));
    zeroed += value == 0.0f;
  }
  CHECK(zeroed / 10000 == doctest::Approx(0.25).epsilon(0.1));
  drop.eval();
  CHECK(drop(x).is(x));
  CHECK_THROWS_WITH_AS(Dropout(1.0), "Dropout: p must be in [0, 1), but is 1", ValueError);
  CHECK_THROWS_WITH_AS(Dropout(-0.5), "Dropout: p must be in [0, 1), but is -0.5", ValueError);
}

TEST_CASE("Dropout and Sequential: gradcheck of orders 1 and 2") {
  manual_seed(10);
  Sequential net(Linear(3, 4), sigmoid, Dropout(0.5), Linear(4, 2));
  net.to(DType::f64);
  const Tensor x = normal({2, 3}, 0, 1, DType::f64).requires_grad_();
  const auto f = [&](const std::vector<Tensor>& in) {
    manual_seed(11);  // the same mask each time
    return square(net(in[0]));
  };
  CHECK(gradcheck(f, with(x, net), {.order = 1}));
  CHECK(gradcheck(f, with(x, net), {.order = 2}));
}

TEST_CASE("Module: a parameter goes to another dtype and back, and outlives its module") {
  Tensor weight, view, converted;
  {
    Linear linear(3, 2);
    weight = linear.weight;
    view = weight.detach();
    linear.to(DType::f64);
    converted = weight.detach();
    linear.to(DType::f32);
  }
  // What was taken of the elements before still has them; the parameter has its own.
  CHECK(weight.dtype() == DType::f32);
  CHECK(converted.dtype() == DType::f64);
  CHECK(max_difference(weight.detach(), view) == 0.0);
  CHECK(max_difference(converted, view.to(DType::f64)) == 0.0);
  const Tensor before = view.clone();
  weight.detach().fill_(7.0);
  CHECK(max_difference(view, before) == 0.0);
}

TEST_CASE("Sequential: one after the other, named by position") {
  const Linear first(2, 3);
  const Linear second(3, 1);
  Sequential net(
      first, relu, Dropout(0.5), [](const Tensor& x) { return x * 2.0; }, Sequential(second));
  CHECK(names(net.named_parameters()) ==
        std::vector<std::string>{"0.weight", "0.bias", "4.0.weight", "4.0.bias"});
  net.eval();
  const Tensor x = normal({5, 2});
  CHECK(max_difference(net(x), second(relu(first(x)) * 2.0)) == 0.0);
  net.train();
  manual_seed(1);
  const Tensor once = net(x);
  CHECK(max_difference(once, net(x)) > 0.0);
  CHECK(Sequential()(x).is(x));
}

// --- Initialisers -------------------------------------------------------------------------------

TEST_CASE("init: they write into a parameter and return it") {
  Linear linear(3, 2);
  CHECK(init::constant_(linear.weight, 0.25).is(linear.weight));
  CHECK(max_difference(linear.weight, full({2, 3}, 0.25)) == 0.0);
  CHECK(linear.weight.requires_grad());
}

TEST_CASE("init: a generator makes the numbers repeatable, in f32 and f64 alike") {
  for (const auto& fill : {+[](Tensor x, Generator&g) { return init::uniform_(x, -1, 1, g); },
                           +[](Tensor x, Generator&g) { return init::normal_(x, 0, 1, g); },
                           +[](Tensor x, Generator&g) { return init::xavier_normal_(x, 1, g); },
                           +[](Tensor x, Generator&g) { return init::orthogonal_(x, 1, g); }}) {
    Generator a(4), b(4);
    const Tensor x = fill(empty({5, 4}), a);
    const Tensor y = fill(empty({5, 4}, DType::f64), b);
    CHECK(max_difference(x, y) < 1e-6);
    CHECK(max_difference(x, fill(empty({5, 4}), a)) > 1e-3);
  }
}

TEST_CASE("init: distributions have the bounds and deviations that they promise") {
  manual_seed(11);
  const Shape shape{60, 20, 5};  // fan_in 100, fan_out 300
  const double root3 = std::sqrt(3.0);

  const auto check_uniform = [&](const Tensor& x, double a) {
    CHECK(max(x).item() <= a);
    CHECK(min(x).item() >= -a);
    CHECK(max(x).item() > 0.99 * a);
    CHECK(std_of(x) == doctest::Approx(a / root3).epsilon(0.03));
  };
  const auto check_normal = [&](const Tensor& x, double std) {
    CHECK(std::abs(mean_of(x)) < 0.05 * std);
    CHECK(std_of(x) == doctest::Approx(std).epsilon(0.03));
    CHECK(max(abs(x)).item() > 3 * std);
  };
  check_uniform(init::uniform_(empty(shape), -0.1, 0.1), 0.1);
  check_normal(init::normal_(empty(shape), 0.0, 0.3), 0.3);
  check_uniform(init::xavier_uniform_(empty(shape), 2.0), 2.0 * std::sqrt(6.0 / 400));
  check_normal(init::xavier_normal_(empty(shape)), std::sqrt(2.0 / 400));
  check_uniform(init::kaiming_uniform_(empty(shape)), std::sqrt(6.0 / 100));
  check_uniform(init::kaiming_uniform_(empty(shape), 2.0, init::Fan::out),
                std::sqrt(6.0 / (5 * 300)));
  check_normal(init::kaiming_normal_(empty(shape), 0.0, init::Fan::out), std::sqrt(2.0 / 300));
  CHECK_THROWS_WITH_AS(
      init::xavier_uniform_(empty({3})),
      "init::xavier_uniform_: fans are defined for 2 dimensions and more, but x is (3)",
      ShapeError);
}

TEST_CASE("init: orthogonal matrices are orthogonal") {
  manual_seed(12);
  for (const Shape& shape : {Shape{40, 40}, Shape{3, 50}, Shape{50, 3}, Shape{1, 1}}) {
    CAPTURE(to_string(shape));
    const Tensor q = orthogonal(shape, 2.0, DType::f64);
    const Tensor product = shape[0] <= shape[1] ? matmul(q, transpose(q)) : matmul(transpose(q), q);
    CHECK(max_difference(product, eye(product.size(0), DType::f64) * 4.0) < 1e-13);
  }
  const Tensor q = reshape(orthogonal({4, 2, 3}), {4, 6});
  CHECK(max_difference(matmul(q, transpose(q)), eye(4)) < 1e-6);
  CHECK_THROWS_WITH_AS(orthogonal({3}),
                       "init::orthogonal_: needs 2 dimensions or more, but x is (3)", ShapeError);
}
