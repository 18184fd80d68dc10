// Scores of sentences and entities against hand-computed cases.

#include "data/metrics.h"

#include <doctest/doctest.h>

#include <cmath>

#include "data/text.h"
#include "framework/check.h"
#include "framework/random.h"

using namespace unroll;

namespace {

using Strings = std::vector<std::string>;

Strings words(const char* text) { return split_words(text); }
bool near(double a, double b) { return std::abs(a - b) < 1e-12; }

}  // namespace

TEST_CASE("metrics: corpus BLEU of hand-counted n-grams") {
  // One sentence. 1-grams: 5 of 6 (the, cat, sat, on, the), 2-grams: 3 of 5 (the cat, cat sat, on
  // the), 3-grams: 1 of 4 (the cat sat), 4-grams: none.
  const std::vector<Strings> candidate{words("the cat sat on the floor")};
  const std::vector<std::vector<Strings>> reference{{words("the cat sat quietly on the mat")}};
  const BleuScore four = corpus_bleu(candidate, reference);
  CHECK(four.precisions == std::vector<double>{5.0 / 6, 3.0 / 5, 1.0 / 4, 0.0});
  CHECK(four.candidate_length == 6);
  CHECK(four.reference_length == 7);
  CHECK(near(four.brevity_penalty, std::exp(1.0 - 7.0 / 6)));
  CHECK(four.score == 0.0);
  const BleuScore three = corpus_bleu(candidate, reference, 3);
  CHECK(near(three.score, std::exp(1.0 - 7.0 / 6) * std::cbrt(5.0 / 6 * 3.0 / 5 * 1.0 / 4)));
}

TEST_CASE("metrics: BLEU clips by the most in any one reference, as in the paper's example") {
  const BleuScore clipped =
      corpus_bleu({words("the the the the the the the")},
                  {{words("the cat is on the mat"), words("there is a cat on the mat")}}, 1);
  CHECK(near(clipped.precisions[0], 2.0 / 7));
  CHECK(clipped.reference_length == 7);
  CHECK(near(clipped.score, 2.0 / 7));
}

TEST_CASE("metrics: corpus BLEU sums counts over sentences before it divides") {
  const std::vector<Strings> candidates{words("a b c d e"), words("x y")};
  const std::vector<std::vector<Strings>> references{{words("a b c d e")}, {words("x z q")}};
  const BleuScore bleu = corpus_bleu(candidates, references);
  CHECK(bleu.precisions == std::vector<double>{6.0 / 7, 4.0 / 5, 1.0, 1.0});
  CHECK(near(bleu.score, std::exp(1.0 - 8.0 / 7) * std::pow(6.0 / 7 * 4.0 / 5, 0.25)));
  CHECK(near(corpus_bleu({words("a b c d")}, {{words("a b c d")}}).score, 1.0));
  // Of references as close, the shorter one counts.
  CHECK(corpus_bleu({words("a b c")}, {{words("a b c d"), words("a b")}}).reference_length == 2);
  CHECK(corpus_bleu({{}}, {{words("a")}}).score == 0.0);
  CHECK(corpus_bleu({{}}, {{words("a")}}).brevity_penalty == 0.0);
}

TEST_CASE("metrics: sentence BLEU with k = 2") {
  CHECK(near(sentence_bleu(words("a b c d"), words("a b c d")), 1.0));
  // Label A B C D E F, prediction A B B C D: p1 = 4/5, p2 = 3/4, exp(1 - 6/5).
  CHECK(near(sentence_bleu(words("A B B C D"), words("A B C D E F")),
             std::exp(-0.2) * std::pow(0.8, 0.5) * std::pow(0.75, 0.25)));
  // Longer than the label: no penalty. p1 = 2/3, p2 = 1/2.
  CHECK(near(sentence_bleu(words("a b c"), words("a b")),
             std::pow(2.0 / 3, 0.5) * std::pow(0.5, 0.25)));
  CHECK(near(sentence_bleu(words("a"), words("a b")), std::exp(-1.0)));  // no pair to count
  CHECK(sentence_bleu(words("x y"), words("a b")) == 0.0);
  CHECK(sentence_bleu({}, words("a b")) == 0.0);
  CHECK(near(sentence_bleu(words("a x b"), words("a b c"), 1), std::sqrt(2.0 / 3)));
}

TEST_CASE("metrics: of several references the best one counts, and an exact match hits one") {
  const std::vector<Strings> found{words("a b c"), words("a"), {}};
  const std::vector<std::vector<Strings>> right{
      {words("a b"), words("a b c")}, {words("a b")}, {words("x"), words("y")}};
  CHECK(near(mean_sentence_bleu(found, right), (1.0 + std::exp(-1.0) + 0.0) / 3));
  CHECK(near(mean_sentence_bleu({words("a x b")}, {{words("q"), words("a b c")}}, 1),
             std::sqrt(2.0 / 3)));
  CHECK(near(exact_match(found, right), 1.0 / 3));
  CHECK(exact_match(found, std::vector<Strings>{words("a b c"), words("b"), {}}) == 2.0 / 3);
}

TEST_CASE("metrics: entities of every scheme") {
  const std::vector<Entity> expected{{"PER", 0, 2}, {"PER", 2, 3}, {"LOC", 4, 7}};
  CHECK(find_entities(words("B-PER I-PER B-PER O B-LOC I-LOC I-LOC")) == expected);
  CHECK(find_entities(words("I-PER I-PER B-PER O I-LOC I-LOC I-LOC")) == expected);
  CHECK(find_entities(words("B-PER E-PER S-PER O B-LOC I-LOC E-LOC")) == expected);
  CHECK(find_entities(words("B-PER E-PER S-PER O B-LOC M-LOC E-LOC")) == expected);
  CHECK(find_entities({}).empty());
  CHECK(find_entities(words("B I O B")) == std::vector<Entity>{{"", 0, 2}, {"", 3, 4}});
  CHECK(find_entities(words("B-a-b I-a-b")) == std::vector<Entity>{{"a-b", 0, 2}});
}

TEST_CASE("metrics: entities of tags that break the rules, by those of conlleval") {
  // I without B begins an entity; a change of type ends one and begins the next.
  CHECK(find_entities(words("O I-PER I-PER")) == std::vector<Entity>{{"PER", 1, 3}});
  CHECK(find_entities(words("B-PER I-LOC")) == std::vector<Entity>{{"PER", 0, 1}, {"LOC", 1, 2}});
  CHECK(find_entities(words("I-PER E-LOC O")) == std::vector<Entity>{{"PER", 0, 1}, {"LOC", 1, 2}});
  CHECK(find_entities(words("E-PER E-PER")) == std::vector<Entity>{{"PER", 0, 1}, {"PER", 1, 2}});
  CHECK(find_entities(words("S-PER I-PER")) == std::vector<Entity>{{"PER", 0, 1}, {"PER", 1, 2}});
  CHECK(find_entities(words("B-PER S-PER E-PER")) ==
        std::vector<Entity>{{"PER", 0, 1}, {"PER", 1, 2}, {"PER", 2, 3}});
}

TEST_CASE("metrics: of random tags, entities begin and end where conlleval's tables say so") {
  // Its tables of where a chunk ends and begins, from one tag (prefix a, type s) to the next.
  const auto is_in = [](char c, const char* set) { return std::string(set).find(c) < 9; };
  const auto ends = [&](char a, const std::string& s, char b, const std::string& t) {
    return is_in(a, "ES") || (is_in(a, "BI") && is_in(b, "BSO")) || (a != 'O' && s != t);
  };
  const auto begins = [&](char a, const std::string& s, char b, const std::string& t) {
    return is_in(b, "BS") || (is_in(a, "ESO") && is_in(b, "EI")) || (b != 'O' && s != t);
  };
  Generator generator(1);
  for (int trial = 0; trial < 2000; ++trial) {
    Strings tags;
    std::vector<Entity> expected;
    char before = 'O';
    std::string type_before;
    bool open = false;
    for (std::int64_t i = 0; i < 8; ++i) {
      const char prefix = "OBIES"[generator.below(5)];
      const std::string type = prefix == 'O' ? "" : generator.below(2) == 0 ? "X" : "Y";
      tags.push_back(prefix == 'O' ? "O" : std::string(1, prefix) + "-" + type);
      if (open && ends(before, type_before, prefix, type)) {
        expected.back().end = i;
        open = false;
      }
      if (begins(before, type_before, prefix, type)) {
        expected.push_back({type, i, 8});
        open = true;
      }
      before = prefix;
      type_before = type;
    }
    CAPTURE(join(tags, " "));
    CHECK(find_entities(tags) == expected);
  }
}

TEST_CASE("metrics: tags are converted between all schemes") {
  const std::vector<std::pair<TagScheme, Strings>> same{
      {TagScheme::BIO, words("B-A I-A B-A O B-B B-A I-A I-A")},
      {TagScheme::IOB1, words("I-A I-A B-A O I-B I-A I-A I-A")},
      {TagScheme::BIOES, words("B-A E-A S-A O S-B B-A I-A E-A")},
      {TagScheme::BMES, words("B-A E-A S-A O S-B B-A M-A E-A")}};
  for (const auto& [from, tags] : same) {
    CHECK(tag_errors(tags, from) == "");
    for (const auto& [to, expected] : same) CHECK(convert_tags(tags, from, to) == expected);
  }
}

TEST_CASE("metrics: tags that break the rules of their scheme are reported") {
  CHECK(tag_errors(words("O I-PER I-PER"), TagScheme::BIO) ==
        "tags[1] is I-PER, but BIO has B-PER there");
  CHECK(tag_errors(words("B-PER I-LOC O I-LOC"), TagScheme::BIO) ==
        "tags[1] is I-LOC, but BIO has B-LOC there\ntags[3] is I-LOC, but BIO has B-LOC there");
  CHECK(tag_errors(words("O B-PER"), TagScheme::IOB1) ==
        "tags[1] is B-PER, but IOB1 has I-PER there");
  CHECK(tag_errors(words("B-PER I-PER O"), TagScheme::BIOES) ==
        "tags[1] is I-PER, but BIOES has E-PER there");
  CHECK(tag_errors(words("B-PER I-PER E-PER"), TagScheme::BMES) ==
        "tags[1] is I-PER, but BMES has M-PER there");
  CHECK_THROWS_WITH_AS(convert_tags(words("O I-PER"), TagScheme::BIO, TagScheme::BIOES),
                       "convert_tags: tags[1] is I-PER, but BIO has B-PER there", ValueError);
}

TEST_CASE("metrics: entity scores of a hand-counted case") {
  // Expected: PER 0-2, LOC 3-4; MISC 0-1, PER 2-4. Predicted: PER 0-2, LOC 3-5; PER 0-1, PER 2-4.
  const EntityScores scores =
      entity_scores({words("B-PER I-PER O B-LOC O"), words("B-MISC O B-PER I-PER")},
                    {words("B-PER I-PER O B-LOC I-LOC"), words("B-PER O B-PER I-PER")});
  CHECK(scores.all.expected == 4);
  CHECK(scores.all.predicted == 4);
  CHECK(scores.all.correct == 2);
  CHECK(near(scores.all.f1(), 0.5));
  CHECK(scores.tokens == 9);
  CHECK(near(scores.accuracy(), 7.0 / 9));
  REQUIRE(scores.types.size() == 3);
  const EntityCounts& per = scores.types.at("PER");
  CHECK(near(per.precision(), 2.0 / 3));
  CHECK(near(per.recall(), 1.0));
  CHECK(near(per.f1(), 0.8));
  CHECK(scores.types.at("LOC").f1() == 0.0);
  CHECK(scores.types.at("MISC").precision() == 0.0);
  CHECK(entity_scores({words("O")}, {words("O")}).all.f1() == 0.0);
}

TEST_CASE("metrics: mistakes are named") {
  CHECK_THROWS_WITH_AS(corpus_bleu({}, {}), "corpus_bleu: there are no candidates", ValueError);
  CHECK_THROWS_WITH_AS(corpus_bleu({words("a")}, {}),
                       "corpus_bleu: 1 candidates need as many lists of references, got 0",
                       ValueError);
  CHECK_THROWS_WITH_AS(corpus_bleu({words("a")}, std::vector<std::vector<Strings>>(1)),
                       "corpus_bleu: candidate 0 has no reference", ValueError);
  CHECK_THROWS_WITH_AS(corpus_bleu({words("a")}, {{words("a")}}, 0),
                       "corpus_bleu: max_n is at least 1, but is 0", ValueError);
  CHECK_THROWS_WITH_AS(mean_sentence_bleu({}, {}), "mean_sentence_bleu: there are no candidates",
                       ValueError);
  CHECK_THROWS_WITH_AS(
      exact_match({words("a"), words("b")}, std::vector<std::vector<Strings>>{{words("a")}, {}}),
      "exact_match: candidate 1 has no reference", ValueError);
  CHECK_THROWS_WITH_AS(sentence_bleu(words("a"), words("a"), 0),
                       "sentence_bleu: k is at least 1, but is 0", ValueError);
  for (const char* tag : {"PER", "BPER", "O-PER", "X-PER", "b-PER"}) {
    CAPTURE(tag);
    const std::string text = std::string("tags[1] is '") + tag +
                             "', but a tag is O, or B, I, M, E or S with a type behind '-'";
    CHECK_THROWS_WITH_AS(find_entities({"O", tag}), text.c_str(), ValueError);
  }
  CHECK_THROWS_WITH_AS(
      entity_scores({words("O"), {"O", ""}}, {words("O"), words("O O")}),
      "expected[1][1] is '', but a tag is O, or B, I, M, E or S with a type behind '-'",
      ValueError);
  CHECK_THROWS_WITH_AS(entity_scores({words("O")}, {}),
                       "entity_scores: 1 sentences are expected, but 0 predicted", ValueError);
  CHECK_THROWS_WITH_AS(entity_scores({words("O")}, {words("O O")}),
                       "entity_scores: sentence 0 has 1 expected tags, but 2 predicted ones",
                       ValueError);
}

TEST_CASE("metrics: the accuracy of plain tags") {
  CHECK(tag_accuracy({words("DET NN VB"), words("NN")}, {words("DET VB VB"), words("NN")}) == 0.75);
  CHECK(tag_accuracy({}, {}) == 0.0);
  CHECK_THROWS_WITH_AS(tag_accuracy({words("NN")}, {}),
                       "tag_accuracy: 1 sentences are expected, but 0 predicted", ValueError);
  CHECK_THROWS_WITH_AS(tag_accuracy({words("NN")}, {words("NN NN")}),
                       "tag_accuracy: sentence 0 has 1 expected tags, but 2 predicted ones",
                       ValueError);
}

TEST_CASE("metrics: the tags of entities, and the names of schemes") {
  CHECK(entity_tags({{"X", 1, 3}, {"X", 3, 4}, {"", 5, 6}}, 7, TagScheme::BIOES) ==
        words("O B-X E-X S-X O S O"));
  CHECK(entity_tags({}, 0, TagScheme::BIO).empty());
  CHECK_THROWS_WITH_AS(entity_tags({{"X", 0, 2}, {"X", 1, 3}}, 4, TagScheme::BIO),
                       "entity_tags: an entity from 1 to 3 does not fit behind 2 in 4 tokens",
                       ValueError);
  CHECK_THROWS_WITH_AS(entity_tags({{"X", 2, 2}}, 4, TagScheme::BIO),
                       "entity_tags: an entity from 2 to 2 does not fit behind 0 in 4 tokens",
                       ValueError);
  CHECK_THROWS_WITH_AS(entity_tags({{"X", 2, 5}}, 4, TagScheme::BIO),
                       "entity_tags: an entity from 2 to 5 does not fit behind 0 in 4 tokens",
                       ValueError);
  for (TagScheme scheme : {TagScheme::BIO, TagScheme::IOB1, TagScheme::BIOES, TagScheme::BMES})
    CHECK(scheme_from_name(scheme_name(scheme)) == scheme);
  CHECK_THROWS_WITH_AS(scheme_from_name("IOB2"),
                       "'IOB2' is no tag scheme: BIO, IOB1, BIOES or BMES", ValueError);
}
