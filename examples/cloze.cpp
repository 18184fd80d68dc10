// Fills in blanks in a text from both sides with a bidirectional LSTM, beside a left-to-right one.
//
//   cloze                                                learns the bundled story
//   cloze --text FILE --level word                       words of a text of yours
//   cloze fill "The f_rry was l_te."                     what a saved model makes of a line
//
// docs/examples/cloze.md has the equations and all options.

#include <fmt/format.h>
#include <unroll/unroll.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "common/program.h"
#include "common/tokenizer.h"
#include "common/training.h"

using namespace unroll;

namespace {

/// What a model is and how it learns. A saved model carries it.
struct Config {
  std::string text, test, language = "english", level = "char";
  std::int64_t min_freq = 1, embed = 32, hidden = 96;
  double dropout = 0.2, noise = 0.05;
  examples::TrainingOptions training{.epochs = 20, .batch = 16, .lr = 4e-3, .plot = "cloze.svg"};

  template <class F>
  void each(F&& option) {
    using CLI::IsMember, examples::at_least;
    option("text", text, "text to learn, line by line (default: the bundled story)");
    option("test", test, "text to measure on (default: every tenth line of the other)");
    option("language", language, "of the bundled story", IsMember({"english", "chinese"}));
    option("level", level, "what is blanked", IsMember({"char", "word"}));
    option("min-freq", min_freq, "a rarer token is <unk>, which is never asked for", at_least(1));
    option("embed", embed, "size of the token embedding", at_least(1));
    option("hidden", hidden, "hidden size of each direction; left to right: twice", at_least(1));
    option("dropout", dropout, "on embeddings and hidden states", at_least(0));
    option("noise", noise, "how often a token that is read is <unk> while learning", at_least(0));
    training.each(option);
  }
};

/// p(token_t | the others) from what an LSTM has read up to t - 1 from the left and, if it reads
/// from both sides, another one down to t + 1 from the right: every token is a blank at once, as
/// nothing that is asked for token t has read it (Melamud et al. 2016).
///
///   p(token_t) = softmax(V tanh(W [l_t-1, r_t+1] + b) + c)
struct Filler : Module {
  Filler(const Config& config, std::int64_t tokens, bool both_sides)
      : width(both_sides ? config.hidden : 2 * config.hidden),
        noise(config.noise),
        embedding(child("embedding", Embedding(tokens, config.embed))),
        lstm(child("lstm", LSTM(config.embed, width, {.bidirectional = both_sides}))),
        mix(child("mix", Linear(2 * config.hidden, config.hidden))),
        output(child("output", Linear(config.hidden, tokens))),
        dropout(child("dropout", Dropout(config.dropout))) {}

  /// Logits [T, B, V].
  Tensor operator()(const PaddedBatch& batch) const {
    Tensor read = batch.x;
    if (is_training()) read = masked_fill(read, uniform(read.shape()) < noise, 0);
    const Tensor states = lstm(dropout(embedding(read)), {}, batch.lengths).outputs;
    const std::int64_t T = states.size(0), B = states.size(1);
    const Tensor before = zeros({1, B, width});  // before the first token and behind the last one
    Tensor seen = concatenate({before, narrow(narrow(states, 2, 0, width), 0, 0, T - 1)});
    if (states.size(2) > width) {
      const Tensor right = narrow(narrow(states, 2, width, width), 0, 1, T - 1);
      seen = concatenate({seen, concatenate({right, before})}, 2);
    }
    return output(tanh(mix(dropout(seen))));
  }

  std::int64_t width;
  double noise;
  Embedding embedding;
  LSTM lstm;
  Linear mix, output;
  Dropout dropout;
};

/// Both, side by side: they see the same batches and have the same optimizer.
struct Models : Module {
  Models(const Config& config, std::int64_t tokens)
      : both(child("both", Filler(config, tokens, true))),
        left(child("left", Filler(config, tokens, false))) {}
  Filler both, left;
};

/// Accuracy and perplexity over all tokens but <unk>, whose index 0 is also that of the padding.
std::pair<double, double> measure(const Filler& model, const Sequences& lines) {
  const NoGrad no_grad;
  Generator generator;
  double right = 0, loss = 0, count = 0;
  for (const PaddedBatch& batch : bucketed_batches(lines, {.batch_size = 32}, generator)) {
    const Tensor logits = model(batch), asked = batch.x != 0.0;
    right += sum((argmax(logits) == batch.x) * asked).item();
    loss += cross_entropy(logits, batch.x, {.ignore_index = 0, .reduction = Reduction::sum}).item();
    count += sum(asked).item();
  }
  return {right / count, std::exp(loss / count)};
}

/// Whether a token stands for a blank: "_" or, among words, "___".
bool is_blank(const std::string& token) { return token.find_first_not_of('_') == token.npos; }

/// Fills all blanks in: each time the one about which the model is most certain, which the others
/// then know. Returns, by place, the most probable tokens of each.
std::map<std::size_t, std::string> fill(const Filler& model, const Vocab& vocab,
                                        std::vector<std::string>& tokens) {
  const NoGrad no_grad;
  std::map<std::size_t, std::string> found;
  const auto blanks = std::count_if(tokens.begin(), tokens.end(), is_blank);
  while (std::ssize(found) < blanks) {
    const Tensor logits = model(pad_sequences({vocab.encode(tokens)}, 0));
    const Tensor p = softmax(narrow(logits, 2, 1, vocab.size() - 1));  // anything but <unk>
    const std::vector<double> most = max(p, {1, 2}).to(DType::f64).to_vector<double>();
    std::size_t place = tokens.size();
    for (std::size_t t = 0; t < tokens.size(); ++t)
      if (is_blank(tokens[t]) && !found.contains(t) &&
          (place == tokens.size() || most[t] > most[place]))
        place = t;
    std::multimap<double, std::int64_t> order;
    for (std::int64_t k = 1; k < vocab.size(); ++k)
      order.emplace(-p[static_cast<std::int64_t>(place)][0][k - 1].item(), k);
    auto next = order.begin();
    tokens[place] = vocab.token(next->second);
    for (int n = 0; n < 3 && next != order.end(); ++n, ++next)
      found[place] += fmt::format("{} {:.2f}  ", vocab.token(next->second), -next->first);
  }
  return found;
}

void print_filled(const Models& models, const Vocab& vocab, const Config& config,
                  std::vector<std::string> line) {
  std::vector<std::string> same = line;
  const auto both = fill(models.both, vocab, line), left = fill(models.left, vocab, same);
  fmt::print("{}\n", examples::Tokenizer(config.level, "none").join(line));
  for (const auto& [place, best] : both)
    fmt::print("  blank {:>3}   both sides: {:<28} left to right: {}\n", place + 1, best,
               left.at(place));
}

int train(const Config& config, const examples::Call& call, const examples::Checkpoint* saved) {
  const examples::Tokenizer tokenizer(config.level, "none");
  const auto read = [&](const std::string& path) {
    std::vector<std::vector<std::string>> lines;
    for (const std::string& line : read_lines(path))
      if (auto tokens = tokenizer.line(line); !tokens.empty()) lines.push_back(std::move(tokens));
    if (lines.size() < 10) throw ValueError(path + " has less than ten lines");
    return lines;
  };
  const auto path = config.text.empty() ? examples::bundled(config.language + ".txt") : config.text;
  std::vector<std::vector<std::string>> lines, held_out;
  for (auto& line : read(path)) {
    const bool tenth = (lines.size() + held_out.size()) % 10 == 9 && config.test.empty();
    (tenth ? held_out : lines).push_back(std::move(line));
  }
  if (!config.test.empty()) held_out = read(config.test);
  std::vector<std::string> all;
  for (const auto& line : lines) all.insert(all.end(), line.begin(), line.end());
  const Vocab vocab =
      saved ? saved->vocab("vocabulary") : Vocab(all, {.min_freq = config.min_freq});
  if (vocab.size() < 3) throw ValueError(path + " has less than two kinds of tokens");
  Sequences train_set, test_set;
  for (const auto& line : lines) train_set.push_back(vocab.encode(line));
  for (const auto& line : held_out) test_set.push_back(vocab.encode(line));

  manual_seed(config.training.seed);
  Models models(config, vocab.size());
  Adam optimizer(models.parameters(), {.lr = config.training.lr});
  const auto save = [&](examples::Checkpoint& file) {
    file.add_values("config", config), file.add_text("vocabulary", vocab.to_text());
  };
  examples::Training training(config.training, call, models, optimizer, save, "tokens");
  if (saved) training.go_on_from(*saved);
  if (!call.quiet)
    fmt::print("{} lines, {} kinds of tokens. Both sides: {} parameters, left to right: {}.\n",
               train_set.size(), vocab.size(), examples::grouped(models.both.parameter_count()),
               examples::grouped(models.left.parameter_count()));

  const bool complete = training.run(
      [&](Generator& generator) {
        return bucketed_batches(train_set, {.batch_size = config.training.batch}, generator);
      },
      [&](const PaddedBatch& batch) {
        const CrossEntropyOptions known{.ignore_index = 0};
        return examples::TrainingLoss{cross_entropy(models.both(batch), batch.x, known) +
                                          cross_entropy(models.left(batch), batch.x, known),
                                      static_cast<std::int64_t>(sum(batch.lengths).item())};
      },
      [&] {
        return examples::Metrics{{"test_accuracy", measure(models.both, test_set).first},
                                 {"test_accuracy_left", measure(models.left, test_set).first}};
      });
  training.plot({.title = "accuracy on blanks in text that is not learned", .y_label = "accuracy"},
                {{"test_accuracy", "both sides"}, {"test_accuracy_left", "left to right"}});
  if (!complete) return training.exit_code();

  fmt::print("\nBlanks after {} epochs, {:.1f} s:\n\n{:<22}{:>10}{:>12}\n", training.epochs(),
             training.seconds(), "", "accuracy", "perplexity");
  examples::Metrics all_scores;
  for (const auto& [name, key, model] : {std::tuple("both sides", "", &models.both),
                                         std::tuple("left to right", "_left", &models.left)}) {
    const auto [accuracy, perplexity] = measure(*model, test_set);
    fmt::print("{:<22}{:>9.1f}%{:>12.2f}\n", name, 100 * accuracy, perplexity);
    all_scores.emplace_back(fmt::format("test_accuracy{}", key), accuracy);
    all_scores.emplace_back(fmt::format("test_perplexity{}", key), perplexity);
  }
  training.log_final(all_scores);
  if (call.quiet) return 0;
  fmt::print("\nEvery ninth token of two lines that were not learned, filled in:\n\n");
  for (auto line : {held_out[0], held_out[1]}) {
    for (std::size_t t = 4; t < line.size(); t += 9)
      if (line[t] != " ") line[t] = "_";
    fmt::print("{}\n", tokenizer.join(line));
    print_filled(models, vocab, config, line);
  }
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  Config config;
  std::vector<std::string> lines;
  examples::TrainingProgram program("Fills in blanks from both sides.", "cloze", argc, argv);
  program.add_command("fill", "fill in the blanks, _, of lines that are given or on stdin")
      .add_option("lines", lines, "lines with blanks");
  return program.run(
      config, {"level", "embed", "hidden"}, train,
      [&](const CLI::App&, const examples::Checkpoint& saved) {
        const Vocab vocab = saved.vocab("vocabulary");
        Models models(config, vocab.size());
        saved.load("model", models);
        models.eval();
        examples::for_each_line(lines, [&](const std::string& line, const std::string&) {
          print_filled(models, vocab, config, examples::Tokenizer(config.level, "none").line(line));
        });
      });
}
