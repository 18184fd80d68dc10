#include "framework/external.h"

#include <fmt/format.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <cstring>

#include "framework/check.h"
#include "framework/file.h"

namespace unroll::detail {

namespace {

/// The reason why a program did not run to its good end, or "".
std::string run(std::vector<std::string> command) {
  std::vector<char*> arguments;
  for (std::string& argument : command) arguments.push_back(argument.data());
  arguments.push_back(nullptr);
  pid_t process = 0;
  const int error =
      posix_spawnp(&process, arguments[0], nullptr, nullptr, arguments.data(), environ);
  if (error != 0) return fmt::format("{} can't be started ({})", command[0], std::strerror(error));
  int status = 0;
  waitpid(process, &status, 0);
  if (WIFEXITED(status) && WEXITSTATUS(status) == 127)  // how some systems say the same
    return fmt::format("{} can't be started", command[0]);
  return WIFEXITED(status) && WEXITSTATUS(status) == 0 ? "" : command[0] + " failed";
}

/// A file that is not there afterwards.
struct Temporary {
  explicit Temporary(std::string name) : path(std::move(name)) {}
  ~Temporary() { std::remove(path.c_str()); }
  Temporary(const Temporary&) = delete;
  Temporary& operator=(const Temporary&) = delete;
  const std::string path;
};

}  // namespace

void write_by_program(const std::string& path, const std::string& input,
                      const std::function<std::vector<std::string>(const std::string&,
                                                                   const std::string&)>& command) {
  const std::string name = fmt::format("{}.{}", path, getpid());
  const Temporary from(name + ".in"), to(name + ".out");
  write_file_atomically(from.path, input);
  const std::string problem = run(command(from.path, to.path));
  if (!problem.empty()) throw FileError(fmt::format("{}: {}", path, problem));
  write_file_atomically(path, read_file(to.path));
}

}  // namespace unroll::detail
