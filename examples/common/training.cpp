#include "examples/common/training.h"

#include <fmt/format.h>

#include <chrono>
#include <cmath>
#include <string_view>

#include "examples/common/plot.h"
#include "examples/common/program.h"
#include "examples/common/progress.h"
#include "framework/autograd.h"
#include "framework/kernels/parallel.h"
#include "optim/clip.h"

namespace examples {

using namespace unroll;

namespace {

using Clock = std::chrono::steady_clock;

double since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

/// "dev_accuracy" as "dev accuracy".
std::string as_words(std::string name) {
  for (char& c : name)
    if (c == '_') c = ' ';
  return name;
}

}  // namespace

DataFiles DataFiles::or_bundled(const std::string& name, const std::string& extension) const {
  if (!train.empty()) return *this;
  if (!dev.empty() || !test.empty()) throw ValueError("--dev and --test need --train");
  const auto file = [&](const char* part) {
    return bundled(fmt::format("{}.{}.{}", name, part, extension));
  };
  return {file("train"), file("dev"), file("test")};
}

// --- TrainingProgram ----------------------------------------------------------------------------

TrainingProgram::TrainingProgram(const std::string& description, const std::string& name, int argc,
                                 char** argv)
    : arguments_(argv + 1, argv + argc),
      app_(description + " Without a command it trains.", name),
      default_file_(name + ".safetensors") {
  const std::string first = arguments_.empty() ? "-" : arguments_[0];
  if (first.starts_with('-') && first != "--help" && first != "-h")
    arguments_.insert(arguments_.begin(), "train");
  app_.require_subcommand(1);
  call_.program = argv[0];
  train_ = &add_command("train", "learn");
  train_->add_option(
      "--save", call_.save,
      fmt::format("file for the model; \"\": none (default: that of --load, else {})",
                  default_file_));
  train_->add_flag("--quiet", call_.quiet, "print the results only");
}

CLI::App& TrainingProgram::add_command(const std::string& name, const std::string& description) {
  CLI::App& command = *app_.add_subcommand(name, description);
  command.add_option("--load", call_.load,
                     name == "train" ? "saved model to go on from, with its options"
                                     : fmt::format("saved model (default: {})", default_file_));
  command.add_option("--threads", call_.threads, "0: one per core")->check(at_least(0));
  return command;
}

int TrainingProgram::dispatch(const std::function<void(const Checkpoint&)>& load,
                              const std::function<void(const Checkpoint&)>& check,
                              const std::function<int(const Call&, const Checkpoint*)>& learn,
                              const std::function<void(const CLI::App&, const Checkpoint&)>& use) {
  return examples::run(app_, arguments_, [&] {
    if (call_.threads > 0) set_num_threads(call_.threads);
    std::optional<Checkpoint> saved;
    const bool trains = train_->parsed();
    if (!trains && call_.load.empty()) call_.load = default_file_;
    if (!call_.load.empty()) {
      saved.emplace(call_.load);
      load(*saved);
    }
    if (!trains) {
      use(*app_.get_subcommands().front(), *saved);
      return 0;
    }
    if (saved) {
      parse(app_, arguments_);  // options that are given count more
      check(*saved);
    }
    if (train_->count("--save") == 0) call_.save = saved ? call_.load : default_file_;
    return learn(call_, saved ? &*saved : nullptr);
  });
}

void TrainingProgram::require_same(const Json& before, const Json& now,
                                   std::initializer_list<const char*> fixed) const {
  for (const char* name : fixed)
    if (before.at(name) != now.at(name))
      throw ValueError(fmt::format("--{} {} does not fit {}, which has {}", name,
                                   now.at(name).dump(), call_.load, before.at(name).dump()));
}

// --- Training -----------------------------------------------------------------------------------

Training::Training(const TrainingOptions& options, const Call& call, Module& model,
                   Optimizer& optimizer, std::function<void(Checkpoint&)> describe,
                   std::string units)
    : options_(options),
      call_(call),
      model_(model),
      optimizer_(optimizer),
      describe_(std::move(describe)),
      units_(std::move(units)) {
  for (const std::string& path : {call.save, options.plot})
    if (!path.empty()) require_writable(path);
}

void Training::go_on_from(const Checkpoint& saved) {
  at_ = saved.values<Position>("position");
  if (at_.epoch >= options_.epochs)
    throw ValueError(fmt::format("{} has had its {} epochs; a larger number for --epochs goes on",
                                 saved.path(), at_.epoch));
  saved.load("model", model_);
  saved.load("optimizer", optimizer_);
  optimizer_.set_lr(options_.lr);
  default_generator().set_state(at_.generator);
}

bool Training::run_epochs(const std::function<Epoch(Generator&)>& start,
                          const std::function<Metrics()>& metrics) {
  log_.emplace(options_.log, at_.epoch > 0 || at_.batch > 0);
  std::optional<Progress> progress;
  std::string status;
  auto last_save = Clock::now();
  std::int64_t done = 0;
  while (at_.epoch < options_.epochs) {
    // Each epoch has a generator of its own, so that one that goes on in its middle has the same
    // batches.
    Generator generator(options_.seed + 1'000'003 * static_cast<std::uint64_t>(at_.epoch + 1));
    const Epoch epoch = start(generator);
    if (at_.batch > 0 && at_.batches != epoch.batches) {
      warn(fmt::format("the data or --batch changed: epoch {} starts again", at_.epoch + 1));
      at_.start_epoch();
    }
    at_.batches = epoch.batches;
    done = at_.epoch * epoch.batches + at_.batch;
    if (!progress)
      progress.emplace(Progress::Options{.total = options_.epochs * epoch.batches,
                                         .first = done,
                                         .unit = "batches",
                                         .quiet = call_.quiet});
    const auto begin = Clock::now();
    const double seconds_before = at_.seconds;
    model_.train();
    while (at_.batch < epoch.batches && !interrupt_.requested()) {
      learn(epoch.loss(at_.batch));
      at_.seconds = seconds_before + since(begin);
      ++at_.batch, ++done;
      status = fmt::format("epoch {}/{}  loss {:.3f}", at_.epoch + 1, options_.epochs,
                           at_.loss / static_cast<double>(at_.units));
      for (const auto& [name, values] : at_.curves)
        if (name != "train_loss" && !values.empty())
          status += fmt::format("  {} {:.3f}", as_words(name), values.back());
      progress->update(done, status);
      if (since(last_save) > 60) {
        save();
        last_save = Clock::now();
      }
    }
    if (at_.batch < epoch.batches) break;
    model_.eval();
    const NoGrad no_grad;
    finish_epoch(metrics());
  }
  if (progress) progress->finish(done, status);
  save();
  if (at_.epoch == options_.epochs) return true;
  fmt::print("Interrupted after {} epochs and {} batches.\n", at_.epoch, at_.batch);
  if (!call_.save.empty())
    fmt::print("Saved {}. To go on:\n\n  {} train --load {}\n", call_.save, call_.program,
               call_.save);
  return false;
}

void Training::learn(const TrainingLoss& loss) {
  const double value = loss.mean.item();
  if (!std::isfinite(value))
    throw ValueError(fmt::format("the loss is {} in epoch {}: try a smaller --lr or --clip", value,
                                 at_.epoch + 1));
  optimizer_.zero_grad();
  loss.mean.backward();
  if (options_.clip > 0) clip_grad_norm(optimizer_.parameters(), options_.clip);
  optimizer_.step();
  at_.loss += value * static_cast<double>(loss.units);
  at_.units += loss.units;
}

void Training::finish_epoch(const Metrics& metrics) {
  at_.total_seconds += at_.seconds;
  ++at_.epoch;
  Json line{{"epoch", at_.epoch}};
  const auto add = [&](const std::string& name, double value) {
    at_.curves[name].push_back(value);
    line[name] = value;
  };
  add("train_loss", at_.loss / static_cast<double>(at_.units));
  for (const auto& [name, value] : metrics) add(name, value);
  line[units_ + "_per_second"] = static_cast<double>(at_.units) / at_.seconds;
  line["seconds"] = at_.total_seconds;
  line["learning_rate"] = optimizer_.lr();
  log_->write(line);
  at_.start_epoch();
}

void Training::save() {
  if (call_.save.empty()) return;
  at_.generator = default_generator().state();
  Checkpoint file;
  describe_(file);
  file.add_values("position", at_);
  file.add("model", model_);
  file.add("optimizer", optimizer_);
  file.save(call_.save);
}

const std::vector<double>& Training::curve(const std::string& name) const {
  return at_.curves.at(name);
}

void Training::log_final(const Metrics& metrics) {
  Json line{{"final", true}, {"parameters", model_.parameter_count()}, {"epochs", at_.epoch}};
  for (const auto& [name, value] : metrics) line[name] = value;
  line["seconds"] = at_.total_seconds;
  log_->write(line);
}

void Training::plot(
    const std::string& title, const std::string& y_label,
    const std::vector<std::pair<std::string, std::string>>& names_and_titles) const {
  if (options_.plot.empty() || at_.epoch == 0) return;
  std::vector<Curve> curves;
  for (const auto& [name, curve_title] : names_and_titles)
    curves.push_back({curve_title, curve(name)});
  plot_svg(options_.plot, {.title = title, .x_label = "epoch", .y_label = y_label}, curves);
}

}  // namespace examples
