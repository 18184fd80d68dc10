#include "modules/search.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "framework/autograd.h"
#include "framework/internal.h"
#include "framework/ops.h"

namespace unroll::detail {

namespace {

using Tokens = std::vector<std::int64_t>;

std::size_t at(std::int64_t i) { return static_cast<std::size_t>(i); }
std::int64_t count(std::size_t n) { return static_cast<std::int64_t>(n); }

double score_of(double log_prob, std::size_t length, double penalty) {
  return log_prob / std::pow(static_cast<double>(length), penalty);
}

/// A model on its way, for some hypotheses of each sequence of the batch.
class Search {
 public:
  Search(const char* name, Stepper& model, const Tensor& start, std::int64_t max_length,
         std::int64_t eos)
      : name_(name), model_(model), eos_(eos) {
    if (max_length < 1)
      fail<ValueError>("{}: max_length is at least 1, but is {}", name, max_length);
    if (start.dtype() != DType::i64)
      fail<DTypeError>("{}: start must be i64, but is {}", name, start.dtype());
    if (start.dim() != 1 || start.size(0) == 0)
      fail<ShapeError>("{}: start must be [B] with B >= 1, but is {}", name, start.shape());
    batch_ = start.size(0);
    rows_ = batch_;
    tokens_ = start;
    model.map([&](const Tensor& t) {
      if (t.defined() && (t.dim() < 1 || t.size(0) != batch_))
        fail<ShapeError>("{}: each tensor of the state must be [B = {}, ...], but one is {}", name,
                         batch_, t.shape());
      return t;
    });
  }

  std::int64_t batch() const { return batch_; }
  std::int64_t classes() const { return classes_; }
  /// Scores [N, V] of f64 of what comes next.
  const Tensor& scores() const { return scores_; }
  /// Log-probability of token v after hypothesis number `row`.
  double log_prob(std::int64_t row, std::int64_t v) const {
    return log_probs_[at(row * classes_ + v)];
  }
  bool ends(std::int64_t token) const { return token == eos_; }

  /// One step for all hypotheses.
  void step() {
    const Tensor scores = model_.step(tokens_);
    if (!is_floating(scores.dtype()))
      fail<DTypeError>("{}: scores must be f32 or f64, but are {}", name_, scores.dtype());
    if (scores.dim() != 2 || scores.size(0) != rows_ || scores.size(1) == 0)
      fail<ShapeError>("{}: scores must be [N = {}, V] with V >= 1, but are {}", name_, rows_,
                       scores.shape());
    classes_ = scores.size(1);
    if (eos_ < -1 || eos_ >= classes_)
      fail<ValueError>("{}: eos is {}, but the tokens are 0 to {}", name_, eos_, classes_ - 1);
    scores_ = scores.to(DType::f64);
    log_probs_ = log_softmax(scores_).to_vector<double>();
    // NaN, +infinity, or -infinity alone make all of a row NaN.
    for (std::int64_t row = 0; row < rows_; ++row)
      for (std::int64_t v = 0; v < classes_; ++v)
        if (std::isnan(log_prob(row, v)))
          fail<ValueError>("{}: scores in row {} of step {} have NaN or no largest finite one",
                           name_, row, steps_);
    ++steps_;
  }

  /// Goes on with these rows and their next tokens.
  void go_on(const Tokens& rows, const Tokens& tokens) {
    bool same = count(rows.size()) == rows_;
    for (std::size_t i = 0; same && i < rows.size(); ++i) same = rows[i] == count(i);
    if (!same) {
      const Tensor index = from_vector(rows);
      model_.map([&](const Tensor& t) { return t.defined() ? index_select(t, 0, index) : t; });
    }
    rows_ = count(rows.size());
    tokens_ = from_vector(tokens);
  }

 private:
  const char* name_;
  Stepper& model_;
  std::int64_t eos_, batch_ = 0, rows_ = 0, classes_ = 0, steps_ = 0;
  Tensor tokens_, scores_;
  std::vector<double> log_probs_;
};

/// One token at each step: pick(scores [N, V]) -> [N].
template <class Pick>
std::vector<Hypothesis> walk(Search& search, std::int64_t max_length, const Pick& pick) {
  std::vector<Hypothesis> result(at(search.batch()));
  Tokens going(result.size());  // which sequence each row is
  std::iota(going.begin(), going.end(), std::int64_t{0});
  for (std::int64_t step = 0; step < max_length && !going.empty(); ++step) {
    search.step();
    const auto picked = pick(search.scores()).template to_vector<std::int64_t>();
    Tokens rows, tokens, next;
    for (std::int64_t row = 0; row < count(going.size()); ++row) {
      const std::int64_t token = picked[at(row)];
      Hypothesis& h = result[at(going[at(row)])];
      h.log_prob += search.log_prob(row, token);
      h.score = h.log_prob;
      h.ended = search.ends(token);
      if (h.ended) continue;
      h.tokens.push_back(token);
      rows.push_back(row);
      tokens.push_back(token);
      next.push_back(going[at(row)]);
    }
    if (!rows.empty()) search.go_on(rows, tokens);
    going = std::move(next);
  }
  return result;
}

/// The n best of what a search has found for one sequence.
class Best {
 public:
  Best(std::int64_t n, double penalty) : n_(at(n)), penalty_(penalty) {}

  void add(Tokens tokens, double log_prob, bool ended) {
    const std::size_t length = tokens.size() + (ended ? 1 : 0);
    const double score = score_of(log_prob, length, penalty_);
    const auto place = std::find_if(found_.begin(), found_.end(),
                                    [&](const Hypothesis& h) { return h.score < score; });
    found_.insert(place, {std::move(tokens), log_prob, score, ended});
    if (found_.size() > n_) found_.pop_back();
  }
  /// Whether a score as good as this one could come among them.
  bool has_room_for(double score) const {
    return found_.size() < n_ || score > found_.back().score;
  }
  std::vector<Hypothesis> take() { return std::move(found_); }

 private:
  std::size_t n_;
  double penalty_;
  std::vector<Hypothesis> found_;  ///< the best first
};

/// A hypothesis that goes on.
struct Prefix {
  std::int64_t sequence;  ///< of the batch
  Tokens tokens;
  double log_prob;
};

/// A hypothesis one token longer.
struct Candidate {
  std::int64_t row;
  std::int64_t token;
  double log_prob;
};

std::vector<Prefix> beginnings(const Search& search) {
  std::vector<Prefix> live;
  for (std::int64_t b = 0; b < search.batch(); ++b) live.push_back({b, {}, 0.0});
  return live;
}

/// Puts these candidates in place of the live hypotheses.
void extend(Search& search, std::vector<Prefix>& live, const std::vector<Candidate>& chosen) {
  std::vector<Prefix> next;
  Tokens rows, tokens;
  for (const Candidate& c : chosen) {
    Prefix prefix = live[at(c.row)];
    prefix.tokens.push_back(c.token);
    prefix.log_prob = c.log_prob;
    next.push_back(std::move(prefix));
    rows.push_back(c.row);
    tokens.push_back(c.token);
  }
  live = std::move(next);
  if (!live.empty()) search.go_on(rows, tokens);
}

/// What was found, with what max_length cuts off.
std::vector<std::vector<Hypothesis>> finish(std::vector<Best>& best, std::vector<Prefix>& live) {
  for (Prefix& prefix : live)
    best[at(prefix.sequence)].add(std::move(prefix.tokens), prefix.log_prob, false);
  std::vector<std::vector<Hypothesis>> result;
  for (Best& b : best) result.push_back(b.take());
  return result;
}

void check_ranking(const char* name, double length_penalty, std::int64_t n_best) {
  if (!(length_penalty >= 0) || std::isinf(length_penalty))
    fail<ValueError>("{}: length_penalty is at least 0, but is {}", name, length_penalty);
  if (n_best < 1) fail<ValueError>("{}: n_best is at least 1, but is {}", name, n_best);
}

}  // namespace

std::vector<Hypothesis> greedy_search(Stepper& model, const Tensor& start,
                                      const SearchOptions& options) {
  const NoGrad no_grad;
  Search search("greedy_search", model, start, options.max_length, options.eos);
  return walk(search, options.max_length, [](const Tensor& scores) { return argmax(scores); });
}

std::vector<Hypothesis> sample_search(Stepper& model, const Tensor& start,
                                      const SearchOptions& options, const SamplingOptions& sampling,
                                      Generator& generator) {
  const NoGrad no_grad;
  Search search("sample_search", model, start, options.max_length, options.eos);
  return walk(search, options.max_length,
              [&](const Tensor& scores) { return sample(scores, sampling, generator); });
}

std::vector<std::vector<Hypothesis>> beam_search(Stepper& model, const Tensor& start,
                                                 const BeamSearchOptions& options) {
  const NoGrad no_grad;
  const char* name = "beam_search";
  if (options.beam_size < 1)
    fail<ValueError>("{}: beam_size is at least 1, but is {}", name, options.beam_size);
  check_ranking(name, options.length_penalty, options.n_best);
  if (options.n_best > options.beam_size)
    fail<ValueError>("{}: n_best is {}, but beam_size is {}", name, options.n_best,
                     options.beam_size);
  Search search(name, model, start, options.max_length, options.eos);
  std::vector<Best> best(at(search.batch()), Best(options.n_best, options.length_penalty));
  Tokens width(best.size(), options.beam_size);
  std::vector<Prefix> live = beginnings(search);

  for (std::int64_t length = 1; length <= options.max_length && !live.empty(); ++length) {
    search.step();
    std::vector<Candidate> chosen;
    for (std::int64_t first = 0; first < count(live.size());) {  // sequence by sequence
      const std::int64_t b = live[at(first)].sequence;
      std::vector<Candidate> all;
      std::int64_t row = first;
      for (; row < count(live.size()) && live[at(row)].sequence == b; ++row)
        for (std::int64_t v = 0; v < search.classes(); ++v)
          if (const double p = search.log_prob(row, v); !std::isinf(p))
            all.push_back({row, v, live[at(row)].log_prob + p});
      first = row;
      const auto kept = all.begin() + std::min(width[at(b)], count(all.size()));
      // Of equal ones the first, as in greedy search.
      std::partial_sort(all.begin(), kept, all.end(), [](const Candidate& x, const Candidate& y) {
        if (x.log_prob != y.log_prob) return x.log_prob > y.log_prob;
        return x.row != y.row ? x.row < y.row : x.token < y.token;
      });
      all.erase(kept, all.end());
      for (const Candidate& c : all) {
        if (!search.ends(c.token)) continue;
        best[at(b)].add(live[at(c.row)].tokens, c.log_prob, true);
        --width[at(b)];
      }
      // log P falls with each token: this is the most that a hypothesis can still come to.
      const auto hopeless = [&](const Candidate& c) {
        return search.ends(c.token) ||
               !best[at(b)].has_room_for(
                   score_of(c.log_prob, at(options.max_length), options.length_penalty));
      };
      all.erase(std::remove_if(all.begin(), all.end(), hopeless), all.end());
      chosen.insert(chosen.end(), all.begin(), all.end());
    }
    extend(search, live, chosen);
  }
  return finish(best, live);
}

std::vector<std::vector<Hypothesis>> exhaustive_search(Stepper& model, const Tensor& start,
                                                       const ExhaustiveSearchOptions& options) {
  const NoGrad no_grad;
  const char* name = "exhaustive_search";
  check_ranking(name, options.length_penalty, options.n_best);
  Search search(name, model, start, options.max_length, options.eos);
  std::vector<Best> best(at(search.batch()), Best(options.n_best, options.length_penalty));
  std::vector<Prefix> live = beginnings(search);

  for (std::int64_t length = 1; length <= options.max_length && !live.empty(); ++length) {
    search.step();
    if (length == 1) {
      // With V - 1 tokens that go on, (V - 1)^(l - 1) hypotheses end at length l < L, and
      // (V - 1)^(L - 1) V have length L.
      const auto V = static_cast<double>(search.classes());
      const double branches = options.eos >= 0 ? V - 1 : V;
      double prefixes = 1, hypotheses = 0;
      for (std::int64_t l = 1; l < options.max_length && std::isfinite(prefixes); ++l) {
        if (options.eos >= 0) hypotheses += prefixes;
        prefixes *= branches;
      }
      hypotheses += prefixes * V;
      if (hypotheses > static_cast<double>(options.max_hypotheses))
        fail<ValueError>(
            "{}: {} tokens and max_length {} make {:.10g} hypotheses, more than max_hypotheses = "
            "{}",
            name, search.classes(), options.max_length, hypotheses, options.max_hypotheses);
    }
    std::vector<Candidate> all;
    for (std::int64_t row = 0; row < count(live.size()); ++row)
      for (std::int64_t v = 0; v < search.classes(); ++v) {
        const double p = live[at(row)].log_prob + search.log_prob(row, v);
        if (std::isinf(p)) continue;
        if (search.ends(v))
          best[at(live[at(row)].sequence)].add(live[at(row)].tokens, p, true);
        else
          all.push_back({row, v, p});
      }
    extend(search, live, all);
  }
  return finish(best, live);
}

}  // namespace unroll::detail
