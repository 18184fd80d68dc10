#include "modules/sampling.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

#include "framework/autograd.h"
#include "framework/internal.h"
#include "framework/ops.h"

namespace unroll {

using detail::fail;

namespace {

void check(const Tensor& logits, const SamplingOptions& options) {
  if (!is_floating(logits.dtype()))
    fail<DTypeError>("sample: logits must be f32 or f64, but are {}", logits.dtype());
  if (logits.dim() < 1 || logits.dim() > 2 || logits.size(-1) == 0)
    fail<ShapeError>("sample: logits must be [V] or [B, V] with V >= 1, but are {}",
                     logits.shape());
  if (!(options.temperature >= 0) || std::isinf(options.temperature))
    fail<ValueError>("sample: temperature must be at least 0, but is {}", options.temperature);
  if (options.top_k < 0)
    fail<ValueError>("sample: top_k must be at least 0, but is {}", options.top_k);
  if (!(options.top_p > 0 && options.top_p <= 1))
    fail<ValueError>("sample: top_p must be above 0 and at most 1, but is {}", options.top_p);
}

/// Turns one row of logits into probabilities.
void filter(double* row, std::size_t classes, const SamplingOptions& options) {
  double largest = -INFINITY;
  for (std::size_t i = 0; i < classes; ++i) {
    if (std::isnan(row[i])) fail<ValueError>("sample: the logit of class {} is NaN", i);
    largest = std::max(largest, row[i]);
  }
  if (std::isinf(largest)) fail<ValueError>("sample: the largest logit is {}", largest);

  std::vector<std::size_t> ranking(classes);
  std::iota(ranking.begin(), ranking.end(), std::size_t{0});
  std::stable_sort(ranking.begin(), ranking.end(),
                   [&](std::size_t a, std::size_t b) { return row[a] > row[b]; });

  std::size_t kept = classes;
  if (options.top_k > 0) kept = std::min(kept, static_cast<std::size_t>(options.top_k));
  if (options.temperature == 0) kept = 1;

  double total = 0;
  std::vector<double> weights(kept);
  for (std::size_t i = 0; i < kept; ++i) {
    const double below = row[ranking[i]] - largest;
    weights[i] = below == 0 ? 1.0 : std::exp(below / options.temperature);
    total += weights[i];
  }
  if (options.top_p < 1) {
    double reached = weights[0];
    std::size_t n = 1;
    while (n < kept && reached < options.top_p * total) reached += weights[n++];
    kept = n;
    total = reached;
  }
  std::fill(row, row + classes, 0.0);
  for (std::size_t i = 0; i < kept; ++i) row[ranking[i]] = weights[i] / total;
}

}  // namespace

Tensor sampling_probabilities(const Tensor& logits, const SamplingOptions& options) {
  check(logits, options);
  const NoGrad no_grad;
  std::vector<double> values = logits.to(DType::f64).to_vector<double>();
  const auto classes = static_cast<std::size_t>(logits.size(-1));
  for (std::size_t start = 0; start < values.size(); start += classes)
    filter(values.data() + start, classes, options);
  return from_vector(values, logits.shape()).to(logits.dtype());
}

Tensor sample(const Tensor& logits, const SamplingOptions& options, Generator& generator) {
  const Tensor probabilities = sampling_probabilities(logits, options);
  if (options.temperature == 0) return argmax(probabilities);
  return multinomial(probabilities, generator);
}

}  // namespace unroll
