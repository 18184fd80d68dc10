#pragma once
/// The model of examples/caption.cpp, and its options.

#include <unroll/unroll.h>

#include <cstdint>
#include <string>
#include <tuple>

#include "examples/common/options.h"
#include "examples/common/training.h"

namespace caption {

using namespace unroll;

constexpr std::int64_t kPad = 1, kBos = 2, kEos = 3;  // in the vocabulary, behind <unk>

/// What a model is and how it learns. A saved model carries it.
struct Config {
  std::string pictures, captions, test_pictures, test_captions;
  std::int64_t count = 6000, features = 64, embed = 32, hidden = 128, beam = 1;
  examples::TrainingOptions training{.epochs = 20, .batch = 64, .lr = 2e-3, .plot = "caption.svg"};
  std::string gallery = "caption_pictures.svg";

  template <class F>
  void each(F&& option) {
    using examples::at_least;
    option("pictures", pictures, "pictures to learn: a .npy array (pictures, height, width, 3)");
    option("captions", captions, "a line for each of them");
    option("test-pictures", test_pictures, "pictures to describe at the end ...");
    option("test-captions", test_captions, "... and what should come out");
    option("count", count, "pictures to generate, without a file", at_least(1));
    option("features", features, "numbers that the eye makes of each quarter of a picture",
           at_least(1));
    option("embed", embed, "size of the word embedding", at_least(1));
    option("hidden", hidden, "size of the hidden state", at_least(1));
    option("beam", beam, "width of the beam search; 1: greedy", at_least(1));
    training.each(option);
    option("gallery", gallery, "SVG file for a few pictures and their captions; \"\": none");
  }
};

/// e_q = relu(W' relu(W x_q + b) + b') + p_q for each quarter q of the picture, with the same W and
/// W' for all: a shape is the same shape wherever it stands, and p_q says where that is.
struct Eye : Module {
  Eye(const Config& config, std::int64_t quarter)
      : pixels(child("pixels", Linear(quarter, config.features))),
        shapes(child("shapes", Linear(config.features, config.features))),
        places(param("places", normal({4, 1, config.features}))) {}

  /// picture: [B, height, width, 3]; returns [4, B, features]. There is one picture and no sequence
  /// of them, so there are no lengths.
  Tensor operator()(const Tensor& picture, const Tensor& /*lengths*/) const {
    const std::int64_t B = picture.size(0), H = picture.size(1) / 2, W = picture.size(2) / 2;
    const Tensor quarters = permute(reshape(picture, {B, 2, H, 2, W, 3}), {1, 3, 0, 2, 4, 5});
    return relu(shapes(relu(pixels(reshape(quarters, {4, B, H * W * 3}))))) + places;
  }

  Linear pixels, shapes;
  Tensor places;
};

/// h_0 = tanh(V mean of e_q);  c_t = sum over q of a_tq e_q, where h_t-1 says what to look at;
/// h_t = GRU([E[word_t-1], c_t], h_t-1);  p(word_t) = softmax(W h_t + b)   (Xu et al. 2015).
struct Writer : Module {
  struct State {
    Tensor h;
    AttentionMemory memory;
    auto fields() { return std::tie(h, memory); }
  };

  Writer(const Config& config, std::int64_t words)
      : embedding(child("embedding", Embedding(words, config.embed))),
        attention(child("attention", Attention(AttentionScore::additive, config.hidden,
                                               config.features, config.features))),
        gru(child("gru", GRU(config.embed + config.features, config.hidden))),
        start(child("start", Linear(config.features, config.hidden))),
        output(child("output", Linear(config.hidden, words))) {}

  State initial_state(const Tensor& seen) const {
    return {tanh(start(mean(seen, 0))), attention.memory(seen)};
  }
  StepResult<State> step(const Tensor& words, const State& state) const {
    const Tensor context = attention(state.h, state.memory).context;
    const Tensor h = gru.step(concatenate({embedding(words), context}, -1), {state.h}).output;
    return {output(h), {h, state.memory}};
  }

  Embedding embedding;
  Attention attention;
  GRU gru;
  Linear start, output;
};

using Model = EncoderDecoder<Eye, Writer>;

inline Model make_model(const Config& config, std::int64_t quarter, const Vocab& vocab) {
  return {Eye(config, quarter), Writer(config, vocab.size())};
}

}  // namespace caption
