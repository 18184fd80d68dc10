#include "framework/external.h"

#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <system_error>

#include "framework/check.h"
#include "framework/file.h"
#include "framework/format.h"

namespace unroll::detail {

namespace {

/// Throws unless a program runs to its good end, for the sake of `path`.
void run(std::vector<std::string> command, const std::string& path) {
  std::vector<char*> arguments;
  for (std::string& argument : command) arguments.push_back(argument.data());
  arguments.push_back(nullptr);
  pid_t process = 0;
  const int error =
      posix_spawnp(&process, arguments[0], nullptr, nullptr, arguments.data(), environ);
  if (error != 0)
    detail::fail<MissingProgram>("{}: {} can't be started ({})", path, command[0],
                                 std::strerror(error));
  int status = 0;
  waitpid(process, &status, 0);
  if (WIFEXITED(status) && WEXITSTATUS(status) == 127)  // how some systems say the same
    detail::fail<MissingProgram>("{}: {} can't be started", path, command[0]);
  if (!WIFEXITED(status) || WEXITSTATUS(status) != 0)
    detail::fail<FileError>("{}: {} failed", path, command[0]);
}

/// A directory that is not there afterwards.
struct TemporaryDirectory {
  TemporaryDirectory() {
    std::error_code unknown;  // then mkdtemp has something to say
    path = std::filesystem::temp_directory_path(unknown).string() + "/unroll.XXXXXX";
    if (mkdtemp(path.data()) == nullptr)
      detail::fail<FileError>("cannot make '{}': {}", path, std::strerror(errno));
  }
  ~TemporaryDirectory() {
    std::error_code ignored;
    std::filesystem::remove_all(path, ignored);
  }
  TemporaryDirectory(const TemporaryDirectory&) = delete;
  TemporaryDirectory& operator=(const TemporaryDirectory&) = delete;
  std::string path;
};

}  // namespace

void write_by_program(const std::string& path, const std::string& input,
                      const std::function<std::vector<std::string>(const std::string&,
                                                                   const std::string&)>& command) {
  const TemporaryDirectory directory;
  const std::string from = directory.path + "/in", to = directory.path + "/out";
  write_file_atomically(from, input);
  run(command(from, to), path);
  write_file_atomically(path, read_file(to));
}

}  // namespace unroll::detail
