#include "examples/common/comparison.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <limits>
#include <utility>

#include "examples/common/program.h"
#include "examples/common/progress.h"
#include "framework/memory.h"
#include "framework/random.h"
#include "optim/clip.h"

namespace examples {

namespace {

using Clock = std::chrono::steady_clock;
double since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

}  // namespace

Comparison::Comparison(const TrainingOptions& options, std::int64_t batches, const Call& call)
    : options_(options), batches_(batches), call_(call) {
  for (const std::string& path : {call.save, options.plot})
    if (!path.empty()) require_writable(path);
}

void Comparison::load(const Checkpoint& saved) {
  for (Learner& learner : learners_) {
    learner.curve = saved.values<LearningCurve>(learner.name + "_curve");
    saved.load(learner.name, learner.model);
  }
}

void Comparison::go_on_from(const Checkpoint& saved) {
  epoch_ = saved.number("epoch");
  batch_ = saved.number("batch");
  if (epoch_ >= options_.epochs)
    throw unroll::ValueError(fmt::format(
        "{} has had its {} epochs; a larger number for --epochs goes on", saved.path(), epoch_));
  load(saved);
  for (Learner& learner : learners_) saved.load(learner.name + "_optimizer", *learner.optimizer);
  saved.load("generator", unroll::default_generator());
}

void Comparison::save(const std::function<void(Checkpoint&)>& describe) const {
  if (call_.save.empty()) return;
  Checkpoint file;
  describe(file);
  for (const Learner& learner : learners_) {
    file.add_values(learner.name + "_curve", learner.curve);
    file.add(learner.name, learner.model);
    file.add(learner.name + "_optimizer", *learner.optimizer);
  }
  file.add_number("epoch", epoch_);
  file.add_number("batch", batch_);
  file.add("generator", unroll::default_generator());
  file.save(call_.save);
}

void Comparison::learn(Learner& learner, const Batch& batch) const {
  LearningCurve& curve = learner.curve;
  unroll::Optimizer& optimizer = *learner.optimizer;
  unroll::reset_peak_memory();
  const std::int64_t before = unroll::pool_stats().in_use;
  const auto start = Clock::now();

  const unroll::Tensor loss = learner.loss(batch);
  optimizer.zero_grad();
  loss.backward();
  const double limit = learner.clip > 0 ? learner.clip : std::numeric_limits<double>::infinity();
  const double norm = unroll::clip_grad_norm(optimizer.parameters(), limit);
  curve.diverged = !std::isfinite(loss.item()) || !std::isfinite(norm);
  if (curve.diverged) return;
  optimizer.step();

  curve.elapsed += since(start);
  curve.loss_sum += loss.item();
  curve.largest_norm = std::max(curve.largest_norm, norm);
  curve.byte_sum += static_cast<double>(unroll::pool_stats().peak_in_use - before);
}

bool Comparison::run(const std::function<Batch()>& make_batch,
                     const std::function<void(Checkpoint&)>& describe) {
  log_.emplace(options_.log, epoch_ > 0 || batch_ > 0);
  Progress progress({.total = options_.epochs * batches_,
                     .first = epoch_ * batches_ + batch_,
                     .unit = "batches",
                     .quiet = call_.quiet});
  auto last_save = Clock::now();
  while (epoch_ < options_.epochs) {
    while (batch_ < batches_ && !interrupt_.requested()) {
      const Batch batch = make_batch();
      for (Learner& learner : learners_)
        if (!learner.curve.diverged) learn(learner, batch);
      ++batch_;
      progress.update(epoch_ * batches_ + batch_, status());
      if (since(last_save) > 60) {
        save(describe);
        last_save = Clock::now();
      }
    }
    if (batch_ < batches_) break;
    finish_epoch();
  }
  progress.finish(epoch_ * batches_ + batch_, status());
  save(describe);
  if (epoch_ == options_.epochs) return true;
  fmt::print("Interrupted after {} epochs and {} batches.\n", epoch_, batch_);
  if (!call_.save.empty())
    fmt::print("Saved {}. To go on:\n\n  {} train --load {}\n", call_.save, call_.program,
               call_.save);
  return false;
}

void Comparison::finish_epoch() {
  Json line{{"epoch", ++epoch_}};
  for (Learner& learner : learners_) {
    LearningCurve& curve = learner.curve;
    if (!curve.diverged) {
      curve.loss.push_back(curve.loss_sum / static_cast<double>(batch_));
      curve.seconds.push_back((curve.seconds.empty() ? 0 : curve.seconds.back()) + curve.elapsed);
      curve.norm.push_back(curve.largest_norm);
      curve.bytes = curve.byte_sum / static_cast<double>(batch_);
    }
    curve.loss_sum = curve.largest_norm = curve.byte_sum = curve.elapsed = 0;
    line[learner.name + "_loss"] = curve.diverged ? Json() : Json(curve.loss.back());
    line[learner.name + "_norm"] = curve.diverged ? Json() : Json(curve.norm.back());
    line[learner.name + "_seconds"] = curve.seconds.empty() ? Json() : Json(curve.seconds.back());
  }
  log_->write(line);
  batch_ = 0;
}

std::string Comparison::status() const {
  std::string text =
      fmt::format("epoch {}/{}", std::min(epoch_ + 1, options_.epochs), options_.epochs);
  for (const Learner& learner : learners_) {
    const LearningCurve& curve = learner.curve;
    if (curve.diverged)
      text += fmt::format("  {} diverged", learner.name);
    else if (batch_ > 0 || !curve.loss.empty())
      text += fmt::format(
          "  {} {:.3g}", learner.name,
          batch_ > 0 ? curve.loss_sum / static_cast<double>(batch_) : curve.loss.back());
  }
  return text;
}

void Comparison::log_final(const Metrics& metrics) {
  Json line{{"final", true}};
  for (const auto& [name, value] : metrics) line[name] = value;
  log_->write(line);
}

std::vector<Curve> Comparison::loss_curves(std::optional<double> baseline) const {
  std::vector<Curve> curves;
  for (const Learner& learner : learners_)
    if (!learner.curve.loss.empty()) curves.push_back({learner.name, learner.curve.loss});
  if (baseline && epoch_ > 0)
    curves.push_back(
        {"baseline", std::vector<double>(static_cast<std::size_t>(epoch_), *baseline)});
  return curves;
}

}  // namespace examples
