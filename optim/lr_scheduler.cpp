#include "optim/lr_scheduler.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numbers>
#include <utility>

#include "optim/internal.h"

namespace unroll {

using detail::fail;

// --- LRScheduler --------------------------------------------------------------------------------

LRScheduler::LRScheduler(Optimizer& optimizer, LRRule rule)
    : optimizer_(optimizer), rule_(std::move(rule)) {
  for (std::size_t group = 0; group < optimizer.groups(); ++group)
    base_lr_.push_back(optimizer.lr(group));
  apply(rates(base_lr_, 0));
}

void LRScheduler::step() {
  apply(rates(base_lr_, epoch_ + 1));
  ++epoch_;
}

std::vector<double> LRScheduler::rates(const std::vector<double>& base, std::int64_t epoch) const {
  if (base.size() != optimizer_.groups())
    fail<ValueError>("LRScheduler: the optimizer has {} groups now and had {} at first",
                     optimizer_.groups(), base.size());
  std::vector<double> result;
  for (const double lr : base) result.push_back(rule_(lr, epoch));
  return result;
}

void LRScheduler::apply(const std::vector<double>& rates) {
  for (std::size_t group = 0; group < rates.size(); ++group) optimizer_.set_lr(rates[group], group);
}

NamedTensors LRScheduler::state_dict() const {
  return {{"epoch", from_vector<std::int64_t>({epoch_}, {})}, {"base_lr", from_vector(base_lr_)}};
}

void LRScheduler::load_state_dict(const NamedTensors& state) {
  const Tensor epoch = zeros({}, DType::i64);
  const Tensor base_lr = zeros({static_cast<std::int64_t>(base_lr_.size())}, DType::f64);
  copy_values(state, {{"epoch", epoch}, {"base_lr", base_lr}}, "load_state_dict: LRScheduler");
  const std::int64_t count = *epoch.data<std::int64_t>();
  if (count < 0)
    fail<ValueError>("load_state_dict: LRScheduler: epoch must not be negative, but is {}", count);
  const std::vector<double> base = base_lr.to_vector<double>();
  apply(rates(base, count));
  base_lr_ = base;
  epoch_ = count;
}

// --- Rules --------------------------------------------------------------------------------------

namespace {

void require_at_least_one(const char* rule, const char* option, std::int64_t number) {
  if (number < 1) fail<ValueError>("{}: {} must be at least 1, but is {}", rule, option, number);
}

/// lr at 0, eta_min at 1, and half a cosine between.
double half_cosine(double lr, double eta_min, double part) {
  return eta_min + (lr - eta_min) * (1.0 + std::cos(std::numbers::pi * part)) / 2.0;
}

double ratio(std::int64_t a, std::int64_t b) {
  return static_cast<double>(a) / static_cast<double>(b);
}

}  // namespace

double StepLR::operator()(double lr, std::int64_t epoch) const {
  require_at_least_one("StepLR", "step_size", step_size);
  detail::require_not_negative("StepLR", "gamma", gamma);
  const std::int64_t decays = epoch / step_size;
  return lr * std::pow(gamma, static_cast<double>(decays));
}

double MultiStepLR::operator()(double lr, std::int64_t epoch) const {
  detail::require_not_negative("MultiStepLR", "gamma", gamma);
  const auto decays = std::count_if(milestones.begin(), milestones.end(),
                                    [&](std::int64_t milestone) { return milestone <= epoch; });
  return lr * std::pow(gamma, static_cast<double>(decays));
}

double ExponentialLR::operator()(double lr, std::int64_t epoch) const {
  detail::require_not_negative("ExponentialLR", "gamma", gamma);
  return lr * std::pow(gamma, static_cast<double>(epoch));
}

double LinearLR::operator()(double lr, std::int64_t epoch) const {
  if (!(start_factor > 0.0 && start_factor <= 1.0))
    fail<ValueError>("LinearLR: start_factor must be above 0 and at most 1, but is {}",
                     start_factor);
  if (!(end_factor >= 0.0 && end_factor <= 1.0))
    fail<ValueError>("LinearLR: end_factor must be in [0, 1], but is {}", end_factor);
  require_at_least_one("LinearLR", "total_iters", total_iters);
  const double part = ratio(std::min(epoch, total_iters), total_iters);
  return lr * (start_factor + (end_factor - start_factor) * part);
}

double CosineAnnealingLR::operator()(double lr, std::int64_t epoch) const {
  require_at_least_one("CosineAnnealingLR", "T_max", T_max);
  return half_cosine(lr, eta_min, ratio(epoch, T_max));
}

double CosineAnnealingWarmRestarts::operator()(double lr, std::int64_t epoch) const {
  require_at_least_one("CosineAnnealingWarmRestarts", "T_0", T_0);
  require_at_least_one("CosineAnnealingWarmRestarts", "T_mult", T_mult);
  std::int64_t length = T_0;
  if (T_mult == 1) epoch %= T_0;
  while (epoch >= length) {
    epoch -= length;
    length *= T_mult;
  }
  return half_cosine(lr, eta_min, ratio(epoch, length));
}

double ChainedScheduler::operator()(double lr, std::int64_t epoch) const {
  for (const LRRule& rule : rules) lr = rule(lr, epoch);
  return lr;
}

double SequentialLR::operator()(double lr, std::int64_t epoch) const {
  if (rules.size() != milestones.size() + 1)
    fail<ValueError>("SequentialLR: {} rules need {} milestones, but there are {}", rules.size(),
                     static_cast<std::int64_t>(rules.size()) - 1, milestones.size());
  for (std::size_t i = 0; i < milestones.size(); ++i)
    if (milestones[i] < (i > 0 ? milestones[i - 1] + 1 : 1))
      fail<ValueError>("SequentialLR: milestones must rise from 1 on, but number {} is {}", i,
                       milestones[i]);
  const auto reached = static_cast<std::size_t>(
      std::upper_bound(milestones.begin(), milestones.end(), epoch) - milestones.begin());
  return rules[reached](lr, reached > 0 ? epoch - milestones[reached - 1] : epoch);
}

// --- Plateau ------------------------------------------------------------------------------------

using Mode = ReduceLROnPlateauOptions::Mode;
using ThresholdMode = ReduceLROnPlateauOptions::ThresholdMode;

ReduceLROnPlateau::ReduceLROnPlateau(Optimizer& optimizer, const ReduceLROnPlateauOptions& options)
    : optimizer_(optimizer),
      options_(options),
      best_(options.mode == Mode::min ? std::numeric_limits<double>::infinity()
                                      : -std::numeric_limits<double>::infinity()) {
  constexpr const char* name = "ReduceLROnPlateau";
  detail::require_below_one(name, "factor", options.factor);
  detail::require_not_negative(name, "patience", static_cast<double>(options.patience));
  detail::require_not_negative(name, "threshold", options.threshold);
  detail::require_not_negative(name, "cooldown", static_cast<double>(options.cooldown));
  detail::require_not_negative(name, "min_lr", options.min_lr);
  detail::require_not_negative(name, "eps", options.eps);
}

bool ReduceLROnPlateau::improves(double metric) const {
  const double sign = options_.mode == Mode::min ? -1.0 : 1.0;
  if (options_.threshold_mode == ThresholdMode::abs)
    return sign * (metric - best_) > options_.threshold;
  return sign * (metric - best_ * (1.0 + sign * options_.threshold)) > 0.0;
}

void ReduceLROnPlateau::step(double metric) {
  if (improves(metric)) {
    best_ = metric;
    bad_epochs_ = 0;
  } else {
    ++bad_epochs_;
  }
  if (cooldown_ > 0) {
    --cooldown_;
    bad_epochs_ = 0;
  }
  if (bad_epochs_ <= options_.patience) return;
  for (std::size_t group = 0; group < optimizer_.groups(); ++group) {
    const double old = optimizer_.lr(group);
    const double reduced = std::max(old * options_.factor, options_.min_lr);
    if (old - reduced > options_.eps) optimizer_.set_lr(reduced, group);
  }
  cooldown_ = options_.cooldown;
  bad_epochs_ = 0;
}

NamedTensors ReduceLROnPlateau::state_dict() const {
  return {{"best", tensor(best_, DType::f64)},
          {"num_bad_epochs", from_vector<std::int64_t>({bad_epochs_}, {})},
          {"cooldown_counter", from_vector<std::int64_t>({cooldown_}, {})}};
}

void ReduceLROnPlateau::load_state_dict(const NamedTensors& state) {
  const NamedTensors room{{"best", zeros({}, DType::f64)},
                          {"num_bad_epochs", zeros({}, DType::i64)},
                          {"cooldown_counter", zeros({}, DType::i64)}};
  copy_values(state, room, "load_state_dict: ReduceLROnPlateau");
  best_ = room[0].second.item();
  bad_epochs_ = *room[1].second.data<std::int64_t>();
  cooldown_ = *room[2].second.data<std::int64_t>();
}

}  // namespace unroll
