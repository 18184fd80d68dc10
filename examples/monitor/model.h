#pragma once
/// What examples/monitor.cpp learns from a stream, value by value.

#include <unroll/unroll.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "examples/common/checkpoint.h"
#include "examples/common/options.h"

namespace monitor {

using namespace unroll;

/// A saved model carries it.
struct Config {
  std::int64_t hidden = 16, steps = 20;
  double lr = 0.01, clip = 1, limit = 4;
  std::int64_t warm_up = 500, keep = 1000;
  std::uint64_t seed = 0;
  std::string log, plot = "monitor.svg";

  template <class F>
  void each(F&& option) {
    using examples::above, examples::at_least;
    option("hidden", hidden, "size of the hidden state", at_least(1));
    option("steps", steps, "values that the gradient flows back through", at_least(1));
    option("lr", lr, "learning rate of Adam", above(0));
    option("clip", clip, "largest norm of the gradient", above(0));
    option("limit", limit, "standard deviations of the error that are usual", above(0));
    option("warm-up", warm_up, "values to learn from before the first alarm", at_least(1));
    option("keep", keep, "last values that the plot shows", at_least(1));
    option("seed", seed, "of all random numbers", at_least(0));
    option("log", log, "file for one JSON object per alarm and at the end");
    option("plot", plot, "SVG file for the last values; \"\": none");
  }
};

constexpr std::int64_t kMemory = 500;  ///< values after which a running mean has forgotten

/// A running mean of squares: v <- v + (x^2 - v) / min(number of values, kMemory).
struct RunningSquare {
  double value = 0;
  std::int64_t count = 0;

  void add(double x) {
    count = std::min(count + 1, kMemory);
    value += (x * x - value) / static_cast<double>(count);
  }
  double root() const { return std::sqrt(value); }
  template <class F>
  void each(const std::string& name, F&& field) {
    field(name.c_str(), value), field((name + "_count").c_str(), count);
  }
};

/// Expects the next value of a stream, and learns while it runs:
///
///   h_t = GRU([level_t, change_t], h_{t-1})        expected x_{t+1} = x_t + s (W h_t + b)
///
/// level_t = (x_t - m) / v and change_t = (x_t - x_{t-1}) / s, with running mean m, deviation v and
/// size of changes s. After every `steps` values the Huber loss of their errors is swept back and
/// the state taken off the tape (truncated backpropagation through time): the tape, and with it the
/// memory, never grows beyond that.
class Forecaster : public Module {
 public:
  /// What is known of the stream besides the network's state.
  struct Numbers {
    double mean = 0, last = 0;
    RunningSquare deviation{}, changes{};
    std::int64_t seen = 0;
    template <class F>
    void each(F&& field) {
      field("mean", mean), field("last", last), field("seen", seen);
      deviation.each("deviation", field), changes.each("changes", field);
    }
  };

  explicit Forecaster(const Config& config)
      : steps_(config.steps),
        clip_(config.clip),
        gru_(child("gru", GRU(2, config.hidden))),
        out_(child("out", Linear(config.hidden, 1))),
        optimizer_(parameters(), {.lr = config.lr}),
        state_(gru_.initial_state(1)) {}

  /// Reads a value; returns the one that it expects next.
  double read(double x) {
    const auto scaled = [](double value, double by) {
      return std::clamp(value / std::max(by, 1e-12), -10.0, 10.0);
    };
    const double change = numbers_.seen == 0 ? 0 : x - numbers_.last;
    if (expected_.defined()) {
      const Tensor target = full({1, 1}, scaled(change, numbers_.changes.root()));
      losses_.push_back(huber_loss(expected_, target));
    }
    if (std::ssize(losses_) == steps_) learn();

    if (numbers_.seen++ > 0) numbers_.changes.add(change);
    numbers_.mean += (x - numbers_.mean) / static_cast<double>(std::min(numbers_.seen, kMemory));
    numbers_.deviation.add(x - numbers_.mean);
    numbers_.last = x;
    const double size = numbers_.changes.root();
    const std::vector<double> input{scaled(x - numbers_.mean, numbers_.deviation.root()),
                                    scaled(change, size)};
    auto [h, next] = gru_.step(from_vector(input, {1, 2}).to(DType::f32), state_);
    state_ = std::move(next);
    expected_ = out_(h);
    return x + size * expected_.item();
  }

  /// One step of descent on the errors since the last one.
  void learn() {
    if (losses_.empty()) return;
    optimizer_.zero_grad();
    mean(stack(losses_)).backward();
    clip_grad_norm(optimizer_.parameters(), clip_);
    optimizer_.step();
    losses_.clear();
    state_ = detach(state_);
    expected_ = Tensor();
  }

  /// Learns from what is left, so that nothing but the state has to be saved.
  void save(examples::Checkpoint& file) {
    learn();
    file.add("model", state_dict());
    file.add("optimizer", optimizer_);
    file.add("state", {{"h", state_[0]}});
    file.add_values("stream", numbers_);
  }
  void load(const examples::Checkpoint& file) {
    file.load("model", static_cast<Module&>(*this));
    file.load("optimizer", optimizer_);
    numbers_ = file.values<Numbers>("stream");
    const NamedTensors state = file.part("state");
    if (state.size() != 1 || state[0].second.shape() != state_[0].shape())
      throw FileError(file.path() + ": the state is damaged");
    state_ = {state[0].second};
  }

 private:
  std::int64_t steps_;
  double clip_;
  GRU gru_;
  Linear out_;
  Adam optimizer_;
  GRU::State state_;
  Tensor expected_;             ///< (x_{t+1} - x_t) / s, on the tape
  std::vector<Tensor> losses_;  ///< since the last step of descent
  Numbers numbers_;
};

}  // namespace monitor
