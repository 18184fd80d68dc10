#include "modules/crf.h"

#include <algorithm>
#include <limits>

#include "framework/autograd.h"
#include "framework/internal.h"
#include "framework/random.h"
#include "modules/lengths.h"

namespace unroll {

using detail::fail;

namespace {

constexpr double kForbidden = -std::numeric_limits<double>::infinity();

std::size_t at(std::int64_t i) { return static_cast<std::size_t>(i); }

/// The scores with -infinity where `allowed` is 0.
Tensor constrain(const Tensor& scores, const Tensor& allowed) {
  return allowed.defined() ? masked_fill(scores, allowed == 0.0, kForbidden) : scores;
}

bool allows(const Tensor& allowed, std::int64_t i) {
  return !allowed.defined() || allowed[i].item() != 0.0;
}

/// A list of indices, as rows of x.
Tensor pick(const Tensor& x, const std::vector<std::int64_t>& index) {
  return index_select(x, 0, from_vector(index));
}

}  // namespace

CRFConstraints bio_constraints(const std::vector<std::string>& tags) {
  const auto K = static_cast<std::int64_t>(tags.size());
  CRFConstraints result{ones({K}), ones({K, K}), ones({K})};
  for (std::int64_t to = 0; to < K; ++to) {
    const std::string& tag = tags[at(to)];
    const std::string prefix = tag.substr(0, tag.find('-'));
    if (prefix != "O" && prefix != "B" && prefix != "I")
      fail<ValueError>("bio_constraints: tags[{}] is '{}', but must be O, B-... or I-...", to, tag);
    if (prefix != "I") continue;
    result.start[to].zero_();
    for (std::int64_t from = 0; from < K; ++from) {
      const std::string& before = tags[at(from)];
      if (before != tag && before != "B" + tag.substr(1)) result.transitions[from][to].zero_();
    }
  }
  return result;
}

LinearChainCRF::LinearChainCRF(std::int64_t tags, const CRFConstraints& constraints)
    : num_tags(tags), constraints_(constraints) {
  if (tags < 1) fail<ValueError>("LinearChainCRF: num_tags is at least 1, but is {}", tags);
  const auto check = [](const char* name, const Tensor& t, const Shape& shape) {
    if (t.defined() && t.shape() != shape)
      fail<ShapeError>("LinearChainCRF: constraints.{} must be {}, but is {}", name, shape,
                       t.shape());
  };
  check("start", constraints.start, {tags});
  check("transitions", constraints.transitions, {tags, tags});
  check("end", constraints.end, {tags});
  start = param("start", uniform({tags}, -0.1, 0.1));
  transitions = param("transitions", uniform({tags, tags}, -0.1, 0.1));
  end = param("end", uniform({tags}, -0.1, 0.1));
}

LinearChainCRF::Scores LinearChainCRF::allowed() const {
  return {constrain(start, constraints_.start), constrain(transitions, constraints_.transitions),
          constrain(end, constraints_.end)};
}

LinearChainCRF::Input LinearChainCRF::checked(const Tensor& emissions,
                                              const Tensor& lengths) const {
  if (emissions.dim() != 3 || emissions.size(2) != num_tags || emissions.size(0) == 0)
    fail<ShapeError>("LinearChainCRF: emissions must be [T, B, num_tags = {}], but are {}",
                     num_tags, emissions.shape());
  if (emissions.dtype() != start.dtype())
    fail<DTypeError>("LinearChainCRF: emissions must be {}, as the parameters, but are {}",
                     start.dtype(), emissions.dtype());
  const std::int64_t T = emissions.size(0), B = emissions.size(1);
  Input input{emissions, detail::padding_mask("LinearChainCRF", lengths, T, B),
              detail::checked_lengths("LinearChainCRF", lengths, T, B)};
  if (input.padding.defined()) {
    input.padding = unsqueeze(input.padding, 2);
    input.emissions = masked_fill(emissions, input.padding, 0.0);
  }
  return input;
}

void LinearChainCRF::check_tags(const Input& input, const Tensor& tags) const {
  const std::int64_t T = input.emissions.size(0), B = input.emissions.size(1);
  if (tags.dtype() != DType::i64)
    fail<DTypeError>("LinearChainCRF: tags must be i64, but are {}", tags.dtype());
  if (tags.shape() != Shape{T, B})
    fail<ShapeError>("LinearChainCRF: tags must be [T, B] = {}, but are {}", Shape{T, B},
                     tags.shape());
  const auto list = tags.to_vector<std::int64_t>();
  for (std::int64_t b = 0; b < B; ++b)
    for (std::int64_t t = 0; t < input.lengths[at(b)]; ++t) {
      const std::int64_t tag = list[at(t * B + b)];
      if (tag < 0 || tag >= num_tags)
        fail<IndexError>("LinearChainCRF: tags[{}, {}] is {}, but the tags are 0 to {}", t, b, tag,
                         num_tags - 1);
      if (t == 0 && !allows(constraints_.start, tag))
        fail<ValueError>("LinearChainCRF: tags[0, {}] is {}: no sequence may begin with it", b,
                         tag);
      if (t > 0 && constraints_.transitions.defined()) {
        const std::int64_t before = list[at((t - 1) * B + b)];
        if (!allows(constraints_.transitions[before], tag))
          fail<ValueError>("LinearChainCRF: tags[{}, {}] is {}: it may not follow {}", t, b, tag,
                           before);
      }
      if (t == input.lengths[at(b)] - 1 && !allows(constraints_.end, tag))
        fail<ValueError>("LinearChainCRF: tags[{}, {}] is {}: no sequence may end with it", t, b,
                         tag);
    }
}

Tensor LinearChainCRF::score(const Tensor& emissions, const Tensor& tags,
                             const Tensor& lengths) const {
  const Scope here = scope();
  const Input input = checked(emissions, lengths);
  check_tags(input, tags);
  const std::int64_t T = emissions.size(0), B = emissions.size(1), K = num_tags;
  const auto list = tags.to_vector<std::int64_t>();
  // Places of what is to be added up; in the padding a last place, which holds 0.
  std::vector<std::int64_t> first, last, steps, links;
  for (std::int64_t t = 0; t < T; ++t)
    for (std::int64_t b = 0; b < B; ++b) {
      const bool inside = t < input.lengths[at(b)];
      const std::int64_t tag = list[at(t * B + b)];
      if (t == 0) first.push_back(tag);
      if (t == 0) last.push_back(list[at((input.lengths[at(b)] - 1) * B + b)]);
      steps.push_back(inside ? (t * B + b) * K + tag : T * B * K);
      if (t > 0) links.push_back(inside ? list[at((t - 1) * B + b)] * K + tag : K * K);
    }
  const Tensor nothing = zeros({1}, start.dtype());
  const auto padded = [&](const Tensor& x) { return concatenate({reshape(x, {-1}), nothing}); };
  Tensor total = pick(start, first) + pick(end, last) +
                 sum(reshape(pick(padded(input.emissions), steps), {T, B}), 0);
  if (T > 1) total = total + sum(reshape(pick(padded(transitions), links), {T - 1, B}), 0);
  return total;
}

// alpha_1 = start + x_1, alpha_t[j] = x_t[j] + log sum_i exp(alpha_t-1[i] + transitions[i][j]): the
// log of the summed exp(score) of all beginnings that lead to tag j.
std::vector<Tensor> LinearChainCRF::forward(const Input& input, const Scores& scores) const {
  std::vector<Tensor> alphas{scores.start + input.emissions[0]};
  for (std::int64_t t = 1; t < input.emissions.size(0); ++t) {
    const Step time(t);
    const Tensor& alpha = alphas.back();
    Tensor next = logsumexp(unsqueeze(alpha, 2) + scores.transitions, 1) + input.emissions[t];
    alphas.push_back(input.padding.defined() ? where(input.padding[t], alpha, next) : next);
  }
  return alphas;
}

Tensor LinearChainCRF::log_partition(const Tensor& emissions, const Tensor& lengths) const {
  const Scope here = scope();
  const Scores scores = allowed();
  return logsumexp(forward(checked(emissions, lengths), scores).back() + scores.end, 1);
}

Tensor LinearChainCRF::loss(const Tensor& emissions, const Tensor& tags, const Tensor& lengths,
                            Reduction reduction) const {
  const Tensor losses = log_partition(emissions, lengths) - score(emissions, tags, lengths);
  switch (reduction) {
    case Reduction::none: return losses;
    case Reduction::sum: return sum(losses);
    default: return mean(losses);
  }
}

// beta_T = end, beta_t[i] = log sum_j exp(transitions[i][j] + x_t+1[j] + beta_t+1[j]): the same of
// all endings behind tag i. Then p(y_t = k) = exp(alpha_t[k] + beta_t[k]) / Z.
Tensor LinearChainCRF::marginals(const Tensor& emissions, const Tensor& lengths) const {
  const Input input = checked(emissions, lengths);
  const Scores scores = allowed();
  const std::vector<Tensor> alphas = forward(input, scores);
  const Tensor log_z = logsumexp(alphas.back() + scores.end, 1, true);
  std::vector<Tensor> result(alphas.size());
  Tensor beta = broadcast_to(scores.end, alphas[0].shape());
  for (std::int64_t t = emissions.size(0) - 1; t >= 0; --t) {
    result[at(t)] = exp(alphas[at(t)] + beta - log_z);
    if (t == 0) break;
    const Tensor before =
        logsumexp(scores.transitions + unsqueeze(input.emissions[t] + beta, 1), 2);
    // A sequence that has ended before t waits with its last beta.
    beta = input.padding.defined() ? where(input.padding[t], beta, before) : before;
  }
  const Tensor all = stack(result);
  return input.padding.defined() ? masked_fill(all, input.padding, 0.0) : all;
}

ViterbiResult LinearChainCRF::viterbi(const Tensor& emissions, const Tensor& lengths) const {
  const NoGrad no_grad;
  const Input input = checked(emissions, lengths);
  const Scores scores = allowed();
  const auto values = [](const Tensor& t) { return t.to(DType::f64).to_vector<double>(); };
  const auto x = values(input.emissions), first = values(scores.start),
             link = values(scores.transitions), last = values(scores.end);
  const std::int64_t B = emissions.size(1), K = num_tags;

  ViterbiResult result;
  for (std::int64_t b = 0; b < B; ++b) {
    const std::int64_t T = input.lengths[at(b)];
    std::vector<double> best(at(K)), next(at(K));  // best score of a path to each tag
    std::vector<std::int64_t> from(at(T * K));     // and the tag before it
    for (std::int64_t k = 0; k < K; ++k) best[at(k)] = first[at(k)] + x[at(b * K + k)];
    for (std::int64_t t = 1; t < T; ++t) {
      for (std::int64_t to = 0; to < K; ++to) {
        std::int64_t& before = from[at(t * K + to)];
        for (std::int64_t k = 1; k < K; ++k)
          if (best[at(k)] + link[at(k * K + to)] > best[at(before)] + link[at(before * K + to)])
            before = k;
        next[at(to)] = best[at(before)] + link[at(before * K + to)] + x[at((t * B + b) * K + to)];
      }
      std::swap(best, next);
    }
    for (std::int64_t k = 0; k < K; ++k) best[at(k)] += last[at(k)];
    std::vector<std::int64_t> path(at(T));
    path.back() = std::max_element(best.begin(), best.end()) - best.begin();
    result.scores.push_back(best[at(path.back())]);
    for (std::int64_t t = T - 1; t > 0; --t) path[at(t - 1)] = from[at(t * K + path[at(t)])];
    result.tags.push_back(std::move(path));
  }
  return result;
}

}  // namespace unroll
