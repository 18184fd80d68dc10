#include "examples/common/comparison.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <limits>
#include <utility>

#include "framework/autograd.h"
#include "framework/memory.h"
#include "optim/adam.h"
#include "optim/clip.h"

namespace examples {

Comparison::Comparison(const TrainingOptions& options, std::int64_t batches, const Call& call)
    : options_(options), batches_(batches), loop_(options, call) {}

void Comparison::add(Learner learner) {
  const std::vector<unroll::Tensor> parameters = learner.model.parameters();
  if (!learner.optimizer)
    learner.optimizer =
        std::make_shared<unroll::Adam>(parameters, unroll::AdamOptions{.lr = options_.lr});
  if (learner.validate) learner.best.emplace(parameters);
  learners_.push_back(std::move(learner));
}

void Comparison::load(const Checkpoint& saved) {
  for (Learner& learner : learners_) {
    learner.curve = saved.values<LearningCurve>(learner.name + "_curve");
    saved.load(learner.name, learner.model);
    if (learner.best) saved.load(learner.name + "_best", *learner.best);
  }
}

std::size_t Comparison::use_best() {
  const auto error = [&](std::size_t i) {
    return learners_[i].best ? learners_[i].best->error() : std::numeric_limits<double>::infinity();
  };
  std::size_t least = 0;
  for (std::size_t i = 0; i < learners_.size(); ++i) {
    if (learners_[i].best) learners_[i].best->restore();
    if (error(i) < error(least)) least = i;
  }
  return least;
}

void Comparison::go_on_from(const Checkpoint& saved) {
  loop_.go_on_from(saved);
  load(saved);
  for (Learner& learner : learners_) saved.load(learner.name + "_optimizer", *learner.optimizer);
}

bool Comparison::run(const std::function<Batch()>& make_batch,
                     const std::function<void(Checkpoint&)>& describe) {
  return loop_.run({.start = [&](unroll::Generator&) { return batches_; },
                    .learn =
                        [&](std::int64_t number) {
                          const Batch batch = make_batch();
                          for (Learner& learner : learners_) {
                            LearningCurve& curve = learner.curve;
                            if (number == 0)
                              curve.steps = 0, curve.loss_sum = curve.largest_norm =
                                                   curve.byte_sum = curve.elapsed = 0;
                            if (!curve.diverged) learn(learner, batch);
                          }
                        },
                    .status = [&] { return status(); },
                    .finish = [&](Json& line) { finish_epoch(line); },
                    .save =
                        [&](Checkpoint& file) {
                          describe(file);
                          for (const Learner& learner : learners_) {
                            file.add_values(learner.name + "_curve", learner.curve);
                            file.add(learner.name, learner.model);
                            if (learner.best) file.add(learner.name + "_best", *learner.best);
                            file.add(learner.name + "_optimizer", *learner.optimizer);
                          }
                        }});
}

void Comparison::learn(Learner& learner, const Batch& batch) const {
  LearningCurve& curve = learner.curve;
  unroll::Optimizer& optimizer = *learner.optimizer;
  unroll::reset_peak_memory();
  const std::int64_t before = unroll::pool_stats().in_use;
  using Clock = std::chrono::steady_clock;
  const auto start = Clock::now();

  const unroll::Tensor loss = learner.loss(batch);
  optimizer.zero_grad();
  loss.backward();
  const double clip = learner.clip.value_or(options_.clip);
  const double norm = unroll::clip_grad_norm(
      optimizer.parameters(), clip > 0 ? clip : std::numeric_limits<double>::infinity());
  curve.diverged = !std::isfinite(loss.item()) || !std::isfinite(norm);
  if (curve.diverged) return;
  optimizer.step();

  curve.elapsed += std::chrono::duration<double>(Clock::now() - start).count();
  ++curve.steps;
  curve.loss_sum += loss.item();
  curve.largest_norm = std::max(curve.largest_norm, norm);
  curve.byte_sum += static_cast<double>(unroll::pool_stats().peak_in_use - before);
}

void Comparison::validate(Learner& learner) const {
  const unroll::NoGrad no_grad;
  learner.model.eval();
  learner.curve.valid.push_back(learner.validate());
  learner.best->update(learner.curve.valid.back());
  learner.model.train();
}

void Comparison::finish_epoch(Json& line) {
  for (Learner& learner : learners_) {
    LearningCurve& curve = learner.curve;
    if (!curve.diverged) {
      const auto steps = static_cast<double>(curve.steps);
      curve.loss.push_back(curve.loss_sum / steps);
      curve.seconds.push_back((curve.seconds.empty() ? 0 : curve.seconds.back()) + curve.elapsed);
      curve.norm.push_back(curve.largest_norm);
      curve.bytes = curve.byte_sum / steps;
      if (learner.validate) validate(learner);
    }
    line[learner.name + "_loss"] = curve.diverged ? Json() : Json(curve.loss.back());
    line[learner.name + "_norm"] = curve.diverged ? Json() : Json(curve.norm.back());
    line[learner.name + "_seconds"] = curve.seconds.empty() ? Json() : Json(curve.seconds.back());
    if (learner.validate)
      line[learner.name + "_valid"] = curve.diverged ? Json() : Json(curve.valid.back());
  }
}

std::string Comparison::status() const {
  std::string text;
  for (const Learner& learner : learners_)
    text += fmt::format("  {} {}", learner.name,
                        learner.curve.diverged
                            ? "diverged"
                            : fmt::format("{:.3g}", learner.curve.loss_sum /
                                                        static_cast<double>(learner.curve.steps)));
  return text;
}

void Comparison::log_final(const Metrics& metrics) {
  Json line = Json::object();
  for (const auto& [name, value] : metrics) line[name] = value;
  loop_.log_final(line);
}

std::string Comparison::table() const {
  std::string table = fmt::format("{:10} {:>10} {:>12} {:>12} {:>16}\n", "", "loss", "ms per batch",
                                  "MB per batch", "largest gradient");
  for (const Learner& learner : learners_) {
    const LearningCurve& curve = learner.curve;
    if (curve.loss.empty()) {
      table += fmt::format("{:10} {:>10}\n", learner.name, "diverged");
      continue;
    }
    table += fmt::format(
        "{:10} {:>10} {:12.2f} {:12.2f} {:16.3g}\n", learner.name,
        curve.diverged ? "diverged" : fmt::format("{:.4f}", curve.loss.back()),
        1e3 * curve.seconds.back() / static_cast<double>(std::ssize(curve.loss) * batches_),
        curve.bytes / 1e6, *std::max_element(curve.norm.begin(), curve.norm.end()));
  }
  return table;
}

std::vector<Curve> Comparison::loss_curves(std::optional<double> baseline) const {
  std::vector<Curve> curves;
  for (const Learner& learner : learners_)
    if (!learner.curve.loss.empty()) curves.push_back({learner.name, learner.curve.loss});
  if (baseline && loop_.epochs() > 0)
    curves.push_back(
        {"baseline", std::vector<double>(static_cast<std::size_t>(loop_.epochs()), *baseline)});
  return curves;
}

std::vector<Curve> Comparison::loss_over_seconds() const {
  std::vector<Curve> curves;
  for (const Learner& learner : learners_)
    curves.push_back({learner.name, learner.curve.loss, learner.curve.seconds});
  return curves;
}

std::vector<Curve> Comparison::norm_curves() const {
  std::vector<Curve> curves;
  for (const Learner& learner : learners_) curves.push_back({learner.name, learner.curve.norm});
  return curves;
}

}  // namespace examples
