#include "data/series.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <numbers>
#include <numeric>

#include "framework/check.h"

namespace unroll {
namespace {

void require(bool good, const char* where, const std::string& what) {
  if (!good) throw ValueError(fmt::format("{}: {}", where, what));
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
  require(length >= 0, "noisy_sine", fmt::format("the length is {}", length));
  require(period > 0, "noisy_sine", fmt::format("the period must be above 0, not {}", period));
  require(noise >= 0, "noisy_sine", fmt::format("the noise must be at least 0, not {}", noise));
  std::vector<double> x;
  for (std::int64_t t = 0; t < length; ++t)
    x.push_back(std::sin(2 * std::numbers::pi * static_cast<double>(t) / period) +
                noise * generator.normal());
  return x;
}

std::vector<double> mackey_glass(std::int64_t length, std::int64_t delay, std::int64_t interval) {
  require(length >= 0, "mackey_glass", fmt::format("the length is {}", length));
  require(delay >= 1, "mackey_glass", fmt::format("the delay must be at least 1, not {}", delay));
  require(interval >= 1, "mackey_glass",
          fmt::format("the interval must be at least 1, not {}", interval));
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

std::vector<double> Autoregression::forecast(std::span<const double> history,
                                             std::int64_t steps) const {
  const std::size_t order = coefficients.size();
  require(history.size() >= order, "Autoregression",
          fmt::format("a history of {} values for order {}", history.size(), order));
  require(steps >= 0, "Autoregression", fmt::format("{} steps", steps));
  std::vector<double> x(history.end() - static_cast<std::ptrdiff_t>(order), history.end());
  for (std::int64_t k = 0; k < steps; ++k)
    x.push_back(
        std::inner_product(coefficients.begin(), coefficients.end(), x.rbegin(), intercept));
  x.erase(x.begin(), x.begin() + static_cast<std::ptrdiff_t>(order));
  return x;
}

Autoregression fit_autoregression(std::span<const double> series, std::int64_t order) {
  require(order >= 1, "fit_autoregression",
          fmt::format("the order must be at least 1, not {}", order));
  require(
      std::ssize(series) > 2 * order, "fit_autoregression",
      fmt::format("order {} needs more than {} values, not {}", order, 2 * order, series.size()));
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
          fmt::format("the series has {} values, and needs 2", series.size()));
  require(states >= 1, "MarkovChain", fmt::format("{} states", states));
  require(epsilon > 0, "MarkovChain", fmt::format("epsilon must be above 0, not {}", epsilon));
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
  require(steps >= 0, "MarkovChain", fmt::format("{} steps", steps));
  std::vector<double> m = means_, values;
  for (std::int64_t k = 0; k < steps; ++k) {
    std::vector<double> next;
    for (const std::vector<double>& row : transitions_) next.push_back(dot(row, m));
    m = std::move(next);
    values.push_back(m[static_cast<std::size_t>(state(value))]);
  }
  return values;
}

}  // namespace unroll
