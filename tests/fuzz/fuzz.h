#pragma once
/// What the fuzz targets share. A target is a program that libFuzzer feeds with bytes; it ends with
/// a message where something is not as it must be, and the sanitizers end it where memory is
/// touched that is none.

#include <unistd.h>

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <string>
#include <string_view>

namespace unroll::fuzz {

inline void require(bool condition, const std::string& what) {
  if (condition) return;
  std::fprintf(stderr, "WRONG: %s\n", what.c_str());
  std::abort();
}

inline std::string_view text_of(const std::uint8_t* data, std::size_t size) {
  return {reinterpret_cast<const char*>(data), size};
}

/// A file that lives in memory, for what takes a path.
class MemoryFile {
 public:
  /// `suffix` tells a program's files apart.
  explicit MemoryFile(const std::string& suffix = "")
      : path_("/dev/shm/unroll-fuzz-" + std::to_string(::getpid()) + suffix) {}
  MemoryFile(const MemoryFile&) = delete;
  MemoryFile& operator=(const MemoryFile&) = delete;
  ~MemoryFile() { ::unlink(path_.c_str()); }

  void write(std::string_view contents) const {
    std::ofstream file(path_, std::ios::binary);
    file.write(contents.data(), static_cast<std::streamsize>(contents.size()));
    require(file.good(), "the memory file cannot be written");
  }
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

/// Decisions made of the input's bytes; 0 once they are used up.
class Bytes {
 public:
  Bytes(const std::uint8_t* data, std::size_t size) : next_(data), end_(data + size) {}
  bool empty() const { return next_ == end_; }
  std::uint8_t byte() { return empty() ? std::uint8_t{0} : *next_++; }
  /// 0 to n - 1; n <= 256.
  std::int64_t below(std::int64_t n) { return byte() % n; }
  bool flag() { return below(2) == 1; }

 private:
  const std::uint8_t* next_;
  const std::uint8_t* end_;
};

}  // namespace unroll::fuzz
