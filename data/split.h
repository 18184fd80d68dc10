#pragma once
/// Which part of a data set is learned, and which is held out.

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "framework/check.h"
#include "framework/random.h"

namespace unroll {

/// What is learned and what is not.
template <class Item>
struct Split {
  std::vector<Item> train;     ///< to learn
  std::vector<Item> held_out;  ///< to measure on
};

/// Holds a part of the items out, drawn at random: floor(part * size) of them. What is learned
/// stays in no particular order. Throws ValueError for a part outside of [0, 1].
template <class Item>
Split<Item> random_split(std::vector<Item> items, double part,
                         Generator& generator = default_generator()) {
  if (!(part >= 0 && part <= 1))
    throw ValueError("random_split: part must be in [0, 1], but is " + std::to_string(part));
  const auto held = static_cast<std::int64_t>(part * static_cast<double>(items.size()));
  Split<Item> split{std::move(items), {}};
  for (std::int64_t i = 0; i < held; ++i) {
    const auto place = static_cast<std::size_t>(generator.below(std::ssize(split.train)));
    std::swap(split.train[place], split.train.back());
    split.held_out.push_back(std::move(split.train.back()));
    split.train.pop_back();
  }
  return split;
}

}  // namespace unroll
