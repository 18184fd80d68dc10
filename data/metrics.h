#pragma once
/// How good is what a sequence model gives: BLEU and exact match of sentences, and precision,
/// recall and F1 of entities.

#include <cstdint>
#include <map>
#include <string>
#include <vector>

namespace unroll {

// --- Sentences ----------------------------------------------------------------------------------

/// What BLEU is made of.
struct BleuScore {
  double score = 0.0;                 ///< brevity_penalty x geometric mean of the precisions
  std::vector<double> precisions{};   ///< of n-grams of 1, 2, ... tokens; 0 where there are none
  double brevity_penalty = 0.0;       ///< min(1, exp(1 - reference_length / candidate_length))
  std::int64_t candidate_length = 0;  ///< tokens
  std::int64_t reference_length = 0;  ///< of the references closest in length (of two, the shorter)
};

/// BLEU of a whole corpus (Papineni et al. 2002): n-gram matches are clipped by the largest number
/// in any one reference, and summed over all sentences before anything is divided. No smoothing: a
/// precision of 0 makes the score 0. candidates: [N] sentences as tokens; references: [N], one or
/// more for each. All between 0 and 1. Throws ValueError for max_n < 1, for no sentences, for lists
/// of different length and for a candidate without a reference.
BleuScore corpus_bleu(const std::vector<std::vector<std::string>>& candidates,
                      const std::vector<std::vector<std::vector<std::string>>>& references,
                      std::int64_t max_n = 4);

/// BLEU of one short sentence against one reference, as textbooks have it (Zhang et al., Dive into
/// Deep Learning, 10.7.6):
///
///   exp(min(0, 1 - len(reference) / len(candidate))) x product of p_n^(1 / 2^n), n = 1 to k
///
/// with p_n the precision of n-grams, and only such n for which the candidate has any. An empty
/// candidate has 0. Throws ValueError for k < 1.
double sentence_bleu(const std::vector<std::string>& candidate,
                     const std::vector<std::string>& reference, std::int64_t k = 2);

/// The same as a mean over [N] sentences with one or more references each, of which the best one
/// counts. Throws ValueError as corpus_bleu.
double mean_sentence_bleu(const std::vector<std::vector<std::string>>& candidates,
                          const std::vector<std::vector<std::vector<std::string>>>& references,
                          std::int64_t k = 2);

/// The fraction of [N] sentences that equal one of their references, token by token. Throws
/// ValueError as corpus_bleu.
double exact_match(const std::vector<std::vector<std::string>>& candidates,
                   const std::vector<std::vector<std::vector<std::string>>>& references);
/// The same with one reference each: [N].
double exact_match(const std::vector<std::vector<std::string>>& candidates,
                   const std::vector<std::vector<std::string>>& references);

// --- Tags ---------------------------------------------------------------------------------------

/// The fraction of tokens with the expected tag, over all sentences: [N] lists of tags of any kind,
/// parts of speech, say; 0 for none. Throws ValueError for lists of different length.
double tag_accuracy(const std::vector<std::vector<std::string>>& expected,
                    const std::vector<std::vector<std::string>>& predicted);

// --- Entities -----------------------------------------------------------------------------------
// A tag is "O" (outside), or a prefix and, behind '-', the type of an entity: B (its first token),
// I or M (inside), E (its last), S (its only one). ValueError for any other.

/// How tags say where an entity begins and ends.
enum class TagScheme {
  BIO,    ///< every entity begins with B
  IOB1,   ///< all I, but B where an entity follows directly on one of the same type
  BIOES,  ///< B I ... I E, and S for one token
  BMES,   ///< the same with M for I
};

/// "BIO", "IOB1", "BIOES" or "BMES".
std::string scheme_name(TagScheme scheme);
/// The scheme with such a name. Throws ValueError for another name.
TagScheme scheme_from_name(const std::string& name);

/// Tokens begin to end - 1 of a sentence.
struct Entity {
  std::string type;        ///< such as "PER"
  std::int64_t begin = 0;  ///< the first token
  std::int64_t end = 0;    ///< the token behind the last
  /// The same type at the same place.
  bool operator==(const Entity&) const = default;
};

/// The entities of a sentence in any of the schemes, also where its tags break their rules, as the
/// script conlleval of the CoNLL shared tasks finds them (Tjong Kim Sang and Buchholz 2000): an
/// entity goes on from one token to the next if they have the same type, the first has B, I or M
/// and the second I, M or E.
std::vector<Entity> find_entities(const std::vector<std::string>& tags);

/// The one way in which a scheme writes these entities, which must not overlap and stand in order,
/// in a sentence of `size` tokens: the way back from find_entities. Throws ValueError.
std::vector<std::string> entity_tags(const std::vector<Entity>& entities, std::int64_t size,
                                     TagScheme scheme);

/// "" if the tags keep the rules of the scheme; otherwise a line for each that does not, such as
/// "tags[3] is I-PER, but BIO has B-PER there".
std::string tag_errors(const std::vector<std::string>& tags, TagScheme scheme);

/// The tags of the same entities in another scheme. Throws ValueError, with tag_errors, for tags
/// that break the rules of `from`.
std::vector<std::string> convert_tags(const std::vector<std::string>& tags, TagScheme from,
                                      TagScheme to);

/// How many entities there are, were found, and were found rightly.
struct EntityCounts {
  std::int64_t expected = 0;   ///< in the expected tags
  std::int64_t predicted = 0;  ///< in the predicted tags
  std::int64_t correct = 0;    ///< predicted with the expected begin, end and type

  double precision() const;  ///< correct / predicted; 0 for 0 / 0, as those below
  double recall() const;     ///< correct / expected
  double f1() const;         ///< 2 precision recall / (precision + recall)
};

/// Scores of entities, of all and by type, and of tokens.
struct EntityScores {
  EntityCounts all;                           ///< of all types together
  std::map<std::string, EntityCounts> types;  ///< by type
  std::int64_t tokens = 0;                    ///< how many there are
  std::int64_t correct_tokens = 0;            ///< with the expected tag

  double accuracy() const;  ///< correct_tokens / tokens
};

/// Entity by entity and token by token, over all sentences: [N] lists of tags. Expected and
/// predicted tags may be of different schemes (the accuracy of tokens then says nothing). Throws
/// ValueError for lists of different length.
EntityScores entity_scores(const std::vector<std::vector<std::string>>& expected,
                           const std::vector<std::vector<std::string>>& predicted);

}  // namespace unroll
