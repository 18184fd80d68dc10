// How long does a cell remember? The adding problem and copy memory for RNN, GRU and LSTM.
//
//   memory_tasks                                  the adding problem over 200 time steps
//   memory_tasks --task copy                      copy memory
//   memory_tasks --length 500 --epochs 60         longer
//   memory_tasks test --length 400                the saved models on longer sequences
//
// docs/examples/memory_tasks.md has the equations and all options.

#include <fmt/format.h>
#include <unroll/unroll.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <string>
#include <vector>

#include "common/adding_problem.h"
#include "common/comparison.h"
#include "common/options.h"
#include "common/plot.h"
#include "common/program.h"
#include "common/training.h"

using namespace unroll;
using examples::Batch;

namespace {

struct Config {
  std::string task = "adding";
  std::int64_t length = 200;
  std::vector<std::string> cells{"rnn", "gru", "lstm"};
  std::int64_t hidden = 64, batches = 100;
  std::string lstm_bias = "chrono";
  examples::TrainingOptions training{.epochs = 15, .lr = 0.01, .plot = "memory_tasks.svg"};

  template <class F>
  void each(F&& option) {
    using CLI::IsMember, examples::above, examples::at_least;
    option("task", task, "what is to be remembered", IsMember({"adding", "copy"}));
    option("length", length, "T, the time steps", at_least(2));
    option("cells", cells, "kinds of recurrent network", IsMember({"rnn", "gru", "lstm"}));
    option("hidden", hidden, "size of the hidden state", at_least(1));
    option("lstm-bias", lstm_bias, "what the biases of the LSTM's gates start with",
           IsMember({"chrono", "random"}));
    option("batches", batches, "batches of new sequences per epoch", at_least(1));
    training.each(option);
  }
};

// --- Copy memory --------------------------------------------------------------------------------

constexpr std::int64_t kSymbols = 8, kCopied = 10;
constexpr std::int64_t kBlank = kSymbols, kGo = kSymbols + 1, kInputs = kSymbols + 2;

/// Ten symbols of eight kinds are to be repeated after T blank time steps (Hochreiter and
/// Schmidhuber 1997, as Arjovsky et al. 2016 have it).
///
///   x  [T + 20, B, 10], one-hot: ten symbols, T - 1 blanks, the sign to go, ten blanks
///   y  [T + 20, B] of i64: T + 10 blanks, then the ten symbols
Batch copy_memory(std::int64_t T, std::int64_t batch_size, Generator& generator) {
  const Tensor symbols = randint(0, kSymbols, {kCopied, batch_size}, generator);
  const auto blanks = [&](std::int64_t n) { return full({n, batch_size}, kBlank, DType::i64); };
  const Tensor go = full({1, batch_size}, kGo, DType::i64);
  return {one_hot(concatenate({symbols, blanks(T - 1), go, blanks(kCopied)}), kInputs),
          concatenate({blanks(T + kCopied), symbols})};
}

// --- Tasks --------------------------------------------------------------------------------------

struct Task {
  const Config& config;
  bool adding = config.task == "adding";

  std::int64_t inputs() const { return adding ? 2 : kInputs; }
  std::int64_t outputs() const { return adding ? 1 : kSymbols + 1; }
  /// The loss of one that remembers nothing. It says 1, the mean of the sum; or blank while it has
  /// to, and then each symbol with probability 1/8.
  double baseline() const {
    if (adding) return examples::kAddingBaseline;
    return kCopied * std::log(kSymbols) / static_cast<double>(config.length + 2 * kCopied);
  }
  Batch batch(std::int64_t size, Generator& generator = default_generator()) const {
    return adding ? examples::adding_problem(config.length, size, generator)
                  : copy_memory(config.length, size, generator);
  }
  /// Of what a network puts out at each time step, [T, B, outputs].
  Tensor loss(const Tensor& out, const Batch& batch) const {
    return adding ? mse_loss(out[-1], batch.y) : cross_entropy(out, batch.y);
  }
  /// The part that is right: sums that are wrong by less than 0.1; symbols that are repeated.
  double accuracy(const Tensor& out, const Batch& batch) const {
    if (adding) return mean(abs(out[-1] - batch.y) < 0.1).item();
    const Tensor right = argmax(out, -1) == batch.y;
    return mean(narrow(right, 0, right.size(0) - kCopied, kCopied).to(DType::f32)).item();
  }
};

/// A recurrent network and a linear layer on its state at each time step.
template <class Network>
struct Model : Module {
  Network network;
  Linear output;

  Model(const Network& net, const Task& task)
      : network(child("network", net)),
        output(child("output", Linear(task.config.hidden, task.outputs()))) {}
  /// [T, B, inputs] to [T, B, outputs].
  Tensor operator()(const Tensor& xs) const { return output(network(xs).outputs); }
};

/// The networks that are compared.
class Contest {
 public:
  Contest(const Config& c, const examples::Call& call)
      : config(c), comparison(config.training, config.batches, call) {
    manual_seed(config.training.seed);
    for (const std::string& cell : config.cells) {
      if (cell == "rnn") add(cell, RNN(task.inputs(), config.hidden));
      if (cell == "gru") add(cell, GRU(task.inputs(), config.hidden));
      if (cell == "lstm") add(cell, make_lstm());
    }
  }

  /// Returns the exit code.
  int train(const examples::Call& call, const examples::Checkpoint* saved) {
    if (saved) comparison.go_on_from(*saved);
    if (!call.quiet)
      fmt::print("{}, T = {}, hidden size {}. A guess that remembers nothing has loss {:.4f}.\n",
                 task.adding ? "The adding problem" : "Copy memory", config.length, config.hidden,
                 task.baseline());
    const bool complete =
        comparison.run([&] { return task.batch(config.training.batch); },
                       [&](examples::Checkpoint& file) { file.add_values("config", config); });
    if (const auto curves = comparison.loss_curves(task.baseline());
        curves.size() > 1 && !config.training.plot.empty())
      examples::plot_svg(
          config.training.plot,
          {.title = fmt::format("{}, T = {}", task.adding ? "Adding problem" : "Copy memory",
                                config.length),
           .x_label = fmt::format("epoch of {} batches", config.batches),
           .y_label = task.adding ? "mean squared error" : "cross entropy",
           .log_scale = true,
           .log_base = 10},
          curves);
    if (complete) comparison.log_final(report());
    return comparison.exit_code();
  }

  void test(const examples::Checkpoint& saved) {
    comparison.load(saved);
    report();
  }

 private:
  template <class Network>
  void add(const std::string& name, const Network& network) {
    const Model<Network> model(network, task);
    comparison.add({.name = name, .model = model, .loss = [=, this](const Batch& batch) {
                      return task.loss(model(batch.x), batch);
                    }});
    outputs.push_back([=](const Tensor& xs) { return model(xs); });
  }

  /// With --lstm-bias chrono, each unit keeps what it has for some time between 1 and T: its forget
  /// gate starts with a bias of log(that time), its input gate with minus as much (Tallec and
  /// Ollivier 2018, eq. 16).
  LSTM make_lstm() const {
    const LSTM lstm(task.inputs(), config.hidden);
    if (config.lstm_bias == "random") return lstm;
    const double longest = std::max<double>(2, static_cast<double>(config.length - 1));
    const Tensor bias = log(uniform({config.hidden}, 1, longest));
    for (const auto& [name, value] : lstm.state_dict())
      if (name == "bias_ih_l0" || name == "bias_hh_l0") {
        auto gates = chunk(value, 4);  // i, f, g, o; both biases are added
        gates[0].copy_(bias * -0.5);
        gates[1].copy_(bias * 0.5);
      }
    return lstm;
  }

  /// What the networks do on sequences that none has seen.
  examples::Metrics report() {
    const NoGrad no_grad;
    Generator generator(config.training.seed + 1'000'003);
    const Batch test = task.batch(1000, generator);
    fmt::print("\nOn 1,000 new sequences, T = {}:\n\n{:6} {:>10} {:>8} {:>10} {:>12}\n",
               config.length, "", "parameters", "loss", "baseline",
               task.adding ? "within 0.1" : "symbols right");
    examples::Metrics metrics{{"baseline", task.baseline()}};
    for (std::size_t i = 0; i < outputs.size(); ++i) {
      const examples::Learner& learner = comparison.learners()[i];
      const Tensor out = outputs[i](test.x);
      const double loss = task.loss(out, test).item(), accuracy = task.accuracy(out, test);
      fmt::print("{:6} {:>10} {:8.4f} {:10.4f} {:11.1f}%{}\n", learner.name,
                 examples::grouped(learner.model.parameter_count()), loss, task.baseline(),
                 100 * accuracy, loss < task.baseline() / 10 ? "  solved" : "");
      metrics.emplace_back(learner.name + "_test_loss", loss);
      metrics.emplace_back(learner.name + "_test_accuracy", accuracy);
    }
    fmt::print("\nSolved: a loss below a tenth of the baseline.\n");
    return metrics;
  }

  Config config;
  Task task{config};
  examples::Comparison comparison;
  std::vector<std::function<Tensor(const Tensor&)>> outputs;
};

}  // namespace

int main(int argc, char** argv) {
  Config config;
  std::int64_t length = 0;
  examples::TrainingProgram program(
      "How long does a cell remember? RNN, GRU and LSTM side by side.", "memory_tasks", argc, argv);
  program.add_command("test", "measure saved models, on sequences of any length")
      .add_option("--length", length, "T (default: the one that they learned)")
      ->check(examples::at_least(2));
  return program.run(
      config, {"task", "cells", "hidden"},
      [&](const Config&, const examples::Call& call, const examples::Checkpoint* saved) {
        return Contest(config, call).train(call, saved);
      },
      [&](const CLI::App&, const examples::Checkpoint& saved) {
        if (length > 0) config.length = length;
        Contest(config, {}).test(saved);
      });
}
