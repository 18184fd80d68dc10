#include "framework/file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <utility>

#include "framework/check.h"

namespace unroll {
namespace {

[[noreturn]] void fail(const char* verb, const std::string& path, int error) {
  throw FileError(std::string("cannot ") + verb + " '" + path + "': " + std::strerror(error));
}

/// An open file descriptor, closed when it goes out of scope.
class File {
 public:
  File(const std::string& path, int flags, mode_t mode = 0)
      : descriptor_(::open(path.c_str(), flags | O_CLOEXEC, mode)) {}
  explicit File(int descriptor) : descriptor_(descriptor) {}
  File(File&& other) noexcept : descriptor_(std::exchange(other.descriptor_, -1)) {}
  File(const File&) = delete;
  File& operator=(const File&) = delete;
  ~File() { close(); }

  explicit operator bool() const { return descriptor_ >= 0; }
  int descriptor() const { return descriptor_; }
  /// Some file systems report a failed write only here.
  bool close() {
    int descriptor = std::exchange(descriptor_, -1);
    return descriptor < 0 || ::close(descriptor) == 0;
  }

 private:
  int descriptor_;
};

bool write_all(const File& file, std::string_view contents) {
  while (!contents.empty()) {
    ssize_t written = ::write(file.descriptor(), contents.data(), contents.size());
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) return false;
    contents.remove_prefix(static_cast<std::size_t>(written));
  }
  return true;
}

void write_directly(File file, const std::string& path, std::string_view contents) {
  if (!file || !write_all(file, contents) || !file.close()) fail("write", path, errno);
}

/// A new file `target`.<process>-<n>.tmp that nobody else has.
File make_temporary(const std::string& target, mode_t mode, std::string& name) {
  const std::string stem = target + "." + std::to_string(::getpid()) + "-";
  for (int n = 0;; ++n) {
    name = stem + std::to_string(n) + ".tmp";
    File file(name, O_WRONLY | O_CREAT | O_EXCL, mode);
    if (file || errno != EEXIST) return file;
  }
}

}  // namespace

std::string read_file(const std::string& path) {
  File file(path, O_RDONLY);
  if (!file) fail("read", path, errno);

  // The size is only a hint: a pipe or a file of /proc says 0.
  struct stat status {};
  if (::fstat(file.descriptor(), &status) != 0) fail("read", path, errno);
  std::string contents(static_cast<std::size_t>(status.st_size) + 4096, '\0');
  std::size_t length = 0;
  for (;;) {
    if (length == contents.size()) contents.resize(2 * length);
    ssize_t got = ::read(file.descriptor(), contents.data() + length, contents.size() - length);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) fail("read", path, errno);
    if (got == 0) break;
    length += static_cast<std::size_t>(got);
  }
  contents.resize(length);
  return contents;
}

void write_file_atomically(const std::string& path, std::string_view contents) {
  // These may be redirected to a file: what others write there must stay, so the place in it is
  // shared with them.
  if (path == "/dev/stdout" || path == "/dev/stderr") {
    write_directly(File(::dup(path == "/dev/stdout" ? STDOUT_FILENO : STDERR_FILENO)), path,
                   contents);
    return;
  }

  // Where path is a symbolic link, the target is what it points to.
  std::unique_ptr<char, void (*)(void*)> resolved(::realpath(path.c_str(), nullptr), std::free);
  const std::string target = resolved ? resolved.get() : path;

  struct stat status {};
  const bool exists = ::stat(target.c_str(), &status) == 0;
  if (exists && !S_ISREG(status.st_mode)) {
    write_directly(File(target, O_WRONLY), path, contents);
    return;
  }

  std::string temporary;
  File file = make_temporary(target, exists ? status.st_mode & 0777 : 0666, temporary);
  if (!file) fail("write", path, errno);
  if (!write_all(file, contents) || ::fsync(file.descriptor()) != 0 || !file.close() ||
      std::rename(temporary.c_str(), target.c_str()) != 0) {
    const int error = errno;
    ::unlink(temporary.c_str());
    fail("write", path, error);
  }
}

}  // namespace unroll
