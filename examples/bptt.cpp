// Looks into backpropagation through time: by hand, vanishing gradients, truncation, clipping.
//
//   bptt                                       all four parts
//   bptt --parts norms --hidden 128            how gradients fade and grow over time
//   bptt --parts truncation --truncate 50      what cutting them costs
//
// docs/examples/bptt.md has the equations and all options.

#include <fmt/format.h>
#include <unroll/unroll.h>

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "common/adding_problem.h"
#include "common/comparison.h"
#include "common/curve_table.h"
#include "common/heatmap.h"
#include "common/program.h"

using namespace unroll;
using examples::Batch, examples::Call, examples::file_of_part, examples::log_axes;

namespace {

struct Config {
  std::vector<std::string> parts{"gradients", "norms", "truncation", "clipping"};
  std::int64_t length = 100, hidden = 64, batches = 100;
  std::vector<double> radius{0.5, 1.0, 1.5};
  std::optional<double> forget_bias;
  std::int64_t truncate = 20, clip_length = 20, clip_epochs = 30;
  double random_truncate = 0.03, clip_lr = 0.05;
  examples::TrainingOptions training{.epochs = 12, .lr = 0.01, .plot = "bptt.svg"};

  template <class F>
  void each(F&& option) {
    using examples::above, examples::at_least;
    option("parts", parts, "what to do", CLI::IsMember(parts));
    option("length", length, "T, the time steps", at_least(2));
    option("hidden", hidden, "size of the hidden state", at_least(1));
    option("batches", batches, "batches of new sequences per epoch", at_least(1));
    option("radius", radius, "norms: spectral radii of the recurrent matrices", at_least(0));
    option("forget-bias", forget_bias, "norms: bias of the LSTM's forget gate");
    option("truncate", truncate, "truncation: time steps that a gradient passes", at_least(1));
    option("random-truncate", random_truncate, "truncation: probability of a cut", at_least(0));
    option("clip-length", clip_length, "clipping: T", at_least(2));
    option("clip-epochs", clip_epochs, "clipping: epochs", at_least(1));
    option("clip-lr", clip_lr, "clipping: learning rate of SGD", above(0));
    training.each(option);
  }
};

// --- By hand and by the tape --------------------------------------------------------------------

/// The gradients of the loss with respect to everything in a tanh RNN, derived by hand:
///
///   h_t = tanh(W_ih x_t + b_ih + W_hh h_{t-1} + b_hh)     o_t = W h_t + b
///   L = 1 / (2 T B) sum over t and B of |o_t - y_t|^2
///
///   dL/do_t = (o_t - y_t) / (T B)
///   dL/dh_t = W' dL/do_t + W_hh' dL/da_{t+1}              a_t: what is inside of the tanh
///   dL/da_t = (1 - h_t^2) * dL/dh_t
///
/// and from these dL/dW = sum of dL/do_t h_t', dL/dW_hh = sum of dL/da_t h_{t-1}', and so on.
NamedTensors gradients_by_hand(const RNNCell& cell, const Linear& output, const Tensor& xs,
                               const Tensor& ys) {
  const NoGrad no_grad;
  const std::int64_t T = xs.size(0), B = xs.size(1);
  const Tensor &w_ih = cell.weight_ih, &w_hh = cell.weight_hh, b = cell.bias_ih + cell.bias_hh;
  std::vector<Tensor> h{zeros({B, cell.hidden_size}, DType::f64)};
  for (std::int64_t t = 0; t < T; ++t)
    h.push_back(tanh(matmul(xs[t], transpose(w_ih)) + matmul(h.back(), transpose(w_hh)) + b));

  Tensor d_w_ih = zeros_like(w_ih), d_w_hh = zeros_like(w_hh), d_b = zeros_like(b);
  Tensor d_w = zeros_like(output.weight), d_c = zeros_like(output.bias), d_a = zeros_like(h[0]);
  std::vector<Tensor> d_h, d_x;
  for (std::int64_t t = T - 1; t >= 0; --t, h.pop_back()) {
    const Tensor &now = h.back(), &before = h.end()[-2];
    const Tensor d_o = (output(now) - ys[t]) / static_cast<double>(T * B);
    d_h.insert(d_h.begin(), matmul(d_o, output.weight) + matmul(d_a, w_hh));
    d_a = (1 - square(now)) * d_h[0];
    d_x.insert(d_x.begin(), matmul(d_a, w_ih));
    d_w = d_w + matmul(transpose(d_o), now);
    d_c = d_c + sum(d_o, {0});
    d_w_ih = d_w_ih + matmul(transpose(d_a), xs[t]);
    d_w_hh = d_w_hh + matmul(transpose(d_a), before);
    d_b = d_b + sum(d_a, {0});
  }
  return {{"dL/dW_ih", d_w_ih},    {"dL/dW_hh", d_w_hh},   {"dL/db_ih", d_b},
          {"dL/db_hh", d_b},       {"dL/dW", d_w},         {"dL/db", d_c},
          {"dL/dh_t", stack(d_h)}, {"dL/dx_t", stack(d_x)}};
}

/// Prints these beside what the tape gives.
void compare_gradients(const Config& config) {
  manual_seed(config.training.seed);
  RNNCell cell(3, config.hidden);
  Linear output(config.hidden, 2);
  cell.to(DType::f64), output.to(DType::f64);
  const Tensor xs = normal({config.length, 4, 3}, 0, 1, DType::f64).requires_grad_();
  const Tensor ys = normal({config.length, 4, 2}, 0, 1, DType::f64);
  const NamedTensors hand = gradients_by_hand(cell, output, xs, ys);

  std::vector<Tensor> all{cell.weight_ih, cell.weight_hh, cell.bias_ih,
                          cell.bias_hh,   output.weight,  output.bias};
  Tensor h = zeros({4, config.hidden}, DType::f64), loss = zeros({}, DType::f64);
  for (std::int64_t t = 0; t < config.length; ++t) {
    all.push_back(h = cell.step(cell.project(xs[t]), h));
    loss = loss + sum(square(output(h) - ys[t])) / (2.0 * static_cast<double>(config.length * 4));
  }
  all.push_back(xs);
  std::vector<Tensor> tape = grad({loss}, all);
  tape[6] = stack({tape.begin() + 6, tape.end() - 1}), tape[7] = tape.back();

  fmt::print("A tanh RNN, T = {}, hidden size {}, in f64: norms\n\n", config.length, config.hidden);
  fmt::print("{:>25} {:>20} {:>20} {:>12}\n", "shape", "by hand", "by tape", "difference");
  for (std::size_t i = 0; i < hand.size(); ++i) {
    const auto& [name, gradient] = hand[i];
    const double difference = max(abs(gradient - tape[i])).item();
    fmt::print("{:10} {:>14} {:20.15f} {:20.15f} {:12.1e}\n", name, to_string(gradient.shape()),
               norm(gradient).item(), norm(tape[i]).item(), difference);
  }
  fmt::print("\n");
}

// --- Norms over time ----------------------------------------------------------------------------

/// Prints and plots how far gradients reach. The recurrent matrix of each gate is a radius times a
/// random orthogonal one, all of whose eigenvalues have that absolute value.
void compare_norms(const Config& config) {
  manual_seed(config.training.seed);
  const auto distance = arange(config.length, DType::f64).to_vector<double>();
  std::vector<examples::Curve> curves;
  const auto add = [&](const char* name, double radius, auto network) {
    network.to(DType::f64);
    for (const Tensor& gate : split(network.cell().weight_hh.detach(), config.hidden))
      init::orthogonal_(gate, radius);
    const auto reach = gradient_reach(network, normal({config.length, 32, 8}, 0, 0.1, DType::f64));
    curves.push_back({fmt::format("{} {}", name, radius), reach, distance});
  };
  for (const double r : config.radius) add("RNN", r, RNN(8, config.hidden));
  for (const double r : config.radius) add("GRU", r, GRU(8, config.hidden));
  for (const double r : config.radius)
    add("LSTM", r, LSTM(8, config.hidden, {.forget_bias = config.forget_bias}));

  std::vector<double> shown{distance.back()};
  for (double d = 1; d < distance.back(); d *= 4) shown.insert(shown.end() - 1, d);
  fmt::print("|dL_T/dh_k| by cell, spectral radius and distance T - k\n\n{}\n",
             examples::curve_table("T - k", curves, shown));
  const auto axes = log_axes("|dL_T/dh_k|", "distance T - k", "|dL_T/dh_k|");
  examples::plot_svg(file_of_part(config.training.plot, "norms"), axes, curves);
  examples::heatmap_svg(file_of_part(config.training.plot, "heatmap"), axes, curves);
}

// --- Truncation and clipping --------------------------------------------------------------------

/// A network that says the sum from its last state.
template <class Network>
struct Adder : Module {
  explicit Adder(const Network& n)
      : network(child("network", n)), output(child("output", Linear(n.cell().hidden_size, 1))) {}
  Network network;
  Linear output;
};

/// GRUs that differ in how far back their gradients go; or RNNs that start as the identity (Le et
/// al. 2015), which remember well, and whose gradients explode.
void add_learners(examples::Comparison& comparison, const Config& config, bool clipping) {
  const auto add = [&](const char* name, bool cut, std::optional<double> clip, const auto& make) {
    manual_seed(config.training.seed);  // all start with the same weights
    const Adder model(make());
    std::shared_ptr<Optimizer> sgd;  // where it is about clipping
    if (clipping) sgd = std::make_shared<SGD>(model.parameters(), SGDOptions{.lr = config.clip_lr});
    const auto loss = [=](const Batch& batch) {
      typename decltype(model.network)::State state;
      // Taken off the tape between segments, what came before is forgotten: truncated BPTT.
      for (const Tensor& xs : split(batch.x, config.truncate))
        state = model.network(xs, cut ? detach(state) : state).state;
      return mse_loss(model.output(state[0]), batch.y);
    };
    comparison.add({.name = name, .model = model, .loss = loss, .optimizer = sgd, .clip = clip});
  };
  const auto identity = [&] {
    const RNN rnn(2, config.hidden, {.nonlinearity = Nonlinearity::relu});
    rnn.cell().weight_hh.detach().copy_(eye(config.hidden));
    rnn.cell().bias_ih.detach().zero_(), rnn.cell().bias_hh.detach().zero_();
    return rnn;
  };
  const auto gru = [&](double random_truncate) {
    return [=] { return GRU(2, config.hidden, {.random_truncate = random_truncate}); };
  };
  if (clipping) {
    add("clipped", false, {}, identity);
    add("unclipped", false, 0, identity);
  } else {
    add("full", false, {}, gru(0));
    add("truncated", true, {}, gru(0));
    add("random", false, {}, gru(config.random_truncate));
  }
}

/// Trains what `part` compares, prints and plots it. Returns the exit code.
int train(Config config, const std::string& part, Call call, const examples::Checkpoint* saved) {
  const bool clipping = part == "clipping";
  config.parts = {part};  // this file is of this part alone
  if (!saved) call.save = file_of_part(call.save, part);
  examples::TrainingOptions options = config.training;
  options.log = file_of_part(options.log, part), options.plot = file_of_part(options.plot, part);
  if (clipping) options.epochs = config.clip_epochs;
  const std::int64_t length = clipping ? config.clip_length : config.length;

  examples::Comparison comparison(options, config.batches, call);
  add_learners(comparison, config, clipping);
  manual_seed(options.seed + 1);
  if (saved) comparison.go_on_from(*saved);
  const bool complete =
      comparison.run([&] { return examples::adding_problem(length, options.batch); },
                     [&](examples::Checkpoint& file) { file.add_values("config", config); });

  const std::string title = fmt::format("Adding problem, T = {}", length);
  fmt::print("{}, after {} epochs; a guess has loss {:.4f}\n\n{}\n", title, options.epochs,
             examples::kAddingBaseline, comparison.table());
  examples::plot_svg(options.plot,
                     {{log_axes(title, "seconds of training", "mean squared error"),
                       comparison.loss_over_seconds()},
                      {log_axes("Largest norm of the gradient, before clipping", "epoch", "norm"),
                       comparison.norm_curves()}});
  if (complete) comparison.log_final({{"baseline", examples::kAddingBaseline}});
  return comparison.exit_code();
}

}  // namespace

int main(int argc, char** argv) {
  Config config;
  examples::TrainingProgram program("Looks into backpropagation through time.", "bptt", argc, argv);
  return program.run(config, {"parts", "hidden"},
                     [&](const Config&, const Call& call, const examples::Checkpoint* saved) {
                       for (const std::string& part : config.parts) {
                         if (part == "gradients") compare_gradients(config);
                         if (part == "norms") compare_norms(config);
                         const bool looks = part == "gradients" || part == "norms";
                         if (const int code = looks ? 0 : train(config, part, call, saved))
                           return code;
                       }
                       return 0;
                     });
}
