// docs/from_pytorch.md: no listing is much longer than its PyTorch twin.

#include <doctest/doctest.h>

#include <string>
#include <utility>
#include <vector>

#include "data/text.h"

using namespace unroll;

namespace {

/// The visible blocks of a page, as a language and the number of lines that are not empty.
std::vector<std::pair<std::string, int>> listings(const std::string& path) {
  std::vector<std::pair<std::string, int>> list;
  bool open = false;
  for (const std::string& line : read_lines(path)) {
    if (line.rfind("```", 0) == 0) {
      open = !open;
      if (open) list.emplace_back(line.substr(3, line.find(' ') - 3), 0);
    } else if (open && line.find_first_not_of(' ') != std::string::npos) {
      ++list.back().second;
    }
  }
  return list;
}

}  // namespace

TEST_CASE("docs/from_pytorch.md: every listing has a twin of at most 1.5 times as many lines") {
  const auto list = listings(UNROLL_SOURCE_DIR "/docs/from_pytorch.md");
  int twins = 0;
  for (std::size_t i = 0; i < list.size(); ++i) {
    CAPTURE(i);
    if (list[i].first == "output") continue;
    REQUIRE(list[i].first == "python");
    REQUIRE(i + 1 < list.size());
    REQUIRE(list[i + 1].first == "cpp");
    CHECK(list[i + 1].second <= 1.5 * list[i].second);
    ++twins;
    ++i;
  }
  CHECK(twins == 13);
}
