#include "data/ngram.h"

#include <algorithm>
#include <cmath>

#include "framework/check.h"
#include "framework/format.h"

namespace unroll {
namespace {

std::vector<std::int64_t> last(std::span<const std::int64_t> tokens, std::size_t n) {
  return {tokens.end() - static_cast<std::ptrdiff_t>(n), tokens.end()};
}

}  // namespace

NgramModel::NgramModel(std::span<const std::int64_t> text, std::int64_t max_order,
                       std::int64_t vocab_size, double epsilon)
    : max_order_(max_order), vocab_size_(vocab_size), epsilon_(epsilon) {
  if (max_order < 0) detail::fail<ValueError>("NgramModel: order {} is below 0", max_order);
  if (!(epsilon > 0))
    detail::fail<ValueError>("NgramModel: epsilon must be above 0, not {}", epsilon);
  for (std::size_t t = 0; t < text.size(); ++t) {
    if (text[t] < 0 || text[t] >= vocab_size)
      detail::fail<ValueError>("NgramModel: token {} at {} is not in [0, {})", text[t], t,
                               vocab_size);
    for (std::size_t n = 0; n <= std::min(t, static_cast<std::size_t>(max_order)); ++n) {
      Next& next = contexts_[last(text.first(t), n)];
      ++next.total;
      ++next.counts[text[t]];
    }
  }
}

double NgramModel::probability(std::span<const std::int64_t> context, std::int64_t token) const {
  const std::size_t n = std::min(context.size(), static_cast<std::size_t>(max_order_));
  double count = 0, total = 0;
  if (const auto next = contexts_.find(last(context, n)); next != contexts_.end()) {
    total = static_cast<double>(next->second.total);
    const auto found = next->second.counts.find(token);
    if (found != next->second.counts.end()) count = static_cast<double>(found->second);
  }
  return (count + epsilon_) / (total + epsilon_ * static_cast<double>(vocab_size_));
}

double NgramModel::log_prob(std::span<const std::int64_t> tokens, std::int64_t order) const {
  if (order < 0 || order > max_order_)
    detail::fail<ValueError>("NgramModel: order {} of 0 to {}", order, max_order_);
  double sum = 0;
  for (std::size_t t = 1; t < tokens.size(); ++t) {
    const std::size_t n = std::min(t, static_cast<std::size_t>(order));
    sum += std::log(probability(tokens.subspan(t - n, n), tokens[t]));
  }
  return sum;
}

double NgramModel::perplexity(std::span<const std::int64_t> tokens, std::int64_t order) const {
  if (tokens.size() < 2)
    detail::fail<ValueError>("NgramModel: the perplexity of {} tokens", tokens.size());
  return std::exp(-log_prob(tokens, order) / static_cast<double>(tokens.size() - 1));
}

}  // namespace unroll
