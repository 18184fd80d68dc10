// Forecasts a series 1 to 64 steps ahead: RNN, GRU and LSTM beside classical models.
//
//   forecast                                     a noisy sine
//   forecast --series mackey-glass               a chaotic series
//   forecast --csv FILE --column NAME            a series of yours
//   forecast ahead --length 12                   what comes next, by the saved model
// docs/examples/forecast.md has the equations and all options.

#include <fmt/format.h>
#include <unroll/unroll.h>

#include <algorithm>
#include <functional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "common/comparison.h"
#include "common/curve_table.h"
#include "common/plot.h"
#include "common/program.h"
#include "common/training.h"

using namespace unroll;
using examples::Batch, examples::Curve;
using Values = std::span<const double>;
/// What is expected after known[first], ..., known.back(): f64 [N, horizon].
using Forecast = std::function<Tensor(Values known, std::int64_t first, std::int64_t horizon)>;

namespace {

constexpr std::int64_t kHorizon = 64;
constexpr std::int64_t kShown[] = {1, 4, 16, kHorizon};  ///< steps ahead in the table

struct Config {
  std::string csv, column, delimiter = ",", series = "sine";
  std::int64_t length = 2000, tau = 4, hidden = 32, steps = 64;
  std::vector<std::string> cells{"rnn", "gru", "lstm"};
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
    option("cells", cells, "networks to train", IsMember({"rnn", "gru", "lstm"}));
    option("hidden", hidden, "size of their hidden state", at_least(1));
    option("steps", steps, "values that they look back on", at_least(1));
    training.each(option);
  }
  std::vector<double> read_series() const {
    Generator generator(training.seed);
    if (csv.empty())
      return series == "sine" ? noisy_sine(length, 100, 0.2, generator) : mackey_glass(length);
    const CsvTable table = read_csv(csv, delimiter == "tab" ? '\t' : delimiter[0]);
    return table.numbers(column.empty() ? std::to_string(table.columns()) : column);
  }
};

/// x[0, train) is to learn from, x[train, test) to choose an epoch by, the rest to test on.
struct Series {
  std::vector<double> original, x = original;  ///< x: mean 0, standard deviation 1 before the test
  std::int64_t size = std::ssize(x), train = size * 7 / 10, test = size * 8 / 10;
  StandardScaler scale;

  explicit Series(const Config& config) : original(config.read_series()) {
    const std::string source = config.csv.empty() ? config.series : config.csv;
    const std::int64_t need = kHorizon + std::max(config.steps, 2 * config.tau);
    if (train < need)
      throw ValueError(fmt::format("{}: {} values are too few: --steps {} and --tau {} want {}",
                                   source, size, config.steps, config.tau, need * 10 / 7 + 1));
    scale = examples::naming(source, [&] { return StandardScaler(part(0, test)); });
    x = scale.transform(original);
  }
  Values part(std::int64_t from, std::int64_t to) const {
    return Values(x).subspan(static_cast<std::size_t>(from), static_cast<std::size_t>(to - from));
  }
};

/// A latent autoregression: h_t = cell(x_t, h_{t-1}), and x_{t+1} is expected at x_t + W h_t + b.
template <class Cell>
struct Network : Module {
  Cell cell;
  Linear out;

  explicit Network(std::int64_t hidden)
      : cell(child("cell", Cell(1, hidden))), out(child("out", Linear(hidden, 1))) {}

  /// x: [T, B, 1]. Returns what is expected after each value, and the state.
  ScanResult<typename Cell::State> operator()(const Tensor& x,
                                              const typename Cell::State& state = {}) const {
    auto [h, last] = cell(x, state);
    return {x + out(h), last};
  }
  /// What is expected 1 to `horizon` steps after x, each one read in its turn: [B, horizon].
  Tensor forecast(const Tensor& x, std::int64_t horizon) const {
    auto [y, state] = (*this)(x);
    std::vector<Tensor> next{y[-1]};
    while (std::ssize(next) < horizon) {
      auto [more, last] = (*this)(unsqueeze(next.back(), 0), state);
      next.push_back(more[0]), state = last;
    }
    return concatenate(next, 1);
  }
};

/// The AR(tau) that gradient descent finds on all of the values at once.
Autoregression descend(Values x, std::int64_t tau) {
  const Tensor windows = transpose(sliding_windows(x, tau + 1));  // [N, tau + 1]
  const Tensor before = flip(narrow(windows, 1, 0, tau), {1}), next = narrow(windows, 1, tau, 1);
  Linear line(tau, 1);
  Adam optimizer(line.parameters(), {.lr = 0.01});
  for (int i = 0; i < 1000; ++i) {
    optimizer.zero_grad();
    mse_loss(line(before), next).backward();
    optimizer.step();
  }
  return {line.bias.item(), flatten(line.weight).detach().to(DType::f64).to_vector<double>()};
}

/// The networks, which learn side by side, and the classical models.
class Contest {
 public:
  Contest(const Config& c, const examples::Call& call)
      : config(c),
        x(c),
        comparison(c.training, std::max<std::int64_t>(x.train / (c.steps * c.training.batch), 1),
                   call) {
    manual_seed(config.training.seed);
    for (const std::string& name : config.cells) {
      if (name == "rnn") add(name, Network<RNN>(config.hidden));
      if (name == "gru") add(name, Network<GRU>(config.hidden));
      if (name == "lstm") add(name, Network<LSTM>(config.hidden));
    }
  }

  int train(const examples::Checkpoint* saved) {
    if (saved) comparison.go_on_from(*saved);
    fmt::print("{} values: {} to learn from, {} to choose an epoch by, {} to test on.\n", x.size,
               x.train, x.test - x.train, x.size - x.test);
    const Tensor all = unsqueeze(sliding_windows(x.part(0, x.train), config.steps + 1), 2);
    const auto windows = [&] {
      const Tensor values = index_select(all, 1, randint(0, all.size(1), {config.training.batch}));
      return Batch{narrow(values, 0, 0, config.steps), narrow(values, 0, 1, config.steps)};
    };
    if (comparison.run(windows, [&](auto& file) { file.add_values("config", config); })) report();
    return comparison.exit_code();
  }

  void look_ahead(const examples::Checkpoint& saved, std::int64_t length) {
    comparison.load(saved);
    const Tensor next = networks[comparison.use_best()].second(x.x, x.size - 1, length);
    for (const double value : next[0].to_vector<double>()) fmt::print("{:.6g}\n", value);
  }

 private:
  template <class Net>
  void add(const std::string& name, const Net& net) {
    const auto forecast = [this, net](Values known, std::int64_t first, std::int64_t horizon) {
      return x.scale.inverse(rolling_forecasts(known, first, config.steps, [&](const Tensor& w) {
        return net.forecast(unsqueeze(w, 2), horizon);
      }));
    };
    const auto validate = [this, forecast] {
      return rolling_rmse({x.original.begin(), x.original.begin() + x.test},
                          forecast(x.part(0, x.test - 1), x.train - 1, 1))[0];
    };
    const auto loss = [net](const Batch& batch) { return mse_loss(net(batch.x).outputs, batch.y); };
    comparison.add({.name = name, .model = net, .loss = loss, .validate = validate});
    networks.emplace_back(name, forecast);
  }

  /// All models on the test: the table, a sentence about it, the end of the log, and the picture.
  void report() {
    const Values past = x.part(0, x.test), known = x.part(0, x.size - 1);
    const MarkovChain chain(past, 20, 0.1);
    const auto solved = fit_autoregression(past, config.tau), found = descend(past, config.tau);
    const std::int64_t first = x.test - kHorizon, n = std::min<std::int64_t>(200, x.size - x.test);
    const auto rolling = [&](const auto& forecast) {
      return x.scale.inverse(rolling_forecasts(known, first, forecast));
    };
    const std::string ar = fmt::format("AR({}), ", config.tau);
    std::vector<std::pair<std::string, Tensor>> models{
        {"persistence", rolling([](Values v) { return std::vector<double>(kHorizon, v.back()); })},
        {"Markov chain", rolling([&](Values v) { return chain.forecast(v.back(), kHorizon); })},
        {ar + "least squares", rolling([&](Values v) { return solved.forecast(v, kHorizon); })},
        {ar + "gradient", rolling([&](Values v) { return found.forecast(v, kHorizon); })}};
    const std::size_t chosen = models.size() + comparison.use_best();
    for (const auto& [name, f] : networks) models.emplace_back(name, f(known, first, kHorizon));

    std::vector<Curve> errors;
    examples::Metrics final;
    for (const auto& [name, forecasts] : models) {
      errors.push_back({name, rolling_rmse(x.original, forecasts)});
      for (const std::int64_t k : kShown)
        final.emplace_back(fmt::format("{} {}", name, k),
                           errors.back().y[static_cast<std::size_t>(k - 1)]);
    }
    comparison.log_final(final);
    const auto verdict = [&](const Curve& other) {
      return (errors[chosen].y[0] < other.y[0] ? "beats " : "does not beat ") + other.name;
    };
    fmt::print("\nRoot of the mean squared error on the test:\n\n{}\n",
               examples::curve_table("steps ahead", errors, {1, 4, 16, kHorizon}));
    fmt::print("{} was the best before the test. One step ahead it {} and {}.\n",
               errors[chosen].name, verdict(errors[0]), verdict(errors[2]));
    if (config.training.plot.empty()) return;
    const auto t = (arange(n, DType::f64) + static_cast<double>(x.size - n)).to_vector<double>();
    std::vector<Curve> end{{"series", {x.original.end() - n, x.original.end()}, t, true}};
    for (const std::int64_t k : kShown) {  // the last n values, as expected k steps before
      const Tensor y =
          narrow(select(models[chosen].second, 1, k - 1), 0, x.size - n - k - first, n);
      end.push_back({fmt::format("{} ahead", k), y.to_vector<double>(), t});
    }
    examples::plot_svg(config.training.plot,
                       {{{"Errors on the test", "steps ahead", "RMSE"}, errors},
                        {{errors[chosen].name, "t", "x"}, end}});
  }

  Config config;
  Series x;
  examples::Comparison comparison;
  std::vector<std::pair<std::string, Forecast>> networks;
};

}  // namespace

int main(int argc, char** argv) {
  Config config;
  std::int64_t length = 12;
  examples::TrainingProgram program("Forecasts of a series by recurrent networks.", "forecast",
                                    argc, argv);
  CLI::App& ahead = program.add_command("ahead", "print what should follow on the series");
  ahead.add_option("--length", length, "values to print")->check(examples::at_least(1));
  ahead.add_option("--csv", config.csv, "CSV file with the series (default: as learned)");
  ahead.add_option("--column", config.column, "name or number of its column (default: as learned)");
  return program.run(
      config, {"cells", "hidden"},
      [&](const Config&, const examples::Call& call, const examples::Checkpoint* saved) {
        return Contest(config, call).train(saved);
      },
      [&](const CLI::App&, const examples::Checkpoint& saved) {
        Contest(config, {}).look_ahead(saved, length);
      });
}
