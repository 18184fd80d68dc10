#pragma once
/// Time series: two to try a forecast on, the classical ways to make one, and how good it is.

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "framework/random.h"
#include "framework/tensor.h"

namespace unroll {

/// x_t = sin(2 pi t / period) + N(0, noise^2), t = 0 .. length - 1. Throws ValueError for a
/// negative length or noise, and unless the period is above 0.
std::vector<double> noisy_sine(std::int64_t length, double period, double noise,
                               Generator& generator = default_generator());

/// Mackey and Glass (1977), chaotic for a delay of 17:
///
///   dx/dt = 0.2 x(t - delay) / (1 + x(t - delay)^10) - 0.1 x(t)
///
/// from x = 1.2 for all t <= 0, by Runge-Kutta steps of 0.1; every `interval` units of time a
/// value, the first one after 500 units. Throws ValueError for a negative length, and for a delay
/// or an interval below 1.
std::vector<double> mackey_glass(std::int64_t length, std::int64_t delay = 17,
                                 std::int64_t interval = 6);

/// Brings a series to mean 0 and standard deviation 1, and back:
///
///   const StandardScaler scaler{std::span(x).first(known)};
///   const std::vector<double> z = scaler.transform(x);
///   scaler.inverse(z[0]);  // x[0]
struct StandardScaler {
  /// Changes nothing.
  StandardScaler() = default;
  /// Those of the series (dividing by its length). Throws ValueError for no values, for values that
  /// are all the same, and for a standard deviation that is not finite.
  explicit StandardScaler(std::span<const double> series);

  /// (x - mean) / std of each value.
  std::vector<double> transform(std::span<const double> series) const;
  /// The way back: z * std + mean.
  double inverse(double z) const { return z * std + mean; }
  /// The same of each element.
  Tensor inverse(const Tensor& z) const;

  double mean = 0.0;  ///< of the series
  double std = 1.0;   ///< its standard deviation
};

/// All windows of `length` values that follow each other: f32 [length, N] with N = size - length +
/// 1, time first; column i is series[i], ..., series[i + length - 1]. What a network reads, as
/// unsqueeze(windows, 2), or, as transpose(windows), a table of lags. Throws ValueError for a
/// length below 1 and for a series that is shorter.
Tensor sliding_windows(std::span<const double> series, std::int64_t length);

/// AR(p): x_t = c + a_1 x_{t-1} + ... + a_p x_{t-p}.
struct Autoregression {
  double intercept = 0.0;            ///< the c
  std::vector<double> coefficients;  ///< a_1, ..., a_p

  /// The next `steps` values after a history of p values or more, each one from those before it,
  /// its own forecasts included. Throws ValueError for a shorter history or negative steps.
  std::vector<double> forecast(std::span<const double> history, std::int64_t steps) const;
};

/// The AR(p) with the least sum of squared errors on the series (by a QR decomposition). Where the
/// values leave a coefficient open, as a constant series does, it is 0. Throws ValueError for an
/// order below 1 and unless there are more than 2 order values.
Autoregression fit_autoregression(std::span<const double> series, std::int64_t order);

/// A first-order Markov chain over a series cut into intervals of equally many values (fewer
/// intervals where many values are the same): P(j | i) from the counts of transitions, with
/// add-epsilon smoothing.
class MarkovChain {
 public:
  /// Throws ValueError for a series of less than two values, less than one state, and an epsilon
  /// that is not above 0.
  MarkovChain(std::span<const double> series, std::int64_t states, double epsilon);

  /// Number of intervals.
  std::int64_t states() const { return std::ssize(means_); }
  /// The interval of a value; beyond the values that were seen, the first or the last one.
  std::int64_t state(double value) const;
  /// P(j | i), row i.
  const std::vector<std::vector<double>>& transitions() const { return transitions_; }
  /// E[x_{t+k} | x_t = value] for k = 1 .. steps, exact by the equation of Chapman and Kolmogorov:
  /// m_k[i] = sum_j P(j | i) m_{k-1}[j], where m_0 are the means of the intervals. Throws
  /// ValueError for negative steps.
  std::vector<double> forecast(double value, std::int64_t steps) const;

 private:
  std::vector<double> bounds_;  ///< the lower ends of all intervals but the first
  std::vector<double> means_;
  std::vector<std::vector<double>> transitions_;
};

/// What a model forecasts from one time after another (a rolling origin): row i is
/// forecast(series[0], ..., series[first + i]), the next values as they are expected then. f64
/// [size - first, horizon]. Throws ValueError unless first is in [0, size), and for forecasts of
/// different length.
Tensor rolling_forecasts(
    std::span<const double> series, std::int64_t first,
    const std::function<std::vector<double>(std::span<const double>)>& forecast);
/// The same from a network that reads the last `steps` values of many times at once: forecast gets
/// windows, f32 [steps, N] (sliding_windows) with N up to 1000, off the tape, and returns [N,
/// horizon]. Throws ValueError unless steps is at least 1 and first in [steps - 1, size), and
/// ShapeError for another number of rows.
Tensor rolling_forecasts(std::span<const double> series, std::int64_t first, std::int64_t steps,
                         const std::function<Tensor(const Tensor& windows)>& forecast);

/// The root of the mean squared error k steps ahead at [k - 1]. forecasts: f64 [N, horizon], made
/// at the last N times that have a value after them: row i after series[size - 1 - N + i]. For all
/// k the mean is over the same targets, the last N - horizon + 1 values of the series, so that the
/// errors can be compared:
///
///   const auto forecasts = rolling_forecasts(std::span(x).first(x.size() - 1), first, model);
///   const std::vector<double> errors = rolling_rmse(x, forecasts);
///
/// Throws ShapeError for forecasts of another rank, without columns or with less rows than columns,
/// DTypeError unless they are f64, and ValueError unless the series has more than N values.
std::vector<double> rolling_rmse(std::span<const double> series, const Tensor& forecasts);

}  // namespace unroll
