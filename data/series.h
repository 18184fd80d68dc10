#pragma once
/// Time series: two to try a forecast on, and the classical ways to make one.

#include <cstdint>
#include <iterator>
#include <span>
#include <vector>

#include "framework/random.h"

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

}  // namespace unroll
