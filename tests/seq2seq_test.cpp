// Encoder and decoder: against written-out steps, lengths, gradients, and learning to reverse.

#include "modules/seq2seq.h"

#include <cmath>

#include "optim/optim.h"
#include "tests/recurrent.h"

using namespace unroll;
using namespace unroll::test;

namespace {

constexpr std::int64_t kPad = 0, kBos = 1, kEos = 2;
constexpr std::int64_t kVocab = 7;  // three special tokens and four others

struct Kind {
  bool bidirectional = false;
  std::int64_t layers = 1;
  std::int64_t decoder_size = 6;
  DecoderOptions options{};
};

/// An encoder of hidden size 6 and embedding 5, and a decoder for it.
template <class Rnn>
auto make(const Kind& kind) {
  const RecurrentEncoder encoder(
      Embedding(kVocab, 5),
      Rnn(5, 6, {.num_layers = kind.layers, .bidirectional = kind.bidirectional}));
  const std::int64_t embedding = kind.options.tied ? kind.decoder_size : 4;
  const RecurrentDecoder decoder(
      encoder, Embedding(kVocab, embedding),
      Rnn(embedding + encoder.context_size(), kind.decoder_size, {.num_layers = kind.layers}),
      kind.options);
  return EncoderDecoder(encoder, decoder);
}

const std::vector<Kind> kKinds{
    {},
    {.bidirectional = true, .layers = 2},
    {.bidirectional = true, .decoder_size = 12, .options = {.attention = AttentionScore::dot}},
    {.layers = 2, .options = {.attention = AttentionScore::additive, .attention_size = 3}},
    {.bidirectional = true,
     .decoder_size = 5,
     .options = {.attention = AttentionScore::general, .tied = true}}};

Tensor random_tokens(const Shape& shape) { return randint(3, kVocab, shape); }

template <class F>
void for_each_model(F f) {
  for (std::size_t i = 0; i < kKinds.size(); ++i) {
    CAPTURE(i);
    f(to_f64(make<GRU>(kKinds[i])));
    f(to_f64(make<LSTM>(kKinds[i])));
  }
}

std::string names(const Module& module) {
  std::string list;
  for (const auto& [name, value] : module.named_parameters())
    list += name + to_string(value.shape()) + "\n";
  return list;
}

}  // namespace

TEST_CASE("seq2seq: the context is concatenated to every input, as written out") {
  manual_seed(1);
  const auto model = to_f64(make<GRU>({}));
  const Tensor source = random_tokens({4, 3}), target = random_tokens({5, 3}),
               lengths = indices({4, 2, 3});
  const Tensor xs = embedding(model.encoder.embedding.weight, source);
  const auto [outputs, last] = model.encoder.rnn(xs, {}, lengths);
  const Tensor context = last[0];
  auto state = last;
  const Tensor logits = model(source, target, lengths);
  CHECK(logits.shape() == Shape{5, 3, kVocab});
  for (std::int64_t t = 0; t < 5; ++t) {
    const Tensor x =
        concatenate({embedding(model.decoder.embedding.weight, target[t]), context}, -1);
    const auto next = model.decoder.rnn.step(x, state);
    state = next.state;
    const Tensor expected =
        matmul(next.output, transpose(model.decoder.output_weight)) + model.decoder.output_bias;
    CHECK(max_difference(logits[t], expected) < 1e-12);
  }
}

TEST_CASE("seq2seq: under attention the context is what the last state looks at") {
  manual_seed(2);
  const auto model = to_f64(make<LSTM>(kKinds[2]));
  const Tensor source = random_tokens({4, 3}), target = random_tokens({5, 3}),
               lengths = indices({4, 2, 3});
  const auto encoded = model.encoder(source, lengths);
  LSTMState state{concatenate({encoded.state[0].h, encoded.state[1].h}, -1),
                  concatenate({encoded.state[0].c, encoded.state[1].c}, -1)};
  const Tensor logits = model(source, target, lengths);
  const Tensor weights = model.decoder.attention_weights(target, model.encode(source, lengths));
  CHECK(weights.shape() == Shape{5, 3, 4});
  for (std::int64_t t = 0; t < 5; ++t) {
    std::vector<Tensor> contexts;
    for (std::int64_t b = 0; b < 3; ++b) {
      const auto n = static_cast<std::int64_t>(lengths[b].item());
      const Tensor memory = narrow(select(encoded.outputs, 1, b), 0, 0, n);
      const Tensor a = softmax(matmul(memory, state.h[b]));
      CHECK(max_difference(narrow(weights[t][b], 0, 0, n), a) < 1e-12);
      contexts.push_back(matmul(a, memory));
    }
    const Tensor x =
        concatenate({embedding(model.decoder.embedding.weight, target[t]), stack(contexts)}, -1);
    const LSTMCell& cell = model.decoder.rnn.cell();
    state = cell.step(cell.project(x), state);
    const Tensor expected =
        matmul(state.h, transpose(model.decoder.output_weight)) + model.decoder.output_bias;
    CHECK(max_difference(logits[t], expected) < 1e-12);
  }
}

TEST_CASE("seq2seq: a whole target gives what one step at a time gives") {
  manual_seed(3);
  for_each_model([](const auto& model) {
    const Tensor source = random_tokens({4, 3}), target = random_tokens({5, 3}),
                 lengths = indices({4, 2, 3});
    const Tensor logits = model(source, target, lengths);
    auto state = model.encode(source, lengths);
    for (std::int64_t t = 0; t < 5; ++t) {
      auto next = model.decoder.step(target[t], state);
      CHECK(max_difference(next.output, logits[t]) < 1e-12);
      state = next.state;
    }
  });
}

TEST_CASE("seq2seq: encoder and decoder take any cell") {
  manual_seed(10);
  const auto model = to_f64(make<Recurrent<PeepholeLSTMCell>>(kKinds[3]));
  const Tensor source = random_tokens({3, 2}), target = random_tokens({3, 2});
  CHECK(gradcheck_message(
            [&](const auto&) {
              return model(source, target, indices({2, 3}));
            },
            model.parameters()) == "");
}

TEST_CASE("seq2seq: padding of the source changes nothing, NaN included") {
  manual_seed(4);
  for_each_model([](auto model) {
    {
      const NoGrad no_grad;
      Tensor weight = model.encoder.embedding.weight;
      weight[kPad].fill_(std::nan(""));
    }
    const std::vector<std::int64_t> lengths{4, 2, 1};
    Tensor source = random_tokens({4, 3});
    for (std::int64_t b = 0; b < 3; ++b) {
      const std::int64_t n = lengths[static_cast<std::size_t>(b)];
      if (n < 4) narrow(select(source, 1, b), 0, n, 4 - n).fill_(static_cast<double>(kPad));
    }
    const Tensor target = random_tokens({5, 3}), seed = random64({5, 3, kVocab});
    const Tensor logits = model(source, target, indices(lengths));
    const std::vector<Tensor> padded = grad({sum(logits * seed)}, model.parameters());
    Tensor alone;
    for (std::int64_t b = 0; b < 3; ++b) {
      const auto column = [&](const Tensor& t) { return narrow(t, 1, b, 1); };
      const Tensor ours =
          model(narrow(column(source), 0, 0, lengths[static_cast<std::size_t>(b)]), column(target));
      CHECK(max_difference(column(logits), ours) < 1e-12);
      const Tensor part = sum(ours * column(seed));
      alone = alone.defined() ? alone + part : part;
    }
    const std::vector<Tensor> expected = grad({alone}, model.parameters());
    for (std::size_t i = 0; i < padded.size(); ++i)
      CHECK(max_difference(padded[i], expected[i]) < 1e-12);
  });
}

TEST_CASE("seq2seq: gradients of all parameters pass gradcheck") {
  manual_seed(5);
  for_each_model([](const auto& model) {
    const Tensor source = random_tokens({3, 2}), target = random_tokens({3, 2}),
                 lengths = indices({3, 2});
    CHECK(gradcheck_message([&](const auto&) { return model(source, target, lengths); },
                            model.parameters()) == "");
  });
}

TEST_CASE("seq2seq: gradients of what a decoder starts from pass gradcheck") {
  manual_seed(11);
  for_each_model([](const auto& model) {
    const Tensor source = random_tokens({3, 2}), target = random_tokens({3, 2});
    auto state = model.encode(source, indices({3, 2}));
    std::vector<Tensor> inputs;
    const auto make_leaf = [&](Tensor& t) {
      t = t.detach().clone().requires_grad_();
      inputs.push_back(t);
    };
    for_each_tensor(state.rnn, make_leaf);
    if (state.memory.empty()) {
      make_leaf(state.context);
    } else {
      make_leaf(state.memory[0].keys);
      make_leaf(state.memory[0].values);
    }
    CHECK(gradcheck_message([&](const auto&) { return model.decoder(target, state); }, inputs) ==
          "");
  });
}

namespace {

/// Learns to reverse short sequences; the share of them that each search then gets right.
template <class Model>
void check_learns_to_reverse(Model model) {
  const std::vector<std::vector<std::int64_t>> sequences{
      {3, 4, 5}, {6, 3}, {5, 5, 4, 6}, {4}, {6, 4, 3}, {3, 6, 6, 5}, {5, 3}, {4, 6, 5, 3}};
  const auto B = static_cast<std::int64_t>(sequences.size());
  Tensor source = full({4, B}, kPad, DType::i64), target = full({6, B}, kPad, DType::i64);
  std::vector<std::int64_t> lengths;
  for (std::int64_t b = 0; b < B; ++b) {
    const auto& s = sequences[static_cast<std::size_t>(b)];
    const auto n = static_cast<std::int64_t>(s.size());
    lengths.push_back(n);
    target[0][b].fill_(kBos);
    for (std::int64_t t = 0; t < n; ++t) {
      source[t][b].fill_(static_cast<double>(s[static_cast<std::size_t>(t)]));
      target[1 + t][b].fill_(static_cast<double>(s[static_cast<std::size_t>(n - 1 - t)]));
    }
    target[n + 1][b].fill_(kEos);
  }
  const Tensor n = indices(lengths);
  Adam adam(model.parameters(), {.lr = 0.02});
  double loss_value = 0.0;
  for (int i = 0; i < 150; ++i) {
    const Tensor logits = model(source, narrow(target, 0, 0, 5), n);
    const Tensor loss = cross_entropy(logits, narrow(target, 0, 1, 5), {.ignore_index = kPad});
    adam.zero_grad();
    loss.backward();
    clip_grad_norm(model.parameters(), 1.0);
    adam.step();
    loss_value = loss.item();
  }
  CHECK(loss_value < 0.1);
  const auto state = model.encode(source, n);
  const Tensor start = full({B}, kBos, DType::i64);
  const auto greedy = greedy_search(model.decoder, state, start, {.max_length = 10, .eos = kEos});
  const auto beam = beam_search(model.decoder, state, start, {.max_length = 10, .eos = kEos});
  for (std::size_t b = 0; b < sequences.size(); ++b) {
    const std::vector<std::int64_t> reversed(sequences[b].rbegin(), sequences[b].rend());
    CHECK(greedy[b].tokens == reversed);
    CHECK(greedy[b].ended);
    CHECK(beam[b][0].tokens == reversed);
    CHECK(beam[b][0].log_prob == doctest::Approx(greedy[b].log_prob).epsilon(1e-3));
  }
}

template <class Rnn>
auto learner(bool bidirectional, const DecoderOptions& options) {
  const RecurrentEncoder encoder(Embedding(kVocab, 16),
                                 Rnn(16, 24, {.bidirectional = bidirectional}));
  const RecurrentDecoder decoder(encoder, Embedding(kVocab, 24),
                                 Rnn(24 + encoder.context_size(), 24), options);
  return EncoderDecoder(encoder, decoder);
}

}  // namespace

TEST_CASE("seq2seq: a few pairs are learned and found again by greedy and by beam search") {
  manual_seed(6);
  check_learns_to_reverse(learner<GRU>(false, {}));
  check_learns_to_reverse(learner<LSTM>(true, {}));
  check_learns_to_reverse(
      learner<GRU>(true, {.attention = AttentionScore::additive, .attention_size = 16}));
  check_learns_to_reverse(learner<LSTM>(false, {.attention = AttentionScore::dot, .tied = true}));
}

TEST_CASE("seq2seq: by options, it is the encoder and the decoder that one would write") {
  const auto check = [](auto own, const Seq2SeqOptions& options) {
    Seq2Seq chosen(kVocab, kVocab + 1, options);
    CHECK(names(chosen) == names(own));
    chosen.load_state_dict(own.state_dict());
    const Tensor source = random_tokens({4, 3}), target = random_tokens({5, 3}),
                 lengths = indices({4, 2, 3});
    CHECK(max_difference(chosen(source, target, lengths), own(source, target, lengths)) == 0.0);
  };
  const auto both = [](auto encoder, auto decoder_rnn, const DecoderOptions& options) {
    RecurrentDecoder decoder(encoder, Embedding(kVocab + 1, 5), decoder_rnn, options);
    return EncoderDecoder(encoder, decoder);
  };
  check(both(GRUEncoder(Embedding(kVocab, 5), GRU(5, 6)), GRU(5 + 6, 6), {}),
        {.embedding_dim = 5, .hidden_size = 6});
  check(
      both(LSTMEncoder(Embedding(kVocab, 5), LSTM(5, 6, {.num_layers = 2, .bidirectional = true})),
           LSTM(5 + 12, 6, {.num_layers = 2}),
           {.attention = AttentionScore::additive, .attention_size = 6}),
      {.cell = CellType::lstm,
       .embedding_dim = 5,
       .hidden_size = 6,
       .num_layers = 2,
       .bidirectional = true,
       .attention = AttentionScore::additive});
  check(both(RNNEncoder(Embedding(kVocab, 5),
                        RNN(5, 6, {.bidirectional = true, .merge = Merge::sum})),
             RNN(5 + 6, 6), {.attention = AttentionScore::dot}),
        {.cell = CellType::rnn,
         .embedding_dim = 5,
         .hidden_size = 6,
         .bidirectional = true,
         .attention = AttentionScore::dot});
  CHECK_THROWS_WITH_AS(Seq2Seq(3, 3, {.hidden_size = 0}),
                       "GRUCell: sizes are at least 1, but input_size is 64 and hidden_size is 0",
                       ValueError);
}

TEST_CASE("seq2seq: scheduled sampling replaces tokens by the model's own") {
  manual_seed(7);
  const auto model = to_f64(make<GRU>({}));
  const Tensor source = random_tokens({4, 3}), target = random_tokens({6, 3});
  Generator a(1), b(1), untouched(2);

  // Always: what stands in the target behind its first token does not matter.
  Tensor other = random_tokens({6, 3});
  narrow(other, 0, 0, 1).copy_(narrow(target, 0, 0, 1));
  const Tensor own = model(source, target, {}, 1.0, a);
  CHECK(max_difference(own, model(source, other, {}, 1.0, b)) < 1e-12);
  CHECK(max_difference(own[0], model(source, target)[0]) < 1e-12);
  CHECK(max_difference(own, model(source, target)) > 1e-6);

  // Never: nothing is drawn.
  CHECK(max_difference(model(source, target, {}, 0.0, untouched), model(source, target)) < 1e-12);
  CHECK(untouched.state() == Generator(2).state());

  // The gradient is that of the tokens that went in.
  const auto f = [&](const auto&) {
    Generator same(3);
    return model(source, target, {}, 0.5, same);
  };
  CHECK(gradcheck_message(f, model.parameters()) == "");
}

namespace {

/// The smallest encoder and decoder that a user may write. The decoder's scores say which tokens
/// went in.
struct MeanEncoder : Module {
  Tensor operator()(const Tensor& source, const Tensor&) const {
    return mean(source.to(DType::f32), 0);
  }
};
struct EchoDecoder : Module {
  Tensor scale = param("scale", ones({1}));
  Tensor initial_state(const Tensor& encoded) const { return encoded; }
  std::pair<Tensor, Tensor> step(const Tensor& tokens, const Tensor& state) const {
    return {one_hot(tokens, kVocab) * 1000.0 * scale, state};
  }
};

/// A decoder whose own token is always 2.
struct TwoDecoder : Module {
  Tensor initial_state(const Tensor& encoded) const { return encoded; }
  std::pair<Tensor, Tensor> step(const Tensor& tokens, const Tensor& seen) const {
    last = concatenate({last, tokens});
    return {one_hot(full(tokens.shape(), 2, DType::i64), kVocab) * 1000.0, seen};
  }
  mutable Tensor last = zeros({0}, DType::i64);
};

}  // namespace

TEST_CASE("seq2seq: an encoder and a decoder of one's own need three functions") {
  const EncoderDecoder model{MeanEncoder(), EchoDecoder()};
  const Tensor source = random_tokens({4, 3}), target = random_tokens({5, 3});
  CHECK(max_difference(argmax(model(source, target)), target) == 0.0);
  CHECK(names(model) == "decoder.scale(1)\n");
  const auto found =
      greedy_search(model.decoder, model.encode(source), indices({3, 4, 5}), {.max_length = 2});
  CHECK(found[2].tokens == std::vector<std::int64_t>{5, 5});
}

TEST_CASE("seq2seq: scheduled sampling takes its probability at its word") {
  const EncoderDecoder model{MeanEncoder(), TwoDecoder()};
  constexpr std::int64_t kRows = 20'000;
  Generator generator(9);
  model(zeros({1, kRows}, DType::i64), full({3, kRows}, 5, DType::i64), {}, 0.3, generator);
  const Tensor seen = reshape(model.decoder.last, {3, kRows});
  CHECK(sum(seen[0] == 5.0).item() == kRows);
  for (const std::int64_t t : {1, 2}) {
    const double own = sum(seen[t] == 2.0).item(), given = sum(seen[t] == 5.0).item();
    CHECK(own + given == kRows);
    CHECK(std::abs(own / kRows - 0.3) < 5 * std::sqrt(0.3 * 0.7 / kRows));
  }
}

TEST_CASE("seq2seq: parameters have names, tied ones are there once, and a clone has its own") {
  const auto bridged = make<LSTM>(kKinds[1]);
  CHECK(bridged.decoder.bridges.size() == 4);
  CHECK(bridged.decoder.bridges[3].weight.shape() == Shape{6, 12});
  CHECK(make<GRU>(kKinds[0]).decoder.bridges.empty());
  CHECK(make<LSTM>(kKinds[2]).decoder.bridges.empty());
  CHECK(names(make<GRU>(kKinds[4])) ==
        "encoder.embedding.weight(7, 5)\n"
        "encoder.rnn.weight_ih_l0(18, 5)\n"
        "encoder.rnn.weight_hh_l0(18, 6)\n"
        "encoder.rnn.bias_ih_l0(18)\n"
        "encoder.rnn.bias_hh_l0(18)\n"
        "encoder.rnn.weight_ih_l0_reverse(18, 5)\n"
        "encoder.rnn.weight_hh_l0_reverse(18, 6)\n"
        "encoder.rnn.bias_ih_l0_reverse(18)\n"
        "encoder.rnn.bias_hh_l0_reverse(18)\n"
        "decoder.output_bias(7)\n"
        "decoder.embedding.weight(7, 5)\n"
        "decoder.rnn.weight_ih_l0(15, 17)\n"
        "decoder.rnn.weight_hh_l0(15, 5)\n"
        "decoder.rnn.bias_ih_l0(15)\n"
        "decoder.rnn.bias_hh_l0(15)\n"
        "decoder.attention.key.weight(5, 12)\n"
        "decoder.bridge0.weight(5, 12)\n"
        "decoder.bridge0.bias(5)\n");
  const auto tied = make<GRU>(kKinds[4]), copy = clone(tied);
  CHECK(copy.decoder.output_weight.is(copy.decoder.embedding.weight));
  CHECK(!copy.decoder.output_weight.is(tied.decoder.output_weight));
  const Tensor source = random_tokens({4, 2}), target = random_tokens({3, 2});
  CHECK(max_difference(copy(source, target), tied(source, target)) < 1e-6);
}

TEST_CASE("seq2seq: mistakes are named") {
  CHECK_THROWS_WITH_AS(
      GRUEncoder(Embedding(7, 5), GRU(4, 6)),
      "RecurrentEncoder: the rnn's input_size is 4, but the embedding's dimension 5", ValueError);
  CHECK_THROWS_WITH_AS(GRUEncoder(Embedding(7, 5), GRU(5, 6, {.batch_first = true})),
                       "RecurrentEncoder: the rnn must not be batch_first", ValueError);
  const GRUEncoder encoder(Embedding(7, 5), GRU(5, 6, {.bidirectional = true}));
  const Embedding table(7, 4);
  CHECK_THROWS_WITH_AS(
      GRUDecoder(encoder, table, GRU(10, 6)),
      "RecurrentDecoder: the rnn's input_size must be 4 (embedding) + 12 (context), but is 10",
      ValueError);
  CHECK_THROWS_WITH_AS(GRUDecoder(encoder, table, GRU(16, 6, {.num_layers = 2})),
                       "RecurrentDecoder: the rnn's num_layers is 2, but the encoder's 1",
                       ValueError);
  CHECK_THROWS_WITH_AS(GRUDecoder(encoder, table, GRU(16, 6, {.bidirectional = true})),
                       "RecurrentDecoder: the rnn must not be bidirectional", ValueError);
  CHECK_THROWS_WITH_AS(GRUDecoder(encoder, table, GRU(16, 6, {.batch_first = true})),
                       "RecurrentDecoder: the rnn must not be batch_first", ValueError);
  CHECK_THROWS_WITH_AS(
      GRUDecoder(encoder, table, GRU(16, 6), {.tied = true}),
      "RecurrentDecoder: tied: the rnn's output has 6 numbers, but the embedding's dimension is 4",
      ValueError);
  CHECK_THROWS_WITH_AS(GRUDecoder(encoder, table, GRU(16, 6), {.attention = AttentionScore::dot}),
                       "Attention: dot needs query_size = key_size, but they are 6 and 12",
                       ValueError);
  const GRUDecoder decoder(encoder, table, GRU(16, 6));
  const EncoderDecoder model(encoder, decoder);
  const Tensor source = random_tokens({4, 2}), target = random_tokens({3, 2});
  CHECK_THROWS_WITH_AS(model(source[0], target),
                       "RecurrentEncoder: source must be [T, B] with T >= 1, but is (2)",
                       ShapeError);
  CHECK_THROWS_WITH_AS(model(source, target[0]),
                       "RecurrentDecoder: tokens must be [T, B] with T >= 1, but is (2)",
                       ShapeError);
  CHECK_THROWS_WITH_AS(model(source, target[0], {}, 0.5),
                       "EncoderDecoder: target must be [T, B] with T >= 1, but is (2)", ShapeError);
  CHECK_THROWS_WITH_AS(model(source, target, {}, 1.5),
                       "EncoderDecoder: sampling_probability must be in [0, 1], but is 1.5",
                       ValueError);
  CHECK_THROWS_WITH_AS(decoder.attention_weights(target, model.encode(source)),
                       "RecurrentDecoder: attention_weights: there is no attention", ValueError);
}
