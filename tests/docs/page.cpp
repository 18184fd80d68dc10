#include "tests/docs/page.h"

#include <doctest/doctest.h>

#include <cctype>
#include <cmath>
#include <cstdlib>
#include <vector>

namespace unroll::test {

namespace {

/// Words; brackets, commas and the like are words of their own, so that "(1.5, 2)" has numbers.
std::vector<std::string> words(const std::string& text) {
  std::vector<std::string> list;
  bool open = false;
  for (const char c : text) {
    if (std::string("()[]{},;:=").find(c) != std::string::npos) {
      list.emplace_back(1, c);
      open = false;
    } else if (std::isspace(static_cast<unsigned char>(c))) {
      open = false;
    } else {
      if (!open) list.emplace_back();
      list.back() += c;
      open = true;
    }
  }
  return list;
}

bool same_word(const std::string& a, const std::string& b) {
  if (a == b) return true;
  char *end_a, *end_b;
  const double x = std::strtod(a.c_str(), &end_a), y = std::strtod(b.c_str(), &end_b);
  // What stands behind a number, such as a unit or %, is the same.
  return end_a != a.c_str() && end_b != b.c_str() && std::string(end_a) == end_b &&
         std::abs(x - y) <= 0.01 * std::abs(y);
}

using Word = std::vector<std::string>::const_iterator;
bool same_words(Word a, Word a_end, Word b, Word b_end) {
  for (; b != b_end; ++a, ++b) {
    if (*b == "...") {
      for (Word rest = a;; ++rest) {
        if (same_words(rest, a_end, b + 1, b_end)) return true;
        if (rest == a_end) return false;
      }
    }
    if (a == a_end || !same_word(*a, *b)) return false;
  }
  return a == a_end;
}

}  // namespace

Directory::Directory(const std::string& page) {
  format_.copyfmt(std::cout);
  const std::filesystem::path path = std::filesystem::path(UNROLL_PAGES_DIR) / page;
  std::filesystem::create_directories(path);
  std::filesystem::current_path(path);
  if (!std::filesystem::exists("examples"))
    std::filesystem::create_directory_symlink(UNROLL_SOURCE_DIR "/examples", "examples");
}

bool same_output(const std::string& printed, const std::string& wanted) {
  const auto a = words(printed), b = words(wanted);
  return same_words(a.begin(), a.end(), b.begin(), b.end());
}

void Printed::check(const std::string& wanted, const char* place) {
  std::cout.rdbuf(saved_);
  const std::string printed = text_.str();
  INFO(std::string(place), ": the code prints\n", printed, "but the page says\n", wanted);
  CHECK(same_output(printed, wanted));
}

}  // namespace unroll::test

TEST_CASE("pages: printed text is compared word by word, numbers to 1 %") {
  using unroll::test::same_output;
  CHECK(same_output("loss 1.003 (2, 3)\n", "loss  1.00 (2, 3)"));
  CHECK(same_output("epoch 1\nepoch 2\nloss 0.5\n", "epoch 1\n...\nloss 0.5"));
  CHECK(same_output("5.02%", "5.00%"));
  CHECK(same_output("a b", "a ... b"));
  CHECK_FALSE(same_output("loss 1.02", "loss 1.00"));
  CHECK_FALSE(same_output("loss 1.00", "loss 1.00 2"));
  CHECK_FALSE(same_output("loss 1.00 2", "loss 1.00"));
  CHECK_FALSE(same_output("5ms", "5us"));
  CHECK_FALSE(same_output("(20, 4, 8)", "(20, 4, 16)"));
  CHECK_FALSE(same_output("epoch 1 loss 0.7", "epoch 1 ... loss 0.5"));
  CHECK_FALSE(same_output("", "x"));
}
