// A cell of one's own, from a recent paper, in a few lines: the minimal GRU beside the GRU.
//
//   custom_cell                                 both learn the bundled story
//   custom_cell train --text FILE --hidden 512  a text of yours
//   custom_cell generate --prefix "The ferry"   both continue a text
//
// docs/examples/custom_cell.md has the equations and all options.

#include <fmt/format.h>
#include <unroll/unroll.h>

#include <cmath>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "common/comparison.h"
#include "common/program.h"
#include "common/tokenizer.h"

using namespace unroll;
using examples::Batch;

namespace {

/// Minimal GRU (Feng et al. 2024, "Were RNNs All We Needed?", section 3.1). Neither gate nor
/// candidate looks at h, so all of its products are in `project`, one for all time steps, and a
/// step is elementwise:
///
///   z  = sigmoid(W_z x + b_z)        n = W_n x + b_n        h' = (1 - z) * h + z * n
struct MinGRUCell : Module {
  std::int64_t input_size, hidden_size;
  Linear gates;

  MinGRUCell(std::int64_t inputs, std::int64_t hidden)
      : input_size(inputs),
        hidden_size(hidden),
        gates(child("gates", Linear(inputs, 2 * hidden))) {}

  Tensor initial_state(std::int64_t batch) const { return zeros({batch, hidden_size}); }
  Tensor project(const Tensor& xs) const { return gates(xs); }
  Tensor step(const Tensor& x, const Tensor& h) const {
    return fused(
        [](const Tensor& zn, const Tensor& h0) {
          const auto g = chunk(zn, 2, -1);
          const Tensor z = sigmoid(g[0]);
          return (1 - z) * h0 + z * g[1];
        },
        x, h);
  }
};
using MinGRU = Recurrent<MinGRUCell>;

struct Config {
  std::string text;
  std::int64_t hidden = 256, layers = 2, steps = 64, batches = 50;
  examples::TrainingOptions training{
      .epochs = 40, .batch = 16, .lr = 0.003, .plot = "custom_cell.svg"};

  template <class F>
  void each(F&& option) {
    using examples::at_least;
    option("text", text, "text to learn (default: the bundled story)");
    option("hidden", hidden, "size of the hidden states", at_least(1));
    option("layers", layers, "recurrent layers", at_least(1));
    option("steps", steps, "characters per window", at_least(1));
    option("batches", batches, "batches of windows per epoch", at_least(1));
    training.each(option);
  }
};

/// p(next character | all so far) = softmax(W h + b).
template <class Network>
struct LanguageModel : Module {
  using State = typename Network::State;
  std::int64_t classes;
  Network network;
  Linear output;

  LanguageModel(const Config& config, std::int64_t kinds)
      : classes(kinds),
        network(child("network", Network(kinds, config.hidden, {.num_layers = config.layers}))),
        output(child("output", Linear(config.hidden, kinds))) {}

  /// tokens: i64 [T, B]; returns the logits [T, B, V]. The state goes in and comes out.
  Tensor operator()(const Tensor& tokens, State& state) const {
    auto [hs, last] = network(one_hot(tokens, classes), state);
    state = std::move(last);
    return output(hs);
  }
  /// The text and what the model writes after it.
  std::string write(std::vector<std::int64_t> text, std::int64_t length, const Vocab& vocab,
                    Generator& generator) const {
    const NoGrad no_grad;
    State state;
    std::int64_t read = 0;
    for (std::int64_t i = 0; i < length; ++i) {
      const std::vector<std::int64_t> next(text.begin() + read, text.end());
      read = std::ssize(text);
      const Tensor logits = (*this)(unsqueeze(from_vector(next), 1), state);
      text.push_back(
          static_cast<std::int64_t>(sample(logits[-1][0], {.temperature = 0.5}, generator).item()));
    }
    return join(vocab.decode(text));
  }
};

class Contest {
 public:
  Contest(const Config& c, const examples::Call& call, const examples::Checkpoint* saved)
      : config(c), comparison(config.training, config.batches, call) {
    const std::string path = config.text.empty() ? examples::bundled("english.txt") : config.text;
    const std::vector<std::string> characters = split_characters(read_text(path));
    vocab = saved ? saved->vocab("vocabulary") : Vocab(characters);
    corpus = examples::encode(characters, vocab, path);
    if (std::ssize(corpus) <= config.steps)
      throw ValueError(fmt::format("{} has {} characters, too few for --steps {}", path,
                                   corpus.size(), config.steps));
    manual_seed(config.training.seed);
    add<GRU>("gru");
    add<MinGRU>("mingru");
  }

  /// Returns the exit code.
  int train(const examples::Call& call, const examples::Checkpoint* saved) {
    if (saved) comparison.go_on_from(*saved);
    const bool complete = comparison.run([&] { return windows(); },
                                         [&](examples::Checkpoint& file) {
                                           file.add_values("config", config);
                                           file.add_text("vocabulary", vocab.to_text());
                                         });
    plot();
    if (complete) report(call);
    return comparison.exit_code();
  }

  void generate(const examples::Checkpoint& saved, const std::string& prefix, std::int64_t length) {
    comparison.load(saved);
    for (std::size_t i = 0; i < writers.size(); ++i)
      fmt::print("{}:\n{}\n\n", comparison.learners()[i].name, writers[i](prefix, length));
  }

 private:
  template <class Network>
  void add(const std::string& name) {
    const LanguageModel<Network> model(config, vocab.size());
    comparison.add({.name = name, .model = model, .loss = [=](const Batch& batch) {
                      typename Network::State state;
                      return cross_entropy(model(batch.x, state), batch.y);
                    }});
    writers.push_back([=, this](const std::string& prefix, std::int64_t length) {
      if (prefix.empty()) throw ValueError("--prefix: a character or more to continue");
      Generator generator(config.training.seed);
      return model.write(examples::encode(split_characters(prefix), vocab, "--prefix"), length,
                         vocab, generator);
    });
  }

  /// Windows of the text from anywhere.
  Batch windows() const {
    std::vector<Tensor> columns;
    const std::int64_t last = std::ssize(corpus) - config.steps;
    for (std::int64_t b = 0; b < config.training.batch; ++b) {
      const auto start = corpus.begin() + default_generator().below(last);
      columns.push_back(from_vector(std::vector<std::int64_t>(start, start + config.steps + 1)));
    }
    const Tensor all = stack(columns, 1);
    return {narrow(all, 0, 0, config.steps), narrow(all, 0, 1, config.steps)};
  }

  double tokens_per_second(const examples::LearningCurve& curve) const {
    return static_cast<double>(std::ssize(curve.seconds) * config.batches * config.steps *
                               config.training.batch) /
           curve.seconds.back();
  }

  void plot() const {
    std::vector<examples::Curve> curves;
    for (const examples::Learner& learner : comparison.learners()) {
      curves.push_back({learner.name, learner.curve.loss, learner.curve.seconds});
      for (double& y : curves.back().y) y = std::exp(y);
    }
    if (!config.training.plot.empty() && !curves[0].y.empty())
      examples::plot_svg(
          config.training.plot,
          {.title = fmt::format("{} layers, hidden size {}", config.layers, config.hidden),
           .x_label = "seconds of training",
           .y_label = "perplexity",
           .log_scale = true},
          curves);
  }

  void report(const examples::Call& call) {
    if (!call.quiet)
      for (std::size_t i = 0; i < writers.size(); ++i)
        fmt::print("{} writes:\n\n{}\n\n", comparison.learners()[i].name,
                   writers[i]("The ferry", 200));
    fmt::print("{:8} {:>10} {:>11} {:>9} {:>9}\n", "", "parameters", "perplexity", "tokens/s",
               "x gru");
    examples::Metrics metrics;
    const double gru = tokens_per_second(comparison.learners()[0].curve);
    for (const examples::Learner& learner : comparison.learners()) {
      if (learner.curve.diverged)
        throw ValueError(learner.name + ": the loss is not finite: try a smaller --lr or --clip");
      const double speed = tokens_per_second(learner.curve);
      const double perplexity = std::exp(learner.curve.loss.back());
      fmt::print("{:8} {:>10} {:11.3f} {:>9} {:9.2f}\n", learner.name,
                 examples::grouped(learner.model.parameter_count()), perplexity,
                 examples::grouped(std::llround(speed)), speed / gru);
      metrics.emplace_back(learner.name + "_perplexity", perplexity);
      metrics.emplace_back(learner.name + "_tokens_per_second", speed);
    }
    comparison.log_final(metrics);
  }

  Config config;
  examples::Comparison comparison;
  Vocab vocab;
  std::vector<std::int64_t> corpus;
  std::vector<std::function<std::string(const std::string&, std::int64_t)>> writers;
};

}  // namespace

int main(int argc, char** argv) {
  Config config;
  std::string prefix = "The ferry";
  std::int64_t length = 400;
  examples::TrainingProgram program("A minimal GRU beside a GRU, on a text.", "custom_cell", argc,
                                    argv);
  CLI::App& generate = program.add_command("generate", "continue a text with the saved models");
  generate.add_option("--prefix", prefix, "text to continue")->capture_default_str();
  generate.add_option("--length", length, "characters to write")->check(examples::at_least(0));
  return program.run(
      config, {"hidden", "layers"},
      [&](const Config&, const examples::Call& call, const examples::Checkpoint* saved) {
        return Contest(config, call, saved).train(call, saved);
      },
      [&](const CLI::App&, const examples::Checkpoint& saved) {
        Contest(config, {}, &saved).generate(saved, prefix, length);
      });
}
