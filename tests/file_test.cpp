#include "framework/file.h"

#include <doctest/doctest.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdio>
#include <filesystem>
#include <string>
#include <vector>

#include "framework/check.h"
#include "tests/temporary_directory.h"

using namespace unroll;
using unroll::test::TemporaryDirectory;

namespace {

/// As long as one lives, no file grows above `bytes`: a full disk, to the program.
class FileSizeLimit {
 public:
  explicit FileSizeLimit(rlim_t bytes) : handler_(::signal(SIGXFSZ, SIG_IGN)) {
    ::getrlimit(RLIMIT_FSIZE, &saved_);
    rlimit limit = saved_;
    limit.rlim_cur = bytes;
    ::setrlimit(RLIMIT_FSIZE, &limit);
  }
  FileSizeLimit(const FileSizeLimit&) = delete;
  FileSizeLimit& operator=(const FileSizeLimit&) = delete;
  ~FileSizeLimit() {
    ::setrlimit(RLIMIT_FSIZE, &saved_);
    ::signal(SIGXFSZ, handler_);
  }

 private:
  rlimit saved_{};
  void (*handler_)(int);
};

mode_t mode_of(const std::string& path) {
  struct stat status {};
  REQUIRE(::stat(path.c_str(), &status) == 0);
  return status.st_mode & 0777;
}

}  // namespace

TEST_CASE("file: what is written is read, byte for byte") {
  TemporaryDirectory directory;
  const std::string path = directory.file("a");
  std::string large;
  for (int i = 0; i < 300'000; ++i) large.push_back(static_cast<char>(i * 7 % 251));
  for (const std::string& contents :
       {std::string(), std::string("text\n"), std::string("a\0b\r\n\xff", 6), large}) {
    write_file_atomically(path, contents);
    CHECK(read_file(path) == contents);
  }
  CHECK(directory.names() == std::vector<std::string>{"a"});
}

TEST_CASE("file: one whose size the system does not tell is read to its end") {
  const std::string status = read_file("/proc/self/status");
  CHECK(status.substr(0, 5) == "Name:");
  CHECK(status.back() == '\n');
}

TEST_CASE("file: what cannot be read is an error with path and reason") {
  TemporaryDirectory directory;
  const std::string missing = directory.file("missing");
  CHECK_THROWS_WITH_AS(read_file(missing),
                       ("cannot read '" + missing + "': No such file or directory").c_str(),
                       FileError);
  CHECK_THROWS_WITH_AS(read_file(directory.path()),
                       ("cannot read '" + directory.path() + "': Is a directory").c_str(),
                       FileError);
}

TEST_CASE("file: what cannot be written is an error with path and reason") {
  TemporaryDirectory directory;
  const std::string nowhere = directory.file("missing/a");
  CHECK_THROWS_WITH_AS(write_file_atomically(nowhere, "x"),
                       ("cannot write '" + nowhere + "': No such file or directory").c_str(),
                       FileError);
  CHECK_THROWS_WITH_AS(write_file_atomically(directory.path(), "x"),
                       ("cannot write '" + directory.path() + "': Is a directory").c_str(),
                       FileError);
  CHECK_THROWS_WITH_AS(write_file_atomically("", "x"), "cannot write '': No such file or directory",
                       FileError);
  CHECK(directory.names().empty());
}

TEST_CASE("file: a full disk leaves the old contents and no temporary file") {
  TemporaryDirectory directory;
  const std::string path = directory.file("a");
  write_file_atomically(path, "old");
  {
    FileSizeLimit limit(1000);
    CHECK_THROWS_WITH_AS(write_file_atomically(path, std::string(2000, 'x')),
                         ("cannot write '" + path + "': File too large").c_str(), FileError);
    const std::string fresh = directory.file("b");
    CHECK_THROWS_WITH_AS(write_file_atomically(fresh, std::string(2000, 'x')),
                         ("cannot write '" + fresh + "': File too large").c_str(), FileError);
  }
  CHECK(read_file(path) == "old");
  CHECK(directory.names() == std::vector<std::string>{"a"});
}

TEST_CASE("file: a device is written to, not replaced") {
  TemporaryDirectory directory;
  const std::string full = directory.file("full");
  std::filesystem::create_symlink("/dev/full", full);
  CHECK_THROWS_WITH_AS(write_file_atomically(full, "x"),
                       ("cannot write '" + full + "': No space left on device").c_str(), FileError);
  write_file_atomically("/dev/null", "x");
  CHECK(std::filesystem::is_character_file("/dev/null"));
  CHECK(directory.names() == std::vector<std::string>{"full"});
}

TEST_CASE("file: standard output is written to where it stands, a file behind it not replaced") {
  TemporaryDirectory directory;
  const std::string path = directory.file("a");
  const int file = ::open(path.c_str(), O_WRONLY | O_CREAT, 0600), saved = ::dup(STDOUT_FILENO);
  std::fflush(stdout);
  ::dup2(file, STDOUT_FILENO);
  const bool before = ::write(STDOUT_FILENO, "one ", 4) == 4;
  write_file_atomically("/dev/stdout", "two ");
  const bool after = ::write(STDOUT_FILENO, "three", 5) == 5;
  ::dup2(saved, STDOUT_FILENO);
  ::close(saved);
  ::close(file);
  CHECK(before);
  CHECK(after);
  CHECK(read_file(path) == "one two three");
  CHECK(directory.names() == std::vector<std::string>{"a"});
}

TEST_CASE("file: a file on a file system in /dev is a file like any other") {
  if (!std::filesystem::is_directory("/dev/shm")) return;
  const std::string path = "/dev/shm/unroll-file-test-" + std::to_string(::getpid());
  write_file_atomically(path, "old contents");
  write_file_atomically(path, "new");
  const std::string contents = read_file(path);
  std::filesystem::remove(path);
  CHECK(contents == "new");
}

TEST_CASE("file: a symbolic link stays, its target is replaced") {
  TemporaryDirectory directory;
  const std::string target = directory.file("target"), link = directory.file("link");
  write_file_atomically(target, "old");
  std::filesystem::create_symlink("target", link);
  write_file_atomically(link, "new");
  CHECK(std::filesystem::is_symlink(link));
  CHECK(read_file(target) == "new");
  CHECK(directory.names() == std::vector<std::string>{"link", "target"});
}

TEST_CASE("file: a private file stays private") {
  TemporaryDirectory directory;
  const std::string path = directory.file("a");
  write_file_atomically(path, "old");
  const mode_t usual = mode_of(path);
  CHECK((usual & 0600) == 0600);
  std::filesystem::permissions(path, std::filesystem::perms{0600});
  write_file_atomically(path, "new");
  CHECK(mode_of(path) == 0600);
}

TEST_CASE("file: a temporary file that somebody left is no hindrance") {
  TemporaryDirectory directory;
  const std::string path = directory.file("a");
  const std::string left = path + "." + std::to_string(::getpid()) + "-0.tmp";
  write_file_atomically(left, "not ours");
  write_file_atomically(path, "new");
  CHECK(read_file(path) == "new");
  CHECK(read_file(left) == "not ours");
}
