#include "examples/common/epoch_loop.h"

#include <fmt/format.h>

#include <chrono>

#include "examples/common/program.h"
#include "examples/common/progress.h"
#include "framework/check.h"

namespace examples {

using namespace unroll;

EpochLoop::EpochLoop(const TrainingOptions& options, const Call& call)
    : options_(options), call_(call) {
  for (const std::string& path : {call.save, options.plot}) require_writable(path);
}

void EpochLoop::go_on_from(const Checkpoint& saved) {
  at_ = saved.values<Position>("position");
  if (at_.epoch >= options_.epochs)
    throw ValueError(fmt::format("{} has had its {} epochs; a larger number for --epochs goes on",
                                 saved.path(), at_.epoch));
  saved.load("generator", default_generator());
}

void EpochLoop::restart_epoch(const std::string& why) {
  if (at_.batch > 0) warn(fmt::format("{}: epoch {} starts again", why, at_.epoch + 1));
  at_.batch = 0;
}

bool EpochLoop::run(const Actions& actions) {
  using Clock = std::chrono::steady_clock;
  std::optional<Progress> progress;
  std::string status;
  const auto done = [&] { return at_.epoch * at_.batches + at_.batch; };
  auto last_save = Clock::now();
  while (at_.epoch < options_.epochs) {
    // Each epoch has a generator of its own, so that one that goes on in its middle has the same
    // batches.
    Generator generator(options_.seed + 1'000'003 * static_cast<std::uint64_t>(at_.epoch + 1));
    const std::int64_t batches = actions.start(generator);
    if (at_.batches != batches) restart_epoch("the data or --batch changed");
    at_.batches = batches;
    if (!progress) {
      log_.emplace(options_.log, done() > 0);
      progress.emplace(Progress::Options{
          .total = options_.epochs * batches, .first = done(), .quiet = call_.quiet});
    }
    while (at_.batch < batches && !interrupt_.requested()) {
      actions.learn(at_.batch++);
      status = fmt::format("epoch {}/{}{}", at_.epoch + 1, options_.epochs, actions.status());
      progress->update(done(), status);
      if (Clock::now() - last_save > std::chrono::minutes(1)) {
        save(actions);
        last_save = Clock::now();
      }
    }
    if (at_.batch < batches) break;
    ++at_.epoch, at_.batch = 0;
    Json line{{"epoch", at_.epoch}};
    actions.finish(line);
    log_->write(line, [&] { save(actions); });
  }
  if (progress) progress->finish(done(), status);
  save(actions);
  if (at_.epoch == options_.epochs) return true;
  fmt::print("Interrupted after {} epochs and {} batches.\n", at_.epoch, at_.batch);
  if (!call_.save.empty())
    fmt::print("Saved {}. To go on:\n\n  {} train --load {}\n", call_.save, call_.program,
               call_.save);
  return false;
}

void EpochLoop::log_final(Json line) {
  Json last{{"final", true}};
  last.update(line);
  log_->write(last);
}

void EpochLoop::save(const Actions& actions) const {
  examples::save(call_, [&](Checkpoint& file) {
    actions.save(file);
    file.add_values("position", at_);
    file.add("generator", default_generator());
  });
}

}  // namespace examples
