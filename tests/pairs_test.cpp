/// Pairs of sentences, and the number words that an example makes pairs of.

#include <doctest/doctest.h>

#include <algorithm>
#include <numeric>
#include <set>
#include <string>
#include <vector>

#include "data/pairs.h"
#include "data/split.h"
#include "data/text.h"
#include "examples/data/number_words.h"
#include "framework/check.h"
#include "tests/temporary_directory.h"

using namespace unroll;

namespace {

using Pairs = std::vector<TextPair>;
using Words = std::vector<std::string>;

}  // namespace

TEST_CASE("pairs: a line each, source, tab, target") {
  const test::TemporaryDirectory directory;
  CHECK(read_pairs(
            directory.file("a.tsv", "Go.\tVa !\r\n\n \t \nI won.\tJ'ai gagné.\tCC-BY 2.0\n")) ==
        Pairs{{"Go.", "Va !"}, {"I won.", "J'ai gagné."}});
  CHECK(read_pairs(directory.file("empty.tsv", "")) == Pairs{});

  const auto refused = [&](const std::string& text, const std::string& what) {
    const std::string path = directory.file("bad.tsv", text);
    CHECK_THROWS_WITH_AS(read_pairs(path), ("cannot read '" + path + "': line 2: " + what).c_str(),
                         FileError);
  };
  refused("a\tb\nalone\n", "there is no tab between source and target");
  refused("a\tb\n\tb\n", "there is nothing before the tab");
  refused("a\tb\na\t \tlicence\n", "there is nothing behind the tab");
  refused("a\tb\na\t\xff\n", "invalid UTF-8 at byte 6 (0xff)");
}

TEST_CASE("pairs: two files, line by line") {
  const test::TemporaryDirectory directory;
  const std::string english = directory.file("en", "Go.\n\nI won.\n");
  CHECK(read_pairs(english, directory.file("fr", "Va !\n\nJ'ai gagné.")) ==
        Pairs{{"Go.", "Va !"}, {"I won.", "J'ai gagné."}});

  const std::string two = directory.file("two", "Va !\n\n");
  CHECK_THROWS_WITH_AS(read_pairs(english, two),
                       ("'" + english + "' has 3 lines, but '" + two +
                        "' has 2: line i of one belongs to line i of the other")
                           .c_str(),
                       FileError);
  const std::string hole = directory.file("hole", "Va !\n\n\n");
  CHECK_THROWS_WITH_AS(
      read_pairs(english, hole),
      ("cannot read '" + hole + "': line 3: it is empty, but not in '" + english + "'").c_str(),
      FileError);
  const std::string full = directory.file("full", "Va !\nQuoi ?\nJ'ai gagné.\n");
  CHECK_THROWS_WITH_AS(
      read_pairs(english, full),
      ("cannot read '" + english + "': line 2: it is empty, but not in '" + full + "'").c_str(),
      FileError);
}

TEST_CASE("pairs: those of one source are one sentence with all its translations") {
  const auto sentences = group_by_source(
      {{"go on", "va"}, {"I won", "j'ai gagné"}, {"go  on", "continue donc"}, {"go on", "va"}},
      split_words);
  REQUIRE(sentences.size() == 2);
  CHECK(sentences[0].source == Words{"go", "on"});
  CHECK(sentences[0].targets == std::vector<Words>{{"va"}, {"continue", "donc"}, {"va"}});
  CHECK(sentences[1].source == Words{"I", "won"});
  CHECK(sentences[1].targets == std::vector<Words>{{"j'ai", "gagné"}});
  CHECK(group_by_source({}, split_words).empty());
}

TEST_CASE("pairs: a dictionary has what is found most often beside a word") {
  const WordDictionary dictionary(group_by_source({{"red house", "maison rouge"},
                                                   {"red car", "voiture rouge"},
                                                   {"old house", "vieille maison"}},
                                                  split_words));
  // red: rouge 2 * 2 / (2 + 2) = 1, maison 2 * 1 / (2 + 2), voiture 2 * 1 / (2 + 1). old: vieille
  // 2 * 1 / (1 + 1) = 1, maison 2 * 1 / (1 + 2).
  CHECK(dictionary.translate({"old", "red", "house"}) == Words{"vieille", "rouge", "maison"});
  CHECK(dictionary.translate({"new", "car"}) == Words{"voiture"});
  CHECK(dictionary.translate({}).empty());
  // Both are found once beside it: the last by their bytes.
  const WordDictionary even({{{"a"}, {{"x", "y"}}}});
  CHECK(even.translate({"a"}) == Words{"y"});
}

TEST_CASE("split: a part is held out at random, and nothing is lost") {
  std::vector<int> items(100);
  std::iota(items.begin(), items.end(), 0);
  Generator generator(1), same(1);
  const auto [train, held_out] = random_split(items, 0.25, generator);
  CHECK(train.size() == 75);
  CHECK(held_out.size() == 25);
  CHECK(held_out != std::vector<int>(items.begin(), items.begin() + 25));
  auto all = train;
  all.insert(all.end(), held_out.begin(), held_out.end());
  std::sort(all.begin(), all.end());
  CHECK(all == items);
  CHECK(random_split(items, 0.25, same).held_out == held_out);
  CHECK(random_split(items, 0.999).train.size() == 1);
  CHECK(random_split(items, 0).held_out.empty());
  CHECK(random_split(items, 1).train.empty());
  CHECK_THROWS_WITH_AS(random_split(items, 1.5),
                       "random_split: part must be in [0, 1], but is 1.500000", ValueError);
}

TEST_CASE("number words: English and French") {
  struct Row {
    std::int64_t number;
    const char *english, *french;
  };
  for (const auto& [number, english, french] : std::vector<Row>{
           {0, "zero", "zéro"},
           {1, "one", "un"},
           {16, "sixteen", "seize"},
           {17, "seventeen", "dix-sept"},
           {20, "twenty", "vingt"},
           {21, "twenty-one", "vingt et un"},
           {32, "thirty-two", "trente-deux"},
           {70, "seventy", "soixante-dix"},
           {71, "seventy-one", "soixante et onze"},
           {79, "seventy-nine", "soixante-dix-neuf"},
           {80, "eighty", "quatre-vingts"},
           {81, "eighty-one", "quatre-vingt-un"},
           {91, "ninety-one", "quatre-vingt-onze"},
           {99, "ninety-nine", "quatre-vingt-dix-neuf"},
           {100, "one hundred", "cent"},
           {101, "one hundred and one", "cent un"},
           {200, "two hundred", "deux cents"},
           {280, "two hundred and eighty", "deux cent quatre-vingts"},
           {1000, "one thousand", "mille"},
           {1001, "one thousand and one", "mille un"},
           {2100, "two thousand one hundred", "deux mille cent"},
           {21000, "twenty-one thousand", "vingt et un mille"},
           {80000, "eighty thousand", "quatre-vingt mille"},
           {80080, "eighty thousand and eighty", "quatre-vingt mille quatre-vingts"},
           {200000, "two hundred thousand", "deux cent mille"},
           {200200, "two hundred thousand two hundred", "deux cent mille deux cents"},
           {741286, "seven hundred and forty-one thousand two hundred and eighty-six",
            "sept cent quarante et un mille deux cent quatre-vingt-six"},
           {999999, "nine hundred and ninety-nine thousand nine hundred and ninety-nine",
            "neuf cent quatre-vingt-dix-neuf mille neuf cent quatre-vingt-dix-neuf"}}) {
    CHECK(examples::english_number(number) == english);
    CHECK(examples::french_number(number) == french);
  }
}

TEST_CASE("number words: pairs are different numbers, the small ones first") {
  const Pairs pairs = examples::number_pairs(500);
  REQUIRE(pairs.size() == 500);
  CHECK(pairs[71] == TextPair{"seventy-one", "soixante et onze"});
  std::set<std::string> sources;
  for (const TextPair& pair : pairs) sources.insert(pair.source);
  CHECK(sources.size() == 500);
  CHECK(pairs == examples::number_pairs(500));
  CHECK(examples::number_pairs(5).back() == TextPair{"four", "quatre"});
}
