// Forecasts a series 1 to 64 steps ahead: RNN, GRU and LSTM beside classical models.
//
//   forecast                                       a noisy sine
//   forecast --series mackey-glass                 a chaotic series
//   forecast --csv FILE --column NAME --ahead 12   a series of yours, and what comes next
//   forecast --load FILE                           goes on, or forecasts with what was learned
//
// docs/examples/forecast.md has the equations and all options.

#include <fmt/format.h>
#include <unroll/unroll.h>

#include <algorithm>
#include <deque>
#include <iterator>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "common/checkpoint.h"
#include "common/interrupt.h"
#include "common/json_log.h"
#include "common/options.h"
#include "common/plot.h"
#include "common/program.h"
#include "common/progress.h"
#include "forecast/model.h"

using namespace unroll;
using examples::Json;
using forecast::Config, forecast::Forecasts, forecast::kHorizon, forecast::Learner,
    forecast::Series;

namespace {

constexpr std::size_t kShown[] = {1, 4, 16, forecast::kHorizon};  ///< steps ahead in the table

class Program {
 public:
  Program(const Config& wanted, const std::string& save_to, bool be_quiet,
          const std::optional<examples::Checkpoint>& saved)
      : config_(wanted), save_(save_to), quiet_(be_quiet) {
    for (const std::string& path : {save_, config_.plot})
      if (!path.empty()) examples::require_writable(path);
    manual_seed(config_.seed);
    series_.emplace(config_);
    if (saved) saved->require_same("config", config_, {"cells", "hidden"});
    for (const std::string& kind : config_.cells) {
      Learner& learner = learners_.emplace_back(kind, config_);
      if (!saved) continue;
      learner.net.load_state_dict(saved->part(kind));
      learner.best.load_state_dict(saved->part(kind + "_best"));
      learner.optimizer.load_state_dict(saved->part(kind + "_optimizer"));
      learner.at = saved->values<Learner::Position>(kind + "_position");
    }
  }

  /// Returns the exit code.
  int run(const std::string& program, std::int64_t ahead) {
    const Series& x = *series_;
    fmt::print("{} values: {} to learn from, {} to choose an epoch by, {} to test on.\n",
               x.x.size(), x.train, x.test - x.train, x.x.size() - x.test);
    examples::JsonLog log(config_.log, !learners_.empty() && learners_.front().at.epoch > 0);
    learn(log);
    save();
    if (interrupt_.requested()) {
      fmt::print("Interrupted.");
      if (!save_.empty())
        fmt::print(" Saved {}. To go on:\n\n  {} --load {}", save_, program, save_);
      fmt::print("\n");
      return interrupt_.exit_code();
    }
    compare(log);
    if (ahead > 0) look_ahead(static_cast<std::size_t>(ahead));
    return 0;
  }

 private:
  void learn(examples::JsonLog& log) {
    const std::int64_t total = config_.epochs * std::ssize(learners_);
    std::int64_t done = 0;
    for (const Learner& learner : learners_) done += std::min(learner.at.epoch, config_.epochs);
    examples::Progress progress(
        {.total = total, .first = done, .unit = "epochs", .quiet = quiet_ || done == total});
    std::string status;
    for (Learner& learner : learners_)
      while (learner.at.epoch < config_.epochs && !interrupt_.requested()) {
        const auto [train, valid] = learner.learn(*series_, config_);
        log.write({{"model", learner.name},
                   {"epoch", learner.at.epoch},
                   {"train_rmse", train},
                   {"valid_rmse", valid}});
        status = fmt::format("{}  epoch {}/{}  error {:.4g}  valid {:.4g}", learner.name,
                             learner.at.epoch, config_.epochs, train, valid);
        progress.update(++done, status);
      }
    progress.finish(done, status);
  }

  void save() const {
    if (save_.empty()) return;
    examples::Checkpoint file;
    file.add_values("config", config_);
    for (const Learner& learner : learners_) {
      file.add(learner.name, learner.net.state_dict());
      file.add(learner.name + "_best", learner.best.state_dict());
      file.add(learner.name + "_optimizer", learner.optimizer.state_dict());
      file.add_values(learner.name + "_position", learner.at);
    }
    file.save(save_);
  }

  /// The errors of all models on the test, as a table, in the log and as a picture.
  void compare(examples::JsonLog& log) const {
    const Series& x = *series_;
    const auto past = x.before(x.test);
    const MarkovChain chain(past, config_.states, 0.1);
    const Autoregression squares = fit_autoregression(past, config_.tau);
    const Autoregression gradient = forecast::descend(past, config_.tau);
    const std::string ar = fmt::format("AR({})", config_.tau);

    std::vector<examples::Curve> errors;
    std::vector<Forecasts> forecasts;
    const auto add = [&](const std::string& name, const Forecasts& given) {
      errors.push_back({name, rmse(x, given, x.test, x.x.size())});
      forecasts.push_back(given);
    };
    const std::size_t first = x.test - kHorizon, last = x.x.size() - 2;
    const auto add_each = [&](const std::string& name, const auto& from) {
      Forecasts all;
      for (std::size_t t = first; t <= last; ++t) all.push_back(from(t));
      add(name, all);
    };
    add_each("persistence", [&](std::size_t t) { return std::vector<double>(kHorizon, x.x[t]); });
    add_each("Markov chain", [&](std::size_t t) { return chain.forecast(x.x[t], kHorizon); });
    for (const auto& [how, model] : {std::pair{"least squares", &squares}, {"gradient", &gradient}})
      add_each(fmt::format("{}, {}", ar, how), [&, line = model](std::size_t t) {
        return line->forecast(x.before(t + 1), kHorizon);
      });
    const std::size_t baselines = errors.size();
    for (const Learner& learner : learners_)
      add(learner.name, learner.best.forecast(x, first, last, config_.steps, kHorizon));

    fmt::print("\nRoot of the mean squared error on the test, by steps ahead:\n\n{:22}", "");
    for (const std::size_t k : kShown) fmt::print("{:>10}", k);
    Json log_line{{"final", true}, {"chosen", best().name}};
    for (const examples::Curve& model : errors) {
      fmt::print("\n{:22}", model.name);
      for (const std::size_t k : kShown) {
        fmt::print("{:10.4g}", model.y[k - 1]);
        log_line["rmse"][model.name].push_back(model.y[k - 1]);
      }
    }
    log.write(log_line);

    const std::size_t chosen = baselines + best_index();
    const auto verdict = [&](std::size_t other) {
      const bool beaten = errors[chosen].y[0] < errors[other].y[0];
      return fmt::format("{} {}", beaten ? "beats" : "does not beat", errors[other].name);
    };
    fmt::print("\n\n{} was the best before the test. One step ahead it {} and {}.\n", best().name,
               verdict(0), verdict(2));
    if (config_.plot.empty()) return;
    const examples::PlotOptions options{
        .title = "Errors on the test", .x_label = "steps ahead", .y_label = "RMSE"};
    examples::plot_svg(config_.plot, {{options, errors},
                                      panel(errors[2].name, forecasts[2]),
                                      panel(best().name, forecasts[chosen])});
  }

  /// The end of the series, and what was expected 1, 4, 16 and 64 steps before.
  examples::Panel panel(const std::string& name, const Forecasts& forecasts) const {
    const Series& x = *series_;
    examples::Panel panel{{.title = name, .x_label = "t", .y_label = "x"},
                          {{.name = "series", .points = true}}};
    for (const std::size_t k : kShown)
      panel.curves.push_back({.name = fmt::format("{} step{} ahead", k, k > 1 ? "s" : "")});
    for (std::size_t t = std::max(x.test + 300, x.x.size()) - 300; t < x.x.size(); ++t) {
      for (examples::Curve& curve : panel.curves) curve.x.push_back(static_cast<double>(t));
      panel.curves[0].y.push_back(x.original(x.x[t]));
      for (std::size_t i = 0; i < std::size(kShown); ++i) {
        const double value = forecasts[t + kHorizon - x.test - kShown[i]][kShown[i] - 1];
        panel.curves[i + 1].y.push_back(x.original(value));
      }
    }
    return panel;
  }

  /// The network with the least error before the test.
  std::size_t best_index() const {
    const auto by = [](const Learner& a, const Learner& b) { return a.at.best < b.at.best; };
    return static_cast<std::size_t>(std::min_element(learners_.begin(), learners_.end(), by) -
                                    learners_.begin());
  }
  const Learner& best() const { return learners_[best_index()]; }

  void look_ahead(std::size_t steps) const {
    const std::size_t now = series_->x.size() - 1;
    fmt::print("\n{} expects:\n", best().name);
    for (const double value : best().best.forecast(*series_, now, now, config_.steps, steps)[0])
      fmt::print("{:.6g}\n", series_->original(value));
  }

  Config config_;
  std::string save_;
  bool quiet_;
  std::optional<Series> series_;
  std::deque<Learner> learners_;
  examples::Interrupt interrupt_;
};

}  // namespace

int main(int argc, char** argv) {
  const std::vector<std::string> arguments(argv + 1, argv + argc);
  CLI::App app("Forecasts a series by recurrent networks and by classical models.", "forecast");
  Config config;
  std::string load, save = "forecast.safetensors";
  std::int64_t ahead = 0;
  int threads = 0;
  bool quiet = false;
  examples::add_options(app, config);
  app.add_option("--ahead", ahead, "print so many values that should follow on the series")
      ->check(examples::at_least(0));
  app.add_option("--load", load, "saved models to go on from, with their options");
  app.add_option("--save", save, "file for the models; \"\": none")->capture_default_str();
  app.add_option("--threads", threads, "0: one per core")->check(examples::at_least(0));
  app.add_flag("--quiet", quiet, "no progress");

  return examples::run(app, arguments, [&] {
    if (threads > 0) set_num_threads(threads);
    std::optional<examples::Checkpoint> saved;
    if (!load.empty()) {
      saved.emplace(load);
      config = saved->values<Config>("config");
      examples::parse(app, arguments);  // options that are given count more
      if (app.count("--save") == 0) save = load;
    }
    return Program(config, save, quiet, saved).run(argv[0], ahead);
  });
}
