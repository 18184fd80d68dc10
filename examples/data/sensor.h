#pragma once
/// A sensor that drifts and now and then fails.

#include <fmt/format.h>

#include <cmath>
#include <cstdint>
#include <numbers>
#include <string>

#include "framework/random.h"

namespace examples {

/// Two oscillations, of 50 and 170 steps, whose strength and level drift, and noise:
///
///   x_t = level_t + gain_t (sin(2 pi t / 50) + 0.5 sin(2 pi t / 170)) + N(0, 0.05^2)
///
/// After 1,000 good values, faults of four kinds come at random, one in some 250 steps.
class Sensor {
 public:
  explicit Sensor(std::uint64_t seed) : random_(seed) {}

  /// The next value as a line of text; where there is a fault, a tab and its name stand behind it.
  std::string next() {
    level_ += 0.0005 + 0.004 * random_.normal();
    gain_ += 0.002 * (1 - gain_) + 0.004 * random_.normal();
    const double t = static_cast<double>(t_++);
    const double good = level_ +
                        gain_ * (std::sin(2 * std::numbers::pi * t / 50) +
                                 0.5 * std::sin(2 * std::numbers::pi * t / 170)) +
                        0.05 * random_.normal();
    if (t_ > 1000 && left_ == 0 && pause_-- == 0) start();
    const bool faulty = left_ > 0;
    last_ = faulty ? broken(good) : good;
    if (faulty && --left_ == 0) pause_ = 100 + random_.below(300);
    return fmt::format("{:.6f}{}{}", last_, faulty ? "\t" : "", faulty ? kind_ : "");
  }

 private:
  void start() {
    static const char* const kinds[] = {"spike", "step", "noise", "stuck"};
    kind_ = kinds[random_.below(4)];
    left_ = kind_ == "spike" ? 1 : 20;
    size_ = (random_.uniform() < 0.5 ? -1 : 1) * (0.2 + 0.6 * random_.uniform());
  }
  double broken(double good) {
    if (kind_ == "noise") return good + 0.2 * random_.normal();
    if (kind_ == "stuck") return last_;
    return good + size_;  // for one value (spike) or for 20 (step)
  }

  unroll::Generator random_;
  double level_ = 10, gain_ = 1, last_ = 0;
  std::int64_t t_ = 0;
  std::string kind_;
  std::int64_t left_ = 0, pause_ = 0;  ///< values of this fault, and before the next one
  double size_ = 0;
};

}  // namespace examples
