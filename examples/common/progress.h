#pragma once
/// What a long job says about itself while it runs.

#include <chrono>
#include <cstdint>
#include <string>

namespace examples {

/// On a terminal a bar that is drawn again and again in one line,
///
///   [#####-----]  50%  0:28 left  epoch 40/80  loss 0.521  perplexity 1.68  70,402 tokens/s
///
/// elsewhere (a file, a pipe) the same without the bar as a new line every few seconds. On stderr,
/// so that a program's results can be piped.
class Progress {
 public:
  struct Options {
    std::int64_t total = 1;  ///< units of work, such as batches
    std::int64_t first = 0;  ///< how many of them were done before this job went on
    bool quiet = false;      ///< says nothing at all
  };

  explicit Progress(const Options& options);
  /// Ends the line.
  ~Progress();
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;

  /// `done` of `total` units are done. Draws only if some time has passed since it last did.
  void update(std::int64_t done, const std::string& status);
  /// The last word: draws in any case and ends the line.
  void finish(std::int64_t done, const std::string& status);

 private:
  using Clock = std::chrono::steady_clock;
  void draw(std::int64_t done, const std::string& status);

  Options options_;
  bool terminal_;
  bool open_ = false;  ///< whether the cursor stands at the end of a bar
  Clock::time_point start_;
  Clock::time_point last_;
};

}  // namespace examples
