// Recurrent as a stack: layers, directions, lengths, dropout, streaming; and how scan walks.

#include <doctest/doctest.h>

#include <cmath>
#include <memory>
#include <set>
#include <vector>

#include "framework/memory.h"
#include "tests/recurrent.h"

using namespace unroll;
using namespace unroll::test;

namespace {

/// Puts out the state that it was given, and remembers the input: what masks do can be seen.
struct Delay : Module {
  std::int64_t n;
  explicit Delay(std::int64_t width) : n(width) {}
  Tensor initial_state(std::int64_t batch) const { return ones({batch, n}); }
  std::pair<Tensor, Tensor> step(const Tensor& x, const Tensor& h) const { return {h, x}; }
};

/// Puts out what it gets.
struct Echo : Module {
  Tensor initial_state(std::int64_t batch) const { return zeros({batch, 1}); }
  Tensor step(const Tensor& x, const Tensor&) const { return x; }
};

/// Adds up its inputs, and counts how many rows each call of project gets.
struct Adder : Module {
  Tensor w = param("w", full({1}, 2.0));
  std::shared_ptr<std::vector<std::int64_t>> calls = std::make_shared<std::vector<std::int64_t>>();
  Tensor initial_state(std::int64_t batch) const { return zeros({batch, 1}); }
  Tensor project(const Tensor& xs) const {
    calls->push_back(xs.numel());
    return xs * w;
  }
  Tensor step(const Tensor& x, const Tensor& h) const { return h * 0.5 + x; }
};

std::vector<std::string> names(const Module& module) {
  std::vector<std::string> list;
  for (const auto& entry : module.named_parameters()) list.push_back(entry.first);
  return list;
}

std::set<double> values(const Tensor& x) {
  const std::vector<float> list = x.to_vector<float>();
  return {list.begin(), list.end()};
}

}  // namespace

// --- Layers and directions ----------------------------------------------------------------------

TEST_CASE("stack: a layer gets the outputs of the one below, in both directions") {
  manual_seed(50);
  for (const Merge merge : {Merge::concatenate, Merge::sum}) {
    const LSTM lstm = to_f64(LSTM(3, 4, {.num_layers = 2, .bidirectional = true, .merge = merge}));
    const Tensor xs = random64({5, 2, 3});
    const auto state = random_state(lstm, 2);
    const auto [outputs, last] = lstm(xs, state);

    Tensor x = xs;
    std::size_t i = 0;
    for (std::int64_t layer = 0; layer < 2; ++layer) {
      const auto forward = scan(lstm.cell(layer), x, state[i]);
      // The reverse direction is a walk over the sequence turned around, turned around again.
      const auto back = scan(lstm.cell(layer, true), flip(x, 0), state[i + 1]);
      CHECK(max_difference(last[i].h, forward.state.h) < 1e-14);
      CHECK(max_difference(last[i + 1].c, back.state.c) < 1e-14);
      const Tensor turned = flip(back.outputs, 0);
      x = merge == Merge::sum ? forward.outputs + turned
                              : concatenate({forward.outputs, turned}, 2);
      i += 2;
    }
    CHECK(max_difference(outputs, x) < 1e-14);
    CHECK(outputs.shape() == Shape{5, 2, merge == Merge::sum ? 4 : 8});
    CHECK(lstm.cell(1).input_size == (merge == Merge::sum ? 4 : 8));
  }
}

TEST_CASE("stack: parameters have PyTorch's names and order") {
  CHECK(names(LSTM(3, 4, {.num_layers = 2, .bidirectional = true}, {.proj_size = 2})) ==
        std::vector<std::string>{
            "weight_ih_l0",         "weight_hh_l0",         "bias_ih_l0",
            "bias_hh_l0",           "weight_hr_l0",         "weight_ih_l0_reverse",
            "weight_hh_l0_reverse", "bias_ih_l0_reverse",   "bias_hh_l0_reverse",
            "weight_hr_l0_reverse", "weight_ih_l1",         "weight_hh_l1",
            "bias_ih_l1",           "bias_hh_l1",           "weight_hr_l1",
            "weight_ih_l1_reverse", "weight_hh_l1_reverse", "bias_ih_l1_reverse",
            "bias_hh_l1_reverse",   "weight_hr_l1_reverse"});
  const LSTM lstm(3, 4, {.num_layers = 2, .bidirectional = true}, {.proj_size = 2});
  CHECK(lstm.cell(1).weight_ih.shape() == Shape{16, 4});
  CHECK(lstm.cell(1).weight_hh.shape() == Shape{16, 2});
  CHECK(lstm.cell(1).weight_hr.shape() == Shape{2, 4});
  CHECK(names(Recurrent<LayerNormLSTMCell>(3, 4, {.num_layers = 2}))[7] == "norm_c_l0.bias");
}

TEST_CASE("stack: the cells may come from a function, called for each layer and direction") {
  manual_seed(51);
  std::vector<std::pair<std::int64_t, bool>> calls;
  const Recurrent module(
      [&](std::int64_t layer, bool reverse) {
        calls.emplace_back(layer, reverse);
        return GRUCell(layer == 0 ? 3 : 10, 5);
      },
      {.num_layers = 2, .bidirectional = true});
  CHECK(calls ==
        std::vector<std::pair<std::int64_t, bool>>{{0, false}, {0, true}, {1, false}, {1, true}});
  manual_seed(51);
  const GRU gru(3, 5, {.num_layers = 2, .bidirectional = true});
  const Tensor xs = normal({4, 2, 3});
  CHECK(max_difference(module(xs).outputs, gru(xs).outputs) < 1e-6);
  CHECK(names(module) == names(gru));
}

TEST_CASE("stack: a clone has cells of its own, and a state dict goes from one to the other") {
  const GRU gru(3, 4, {.num_layers = 2, .bidirectional = true});
  const GRU copy = clone(gru);
  CHECK_FALSE(copy.cell(1, true).weight_hh.is(gru.cell(1, true).weight_hh));
  CHECK(copy.cell(1, true).weight_hh.is(copy.parameters()[13]));
  GRU other(3, 4, {.num_layers = 2, .bidirectional = true});
  other.load_state_dict(gru.state_dict());
  const Tensor xs = normal({4, 2, 3});
  CHECK(max_difference(other(xs).outputs, gru(xs).outputs) < 1e-6);
}

TEST_CASE("stack: the forget gate's bias is set in every layer") {
  const LSTM lstm(3, 4, {.num_layers = 2}, {.forget_bias = 1.0});
  for (std::int64_t layer = 0; layer < 2; ++layer) {
    const LSTMCell& cell = lstm.cell(layer);
    CHECK(max_difference(narrow(cell.bias_ih + cell.bias_hh, 0, 4, 4), ones({4})) == 0.0);
  }
}

TEST_CASE("stack: batch_first exchanges the first two dimensions of sequences, not of states") {
  manual_seed(52);
  GRU first(3, 4, {.num_layers = 2, .batch_first = true, .bidirectional = true});
  GRU second(3, 4, {.num_layers = 2, .bidirectional = true});
  second.load_state_dict(first.state_dict());
  const Tensor xs = normal({2, 5, 3});
  const auto state =
      map_state(first.initial_state(2), [](const Tensor& t) { return normal(t.shape()); });
  for (const Tensor& lengths : {Tensor(), indices({2, 5})}) {
    const auto a = first(xs, state, lengths);
    const auto b = second(transpose(xs, 0, 1), state, lengths);
    CHECK(max_difference(a.outputs, transpose(b.outputs, 0, 1)) < 1e-6);
    for (std::size_t i = 0; i < 4; ++i) CHECK(max_difference(a.state[i], b.state[i]) < 1e-6);
  }
}

TEST_CASE("stack: gradcheck of every module, in every shape") {
  manual_seed(53);
  const RecurrentOptions deep{.num_layers = 2, .bidirectional = true};
  SUBCASE("RNN") { check_gradients(RNN(2, 2, deep), 2); }
  SUBCASE("RNN, relu, sum") {
    check_gradients(RNN(2, 2, {.num_layers = 2, .bidirectional = true, .merge = Merge::sum},
                        {.nonlinearity = Nonlinearity::relu}),
                    2, indices({1, 3}));
  }
  SUBCASE("GRU") { check_gradients(GRU(2, 2, deep), 2, indices({3, 2})); }
  SUBCASE("GRU, reset before, batch first") {
    check_gradients(GRU(2, 2, {.num_layers = 2, .batch_first = true}, {.reset_after = false}), 2,
                    indices({3, 2}));
  }
  SUBCASE("LSTM") { check_gradients(LSTM(2, 2, deep), 2, indices({3, 2})); }
  SUBCASE("LSTM, second order") {
    check_gradients(LSTM(1, 2, {.bidirectional = true}), 1, indices({3, 2}), 2);
  }
  SUBCASE("LSTM, projected") { check_gradients(LSTM(2, 3, deep, {.proj_size = 2}), 2); }
  SUBCASE("LSTM, projected, no bias") {
    check_gradients(LSTM(2, 3, deep, {.bias = false, .proj_size = 2}), 2, indices({3, 2}));
  }
  SUBCASE("RNN, no bias") { check_gradients(RNN(2, 2, deep, {.bias = false}), 2); }
  SUBCASE("all kinds of dropout") {
    check_gradients(GRU(2, 2,
                        {.num_layers = 2,
                         .dropout = 0.3,
                         .variational = {.input = 0.2, .output = 0.3, .recurrent = 0.3}}),
                    2, indices({3, 2}));
  }
}

// --- Lengths ------------------------------------------------------------------------------------

TEST_CASE("lengths: a padded batch gives what one by one gives, whatever stands in the padding") {
  manual_seed(54);
  const RecurrentOptions deep{.num_layers = 2, .bidirectional = true};
  SUBCASE("RNN") { check_lengths(RNN(3, 4), 3); }
  SUBCASE("GRU") { check_lengths(GRU(3, 4), 3); }
  SUBCASE("LSTM") { check_lengths(LSTM(3, 4), 3); }
  SUBCASE("RNN, deep") { check_lengths(RNN(3, 4, deep), 3); }
  SUBCASE("GRU, deep") { check_lengths(GRU(3, 4, deep), 3); }
  SUBCASE("LSTM, deep") { check_lengths(LSTM(3, 4, deep), 3); }
  SUBCASE("LSTM, projected") { check_lengths(LSTM(3, 4, deep, {.proj_size = 2}), 3); }
  SUBCASE("sum") {
    check_lengths(GRU(3, 4, {.num_layers = 3, .bidirectional = true, .merge = Merge::sum}), 3);
  }
  SUBCASE("truncated") {
    check_lengths(GRU(3, 4, {.num_layers = 2, .bidirectional = true, .truncate = 2}), 3);
  }
}

TEST_CASE("lengths: all equal to T is no padding, and fewer than T everywhere pads the end") {
  manual_seed(55);
  const GRU gru(3, 4, {.bidirectional = true});
  const Tensor xs = normal({5, 2, 3});
  CHECK(max_difference(gru(xs, {}, indices({5, 5})).outputs, gru(xs).outputs) < 1e-6);
  const auto [outputs, state] = gru(xs, {}, indices({2, 3}));
  CHECK(outputs.shape() == Shape{5, 2, 8});
  CHECK(max_difference(narrow(outputs, 0, 3, 2), zeros({2, 2, 8})) == 0.0);
}

TEST_CASE("lengths: token ids may be anything in the padding") {
  struct TokenCell : Module {
    Embedding embed = child("embed", Embedding(5, 3));
    Tensor initial_state(std::int64_t batch) const { return zeros({batch, 3}); }
    Tensor project(const Tensor& ids) const { return embed(ids); }
    Tensor step(const Tensor& x, const Tensor& h) const { return 0.5 * (x + h); }
  };
  manual_seed(56);
  const Recurrent module{TokenCell()};
  const Tensor ids = from_vector<std::int64_t>({4, 0, 2, -1, 3, 99}, {3, 2});
  const auto [outputs, state] = module(ids, {}, indices({3, 1}));
  const Tensor table = module.cell().embed.weight;
  CHECK(max_difference(state[0][1], table[0] * 0.5) < 1e-7);
  CHECK(max_difference(outputs[2][0], table[4] * 0.125 + table[2] * 0.25 + table[3] * 0.5) < 1e-6);
}

TEST_CASE("lengths: errors") {
  const GRU gru(3, 4);
  const Tensor xs = zeros({5, 2, 3});
  CHECK_THROWS_WITH_AS(gru(xs, {}, indices({5, 6})),
                       "scan: lengths must be from 1 to T = 5, but lengths[1] is 6", ValueError);
  CHECK_THROWS_WITH_AS(gru(xs, {}, indices({0, 5})),
                       "scan: lengths must be from 1 to T = 5, but lengths[0] is 0", ValueError);
  CHECK_THROWS_WITH_AS(gru(xs, {}, indices({5})), "scan: lengths must be [B] = (2), but are (1)",
                       ShapeError);
  CHECK_THROWS_WITH_AS(gru(xs, {}, tensor({5, 5})), "scan: lengths must be i64, but are f32",
                       DTypeError);
  CHECK_THROWS_WITH_AS(
      gru(xs, {zeros({3, 4})}, indices({5, 4})),
      "scan: with lengths each tensor of the state must be [B = 2, ...], but one is (3, 4)",
      ShapeError);
}

// --- Dropout ------------------------------------------------------------------------------------

TEST_CASE("dropout: between layers, in training only") {
  manual_seed(57);
  const Tensor xs = ones({40, 10, 5});
  Recurrent module([](std::int64_t, bool) { return Echo(); }, {.num_layers = 2, .dropout = 0.2});
  const Tensor outputs = module(xs).outputs;
  CHECK(values(outputs) == std::set<double>{0.0, 1.25f});
  CHECK(mean(outputs).item() == doctest::Approx(1.0).epsilon(0.05));
  CHECK(max_difference(outputs[0], outputs[1]) > 0.0);
  module.eval();
  CHECK(max_difference(module(xs).outputs, xs) == 0.0);

  const Recurrent single(Echo(), {.dropout = 0.2});
  CHECK(max_difference(single(xs).outputs, xs) == 0.0);
}

TEST_CASE("dropout: variational masks are the same in all time steps") {
  manual_seed(58);
  const Tensor xs = ones({30, 20, 10});
  const auto make = [](std::int64_t, bool) { return Echo(); };
  const auto check = [&](auto module, const std::set<double>& wanted, double kept) {
    const Tensor outputs = module(xs).outputs;
    CHECK(values(outputs) == wanted);
    CHECK(max_difference(outputs, broadcast_to(outputs[0], outputs.shape())) == 0.0);
    CHECK(mean(outputs).item() == doctest::Approx(1.0).epsilon(0.25));
    CHECK(mean((outputs != 0.0)).item() == doctest::Approx(kept).epsilon(0.15));
    CHECK(max_difference(module(xs).outputs, outputs) > 0.0);
    module.eval();
    CHECK(max_difference(module(xs).outputs, xs) == 0.0);
  };
  SUBCASE("input: of each layer") {
    check(Recurrent(make, {.num_layers = 2, .variational = {.input = 0.5}}), {0.0, 4.0}, 0.25);
  }
  SUBCASE("output: of the last layer") {
    check(Recurrent(make, {.num_layers = 2, .variational = {.output = 0.5}}), {0.0, 2.0}, 0.5);
  }
  SUBCASE("recurrent") {
    check(Recurrent(Delay(10), {.variational = {.recurrent = 0.2}}), {0.0, 1.25f}, 0.8);
  }
  SUBCASE("recurrent, the sequences having different lengths") {
    const Recurrent module(Delay(10), {.variational = {.recurrent = 0.2}});
    std::vector<std::int64_t> lengths(20, 30);
    for (std::size_t b = 0; b < 10; ++b) lengths[b] = 10 + static_cast<std::int64_t>(b);
    const Tensor outputs = module(xs, {}, indices(lengths)).outputs;
    CHECK(values(outputs) == std::set<double>{0.0, 1.25f});
    for (std::int64_t b = 0; b < 20; ++b) {
      const Tensor own = narrow(select(outputs, 1, b), 0, 0, lengths[static_cast<std::size_t>(b)]);
      CHECK(max_difference(own, broadcast_to(own[0], own.shape())) == 0.0);
    }
  }
}

TEST_CASE("dropout: recurrent masks count in the products, and what is carried stays") {
  manual_seed(59);
  const Tensor xs = random64({4, 2, 3});
  const VariationalDropout half{.recurrent = 0.5};
  const auto draw_mask = [] {
    manual_seed(7);
    return dropout(ones({2, 4}, DType::f64), 0.5);
  };
  const auto run = [&](const auto& module) {
    manual_seed(7);
    return module(xs).outputs;
  };
  SUBCASE("RNN") {
    const RNN rnn = to_f64(RNN(3, 4, {.variational = half}));
    const Tensor outputs = run(rnn), mask = draw_mask();
    const RNNCell& cell = rnn.cell();
    Tensor h = zeros({2, 4}, DType::f64);
    for (std::int64_t t = 0; t < 4; ++t) {
      h = tanh(cell.project(xs[t]) + matmul(h * mask, transpose(cell.weight_hh)));
      CHECK(max_difference(outputs[t], h) < 1e-14);
    }
  }
  SUBCASE("LSTM: c has no mask") {
    const LSTM lstm = to_f64(LSTM(3, 4, {.variational = half}));
    const Tensor outputs = run(lstm), mask = draw_mask();
    LSTMState state =
        map_state(lstm.cell().initial_state(2), [](const Tensor& t) { return t.to(DType::f64); });
    for (std::int64_t t = 0; t < 4; ++t) {
      state = lstm.cell().step(lstm.cell().project(xs[t]), {state.h * mask, state.c});
      CHECK(max_difference(outputs[t], state.h) < 1e-14);
    }
  }
  for (const bool reset_after : {true, false}) {
    SUBCASE(reset_after ? "GRU: z * h has no mask" : "GRU, reset before: z * h has no mask") {
      const GRU gru = to_f64(GRU(3, 4, {.variational = half}, {.reset_after = reset_after}));
      const Tensor outputs = run(gru), mask = draw_mask();
      const GRUCell& cell = gru.cell();
      const auto w = chunk(cell.weight_hh, 3);
      // Of W_hh h; where the reset gate comes first, project() has them.
      const auto b = chunk(reset_after ? cell.bias_hh : zeros({12}, DType::f64), 3);
      Tensor h = zeros({2, 4}, DType::f64);
      for (std::int64_t t = 0; t < 4; ++t) {
        const auto x = chunk(cell.project(xs[t]), 3, 1);
        const Tensor seen = h * mask;
        const Tensor r = sigmoid(x[0] + matmul(seen, transpose(w[0])) + b[0]);
        const Tensor z = sigmoid(x[1] + matmul(seen, transpose(w[1])) + b[1]);
        const Tensor n = tanh(x[2] + (reset_after ? r * (matmul(seen, transpose(w[2])) + b[2])
                                                  : matmul(r * seen, transpose(w[2]))));
        h = (1.0 - z) * n + z * h;
        CHECK(max_difference(outputs[t], h) < 1e-14);
      }
    }
  }
}

// --- Streaming ----------------------------------------------------------------------------------

TEST_CASE("stack: streaming goes through all layers") {
  manual_seed(60);
  check_streaming(LSTM(3, 4, {.num_layers = 3}), 3);
  check_streaming(LSTM(3, 4, {.num_layers = 2}, {.proj_size = 2}), 3);
  check_streaming(GRU(3, 4, {.num_layers = 2}), 3);
}

TEST_CASE("stack: what needs the whole sequence refuses to stream") {
  const GRU both(3, 4, {.bidirectional = true});
  CHECK_THROWS_WITH_AS(both.step(zeros({2, 3})),
                       "GRU: step: the reverse direction begins at the end of the sequence: a "
                       "bidirectional module takes whole sequences only",
                       ValueError);
  GRU dropped(3, 4, {.variational = {.recurrent = 0.5}});
  CHECK_THROWS_WITH_AS(dropped.step(zeros({2, 3})),
                       "GRU: step: variational dropout draws one mask for a whole sequence: call "
                       "eval() first",
                       ValueError);
  dropped.eval();
  CHECK(dropped.step(zeros({2, 3})).output.shape() == Shape{2, 4});
}

// --- How scan walks -----------------------------------------------------------------------------

TEST_CASE("scan: reverse goes from the last time step to the first") {
  manual_seed(61);
  const GRUCell cell = to_f64(GRUCell(3, 4));
  const Tensor xs = random64({5, 2, 3}), h = random64({2, 4});
  const auto back = scan(cell, xs, h, {.reverse = true});
  const auto turned = scan(cell, flip(xs, 0), h);
  CHECK(max_difference(back.outputs, flip(turned.outputs, 0)) < 1e-14);
  CHECK(max_difference(back.state, turned.state) < 1e-14);
  CHECK(max_difference(back.outputs[0], back.state) == 0.0);
}

TEST_CASE("scan: long sequences are projected in pieces of some 256 rows, short ones at once") {
  const auto check = [](const Shape& shape, const ScanOptions& options,
                        const std::vector<std::int64_t>& calls) {
    CAPTURE(to_string(shape));
    Adder adder = to_f64(Adder());
    const Tensor xs = random_leaf(shape);
    const auto [outputs, state] = scan(adder, xs, options);
    CHECK(*adder.calls == calls);

    if (options.lengths.defined()) return;  // "lengths: ..." compares these

    const std::int64_t T = shape[0];
    Tensor h = zeros({shape[1], 1}, DType::f64);
    std::vector<Tensor> expected(static_cast<std::size_t>(T));
    for (std::int64_t k = 0; k < T; ++k) {
      const std::int64_t t = options.reverse ? T - 1 - k : k;
      h = h * 0.5 + xs[t] * adder.w;
      expected[static_cast<std::size_t>(t)] = h;
    }
    const Tensor seed = random64(outputs.shape());
    CHECK(max_difference(outputs, stack(expected)) < 1e-14);
    const auto ours = grad({outputs}, {xs, adder.w}, {.grad_outputs = {seed}});
    const auto theirs = grad({stack(expected)}, {xs, adder.w}, {.grad_outputs = {seed}});
    CHECK(max_difference(ours[0], theirs[0]) < 1e-13);
    CHECK(max_difference(ours[1], theirs[1]) < 1e-10);
  };
  manual_seed(62);
  check({256, 2, 1}, {}, {512});
  check({257, 2, 1}, {}, {128, 130, 256});
  check({7, 100, 1}, {}, {200, 200, 300});
  check({7, 100, 1}, {.reverse = true}, {200, 200, 300});
  check({3, 300, 1}, {}, {300, 300, 300});
  check({600, 1, 1}, {.reverse = true}, {128, 216, 256});
  check({600, 2}, {}, {256, 432, 512});  // no batch: rows of two features
  check({600, 1, 1600}, {}, {204800, 140800, 204800, 204800, 204800});  // wide: always 128
  check({200, 1, 1}, {}, {200});
  check({300, 3, 1}, {.lengths = indices({300, 100, 50})}, {450});
  check({600, 2, 1}, {.lengths = indices({600, 100})}, {128, 256, 256, 60});
  check({400, 2, 1600}, {.lengths = indices({400, 200})}, {204800, 204800, 204800, 204800, 140800});
}

TEST_CASE("scan: projected in pieces, a sequence has the gradients that it has at once") {
  manual_seed(63);
  const LSTMCell cell = to_f64(LSTMCell(3, 4));
  const Tensor xs = random_leaf({40, 20, 3}), seed = random64({40, 20, 4});  // 800 rows
  std::vector<Tensor> leaves = cell.parameters();
  leaves.push_back(xs);
  const Tensor projected = cell.project(xs);
  for (bool reverse : {false, true}) {
    CAPTURE(reverse);
    auto state = LSTMState{zeros({20, 4}, DType::f64), zeros({20, 4}, DType::f64)};
    std::vector<Tensor> expected(40);
    for (std::int64_t k = 0; k < 40; ++k) {
      const std::int64_t t = reverse ? 39 - k : k;
      state = cell.step(projected[t], state);
      expected[static_cast<std::size_t>(t)] = state.h;
    }
    const auto outputs = scan(cell, xs, {.reverse = reverse}).outputs;
    CHECK(max_difference(outputs, stack(expected)) < 1e-14);
    const auto ours = grad({outputs}, leaves, {.grad_outputs = {seed}});
    const auto theirs =
        grad({stack(expected)}, leaves, {.retain_graph = true, .grad_outputs = {seed}});
    for (std::size_t i = 0; i < leaves.size(); ++i)
      CHECK(max_difference(ours[i], theirs[i]) < 1e-11);
  }
}

TEST_CASE("scan: options that are off cost nothing in a time step") {
  const Echo echo;
  const auto by_hand = [&](const Tensor& xs) {
    std::vector<Tensor> outputs;
    for (std::int64_t t = 0; t < xs.size(0); ++t) outputs.push_back(xs[t]);
    return stack(outputs);
  };
  const auto by_scan = [&](const Tensor& xs) { return scan(echo, xs).outputs; };
  const auto allocations = [](const auto& run, std::int64_t T, bool recorded) {
    const Tensor xs = zeros({T, 1, 1}).requires_grad_(recorded);
    const std::int64_t before = pool_stats().allocations;
    run(xs);
    return pool_stats().allocations - before;
  };
  for (const bool recorded : {false, true})
    CHECK(allocations(by_scan, 200, recorded) - allocations(by_scan, 100, recorded) ==
          allocations(by_hand, 200, recorded) - allocations(by_hand, 100, recorded));
}

TEST_CASE("recurrent: wrong options get one clear error") {
  CHECK_THROWS_WITH_AS(GRU(3, 4, {.num_layers = 0}),
                       "Recurrent: num_layers must be at least 1, but is 0", ValueError);
  CHECK_THROWS_WITH_AS(GRU(3, 4, {.dropout = 1.0}),
                       "Recurrent: dropout must be in [0, 1), but is 1", ValueError);
  CHECK_THROWS_WITH_AS(GRU(3, 4, {.variational = {.input = -0.5}}),
                       "Recurrent: variational.input must be in [0, 1), but is -0.5", ValueError);
  CHECK_THROWS_WITH_AS(GRU(3, 4, {.truncate = -1}),
                       "Recurrent: truncate must not be negative, but is -1", ValueError);
  CHECK_THROWS_WITH_AS(Recurrent(GRUCell(3, 4), {.num_layers = 2}),
                       "Recurrent: one cell makes one layer in one direction, but num_layers is 2 "
                       "and bidirectional is false: pass sizes, or a function that makes the cells",
                       ValueError);
  CHECK_THROWS_WITH_AS(LSTM(3, 4, {}, {.proj_size = 4}),
                       "LSTMCell: proj_size must be at least 0 and below hidden_size = 4, but is 4",
                       ValueError);
  CHECK_THROWS_WITH_AS(scan(GRUCell(3, 4), zeros({5, 2, 3}), {.random_truncate = 1.0}),
                       "scan: random_truncate must be in [0, 1), but is 1", ValueError);

  const LSTM lstm(3, 4, {.num_layers = 2, .batch_first = true}, {.proj_size = 2});
  CHECK_THROWS_WITH_AS(lstm(zeros({2, 5, 7})),
                       "LSTM: xs must be [B, T, input_size = 3], but is (2, 5, 7)", ShapeError);
  CHECK_THROWS_WITH_AS(
      lstm(zeros({2, 5, 3}), LSTM::State(3)),
      "LSTM: the state must hold 2 cell states (2 layers x 1 direction), but holds 3", ValueError);
  CHECK_THROWS_WITH_AS(lstm.cell(2), "LSTM: layer 2 is out of range [0, 2)", IndexError);
  CHECK_THROWS_WITH_AS(lstm.cell(0, true), "LSTM: there is no reverse direction", IndexError);
  LSTM::State state = lstm.initial_state(2);
  state[0].h = zeros({2, 4});
  CHECK_THROWS_WITH_AS(lstm(zeros({2, 5, 3}), state),
                       "LSTMCell: step: h must be [B, proj_size] = (2, 2), but is (2, 4)",
                       ShapeError);
}
