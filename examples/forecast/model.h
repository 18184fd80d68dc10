#pragma once
/// The series and the models of examples/forecast.cpp, and its options.

#include <fmt/format.h>
#include <unroll/unroll.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <map>
#include <span>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "examples/common/options.h"
#include "examples/common/training.h"

namespace forecast {

using namespace unroll;

constexpr std::size_t kHorizon = 64;  ///< how many steps ahead errors are measured

/// A saved model carries it.
struct Config {
  std::string csv, column, delimiter = ",", series = "sine";
  std::int64_t length = 2000, tau = 4, states = 20;
  std::vector<std::string> cells{"rnn", "gru", "lstm"};
  std::int64_t hidden = 32, steps = 64;
  examples::TrainingOptions training{
      .epochs = 400, .batch = 16, .lr = 0.003, .plot = "forecast.svg"};

  template <class F>
  void each(F&& option) {
    using CLI::IsMember, examples::at_least;
    option("csv", csv, "CSV file with the series (default: a generated one)");
    option("column", column, "name or number of its column (default: the last one)");
    option("delimiter", delimiter, "what stands between its columns", IsMember({",", ";", "tab"}));
    option("series", series, "the series to generate", IsMember({"sine", "mackey-glass"}));
    option("length", length, "of the generated series", at_least(1));
    option("tau", tau, "values that the autoregressions look back on", at_least(1));
    option("states", states, "of the Markov chain", at_least(1));
    option("cells", cells, "networks to train", IsMember({"rnn", "gru", "lstm"}));
    option("hidden", hidden, "size of their hidden state", at_least(1));
    option("steps", steps, "values that they look back on", at_least(1));
    training.each(option);
  }
};

// --- The series ---------------------------------------------------------------------------------

/// x[0, train) is to learn from, x[train, test) to choose an epoch by, the rest to test on.
struct Series {
  std::string source;     ///< what errors name
  std::vector<double> x;  ///< less its mean before the test, divided by its standard deviation
  double mean = 0, std = 0;
  std::size_t train = 0, test = 0;

  explicit Series(const Config& config) {
    source = config.csv.empty() ? config.series : config.csv;
    if (!config.csv.empty()) {
      const char delimiter = config.delimiter == "tab" ? '\t' : config.delimiter[0];
      const CsvTable table = read_csv(config.csv, delimiter);
      x = table.numbers(config.column.empty() ? std::to_string(table.columns()) : config.column);
    } else if (config.series == "sine") {
      Generator generator(config.training.seed);
      x = noisy_sine(config.length, 100, 0.2, generator);
    } else {
      x = mackey_glass(config.length);
    }
    train = x.size() * 7 / 10;
    test = x.size() * 8 / 10;
    const std::size_t need =
        kHorizon + static_cast<std::size_t>(std::max(config.steps, config.tau));
    if (train < need)
      throw ValueError(fmt::format("{}: {} values are too few: --steps {} and --tau {} want {}",
                                   source, x.size(), config.steps, config.tau, need * 10 / 7 + 1));
    const auto n = static_cast<double>(test);
    for (std::size_t t = 0; t < test; ++t) mean += x[t] / n;
    for (std::size_t t = 0; t < test; ++t) std += std::pow(x[t] - mean, 2) / n;
    std = std::sqrt(std);
    if (std::all_of(x.begin(), x.begin() + static_cast<std::ptrdiff_t>(test),
                    [&](double value) { return value == x[0]; }))
      throw ValueError(fmt::format("{}: the first {} values are all the same", source, test));
    if (!(std > 0) || !std::isfinite(std))
      throw ValueError(fmt::format("{}: the standard deviation of the values is {}", source, std));
    for (double& value : x) value = (value - mean) / std;
  }

  std::span<const double> before(std::size_t t) const { return std::span(x).first(t); }
  double original(double value) const { return value * std + mean; }
  /// f32 [N, 1], for embedding(column(), times).
  Tensor column() const {
    return from_vector(std::vector<float>(x.begin(), x.end()), {std::ssize(x), 1});
  }
};

/// What a model forecasts: at [i][k - 1] the value k steps after x[first + i], from those up to it.
using Forecasts = std::vector<std::vector<double>>;

/// The errors in the forecasts of x[from, to): sqrt(mean of squares) for each k. The origins are
/// `horizon` steps before the first target and on, so that all k have the same targets.
inline std::vector<double> rmse(const Series& series, const Forecasts& forecasts, std::size_t from,
                                std::size_t to) {
  const std::size_t horizon = forecasts[0].size();
  std::vector<double> errors(horizon, 0.0);
  for (std::size_t k = 1; k <= horizon; ++k) {
    for (std::size_t t = from; t < to; ++t)
      errors[k - 1] += std::pow(forecasts[t - k + horizon - from][k - 1] - series.x[t], 2);
    errors[k - 1] = series.std * std::sqrt(errors[k - 1] / static_cast<double>(to - from));
  }
  return errors;
}

// --- Models -------------------------------------------------------------------------------------

/// The AR(tau) that gradient descent finds on all of the values at once.
inline Autoregression descend(std::span<const double> x, std::int64_t tau) {
  std::vector<float> lags, next;
  for (auto t = static_cast<std::size_t>(tau); t < x.size(); ++t) {
    for (std::size_t lag = 1; lag <= static_cast<std::size_t>(tau); ++lag)
      lags.push_back(static_cast<float>(x[t - lag]));
    next.push_back(static_cast<float>(x[t]));
  }
  const std::int64_t n = std::ssize(next);
  const Tensor inputs = from_vector(lags, {n, tau}), targets = from_vector(next, {n, 1});
  Linear line(tau, 1);
  Adam optimizer(line.parameters(), {.lr = 0.01});
  for (int i = 0; i < 1000; ++i) {
    optimizer.zero_grad();
    mse_loss(line(inputs), targets).backward();
    optimizer.step();
  }
  return {line.bias.item(), flatten(line.weight).detach().to(DType::f64).to_vector<double>()};
}

/// A latent autoregression: h_t = cell(x_t, h_{t-1}), and x_{t+1} is expected at x_t + W h_t + b.
struct Network : Module {
  std::variant<RNN, GRU, LSTM> cell;
  Linear out;

  Network(const std::string& kind, std::int64_t hidden)
      : cell(make_cell(kind, hidden)), out(child("out", Linear(hidden, 1))) {}

  /// x: [T, B, 1]. Returns the next value after each one of x and, reading its own forecasts, those
  /// of `more` steps: [T + more, B, 1].
  Tensor operator()(const Tensor& x, std::int64_t more = 0) const {
    const auto run = [&](const auto& net) {
      auto [h, state] = net(x);
      std::vector<Tensor> forecasts{x + out(h)};
      for (std::int64_t k = 0; k < more; ++k) {
        const Tensor last = forecasts.back()[-1];
        auto [next_h, next] = net.step(last, state);
        state = std::move(next);
        forecasts.push_back(unsqueeze(last + out(next_h), 0));
      }
      return concatenate(forecasts);
    };
    return std::visit(run, cell);
  }

  /// From the `steps` values up to each origin in [first, last].
  Forecasts forecast(const Series& series, std::size_t first, std::size_t last, std::int64_t steps,
                     std::size_t horizon) const {
    const NoGrad no_grad;
    Forecasts all;
    for (std::size_t begin = first; begin <= last; begin += 1000) {  // so many in one batch
      const std::size_t count = std::min<std::size_t>(last + 1 - begin, 1000);
      std::vector<float> windows;
      for (auto back = static_cast<std::size_t>(steps); back-- > 0;)
        for (std::size_t i = 0; i < count; ++i)
          windows.push_back(static_cast<float>(series.x[begin + i - back]));
      const auto batch = static_cast<std::int64_t>(count),
                 more = static_cast<std::int64_t>(horizon);
      const Tensor y = (*this)(from_vector(windows, {steps, batch, 1}), more - 1);
      const Tensor rows = transpose(squeeze(narrow(y, 0, steps - 1, more), 2));  // [B, horizon]
      for (std::int64_t i = 0; i < batch; ++i)
        all.push_back(rows[i].to(DType::f64).to_vector<double>());
    }
    return all;
  }

 private:
  std::variant<RNN, GRU, LSTM> make_cell(const std::string& kind, std::int64_t hidden) {
    if (kind == "rnn") return child("cell", RNN(1, hidden));
    if (kind == "gru") return child("cell", GRU(1, hidden));
    return child("cell", LSTM(1, hidden));
  }
};

/// The networks, which learn side by side.
struct Networks : Module {
  explicit Networks(const Config& config) {
    for (const std::string& name : config.cells)
      nets.emplace_back(name, child(name, Network(name, config.hidden)));
  }

  std::vector<std::pair<std::string, Network>> nets;
};

/// Each network as it was after the epoch in which its error on x[train, test) was the least.
struct Best {
  explicit Best(const Networks& start) : networks(clone(start)) {
    for (const auto& [name, net] : start.nets) errors[name] = std::numeric_limits<double>::max();
  }

  /// Measures the networks as they are; returns the errors.
  examples::Metrics update(const Networks& now, const Series& series, std::int64_t steps) {
    examples::Metrics metrics;
    for (std::size_t i = 0; i < now.nets.size(); ++i) {
      const auto& [name, net] = now.nets[i];
      const Forecasts forecasts = net.forecast(series, series.train - 1, series.test - 2, steps, 1);
      const double error = rmse(series, forecasts, series.train, series.test)[0];
      if (error < errors[name]) {
        errors[name] = error;
        networks.nets[i].second.load_state_dict(net.state_dict());
      }
      metrics.emplace_back(name + "_valid_rmse", error);
    }
    return metrics;
  }

  /// The network with the least error.
  std::size_t first() const {
    const auto by = [&](const auto& a, const auto& b) {
      return errors.at(a.first) < errors.at(b.first);
    };
    return static_cast<std::size_t>(
        std::min_element(networks.nets.begin(), networks.nets.end(), by) - networks.nets.begin());
  }

  void save(examples::Checkpoint& file) const {
    file.add("best", networks);
    file.add_values("errors", errors);
  }
  void load(const examples::Checkpoint& file) {
    file.load("best", networks);
    errors = file.values<Errors>("errors");
  }

  /// By the name of the network.
  struct Errors : std::map<std::string, double> {
    template <class F>
    void each(F&& field) {
      for (const char* name : {"rnn", "gru", "lstm"}) field(name, (*this)[name]);
    }
  };
  Networks networks;
  Errors errors;
};

}  // namespace forecast
