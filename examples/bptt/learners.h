#pragma once
/// The options of examples/bptt.cpp, and the networks that it trains on the adding problem.

#include <unroll/unroll.h>

#include <algorithm>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "examples/common/comparison.h"
#include "examples/common/options.h"
#include "examples/common/training.h"

namespace bptt {

using namespace unroll;
using examples::Batch;

struct Config {
  std::vector<std::string> parts{"gradients", "norms", "truncation", "clipping"};
  std::int64_t length = 100, hidden = 64, batches = 100;
  std::vector<double> radius{0.5, 1.0, 1.5};
  std::optional<double> forget_bias;
  std::int64_t truncate = 20;
  double random_truncate = 0.03;
  std::int64_t clip_length = 20, clip_epochs = 30;
  double clip_lr = 0.05;
  examples::TrainingOptions training{.epochs = 12, .lr = 0.01, .plot = "bptt.svg"};

  template <class F>
  void each(F&& option) {
    using CLI::IsMember, examples::above, examples::at_least;
    option("parts", parts, "what to do",
           IsMember({"gradients", "norms", "truncation", "clipping"}));
    option("length", length, "T, the time steps", at_least(2));
    option("hidden", hidden, "size of the hidden state", at_least(1));
    option("batches", batches, "batches of new sequences per epoch", at_least(1));
    option("radius", radius, "norms: spectral radii of the recurrent matrices", at_least(0));
    option("forget-bias", forget_bias, "norms: bias of the LSTM's forget gate");
    option("truncate", truncate, "truncation: time steps that a gradient passes", at_least(1));
    option("random-truncate", random_truncate,
           "truncation: probability that a gradient is cut off between two time steps",
           at_least(0));
    option("clip-length", clip_length, "clipping: T", at_least(2));
    option("clip-epochs", clip_epochs, "clipping: epochs", at_least(1));
    option("clip-lr", clip_lr, "clipping: learning rate of SGD", above(0));
    training.each(option);
  }
  bool has(const char* part) const {
    return std::find(parts.begin(), parts.end(), part) != parts.end();
  }
};

/// Says the sum from the last state. Reads the sequence in segments; `cut` takes the state off the
/// tape between them, so that what came before can be forgotten: truncated BPTT.
template <class Network>
struct Adder : Module {
  Network network;
  Linear output;
  std::int64_t segment;
  bool cut;

  Adder(const Network& net, std::int64_t hidden, std::int64_t steps, bool cut_between)
      : network(child("network", net)),
        output(child("output", Linear(hidden, 1))),
        segment(steps),
        cut(cut_between) {}
  Tensor operator()(const Tensor& xs) const {
    typename Network::State state;
    for (const Tensor& part : split(xs, segment))
      state = network(part, cut ? detach(state) : state).state;
    return output(state[0]);
  }
};

template <class Network>
void add(examples::Comparison& comparison, const std::string& name, const Adder<Network>& model,
         std::shared_ptr<Optimizer> optimizer, double clip) {
  comparison.add({.name = name,
                  .model = model,
                  .loss = [=](const Batch& batch) { return mse_loss(model(batch.x), batch.y); },
                  .optimizer = std::move(optimizer),
                  .clip = clip});
}

/// GRUs that differ in how far back their gradients go.
inline void add_truncation(examples::Comparison& comparison, const Config& config) {
  const auto learner = [&](const std::string& name, const RecurrentOptions& options, bool cut) {
    manual_seed(config.training.seed);  // all start with the same weights
    const Adder model(GRU(2, config.hidden, options), config.hidden, config.truncate, cut);
    add(comparison, name, model,
        std::make_shared<Adam>(model.parameters(), AdamOptions{.lr = config.training.lr}),
        config.training.clip);
  };
  learner("full", {}, false);
  learner("truncated", {}, true);
  learner("random", {.random_truncate = config.random_truncate}, false);
}

/// RNNs of rectified linear units that start with the identity as their recurrent matrix (Le et al.
/// 2015). They remember well, and their gradients explode.
inline void add_clipping(examples::Comparison& comparison, const Config& config) {
  const auto learner = [&](const std::string& name, double clip) {
    manual_seed(config.training.seed);
    const Adder model(RNN(2, config.hidden, {.nonlinearity = Nonlinearity::relu}), config.hidden,
                      config.clip_length, false);
    for (auto [parameter, value] : model.network.state_dict()) {
      if (parameter == "weight_hh_l0") value.copy_(eye(config.hidden));
      if (parameter.starts_with("bias")) value.zero_();
    }
    add(comparison, name, model,
        std::make_shared<SGD>(model.parameters(), SGDOptions{.lr = config.clip_lr}), clip);
  };
  learner("clipped", config.training.clip);
  learner("unclipped", 0);
}

}  // namespace bptt
