#pragma once
/// The names of the numbers 0 to 999,999, and pairs of them to translate.

#include <array>
#include <cstdint>
#include <set>
#include <string>
#include <vector>

#include "data/pairs.h"
#include "framework/random.h"

namespace examples {

/// "seven hundred and forty-one thousand two hundred and eighty-six": British English.
inline std::string english_number(std::int64_t n) {
  static constexpr std::array small{"zero",    "one",     "two",       "three",    "four",
                                    "five",    "six",     "seven",     "eight",    "nine",
                                    "ten",     "eleven",  "twelve",    "thirteen", "fourteen",
                                    "fifteen", "sixteen", "seventeen", "eighteen", "nineteen"};
  static constexpr std::array tens{"",      "",      "twenty",  "thirty", "forty",
                                   "fifty", "sixty", "seventy", "eighty", "ninety"};
  const auto at = [](const auto& names, std::int64_t i) {
    return std::string(names[static_cast<std::size_t>(i)]);
  };
  if (n < 20) return at(small, n);
  if (n < 100) return at(tens, n / 10) + (n % 10 > 0 ? "-" + at(small, n % 10) : "");
  const std::int64_t unit = n < 1000 ? 100 : 1000, rest = n % unit;
  std::string text = english_number(n / unit) + (n < 1000 ? " hundred" : " thousand");
  if (rest > 0) text += (rest < 100 ? " and " : " ") + english_number(rest);
  return text;
}

/// "sept cent quarante et un mille deux cent quatre-vingt-six", in the spelling before 1990. `cent`
/// and `quatre-vingt` have an s at the end of a number, but not before `mille`.
inline std::string french_number(std::int64_t n, bool at_end = true) {
  static constexpr std::array small{"zéro",   "un",    "deux",     "trois",    "quatre",
                                    "cinq",   "six",   "sept",     "huit",     "neuf",
                                    "dix",    "onze",  "douze",    "treize",   "quatorze",
                                    "quinze", "seize", "dix-sept", "dix-huit", "dix-neuf"};
  static constexpr std::array tens{"", "", "vingt", "trente", "quarante", "cinquante", "soixante"};
  const auto at = [](const auto& names, std::int64_t i) {
    return std::string(names[static_cast<std::size_t>(i)]);
  };
  if (n < 20) return at(small, n);
  if (n < 80) {  // 70 to 79: sixty and ten to nineteen
    const std::int64_t ten = n < 70 ? n / 10 : 6, rest = n - 10 * ten;
    if (rest == 0) return at(tens, ten);
    return at(tens, ten) + (rest == 1 || rest == 11 ? " et " : "-") + at(small, rest);
  }
  if (n < 100)
    return n == 80 ? (at_end ? "quatre-vingts" : "quatre-vingt")
                   : "quatre-vingt-" + at(small, n - 80);
  const std::int64_t unit = n < 1000 ? 100 : 1000, many = n / unit, rest = n % unit;
  std::string text = many > 1 ? french_number(many, false) + " " : "";
  text += unit == 1000 ? "mille" : many > 1 && rest == 0 && at_end ? "cents" : "cent";
  if (rest > 0) text += " " + french_number(rest, at_end);
  return text;
}

/// So many different numbers in English and French: 0 to 99, then numbers below 1,000, 10,000,
/// 100,000 and 1,000,000 in turn; always the same ones.
inline std::vector<unroll::TextPair> number_pairs(std::int64_t count) {
  unroll::Generator generator(0);
  std::vector<unroll::TextPair> pairs;
  std::set<std::int64_t> seen;
  const auto add = [&](std::int64_t n) {
    if (std::ssize(pairs) < count && seen.insert(n).second)
      pairs.push_back({english_number(n), french_number(n)});
  };
  for (std::int64_t n = 0; n < 100; ++n) add(n);
  while (std::ssize(pairs) < count)
    for (const std::int64_t below : {1'000, 10'000, 100'000, 1'000'000})
      add(generator.below(below));
  return pairs;
}

}  // namespace examples
