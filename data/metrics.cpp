#include "data/metrics.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdlib>
#include <string_view>

#include "data/ngram.h"
#include "framework/check.h"
#include "framework/format.h"

namespace unroll {
namespace {

using Tokens = std::vector<std::string>;
using NGrams = NgramCounts<std::string>;

std::int64_t length(const Tokens& tokens) { return static_cast<std::int64_t>(tokens.size()); }

double ratio(std::int64_t part, std::int64_t whole) {
  return whole == 0 ? 0.0 : static_cast<double>(part) / static_cast<double>(whole);
}

/// How many n-grams of the candidate are in the reference counts, each at most as often as there.
std::int64_t count_matches(const NGrams& candidate, const NGrams& reference) {
  std::int64_t matches = 0;
  for (const auto& [ngram, count] : candidate)
    if (const auto found = reference.find(ngram); found != reference.end())
      matches += std::min(count, found->second);
  return matches;
}

/// The length of the reference that is closest to n; of two, the shorter.
std::int64_t closest_length(const std::vector<Tokens>& references, std::int64_t n) {
  std::int64_t best = length(references[0]);
  for (const Tokens& reference : references) {
    const std::int64_t other = length(reference);
    const std::int64_t change = std::abs(other - n) - std::abs(best - n);
    if (change < 0 || (change == 0 && other < best)) best = other;
  }
  return best;
}

/// Throws ValueError unless there are candidates, with one or more references each.
void check(const char* name, const std::vector<Tokens>& candidates,
           const std::vector<std::vector<Tokens>>& references) {
  if (candidates.empty()) detail::fail<ValueError>("{}: there are no candidates", name);
  if (candidates.size() != references.size())
    detail::fail<ValueError>("{}: {} candidates need as many lists of references, got {}", name,
                             candidates.size(), references.size());
  for (std::size_t i = 0; i < references.size(); ++i)
    if (references[i].empty())
      detail::fail<ValueError>("{}: candidate {} has no reference", name, i);
}

}  // namespace

BleuScore corpus_bleu(const std::vector<Tokens>& candidates,
                      const std::vector<std::vector<Tokens>>& references, std::int64_t max_n) {
  if (max_n < 1) detail::fail<ValueError>("corpus_bleu: max_n is at least 1, but is {}", max_n);
  check("corpus_bleu", candidates, references);
  BleuScore result;
  for (std::size_t i = 0; i < candidates.size(); ++i) {
    result.candidate_length += length(candidates[i]);
    result.reference_length += closest_length(references[i], length(candidates[i]));
  }
  double log_sum = 0.0;
  for (std::int64_t n = 1; n <= max_n; ++n) {
    std::int64_t matches = 0, all = 0;
    for (std::size_t i = 0; i < candidates.size(); ++i) {
      NGrams most;
      for (const Tokens& reference : references[i])
        for (const auto& [ngram, count] : count_ngrams(reference, n))
          most[ngram] = std::max(most[ngram], count);
      matches += count_matches(count_ngrams(candidates[i], n), most);
      all += std::max<std::int64_t>(0, length(candidates[i]) - n + 1);
    }
    result.precisions.push_back(ratio(matches, all));
    log_sum += std::log(result.precisions.back());
  }
  if (result.candidate_length > 0)
    result.brevity_penalty =
        std::exp(std::min(0.0, 1.0 - static_cast<double>(result.reference_length) /
                                         static_cast<double>(result.candidate_length)));
  result.score = result.brevity_penalty * std::exp(log_sum / static_cast<double>(max_n));
  return result;
}

double sentence_bleu(const Tokens& candidate, const Tokens& reference, std::int64_t k) {
  if (k < 1) detail::fail<ValueError>("sentence_bleu: k is at least 1, but is {}", k);
  if (candidate.empty()) return 0.0;
  const std::int64_t size = length(candidate);
  double score = std::exp(
      std::min(0.0, 1.0 - static_cast<double>(length(reference)) / static_cast<double>(size)));
  for (std::int64_t n = 1; n <= std::min(k, size); ++n) {
    const std::int64_t matches =
        count_matches(count_ngrams(candidate, n), count_ngrams(reference, n));
    score *= std::pow(ratio(matches, size - n + 1), std::pow(0.5, static_cast<double>(n)));
  }
  return score;
}

double mean_sentence_bleu(const std::vector<Tokens>& candidates,
                          const std::vector<std::vector<Tokens>>& references, std::int64_t k) {
  check("mean_sentence_bleu", candidates, references);
  double sum = 0.0;
  for (std::size_t i = 0; i < candidates.size(); ++i) {
    double best = 0.0;
    for (const Tokens& reference : references[i])
      best = std::max(best, sentence_bleu(candidates[i], reference, k));
    sum += best;
  }
  return sum / static_cast<double>(candidates.size());
}

double exact_match(const std::vector<Tokens>& candidates,
                   const std::vector<std::vector<Tokens>>& references) {
  check("exact_match", candidates, references);
  std::int64_t hits = 0;
  for (std::size_t i = 0; i < candidates.size(); ++i)
    hits += std::count(references[i].begin(), references[i].end(), candidates[i]) > 0 ? 1 : 0;
  return ratio(hits, static_cast<std::int64_t>(candidates.size()));
}

double exact_match(const std::vector<Tokens>& candidates, const std::vector<Tokens>& references) {
  std::vector<std::vector<Tokens>> lists;
  for (const Tokens& reference : references) lists.push_back({reference});
  return exact_match(candidates, lists);
}

// --- Entities -----------------------------------------------------------------------------------

namespace {

struct Tag {
  char prefix = 'O';
  std::string_view type{};
};

/// Tag i of a list, which messages call `name`.
Tag parse(const Tokens& tags, std::size_t i, const std::string& name) {
  const std::string_view text = tags[i];
  const bool known = !text.empty() && std::string_view("OBIMES").find(text[0]) != std::string::npos;
  const bool whole = text.size() == 1 || (text.size() > 1 && text[1] == '-');
  if (!known || !whole || (text[0] == 'O' && text.size() > 1))
    detail::fail<ValueError>(
        "{}[{}] is '{}', but a tag is O, or B, I, M, E or S with a type behind '-'", name, i, text);
  return {text[0], text.size() > 1 ? text.substr(2) : std::string_view()};
}

/// Whether an entity goes on from one tag to the next.
bool goes_on(const Tag& a, const Tag& b) {
  const bool open = a.prefix == 'B' || a.prefix == 'I' || a.prefix == 'M';
  const bool inside = b.prefix == 'I' || b.prefix == 'M' || b.prefix == 'E';
  return open && inside && a.type == b.type;
}

/// The prefix of a token of an entity. `follows`: directly behind one of the same type.
char prefix_of(TagScheme scheme, bool first, bool last, bool follows) {
  const char inside = scheme == TagScheme::BMES ? 'M' : 'I';
  if (scheme == TagScheme::IOB1) return first && follows ? 'B' : 'I';
  if (scheme == TagScheme::BIO) return first ? 'B' : 'I';
  if (first) return last ? 'S' : 'B';
  return last ? 'E' : inside;
}

std::vector<Entity> entities_of(const Tokens& tags, const std::string& name) {
  std::vector<Entity> entities;
  Tag before;
  for (std::size_t i = 0; i < tags.size(); ++i) {
    const Tag tag = parse(tags, i, name);
    const auto place = static_cast<std::int64_t>(i);
    if (goes_on(before, tag))
      entities.back().end = place + 1;
    else if (tag.prefix != 'O')
      entities.push_back({std::string(tag.type), place, place + 1});
    before = tag;
  }
  return entities;
}

}  // namespace

std::string scheme_name(TagScheme scheme) {
  switch (scheme) {
    case TagScheme::BIO: return "BIO";
    case TagScheme::IOB1: return "IOB1";
    case TagScheme::BIOES: return "BIOES";
    default: return "BMES";
  }
}

TagScheme scheme_from_name(const std::string& name) {
  for (TagScheme scheme : {TagScheme::BIO, TagScheme::IOB1, TagScheme::BIOES, TagScheme::BMES})
    if (scheme_name(scheme) == name) return scheme;
  detail::fail<ValueError>("'{}' is no tag scheme: BIO, IOB1, BIOES or BMES", name);
}

std::vector<Entity> find_entities(const Tokens& tags) { return entities_of(tags, "tags"); }

Tokens entity_tags(const std::vector<Entity>& entities, std::int64_t size, TagScheme scheme) {
  Tokens tags;
  const Entity* before = nullptr;
  for (const Entity& e : entities) {
    if (e.begin < length(tags) || e.end <= e.begin || e.end > size)
      detail::fail<ValueError>(
          "entity_tags: an entity from {} to {} does not fit behind {} in {} tokens", e.begin,
          e.end, tags.size(), size);
    tags.resize(static_cast<std::size_t>(e.begin), "O");
    const bool follows = before && before->end == e.begin && before->type == e.type;
    for (std::int64_t i = e.begin; i < e.end; ++i) {
      tags.emplace_back(1, prefix_of(scheme, i == e.begin, i + 1 == e.end, follows));
      if (!e.type.empty()) tags.back() += "-" + e.type;
    }
    before = &e;
  }
  tags.resize(static_cast<std::size_t>(size), "O");
  return tags;
}

// What the scheme would write for the entities that are there is what should be there.
std::string tag_errors(const Tokens& tags, TagScheme scheme) {
  const Tokens right = entity_tags(find_entities(tags), length(tags), scheme);
  std::string lines;
  for (std::size_t i = 0; i < tags.size(); ++i)
    if (tags[i] != right[i])
      lines += detail::format("{}tags[{}] is {}, but {} has {} there", lines.empty() ? "" : "\n", i,
                              tags[i], scheme_name(scheme), right[i]);
  return lines;
}

Tokens convert_tags(const Tokens& tags, TagScheme from, TagScheme to) {
  if (const std::string errors = tag_errors(tags, from); !errors.empty())
    throw ValueError("convert_tags: " + errors);
  return entity_tags(find_entities(tags), length(tags), to);
}

double EntityCounts::precision() const { return ratio(correct, predicted); }
double EntityCounts::recall() const { return ratio(correct, expected); }
double EntityCounts::f1() const { return ratio(2 * correct, predicted + expected); }
double EntityScores::accuracy() const { return ratio(correct_tokens, tokens); }

namespace {

/// Throws ValueError unless both have as many sentences, and these as many tags.
void require_same_lengths(const char* op, const std::vector<Tokens>& expected,
                          const std::vector<Tokens>& predicted) {
  if (expected.size() != predicted.size())
    detail::fail<ValueError>("{}: {} sentences are expected, but {} predicted", op, expected.size(),
                             predicted.size());
  for (std::size_t n = 0; n < expected.size(); ++n)
    if (expected[n].size() != predicted[n].size())
      detail::fail<ValueError>("{}: sentence {} has {} expected tags, but {} predicted ones", op, n,
                               expected[n].size(), predicted[n].size());
}

}  // namespace

double tag_accuracy(const std::vector<Tokens>& expected, const std::vector<Tokens>& predicted) {
  require_same_lengths("tag_accuracy", expected, predicted);
  std::int64_t right = 0, all = 0;
  for (std::size_t n = 0; n < expected.size(); ++n)
    for (std::size_t i = 0; i < expected[n].size(); ++i, ++all)
      right += expected[n][i] == predicted[n][i] ? 1 : 0;
  return ratio(right, all);
}

EntityScores entity_scores(const std::vector<Tokens>& expected,
                           const std::vector<Tokens>& predicted) {
  require_same_lengths("entity_scores", expected, predicted);
  EntityScores scores;
  for (std::size_t n = 0; n < expected.size(); ++n) {
    for (std::size_t i = 0; i < expected[n].size(); ++i)
      scores.correct_tokens += expected[n][i] == predicted[n][i] ? 1 : 0;
    scores.tokens += length(expected[n]);
    const auto wanted = entities_of(expected[n], detail::format("expected[{}]", n)),
               found = entities_of(predicted[n], detail::format("predicted[{}]", n));
    for (const Entity& e : wanted) ++scores.types[e.type].expected;
    for (const Entity& e : found) {
      EntityCounts& counts = scores.types[e.type];
      ++counts.predicted;
      if (std::find(wanted.begin(), wanted.end(), e) != wanted.end()) ++counts.correct;
    }
  }
  for (const auto& [type, counts] : scores.types) {
    scores.all.expected += counts.expected;
    scores.all.predicted += counts.predicted;
    scores.all.correct += counts.correct;
  }
  return scores;
}

}  // namespace unroll
