// Forecasts a series 1 to 64 steps ahead: RNN, GRU and LSTM beside classical models.
//
//   forecast                                     a noisy sine
//   forecast --series mackey-glass               a chaotic series
//   forecast --csv FILE --column NAME            a series of yours
//   forecast ahead --length 12                   what comes next, by the saved model
//
// docs/examples/forecast.md has the equations and all options.

#include <fmt/format.h>
#include <unroll/unroll.h>

#include <algorithm>
#include <cstdint>
#include <numeric>
#include <string>
#include <utility>
#include <vector>

#include "common/plot.h"
#include "common/program.h"
#include "common/training.h"
#include "forecast/model.h"

using namespace unroll;
using examples::Curve, examples::Metrics, examples::Panel;
using forecast::Best, forecast::Config, forecast::Forecasts, forecast::kHorizon, forecast::Networks,
    forecast::Series;

namespace {

constexpr std::size_t kShown[] = {1, 4, 16, kHorizon};  ///< steps ahead in the table

/// Models, what they forecast for the test, and the errors.
struct Comparison {
  std::vector<Curve> errors;  ///< at [k - 1] those of k steps ahead
  std::vector<Forecasts> forecasts;

  void add(const Series& x, const std::string& name, const Forecasts& all) {
    errors.push_back({name, rmse(x, all, x.test, x.x.size())});
    forecasts.push_back(all);
  }
};

/// All models that learned from what is before the test: the classical ones, then the networks.
Comparison compare(const Config& config, const Series& x, const Networks& networks) {
  Comparison result;
  const std::size_t first = x.test - kHorizon, last = x.x.size() - 2;
  const auto add_each = [&](const std::string& name, const auto& forecast_from) {
    Forecasts all;
    for (std::size_t t = first; t <= last; ++t) all.push_back(forecast_from(t));
    result.add(x, name, all);
  };
  const auto past = x.before(x.test);
  const MarkovChain chain(past, config.states, 0.1);
  const std::string ar = fmt::format("AR({})", config.tau);
  add_each("persistence", [&](std::size_t t) { return std::vector<double>(kHorizon, x.x[t]); });
  add_each("Markov chain", [&](std::size_t t) { return chain.forecast(x.x[t], kHorizon); });
  for (const auto& [how, line] : {std::pair{"least squares", fit_autoregression(past, config.tau)},
                                  std::pair{"gradient", forecast::descend(past, config.tau)}})
    add_each(ar + ", " + how, [&, &model = line](std::size_t t) {
      return model.forecast(x.before(t + 1), kHorizon);
    });
  for (const auto& [name, net] : networks.nets)
    result.add(x, name, net.forecast(x, first, last, config.steps, kHorizon));
  return result;
}

/// The end of the series, and what was expected 1, 4, 16 and 64 steps before.
Panel forecasts_panel(const Series& x, const std::string& name, const Forecasts& forecasts) {
  Panel panel{{.title = name, .x_label = "t", .y_label = "x"},
              {{.name = "series", .points = true}}};
  for (const std::size_t k : kShown)
    panel.curves.push_back({.name = fmt::format("{} step{} ahead", k, k > 1 ? "s" : "")});
  for (std::size_t t = std::max(x.test + 200, x.x.size()) - 200; t < x.x.size(); ++t) {
    for (Curve& curve : panel.curves) curve.x.push_back(static_cast<double>(t));
    panel.curves[0].y.push_back(x.original(x.x[t]));
    for (std::size_t i = 0; i < std::size(kShown); ++i) {
      const double value = forecasts[t + kHorizon - x.test - kShown[i]][kShown[i] - 1];
      panel.curves[i + 1].y.push_back(x.original(value));
    }
  }
  return panel;
}

/// The table, a sentence about it, the last line of the log, and the picture.
void report(const Config& config, const Series& x, const Best& best, examples::Training& training) {
  const Comparison models = compare(config, x, best.networks);
  const std::size_t chosen = models.errors.size() - best.networks.nets.size() + best.first();
  fmt::print("\nRoot of the mean squared error on the test, by steps ahead:\n\n{:22}", "");
  for (const std::size_t k : kShown) fmt::print("{:>10}", k);
  Metrics final;
  for (const Curve& model : models.errors) {
    fmt::print("\n{:22}", model.name);
    for (const std::size_t k : kShown) {
      fmt::print("{:10.4g}", model.y[k - 1]);
      final.emplace_back(fmt::format("{} {}", model.name, k), model.y[k - 1]);
    }
  }
  training.log_final(final);
  const auto verdict = [&](const Curve& other) {
    const bool beaten = models.errors[chosen].y[0] < other.y[0];
    return (beaten ? "beats " : "does not beat ") + other.name;
  };
  fmt::print("\n\n{} was the best before the test. One step ahead it {} and {}.\n",
             models.errors[chosen].name, verdict(models.errors[0]), verdict(models.errors[2]));
  if (config.training.plot.empty()) return;
  const examples::PlotOptions options{
      .title = "Errors on the test", .x_label = "steps ahead", .y_label = "RMSE"};
  Panel errors{options, models.errors};
  examples::plot_svg(config.training.plot,
                     {errors, forecasts_panel(x, models.errors[2].name, models.forecasts[2]),
                      forecasts_panel(x, models.errors[chosen].name, models.forecasts[chosen])});
}

/// Returns the exit code.
int train(const Config& config, const examples::Call& call, const examples::Checkpoint* saved) {
  const Series x(config);
  manual_seed(config.training.seed);
  Networks networks(config);
  Best best(networks);
  Adam optimizer(networks.parameters(), {.lr = config.training.lr});
  examples::Training training(
      config.training, call, networks, optimizer,
      [&](examples::Checkpoint& file) {
        file.add_values("config", config);
        best.save(file);
      },
      "windows");
  if (saved) {
    training.go_on_from(*saved);
    best.load(*saved);
  }
  fmt::print("{} values: {} to learn from, {} to choose an epoch by, {} to test on.\n", x.x.size(),
             x.train, x.test - x.train, x.x.size() - x.test);

  const Tensor values = x.column();
  std::vector<std::int64_t> times(x.train);
  std::iota(times.begin(), times.end(), 0);
  const auto batches = [&](Generator& generator) {
    try {
      return random_windows(times, {config.training.batch, config.steps}, generator);
    } catch (const ValueError& error) {  // too short
      throw ValueError(
          fmt::format("{}: {}: try a smaller --batch or --steps", x.source, error.what()));
    }
  };
  const auto loss = [&](const WindowBatch& batch) {
    const Tensor now = embedding(values, batch.x), next = embedding(values, batch.y);
    Tensor sum = zeros({});
    for (const auto& [name, net] : networks.nets) sum = sum + mse_loss(net(now), next);
    return examples::TrainingLoss{sum, batch.x.size(1)};
  };
  if (!training.run(batches, loss, [&] { return best.update(networks, x, config.steps); }))
    return training.exit_code();
  report(config, x, best, training);
  return 0;
}

/// What should follow on the series, by the best network.
void look_ahead(const Config& config, const examples::Checkpoint& saved, std::int64_t length) {
  const Series x(config);
  Best best{Networks(config)};
  best.load(saved);
  const std::size_t now = x.x.size() - 1;
  const Forecasts next = best.networks.nets[best.first()].second.forecast(
      x, now, now, config.steps, static_cast<std::size_t>(length));
  for (const double value : next[0]) fmt::print("{:.6g}\n", x.original(value));
}

}  // namespace

int main(int argc, char** argv) {
  Config config;
  std::string csv, column;
  std::int64_t length = 12;
  examples::TrainingProgram program("Forecasts of a series by recurrent networks.", "forecast",
                                    argc, argv);
  CLI::App& ahead = program.add_command("ahead", "print what should follow on the series");
  ahead.add_option("--length", length, "values to print")
      ->capture_default_str()
      ->check(examples::at_least(1));
  ahead.add_option("--csv", csv, "CSV file with a series (default: the one that it learned)");
  ahead.add_option("--column", column, "name or number of its column (default: the last one)");
  return program.run(config, {"cells", "hidden"}, train,
                     [&](const CLI::App&, const examples::Checkpoint& saved) {
                       Config learned = saved.values<Config>("config");
                       if (!csv.empty()) learned.csv = csv, learned.column = column;
                       look_ahead(learned, saved, length);
                     });
}
