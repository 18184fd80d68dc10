#include "examples/common/json_log.h"

#include <fmt/format.h>

#include <cerrno>
#include <cstring>

#include "framework/check.h"

namespace examples {

JsonLog::JsonLog(const std::string& path, bool append) : path_(path) {
  if (path.empty()) return;
  file_.reset(std::fopen(path.c_str(), append ? "a" : "w"));
  if (!file_)
    throw unroll::FileError(fmt::format("cannot write {}: {}", path, std::strerror(errno)));
}

void JsonLog::write(const Json& line, const std::function<void()>& rescue) {
  if (!file_) return;
  const std::string text = line.dump() + "\n";
  if (std::fputs(text.c_str(), file_.get()) >= 0 && std::fflush(file_.get()) == 0) return;
  const unroll::FileError error(fmt::format("cannot write {}: {}", path_, std::strerror(errno)));
  if (rescue) rescue();
  throw error;
}

}  // namespace examples
