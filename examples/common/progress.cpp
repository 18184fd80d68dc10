#include "examples/common/progress.h"

#include <fmt/format.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdio>

namespace examples {

namespace {

/// 0:07, 12:34, 1:02:03
std::string clock_time(double seconds) {
  const auto s = static_cast<std::int64_t>(std::llround(seconds));
  if (s < 3600) return fmt::format("{}:{:02}", s / 60, s % 60);
  return fmt::format("{}:{:02}:{:02}", s / 3600, s / 60 % 60, s % 60);
}

std::size_t terminal_columns() {
  winsize size = {};
  if (ioctl(STDERR_FILENO, TIOCGWINSZ, &size) != 0 || size.ws_col == 0) return 80;
  return size.ws_col;
}

}  // namespace

Progress::Progress(const Options& options)
    : options_(options),
      terminal_(isatty(STDERR_FILENO) == 1),
      start_(Clock::now()),
      last_(start_) {}

Progress::~Progress() {
  if (open_) fmt::print(stderr, "\n");
}

void Progress::update(std::int64_t done, const std::string& status) {
  using std::chrono::milliseconds;
  const auto now = Clock::now();
  if (now - last_ < (terminal_ ? milliseconds(100) : milliseconds(5000))) return;
  last_ = now;
  draw(done, status);
}

void Progress::finish(std::int64_t done, const std::string& status) {
  draw(done, status);
  if (open_) fmt::print(stderr, "\n");
  open_ = false;
}

void Progress::draw(std::int64_t done, const std::string& status) {
  if (options_.quiet) return;
  const double part =
      std::clamp(static_cast<double>(done) / static_cast<double>(options_.total), 0.0, 1.0);
  const double seconds = std::chrono::duration<double>(Clock::now() - start_).count();
  const double speed = static_cast<double>(done - options_.first) / std::max(seconds, 1e-9);
  const auto remaining = static_cast<double>(std::max<std::int64_t>(options_.total - done, 0));

  std::string line = fmt::format("{:3.0f}%", std::floor(100 * part));
  if (speed > 0)
    line += "  " + (part < 1 ? clock_time(remaining / speed) + " left" : clock_time(seconds));
  line += "  " + status;
  if (!terminal_) {
    fmt::print(stderr, "{}\n", line);
    return;
  }
  // The bar takes the room that the text leaves.
  const std::size_t room = terminal_columns() - 1;
  if (line.size() + 8 <= room) {
    const std::size_t width = std::min<std::size_t>(room - line.size() - 3, 20);
    const auto filled = static_cast<std::size_t>(static_cast<double>(width) * part);
    line =
        fmt::format("[{}{}] {}", std::string(filled, '#'), std::string(width - filled, '-'), line);
  }
  line.resize(std::min(line.size(), room));
  fmt::print(stderr, "\r{}\x1b[K", line);  // \x1b[K: clears what a longer line left behind
  open_ = true;
}

}  // namespace examples
