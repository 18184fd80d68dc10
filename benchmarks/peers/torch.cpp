// The same measurements of libtorch: torch train|fwd|stream|overhead|charlm|memory [options]
#include <ATen/Parallel.h>
#include <sys/resource.h>
#include <torch/torch.h>

#include <cmath>
#include <functional>
#include <iostream>
#include <string>
#include <tuple>
#include <vector>

#include "common/charlm.h"
#include "common/options.h"

namespace {

using torch::Tensor;

constexpr const char* kPeer = "libtorch";

// --- An LSTM cell as a user writes it ------------------------------------------------------------

struct Cell {
  Tensor w, u, b;
  Cell(int in, int n) {
    const double k = 1.0 / std::sqrt(n);
    w = torch::empty({in, 4 * n}).uniform_(-k, k).requires_grad_();
    u = torch::empty({n, 4 * n}).uniform_(-k, k).requires_grad_();
    b = torch::zeros({4 * n}).requires_grad_();
  }
  std::vector<Tensor> parameters() const { return {w, u, b}; }
  Tensor zero_state(std::int64_t batch) const { return torch::zeros({batch, u.size(0)}); }

  /// From pre-activations to the next h and c.
  static void gates(const Tensor& a, Tensor& h, Tensor& c) {
    const auto parts = a.chunk(4, 1);
    c = parts[1].sigmoid() * c + parts[0].sigmoid() * parts[2].tanh();
    h = parts[3].sigmoid() * c.tanh();
  }

  /// x: [T, B, in]; returns the outputs. `hoisted`: the input is projected before the loop, for all
  /// time steps at once.
  Tensor run(const Tensor& x, bool hoisted) const {
    Tensor h = zero_state(x.size(1)), c = h;
    std::vector<Tensor> outputs;
    const auto steps = (hoisted ? x.matmul(w) + b : x).unbind(0);
    for (const Tensor& x_t : steps) {
      const Tensor recurrent = h.mm(u);
      gates(hoisted ? x_t + recurrent : x_t.mm(w) + recurrent + b, h, c);
      outputs.push_back(h);
    }
    return torch::stack(outputs);
  }
};

/// What a benchmark calls: the outputs of a layer, and the parameters that get gradients.
struct Layer {
  std::string what;
  std::function<Tensor(const Tensor& x)> run;
  std::vector<Tensor> parameters;

  void clear_gradients() {
    for (Tensor& p : parameters) p.mutable_grad() = Tensor();
  }
};

template <class Module>
Layer builtin(const char* what, Module module) {
  return {what, [module](const Tensor& x) mutable { return std::get<0>(module->forward(x)); },
          module->parameters()};
}
Layer custom(const char* what, int in, int n, bool hoisted) {
  const Cell cell(in, n);
  return {what, [=](const Tensor& x) { return cell.run(x, hoisted); }, cell.parameters()};
}

void for_each_layer(const bench::Options& options, int in, int n,
                    const std::function<void(Layer&)>& f) {
  namespace nn = torch::nn;
  const std::function<Layer()> layers[] = {
      [=] { return builtin("LSTM", nn::LSTM(in, n)); },
      [=] { return custom("customLSTM", in, n, true); },
      [=] { return custom("customLSTM_plain", in, n, false); },
      [=] { return builtin("GRU", nn::GRU(in, n)); },
      [=] { return builtin("RNN", nn::RNN(in, n)); },
  };
  for (const auto& make : layers) {
    Layer layer = make();
    if (options.wants(layer.what)) f(layer);
  }
}

// --- What is measured ----------------------------------------------------------------------------

void train(const bench::Options& options, bench::Size s) {
  for_each_layer(options, s.I, s.H, [&](Layer& layer) {
    for (const bool input_grad : {true, false}) {
      const char* mode = input_grad ? "train" : "train_nodx";
      if (!options.wants_mode(mode)) continue;
      Tensor x = torch::randn({s.T, s.B, s.I}).requires_grad_(input_grad);
      const auto times = bench::measure(options.budget, [&] {
        layer.clear_gradients();
        x.mutable_grad() = Tensor();
        layer.run(x).square().mean().backward();
      });
      bench::print(kPeer, layer.what.c_str(), mode, s, options.threads, times);
    }
  });
}

void forward(const bench::Options& options, bench::Size s) {
  for_each_layer(options, s.I, s.H, [&](Layer& layer) {
    const torch::InferenceMode inference;
    const Tensor x = torch::randn({s.T, s.B, s.I});
    const auto times = bench::measure(options.budget, [&] { layer.run(x); });
    bench::print(kPeer, layer.what.c_str(), "fwd", s, options.threads, times);
  });
}

void stream(const bench::Options& options, int n) {
  const torch::InferenceMode inference;
  const auto report = [&](const char* what, const std::function<void()>& step) {
    if (!options.wants(what)) return;
    const auto times = bench::measure(options.budget, step);
    bench::print(kPeer, what, "stream", {1, 1, n, n}, options.threads, times);
  };
  const Tensor x = torch::randn({1, n});
  const Tensor zero = torch::zeros({1, n});

  torch::nn::LSTM layer(n, n);
  layer->eval();
  const Tensor sequence = x.unsqueeze(0);
  auto carried = std::make_tuple(zero.unsqueeze(0), zero.unsqueeze(0));
  report("LSTM", [&] { carried = std::get<1>(layer->forward(sequence, carried)); });

  torch::nn::LSTMCell cell(n, n);
  cell->eval();
  auto state = std::make_tuple(zero, zero);
  report("LSTMCell", [&] { state = cell->forward(x, state); });

  const Cell own(n, n);
  Tensor h = zero, c = zero;
  report("customLSTM", [&] { Cell::gates(x.mm(own.w) + h.mm(own.u) + own.b, h, c); });
}

void overhead(const bench::Options& options) {
  for (const int n : {1, 16, 1024}) {
    Tensor x0 = torch::randn({n}).requires_grad_();
    const Tensor c = torch::randn({n});
    const auto chain = [&] {
      Tensor x = x0;
      for (int i = 0; i < 1000; ++i) x = x.tanh() + c;
      return x;
    };
    const auto both = bench::measure(options.budget, [&] {
      x0.mutable_grad() = Tensor();
      chain().sum().backward();
    });
    const auto graph = bench::measure(options.budget, chain);
    const auto inference = bench::measure(options.budget, [&] {
      const torch::InferenceMode mode;
      chain();
    });
    const double ns = 1e9 / 2000.0;
    std::printf(
        "overhead,%s,n=%d,fwd+bwd %.1f ns/op (min %.1f),fwd-with-graph %.1f,inference %.1f "
        "(2000 ops)\n",
        kPeer, n, both.median * ns, both.min * ns, graph.median * ns, inference.median * ns);
    std::fflush(stdout);
  }
}

void language_model(const bench::Options& options) {
  namespace nn = torch::nn;
  using bench::kBatch, bench::kEmbedding, bench::kHidden, bench::kSteps, bench::kVocabulary;
  for (const std::string what : {"LSTM", "customLSTM"}) {
    if (!options.wants(what)) continue;
    nn::Embedding embed(kVocabulary, kEmbedding);
    nn::LSTM lstm(kEmbedding, kHidden);
    const Cell cell(kEmbedding, kHidden);
    nn::Linear out(kHidden, kVocabulary);
    const bool own = what == "customLSTM";

    std::vector<Tensor> parameters = own ? cell.parameters() : lstm->parameters();
    for (const Tensor& p : embed->parameters()) parameters.push_back(p);
    for (const Tensor& p : out->parameters()) parameters.push_back(p);
    torch::optim::Adam optimizer(parameters, bench::kLearningRate);

    bench::Windows windows;
    const Tensor inputs = torch::zeros({kSteps, kBatch}, torch::kLong);
    const Tensor targets = torch::zeros_like(inputs);
    const Tensor zero = torch::zeros({1, kBatch, kHidden});
    auto state = std::make_tuple(zero, zero);
    double last = 0;
    const auto times = bench::measure(options.budget, [&] {
      windows.next(inputs.data_ptr<std::int64_t>(), targets.data_ptr<std::int64_t>());
      Tensor hs;
      if (own) {
        hs = cell.run(embed(inputs), true);
      } else {
        const auto result = lstm->forward(embed(inputs), state);
        hs = std::get<0>(result);
        state = std::make_tuple(std::get<0>(std::get<1>(result)).detach(),
                                std::get<1>(std::get<1>(result)).detach());
      }
      const Tensor loss =
          nn::functional::cross_entropy(out(hs).view({-1, kVocabulary}), targets.view({-1}));
      for (Tensor& p : parameters) p.mutable_grad() = Tensor();
      loss.backward();
      optimizer.step();
      last = loss.item<double>();
    });
    bench::print_times(kPeer, what.c_str(), "charlm", {kSteps, kBatch, kEmbedding, kHidden},
                       options.threads, times);
    std::printf(",%.0f,%.3f\n", kSteps * kBatch / times.median, last);
    std::fflush(stdout);
  }
}

double peak_mb() {
  rusage usage;
  getrusage(RUSAGE_SELF, &usage);
  return static_cast<double>(usage.ru_maxrss) / 1024.0;
}

/// One layer per call of the program: what one leaves in the allocator, the next would take.
void memory(const bench::Options& options) {
  const bench::Size s = {1000, 16, 128, 128};
  if (options.what.size() != 1) {
    std::cerr << "torch memory: name one layer with --what\n";
    std::exit(1);
  }
  for_each_layer(options, s.I, s.H, [&](Layer& layer) {
    const Tensor x = torch::randn({s.T, s.B, s.I});
    const auto step = [&] {
      layer.clear_gradients();
      layer.run(x).square().mean().backward();
    };
    const double before = peak_mb();
    step();
    const double growth = peak_mb() - before;
    const auto times = bench::measure(options.budget, step);
    bench::print_times(kPeer, layer.what.c_str(), "memory", s, options.threads, times);
    std::printf(",%.1f,%.3f\n", growth, times.median * 1e6 / s.T);
  });
}

}  // namespace

int main(int argc, char** argv) {
  const std::string benchmark = argc > 1 ? argv[1] : "";
  const auto options =
      bench::parse(argc - (argc > 1), argv + (argc > 1),
                   "libtorch's side: torch train|fwd|stream|overhead|charlm|memory [options]");
  at::set_num_threads(options.threads);
  at::set_num_interop_threads(1);
  at::globalContext().setFlushDenormal(true);
  const auto over_grid = [&](auto measure) {
    bench::print_header();
    for (int row = 0; row < bench::kGridRows; ++row) {
      if (options.wants_row(row)) measure(options, bench::kGrid[row]);
    }
  };
  if (benchmark == "train") {
    over_grid(train);
  } else if (benchmark == "fwd") {
    over_grid(forward);
  } else if (benchmark == "stream") {
    bench::print_header();
    for (const int n : bench::kStreamSizes) stream(options, n);
  } else if (benchmark == "overhead") {
    overhead(options);
  } else if (benchmark == "charlm") {
    bench::print_header(",tokens_per_second,last_loss");
    language_model(options);
  } else if (benchmark == "memory") {
    bench::print_header(",growth_mb,us_per_time_step");
    memory(options);
  } else {
    std::cerr << "torch: there is no benchmark '" << benchmark
              << "'; choose train, fwd, stream, overhead, charlm or memory\n";
    return 1;
  }
}
