// AnyCell: in every use the cell that it is.

#include "modules/any_cell.h"

#include <utility>

#include "tests/recurrent.h"

using namespace unroll;
using namespace unroll::test;

namespace {

const RecurrentOptions kDeep{
    .num_layers = 2, .dropout = 0.3, .bidirectional = true, .variational = {.recurrent = 0.4}};

/// f(a module of AnyCell, the library's own with the same values), for each kind of cell.
template <class F>
void for_each_pair(F f) {
  const auto pair = [&](CellType type, auto make) {
    CAPTURE(static_cast<int>(type));
    manual_seed(70);
    const auto any = to_f64(Recurrent<AnyCell>(3, 4, kDeep, type));
    manual_seed(70);
    f(any, to_f64(make()));
  };
  pair(CellType::rnn, [] { return RNN(3, 4, kDeep); });
  pair(CellType::gru, [] { return GRU(3, 4, kDeep); });
  pair(CellType::lstm, [] { return LSTM(3, 4, kDeep); });
}

std::vector<double> numbers(const std::vector<Tensor>& tensors) {
  std::vector<double> all;
  for (const Tensor& t : tensors)
    for (double value : t.to_vector<double>()) all.push_back(value);
  return all;
}

}  // namespace

TEST_CASE("any cell: has the names and the start of the cell that it is") {
  for_each_pair([](const auto& any, const auto& own) {
    const auto a = any.named_parameters(), b = own.named_parameters();
    REQUIRE(a.size() == b.size());
    for (std::size_t i = 0; i < a.size(); ++i) CHECK(a[i].first == b[i].first);
    CHECK(numbers(any.parameters()) == numbers(own.parameters()));
    CHECK(any.cell().input_size == 3);
    CHECK(any.cell(1, true).input_size == 8);
    CHECK(any.cell(1, true).output_size == 4);
  });
}

TEST_CASE("any cell: outputs, states and gradients are the cell's to the bit, under masks, too") {
  for_each_pair([](const auto& any, const auto& own) {
    const Tensor xs = random64({5, 2, 3}), lengths = indices({5, 3});
    const auto run = [&](auto module) {
      manual_seed(71);  // of the masks
      const auto [outputs, state] = module(xs, {}, lengths);
      Tensor total = sum(outputs);
      for (const Tensor& t : tensors_of(state)) total = total + sum(square(t));
      total.backward();
      std::vector<Tensor> all = tensors_of(state);
      all.push_back(outputs);
      for (const Tensor& p : module.parameters()) all.push_back(p.grad());
      return numbers(all);
    };
    CHECK(run(any) == run(own));
    auto calm = any;
    calm.eval();
    auto own_calm = own;
    own_calm.eval();
    CHECK(run(calm) == run(own_calm));
  });
}

TEST_CASE("any cell: a clone has a cell of its own") {
  const Recurrent<AnyCell> lstm(3, 4, {}, CellType::lstm);
  const auto copy = clone(lstm);
  const Tensor xs = normal({4, 2, 3}), before = lstm(xs).outputs;
  CHECK(max_difference(copy(xs).outputs, before) == 0.0);
  {
    const NoGrad no_grad;
    for (const Tensor& p : copy.parameters()) Tensor(p).zero_();
  }
  CHECK(max_difference(lstm(xs).outputs, before) == 0.0);
  CHECK(sum(abs(copy(xs).outputs)).item() == 0.0);
}

TEST_CASE("any cell: is streamed, and makes an encoder and a decoder") {
  const Recurrent<AnyCell> gru(3, 4, {.num_layers = 2}, CellType::gru);
  const Tensor xs = normal({3, 2, 3});
  Recurrent<AnyCell>::State state;
  for (std::int64_t t = 0; t < 3; ++t) state = gru.step(xs[t], state).state;
  CHECK(max_difference(state[1][0], gru(xs).state[1][0]) < 1e-6);

  RecurrentEncoder encoder(Embedding(7, 5), Recurrent<AnyCell>(5, 6, {}, CellType::lstm));
  RecurrentDecoder decoder(encoder, Embedding(8, 4),
                           Recurrent<AnyCell>(4 + 6, 6, {}, CellType::lstm));
  const EncoderDecoder model(encoder, decoder);
  CHECK(model(randint(0, 7, {5, 2}), randint(0, 8, {4, 2})).shape() == Shape{4, 2, 8});
}

TEST_CASE("any cell: what does not fit is named") {
  CHECK(cell_type_from_name("rnn") == CellType::rnn);
  CHECK(cell_type_from_name("gru") == CellType::gru);
  CHECK(cell_type_from_name("lstm") == CellType::lstm);
  CHECK_THROWS_WITH_AS(cell_type_from_name("LSTM"),
                       "there is no cell 'LSTM', only rnn, gru and lstm", ValueError);
  CHECK_THROWS_WITH_AS(AnyCell(0, 4, CellType::gru),
                       "GRUCell: sizes are at least 1, but input_size is 0 and hidden_size is 4",
                       ValueError);
  const AnyCell lstm(3, 4, CellType::lstm);
  CHECK_THROWS_WITH_AS(lstm.step(zeros({2, 16}), {zeros({2, 4})}),
                       "AnyCell: step: the state must have 2 tensors, but has 1", ValueError);
}
