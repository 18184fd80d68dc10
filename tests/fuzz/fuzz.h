#pragma once
/// What the fuzz targets share. A target is a program that libFuzzer feeds with bytes; it ends with
/// a message where something is not as it must be, and the sanitizers end it where memory is
/// touched that is none.

#include <sys/mman.h>
#include <unistd.h>

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
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

/// A file that lives in memory, for readers that take a path.
class MemoryFile {
 public:
  MemoryFile() : descriptor_(::memfd_create("fuzz", 0)) {
    require(descriptor_ >= 0, "there is no memory file");
  }
  MemoryFile(const MemoryFile&) = delete;
  MemoryFile& operator=(const MemoryFile&) = delete;
  ~MemoryFile() { ::close(descriptor_); }

  void write(std::string_view contents) const {
    require(::ftruncate(descriptor_, 0) == 0 &&
                ::pwrite(descriptor_, contents.data(), contents.size(), 0) ==
                    static_cast<::ssize_t>(contents.size()),
            "the memory file cannot be written");
  }
  std::string path() const { return "/proc/self/fd/" + std::to_string(descriptor_); }

 private:
  int descriptor_;
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
