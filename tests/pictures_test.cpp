// Pictures with captions: files, and generated ones, where what is held out stands nowhere in
// training.

#include <doctest/doctest.h>
#include <unroll/unroll.h>

#include <set>
#include <string>
#include <vector>

#include "data/pictures.h"
#include "examples/data/shape_pictures.h"
#include "framework/file.h"
#include "tests/compare.h"
#include "tests/temporary_directory.h"

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
  for (const auto& caption : examples::make_shapes(6000, false, generator).captions)
    for (const std::string& phrase : phrases(join(caption, " "))) known.insert(phrase);
  CHECK(known.size() == 72);  // three fourths of 2 sizes, 4 colours, 3 shapes, 4 places
  std::set<std::string> unseen;
  for (const auto& caption : examples::make_shapes(500, true, generator).captions) {
    bool any = false;
    for (const std::string& phrase : phrases(join(caption, " ")))
      if (!known.contains(phrase)) any = true, unseen.insert(phrase);
    CHECK(any);
  }
  CHECK(unseen.size() == 24);  // the others
}

TEST_CASE("pictures: the caption of the nearest one") {
  const CaptionedPictures known{from_vector<float>({0, 0, 0, 1, 1, 1, 1, 0, 0}, {3, 1, 1, 3}),
                                {{"black"}, {"white"}, {"red"}}};
  const Tensor pixels = from_vector<float>({0.9F, 0.2F, 0, 0.8F, 0.7F, 0.9F}, {2, 1, 1, 3});
  CHECK(nearest_captions(known, pixels) ==
        std::vector<std::vector<std::string>>{{"red"}, {"white"}});
}

TEST_CASE("pictures and captions of files") {
  const test::TemporaryDirectory directory;
  const std::string path = directory.file("p.npy"), lines = directory.file("lines");
  save_npy(path, from_vector<std::int64_t>({0, 255, 51, 255, 0, 0}, {2, 1, 1, 3}));
  write_file_atomically(lines, "a  dot\nred\n");
  const CaptionedPictures pictures = read_pictures(path, lines);
  CHECK(max_difference(pictures.pixels, from_vector<float>({0, 1, 0.2F, 1, 0, 0}, {2, 1, 1, 3})) <
        1e-7);
  CHECK(pictures.captions == std::vector<std::vector<std::string>>{{"a", "dot"}, {"red"}});

  const auto refused = [&](const auto& read, const std::string& message) {
    CHECK_THROWS_WITH_AS(read(), message.c_str(), FileError);
  };
  write_file_atomically(lines, "a dot\n \n");
  refused([&] { read_pictures(path, lines); },
          "cannot read '" + lines + "': line 2: there is no caption");
  write_file_atomically(lines, "a dot\n");
  refused([&] { read_pictures(path, lines); },
          "'" + path + "' has 2 pictures, but '" + lines + "' has 1 lines");
  save_npy(path, full({1, 1, 1, 3}, 1.5));
  refused(
      [&] { read_pictures(path); },
      "cannot read '" + path +
          "': numbers must be from 0 to 1 (or integers from 0 to 255), but are from 1.5 to 1.5");
  for (const Shape& shape : {Shape{4, 4, 3}, Shape{1, 4, 4, 1}, Shape{0, 4, 4, 3}}) {
    save_npy(path, zeros(shape));
    refused([&] { read_pictures(path); },
            "cannot read '" + path + "': expected an array (pictures, height, width, 3), got " +
                to_string(shape));
  }
}

}  // namespace
