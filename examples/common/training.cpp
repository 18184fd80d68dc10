#include "examples/common/training.h"

#include <fmt/format.h>

#include <chrono>
#include <cmath>

#include "examples/common/program.h"
#include "framework/autograd.h"
#include "framework/check.h"
#include "optim/clip.h"

namespace examples {

using namespace unroll;

namespace {

/// "dev_accuracy" as "dev accuracy".
std::string as_words(std::string name) {
  for (char& c : name)
    if (c == '_') c = ' ';
  return name;
}

}  // namespace

Training::Training(const TrainingOptions& options, const Call& call, Module& model,
                   Optimizer& optimizer, std::function<void(Checkpoint&)> describe,
                   std::string units)
    : options_(options),
      model_(model),
      optimizer_(optimizer),
      describe_(std::move(describe)),
      units_(std::move(units)),
      loop_(options, call) {}

void Training::go_on_from(const Checkpoint& saved) {
  loop_.go_on_from(saved);
  so_far_ = saved.values<Results>("results");
  saved.load("model", model_);
  saved.load("optimizer", optimizer_);
  optimizer_.set_lr(options_.lr);
}

bool Training::run_epochs(const std::function<Epoch(Generator&)>& start,
                          const std::function<Metrics()>& metrics) {
  using Clock = std::chrono::steady_clock;
  Epoch epoch;
  return loop_.run({.start =
                        [&](Generator& generator) {
                          epoch = start(generator);
                          model_.train();
                          return epoch.batches;
                        },
                    .learn =
                        [&](std::int64_t batch) {
                          if (batch == 0) so_far_.loss = so_far_.seconds = 0, so_far_.units = 0;
                          const auto begin = Clock::now();
                          learn(epoch.loss(batch));
                          so_far_.seconds +=
                              std::chrono::duration<double>(Clock::now() - begin).count();
                        },
                    .status = [&] { return status(); },
                    .finish = [&](Json& line) { finish_epoch(metrics, line); },
                    .save =
                        [&](Checkpoint& file) {
                          describe_(file);
                          file.add_values("results", so_far_);
                          file.add("model", model_);
                          file.add("optimizer", optimizer_);
                        }});
}

void Training::learn(const TrainingLoss& loss) {
  const double value = loss.mean.item();
  if (!std::isfinite(std::exp(value)))  // nor would the perplexity be a number
    throw ValueError(fmt::format("the loss is {} in epoch {}: try a smaller --lr or --clip", value,
                                 epochs() + 1));
  optimizer_.zero_grad();
  loss.mean.backward();
  if (options_.clip > 0) clip_grad_norm(optimizer_.parameters(), options_.clip);
  optimizer_.step();
  so_far_.loss += value * static_cast<double>(loss.units);
  so_far_.units += loss.units;
}

std::string Training::status() const {
  std::string text =
      fmt::format("  loss {:.3f}", so_far_.loss / static_cast<double>(so_far_.units));
  for (const auto& [name, values] : so_far_.curves)
    if (name != "train_loss" && !values.empty())
      text += fmt::format("  {} {:.3f}", as_words(name), values.back());
  const double speed = static_cast<double>(so_far_.units) / so_far_.seconds;
  return text + fmt::format("  {} {}/s", grouped(std::llround(speed)), units_);
}

void Training::finish_epoch(const std::function<Metrics()>& metrics, Json& line) {
  model_.eval();
  const NoGrad no_grad;
  so_far_.total_seconds += so_far_.seconds;
  const auto add = [&](const std::string& name, double value) {
    so_far_.curves[name].push_back(value);
    line[name] = value;
  };
  add("train_loss", so_far_.loss / static_cast<double>(so_far_.units));
  for (const auto& [name, value] : metrics()) add(name, value);
  line[units_ + "_per_second"] = static_cast<double>(so_far_.units) / so_far_.seconds;
  line["seconds"] = so_far_.total_seconds;
  line["learning_rate"] = optimizer_.lr();
}

const std::vector<double>& Training::curve(const std::string& name) const {
  return so_far_.curves.at(name);
}

void Training::log_final(const Metrics& metrics) {
  Json line{{"parameters", model_.parameter_count()}, {"epochs", epochs()}};
  for (const auto& [name, value] : metrics) line[name] = value;
  line["seconds"] = so_far_.total_seconds;
  loop_.log_final(line);
}

void Training::plot(
    const PlotOptions& options,
    const std::vector<std::pair<std::string, std::string>>& names_and_titles) const {
  if (options_.plot.empty() || epochs() == 0) return;
  PlotOptions over_epochs = options;
  over_epochs.x_label = "epoch";
  std::vector<Curve> curves;
  for (const auto& [name, title] : names_and_titles)
    if (so_far_.curves.contains(name)) curves.push_back({title, curve(name)});
  plot_svg(options_.plot, over_epochs, curves);
}

}  // namespace examples
