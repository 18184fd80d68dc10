#pragma once
/// What the test case of a page stands on.

#include <filesystem>
#include <iostream>
#include <sstream>
#include <string>

namespace unroll::test {

/// While it lives, the working directory is one of this page, in which examples/ is at hand. What
/// the page sets in std::cout, such as a precision, ends with it as well.
class Directory {
 public:
  explicit Directory(const std::string& page);
  ~Directory() {
    std::filesystem::current_path(saved_);
    std::cout.copyfmt(format_);
  }
  Directory(const Directory&) = delete;
  Directory& operator=(const Directory&) = delete;

 private:
  std::filesystem::path saved_ = std::filesystem::current_path();
  std::ios format_{nullptr};
};

/// What a page's code prints, against what the page says that it prints: from its making to
/// check(), std::cout writes here.
class Printed {
 public:
  Printed() : saved_(std::cout.rdbuf(text_.rdbuf())) {}
  ~Printed() { std::cout.rdbuf(saved_); }
  Printed(const Printed&) = delete;
  Printed& operator=(const Printed&) = delete;

  /// Fails unless both texts have the same words. A number may be off by 1 %, for instruction sets
  /// round differently; "..." stands for any words, none included.
  void check(const std::string& wanted, const char* place);

 private:
  std::ostringstream text_;
  std::streambuf* saved_;
};

/// Whether Printed::check() takes one for the other.
bool same_output(const std::string& printed, const std::string& wanted);

}  // namespace unroll::test
