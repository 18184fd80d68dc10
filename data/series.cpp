#include "data/series.h"

#include <algorithm>
#include <cmath>
#include <numbers>
#include <numeric>

#include "framework/autograd.h"
#include "framework/check.h"
#include "framework/format.h"
#include "framework/ops.h"

namespace unroll {
namespace {

void require(bool good, const char* where, const std::string& what) {
  if (!good) detail::fail<ValueError>("{}: {}", where, what);
}

void require_time(std::int64_t first, std::int64_t least, std::span<const double> series) {
  require(
      first >= least && first < std::ssize(series), "rolling_forecasts",
      detail::format("the first time must be in [{}, {}), not {}", least, series.size(), first));
}

double dot(const std::vector<double>& a, const std::vector<double>& b) {
  return std::inner_product(a.begin(), a.end(), b.begin(), 0.0);
}

/// w with the least |X w - y|, X given by its columns: X = Q R by modified Gram-Schmidt, which also
/// gives Q' y, then R w = Q' y from the last row up. A column that depends on those before it gets
/// the weight 0.
std::vector<double> least_squares(std::vector<std::vector<double>> columns, std::vector<double> y) {
  const std::size_t n = columns.size();
  std::vector<std::vector<double>> r(n, std::vector<double>(n, 0.0));
  std::vector<double> weights(n, 0.0);  // Q' y at first
  const auto take_out = [](const std::vector<double>& q, std::vector<double>& v) {
    const double part = dot(q, v);
    for (std::size_t t = 0; t < v.size(); ++t) v[t] -= part * q[t];
    return part;
  };
  for (std::size_t i = 0; i < n; ++i) {
    std::vector<double>& q = columns[i];
    const double length = std::sqrt(dot(q, q));
    double whole = length * length;
    for (std::size_t j = 0; j < i; ++j) whole += r[j][i] * r[j][i];
    if (length <= 1e-10 * std::sqrt(whole)) {
      std::fill(q.begin(), q.end(), 0.0);
      continue;
    }
    r[i][i] = length;
    for (double& value : q) value /= length;
    for (std::size_t j = i + 1; j < n; ++j) r[i][j] = take_out(q, columns[j]);
    weights[i] = take_out(q, y);
  }
  for (std::size_t i = n; i-- > 0;) {
    for (std::size_t j = i + 1; j < n; ++j) weights[i] -= r[i][j] * weights[j];
    weights[i] = r[i][i] == 0.0 ? 0.0 : weights[i] / r[i][i];
  }
  return weights;
}

}  // namespace

std::vector<double> noisy_sine(std::int64_t length, double period, double noise,
                               Generator& generator) {
  require(length >= 0, "noisy_sine", detail::format("the length is {}", length));
  require(period > 0, "noisy_sine", detail::format("the period must be above 0, not {}", period));
  require(noise >= 0, "noisy_sine", detail::format("the noise must be at least 0, not {}", noise));
  std::vector<double> x;
  for (std::int64_t t = 0; t < length; ++t)
    x.push_back(std::sin(2 * std::numbers::pi * static_cast<double>(t) / period) +
                noise * generator.normal());
  return x;
}

std::vector<double> mackey_glass(std::int64_t length, std::int64_t delay, std::int64_t interval) {
  require(length >= 0, "mackey_glass", detail::format("the length is {}", length));
  require(delay >= 1, "mackey_glass",
          detail::format("the delay must be at least 1, not {}", delay));
  require(interval >= 1, "mackey_glass",
          detail::format("the interval must be at least 1, not {}", interval));
  constexpr std::int64_t per_unit = 10, warm_up = 500 * per_unit;
  constexpr double h = 1.0 / per_unit;
  const auto slope = [](double x, double delayed) {
    return 0.2 * delayed / (1 + std::pow(delayed, 10)) - 0.1 * x;
  };
  std::vector<double> x{1.2};  // x[i] is x(i / per_unit)
  const auto at = [&](std::int64_t i) { return i < 0 ? 1.2 : x[static_cast<std::size_t>(i)]; };
  for (std::int64_t i = 0; i < warm_up + length * interval * per_unit; ++i) {
    const double then = at(i - delay * per_unit), later = at(i + 1 - delay * per_unit);
    const double between = (then + later) / 2;
    const double k1 = slope(x.back(), then);
    const double k2 = slope(x.back() + h / 2 * k1, between);
    const double k3 = slope(x.back() + h / 2 * k2, between);
    const double k4 = slope(x.back() + h * k3, later);
    x.push_back(x.back() + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4));
  }
  std::vector<double> values;
  for (std::int64_t t = 0; t < length; ++t) values.push_back(at(warm_up + t * interval * per_unit));
  return values;
}

StandardScaler::StandardScaler(std::span<const double> series) {
  require(!series.empty(), "StandardScaler", "the series has no values");
  const auto same = [&](double value) { return value == series[0]; };
  require(!std::all_of(series.begin(), series.end(), same), "StandardScaler",
          detail::format("the {} values are all the same", series.size()));
  const auto n = static_cast<double>(series.size());
  double variance = 0.0;
  for (const double value : series) mean += value / n;
  for (const double value : series) variance += std::pow(value - mean, 2) / n;
  std = std::sqrt(variance);
  require(std > 0 && std::isfinite(std), "StandardScaler",
          detail::format("the standard deviation of the values is {}", std));
}

std::vector<double> StandardScaler::transform(std::span<const double> series) const {
  std::vector<double> scaled;
  for (const double value : series) scaled.push_back((value - mean) / std);
  return scaled;
}

Tensor StandardScaler::inverse(const Tensor& z) const { return z * std + mean; }

Tensor sliding_windows(std::span<const double> series, std::int64_t length) {
  require(length >= 1, "sliding_windows",
          detail::format("the length must be at least 1, not {}", length));
  require(std::ssize(series) >= length, "sliding_windows",
          detail::format("windows of {} values in a series of {}", length, series.size()));
  const std::int64_t n = std::ssize(series) - length + 1;
  std::vector<float> values;
  for (std::int64_t t = 0; t < length; ++t) {
    const auto row = series.subspan(static_cast<std::size_t>(t), static_cast<std::size_t>(n));
    for (const double value : row) values.push_back(static_cast<float>(value));
  }
  return from_vector(values, {length, n});
}

std::vector<double> Autoregression::forecast(std::span<const double> history,
                                             std::int64_t steps) const {
  const std::size_t order = coefficients.size();
  require(history.size() >= order, "Autoregression",
          detail::format("a history of {} values for order {}", history.size(), order));
  require(steps >= 0, "Autoregression", detail::format("{} steps", steps));
  std::vector<double> x(history.end() - static_cast<std::ptrdiff_t>(order), history.end());
  for (std::int64_t k = 0; k < steps; ++k)
    x.push_back(
        std::inner_product(coefficients.begin(), coefficients.end(), x.rbegin(), intercept));
  x.erase(x.begin(), x.begin() + static_cast<std::ptrdiff_t>(order));
  return x;
}

Autoregression fit_autoregression(std::span<const double> series, std::int64_t order) {
  require(order >= 1, "fit_autoregression",
          detail::format("the order must be at least 1, not {}", order));
  require(std::ssize(series) > 2 * order, "fit_autoregression",
          detail::format("order {} needs more than {} values, not {}", order, 2 * order,
                         series.size()));
  const auto p = static_cast<std::size_t>(order);
  const std::size_t n = series.size() - p;
  std::vector<std::vector<double>> columns{std::vector<double>(n, 1.0)};
  for (std::size_t lag = 1; lag <= p; ++lag) {
    const auto values = series.subspan(p - lag, n);
    columns.emplace_back(values.begin(), values.end());
  }
  const auto targets = series.subspan(p);
  std::vector<double> weights =
      least_squares(std::move(columns), std::vector<double>(targets.begin(), targets.end()));
  const double intercept = weights.front();
  weights.erase(weights.begin());
  return {intercept, std::move(weights)};
}

MarkovChain::MarkovChain(std::span<const double> series, std::int64_t states, double epsilon) {
  require(series.size() >= 2, "MarkovChain",
          detail::format("the series has {} values, and needs 2", series.size()));
  require(states >= 1, "MarkovChain", detail::format("{} states", states));
  require(epsilon > 0, "MarkovChain", detail::format("epsilon must be above 0, not {}", epsilon));
  std::vector<double> sorted(series.begin(), series.end());
  std::sort(sorted.begin(), sorted.end());
  for (std::int64_t i = 1; i < states; ++i) {
    const double bound =
        sorted[sorted.size() * static_cast<std::size_t>(i) / static_cast<std::size_t>(states)];
    if (bound > (bounds_.empty() ? sorted.front() : bounds_.back())) bounds_.push_back(bound);
  }

  const std::size_t n = bounds_.size() + 1;
  const auto index = [&](double value) { return static_cast<std::size_t>(state(value)); };
  means_.assign(n, 0.0);
  std::vector<double> counts(n, 0.0);
  for (const double value : series) {
    means_[index(value)] += value;
    ++counts[index(value)];
  }
  for (std::size_t i = 0; i < n; ++i) means_[i] /= counts[i];

  transitions_.assign(n, std::vector<double>(n, epsilon));
  for (std::size_t t = 1; t < series.size(); ++t)
    ++transitions_[index(series[t - 1])][index(series[t])];
  for (std::vector<double>& row : transitions_) {
    const double total = std::accumulate(row.begin(), row.end(), 0.0);
    for (double& p : row) p /= total;
  }
}

std::int64_t MarkovChain::state(double value) const {
  return std::upper_bound(bounds_.begin(), bounds_.end(), value) - bounds_.begin();
}

std::vector<double> MarkovChain::forecast(double value, std::int64_t steps) const {
  require(steps >= 0, "MarkovChain", detail::format("{} steps", steps));
  std::vector<double> m = means_, values;
  for (std::int64_t k = 0; k < steps; ++k) {
    std::vector<double> next;
    for (const std::vector<double>& row : transitions_) next.push_back(dot(row, m));
    m = std::move(next);
    values.push_back(m[static_cast<std::size_t>(state(value))]);
  }
  return values;
}

Tensor rolling_forecasts(
    std::span<const double> series, std::int64_t first,
    const std::function<std::vector<double>(std::span<const double>)>& forecast) {
  const std::int64_t rows = std::ssize(series) - first;
  require_time(first, 0, series);
  std::vector<double> values;
  std::size_t horizon = 0;
  for (std::int64_t i = 0; i < rows; ++i) {
    const auto next = forecast(series.first(static_cast<std::size_t>(first + i + 1)));
    if (i == 0) horizon = next.size();
    require(next.size() == horizon, "rolling_forecasts",
            detail::format("forecast {} is of {} values, those before it are of {}", i, next.size(),
                           horizon));
    values.insert(values.end(), next.begin(), next.end());
  }
  return from_vector(values, {rows, static_cast<std::int64_t>(horizon)});
}

Tensor rolling_forecasts(std::span<const double> series, std::int64_t first, std::int64_t steps,
                         const std::function<Tensor(const Tensor& windows)>& forecast) {
  require(steps >= 1, "rolling_forecasts", detail::format("windows of {} values", steps));
  require_time(first, steps - 1, series);
  const NoGrad no_grad;
  const auto read = series.subspan(static_cast<std::size_t>(first + 1 - steps));
  std::vector<Tensor> rows;
  for (const Tensor& windows : split(sliding_windows(read, steps), 1000, 1)) {
    rows.push_back(forecast(windows));
    if (rows.back().dim() != 2 || rows.back().size(0) != windows.size(1))
      detail::fail<ShapeError>("rolling_forecasts: {} windows have forecasts of shape {}",
                               windows.size(1), to_string(rows.back().shape()));
  }
  return concatenate(rows).to(DType::f64);
}

std::vector<double> rolling_rmse(std::span<const double> series, const Tensor& forecasts) {
  if (forecasts.dtype() != DType::f64)
    throw DTypeError("rolling_rmse: the forecasts are of " + to_string(forecasts.dtype()));
  if (forecasts.dim() != 2 || forecasts.size(1) < 1 || forecasts.size(0) < forecasts.size(1))
    throw ShapeError("rolling_rmse: forecasts [N, horizon] with N >= horizon >= 1, not " +
                     to_string(forecasts.shape()));
  const std::int64_t rows = forecasts.size(0), horizon = forecasts.size(1);
  require(std::ssize(series) > rows, "rolling_rmse",
          detail::format("{} forecasts for a series of {} values", rows, series.size()));
  const std::int64_t count = rows - horizon + 1;
  const auto last = series.last(static_cast<std::size_t>(count));
  const Tensor targets = from_vector(std::vector<double>(last.begin(), last.end()));
  std::vector<double> errors;
  for (std::int64_t k = 1; k <= horizon; ++k) {
    const Tensor made = narrow(select(forecasts, 1, k - 1), 0, horizon - k, count);
    errors.push_back(std::sqrt(mse_loss(made, targets).item()));
  }
  return errors;
}

}  // namespace unroll
