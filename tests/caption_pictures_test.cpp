// The generated pictures of examples/caption.cpp: what is held out stands nowhere in training.

#include <doctest/doctest.h>
#include <unroll/unroll.h>

#include <set>
#include <string>
#include <vector>

#include "examples/caption/pictures.h"

namespace {

using namespace unroll;

/// "a small red square top left", for each shape of a caption.
std::vector<std::string> phrases(std::string caption) {
  std::vector<std::string> all;
  for (std::size_t end; (end = caption.find(" and ")) != std::string::npos;) {
    all.push_back(caption.substr(0, end));
    caption.erase(0, end + 5);
  }
  all.push_back(caption);
  return all;
}

TEST_CASE("pictures of the unseen part have a combination that training has not") {
  Generator generator(0);
  std::set<std::string> known;
  for (const std::string& caption : caption::make_pictures(6000, false, generator).captions)
    for (const std::string& phrase : phrases(caption)) known.insert(phrase);
  CHECK(known.size() == 72);  // three fourths of 2 sizes, 4 colours, 3 shapes, 4 places
  std::set<std::string> unseen;
  for (const std::string& caption : caption::make_pictures(500, true, generator).captions) {
    bool any = false;
    for (const std::string& phrase : phrases(caption))
      if (!known.contains(phrase)) any = true, unseen.insert(phrase);
    CHECK(any);
  }
  CHECK(unseen.size() == 24);  // the others
}

}  // namespace
