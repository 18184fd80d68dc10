// Looks into backpropagation through time: by hand, vanishing gradients, truncation, clipping.
//
//   bptt                                       all four parts
//   bptt --parts norms --hidden 128            how gradients fade and grow over time
//   bptt --parts truncation --truncate 50      what cutting them costs
//
// docs/examples/bptt.md has the equations and all options.

#include <fmt/format.h>
#include <unroll/unroll.h>

#include <algorithm>
#include <filesystem>
#include <string>
#include <tuple>
#include <vector>

#include "bptt/gradients.h"
#include "bptt/learners.h"
#include "common/adding_problem.h"
#include "common/comparison.h"
#include "common/heatmap.h"
#include "common/plot.h"
#include "common/program.h"
#include "common/training.h"

using namespace unroll;
using namespace bptt;

namespace {

/// bptt_norms.svg for bptt.svg, and so on: each part has files of its own. Empty stays empty.
std::string file_of_part(const std::string& name, const std::string& part) {
  std::filesystem::path path(name);
  if (name.empty()) return "";
  path.replace_filename(path.stem().string() + "_" + part + path.extension().string());
  return path.string();
}

// --- By hand and by the tape --------------------------------------------------------------------

/// Prints the gradients of a tanh RNN, derived by hand and by backward().
void compare_gradients(const Config& config) {
  manual_seed(config.training.seed);
  constexpr std::int64_t batch = 4, inputs = 3, outputs = 2;
  RNN rnn(inputs, config.hidden);
  Linear output(config.hidden, outputs);
  rnn.to(DType::f64), output.to(DType::f64);
  const Tensor xs = normal({config.length, batch, inputs}, 0, 1, DType::f64);
  const Tensor ys = normal({config.length, batch, outputs}, 0, 1, DType::f64);
  const NamedTensors hand = gradients_by_hand(rnn, output, xs, ys);
  const NamedTensors tape = gradients_by_tape(rnn, output, xs, ys);
  fmt::print(
      "Gradients of a tanh RNN, T = {}, hidden size {}, in f64\n\n{:10} {:>14} {:>20} {:>20} "
      "{:>12}\n",
      config.length, config.hidden, "", "shape", "norm by hand", "norm by the tape", "difference");
  double largest = 0;
  for (const auto& [name, gradient] : hand) {
    const Tensor other = find(tape, name);
    const double difference = max(abs(gradient - other)).item();
    largest = std::max(largest, difference);
    fmt::print("{:10} {:>14} {:20.15f} {:20.15f} {:12.1e}\n", name, to_string(gradient.shape()),
               norm(gradient).item(), norm(other).item(), difference);
  }
  fmt::print("\nThe largest difference between any two elements is {:.1e}.\n\n", largest);
}

// --- Norms over time ----------------------------------------------------------------------------

/// Prints and plots how far gradients reach.
void compare_norms(const Config& config) {
  manual_seed(config.training.seed);
  constexpr std::int64_t inputs = 8;
  examples::HeatmapOptions heatmap;
  heatmap.title = "|dL_T/dh_k|";
  heatmap.x_label = "distance T - k";
  heatmap.log_scale = true;
  std::vector<examples::Curve> curves;
  std::vector<std::vector<double>> rows;
  std::vector<double> distance;
  for (std::int64_t d = 0; d < config.length; ++d) distance.push_back(static_cast<double>(d));
  const auto add = [&](const char* name, double radius, const auto& network) {
    heatmap.rows.push_back(fmt::format("{} {}", name, radius));
    rows.push_back(gradient_norms(network, radius, config.length));
    curves.push_back({heatmap.rows.back(), rows.back(), distance});
  };
  for (const double r : config.radius) add("RNN", r, RNN(inputs, config.hidden));
  for (const double r : config.radius) add("GRU", r, GRU(inputs, config.hidden));
  for (const double r : config.radius)
    add("LSTM", r, LSTM(inputs, config.hidden, {.forget_bias = config.forget_bias}));

  std::vector<std::size_t> distances;
  for (std::size_t d = 1; d < rows[0].size() - 1; d *= 4) distances.push_back(d);
  distances.push_back(rows[0].size() - 1);
  fmt::print("|dL_T/dh_k| by cell, spectral radius and distance T - k\n\n{:10}", "T - k");
  for (const std::size_t d : distances) fmt::print(" {:>9}", d);
  for (const examples::Curve& curve : curves) {
    fmt::print("\n{:10}", curve.name);
    for (const std::size_t d : distances) fmt::print(" {:9.1e}", curve.y[d]);
  }
  fmt::print("\n\n");
  if (config.training.plot.empty()) return;
  examples::plot_svg(file_of_part(config.training.plot, "norms"),
                     {.title = "How far a gradient reaches",
                      .x_label = "distance T - k",
                      .y_label = "|dL_T/dh_k|",
                      .log_scale = true,
                      .log_base = 10},
                     curves);
  examples::heatmap_svg(file_of_part(config.training.plot, "heatmap"), heatmap, rows);
}

// --- Truncation and clipping --------------------------------------------------------------------

/// Trains what `part` compares, prints and plots it. Returns the exit code.
int train(Config config, const std::string& part, examples::Call call,
          const examples::Checkpoint* saved) {
  const bool clipping = part == "clipping";
  config.parts = {part};  // this file is of this part alone
  if (!saved) call.save = file_of_part(call.save, part);
  examples::TrainingOptions options = config.training;
  options.log = file_of_part(options.log, part);
  options.plot = file_of_part(options.plot, part);
  if (clipping) options.epochs = config.clip_epochs;
  const std::int64_t length = clipping ? config.clip_length : config.length;

  examples::Comparison comparison(options, config.batches, call);
  clipping ? add_clipping(comparison, config) : add_truncation(comparison, config);
  manual_seed(options.seed + 1);
  if (saved) comparison.go_on_from(*saved);
  const bool complete =
      comparison.run([&] { return examples::adding_problem(length, options.batch); },
                     [&](examples::Checkpoint& file) { file.add_values("config", config); });

  const std::string title = fmt::format("Adding problem, T = {}", length);
  std::vector<examples::Curve> loss, norm;
  fmt::print("{}, after {} epochs; a guess has loss {:.4f}\n\n{:10} {:>10} {:>12} {:>12} {:>16}\n",
             title, options.epochs, examples::kAddingBaseline, "", "loss", "ms per batch",
             "MB per batch", "largest gradient");
  for (const examples::Learner& learner : comparison.learners()) {
    const auto& [name, curve] = std::tie(learner.name, learner.curve);
    if (curve.loss.empty()) {
      fmt::print("{:10} {:>10}\n", name, "diverged");
      continue;
    }
    const auto batches = static_cast<double>(std::ssize(curve.loss) * config.batches);
    fmt::print("{:10} {:>10} {:12.2f} {:12.2f} {:16.3g}\n", name,
               curve.diverged ? "diverged" : fmt::format("{:.4f}", curve.loss.back()),
               1e3 * curve.seconds.back() / batches, curve.bytes / 1e6,
               *std::max_element(curve.norm.begin(), curve.norm.end()));
    loss.push_back({name, curve.loss, clipping ? std::vector<double>() : curve.seconds});
    norm.push_back({name, curve.norm});
  }
  fmt::print("\n");
  if (!options.plot.empty() && !loss.empty()) {
    std::vector<examples::Panel> panels{{{.title = title,
                                          .x_label = clipping ? "epoch" : "seconds of training",
                                          .y_label = "mean squared error",
                                          .log_scale = true,
                                          .log_base = 10},
                                         loss}};
    if (clipping)
      panels.push_back({{.title = "Largest norm of the gradient, before clipping",
                         .x_label = "epoch",
                         .y_label = "norm",
                         .log_scale = true,
                         .log_base = 10},
                        norm});
    examples::plot_svg(options.plot, panels);
  }
  if (complete) comparison.log_final({{"baseline", examples::kAddingBaseline}});
  return comparison.exit_code();
}

}  // namespace

int main(int argc, char** argv) {
  Config config;
  examples::TrainingProgram program("Backpropagation through time, looked into.", "bptt", argc,
                                    argv);
  return program.run(
      config, {"parts", "hidden"},
      [&](const Config&, const examples::Call& call, const examples::Checkpoint* saved) {
        if (!config.training.plot.empty()) examples::require_writable(config.training.plot);
        if (config.has("gradients")) compare_gradients(config);
        if (config.has("norms")) compare_norms(config);
        int code = 0;
        for (const char* part : {"truncation", "clipping"})
          if (config.has(part) && code == 0) code = train(config, part, call, saved);
        return code;
      });
}
