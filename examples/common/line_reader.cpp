#include "examples/common/line_reader.h"

#include <fmt/format.h>
#include <poll.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "framework/check.h"

namespace examples {

bool LineReader::next(std::string& line, const Interrupt& interrupt) {
  line.clear();
  bool any = false;
  while (at_ < buffer_.size() || fill(interrupt)) {
    any = true;
    const std::size_t end = std::min(buffer_.find('\n', at_), buffer_.size());
    line.append(buffer_, at_, std::min(end - at_, longest_ - line.size()));
    at_ = end + 1;
    if (end < buffer_.size()) break;
  }
  if (interrupt.requested()) return false;
  if (line.ends_with('\r')) line.pop_back();
  return any;
}

/// Waits for more. A signal does not end read() (SA_RESTART), so it is asked for now and then.
bool LineReader::fill(const Interrupt& interrupt) {
  buffer_.resize(1 << 16);
  at_ = 0;
  ssize_t count = 0;
  while (!interrupt.requested()) {
    pollfd waiting{descriptor_, POLLIN, 0};
    if (::poll(&waiting, 1, 200) <= 0) continue;  // nothing yet, or a signal
    count = ::read(descriptor_, buffer_.data(), buffer_.size());
    if (count >= 0) break;
    if (errno != EINTR && errno != EAGAIN)
      throw unroll::FileError(fmt::format("cannot read the input: {}", std::strerror(errno)));
    count = 0;
  }
  buffer_.resize(static_cast<std::size_t>(count));
  return count > 0;
}

std::string printable(const std::string& text) {
  std::string result = text.substr(0, 40);
  for (char& c : result)
    if (c < ' ' || c > '~') c = '?';
  return text.size() > 40 ? result + "..." : result;
}

}  // namespace examples
