// Says whether a sentence is positive or negative: a GRU that reads it, beside a bag of words.
//
//   sentiment                                            learns the bundled sentences in seconds
//   sentiment --language chinese                         the same in Chinese, by characters
//   sentiment --train FILE --dev FILE --test FILE        lines of yours: a label and a text on each
//   sentiment classify "The food was not bad."           what a saved model says of a line
//
// docs/examples/sentiment.md has the equations and all options.

#include <fmt/format.h>
#include <unroll/unroll.h>

#include <string>
#include <utility>
#include <vector>

#include "common/options.h"
#include "common/program.h"
#include "common/tokenizer.h"
#include "common/training.h"

using namespace unroll;

namespace {

/// What a model is and how it learns. A saved model carries it.
struct Config {
  examples::DataFiles files;
  std::string language = "english";
  std::int64_t min_freq = 1, embed = 32, hidden = 64;
  double dropout = 0.2;
  examples::TrainingOptions training{.epochs = 12, .lr = 5e-3, .plot = "sentiment.svg"};

  template <class F>
  void each(F&& option) {
    using CLI::IsMember, examples::at_least;
    files.each(option);
    option("language", language, "chinese is read by characters, english by words",
           IsMember({"english", "chinese"}));
    option("min-freq", min_freq, "a rarer token is <unk>", at_least(1));
    option("embed", embed, "size of the token embedding", at_least(1));
    option("hidden", hidden, "size of the hidden state", at_least(1));
    option("dropout", dropout, "on embeddings and the last state", at_least(0));
    training.each(option);
  }
};

// --- The models ---------------------------------------------------------------------------------

constexpr std::int64_t kPadding = 1;  // in the vocabulary, behind <unk>

/// h_t = GRU(E[x_t], h_t-1); p(label) = softmax(W h_T + b) with the state h_T after the last token.
struct Reader : Module {
  Reader(const Config& config, std::int64_t tokens, std::int64_t labels)
      : embedding(child("embedding", Embedding(tokens, config.embed, {.padding_idx = kPadding}))),
        gru(child("gru", GRU(config.embed, config.hidden))),
        output(child("output", Linear(config.hidden, labels))),
        dropout(child("dropout", Dropout(config.dropout))) {}

  /// Logits [B, labels].
  Tensor operator()(const PaddedBatch& batch) const {
    Tensor x = batch.x;  // while learning a few are <unk>, so that it comes to mean nothing
    if (is_training()) x = masked_fill(x, uniform(x.shape()) < 0.02, 0);
    auto [outputs, last] = gru(dropout(embedding(x)), {}, batch.lengths);
    return output(dropout(last[0]));
  }

  Embedding embedding;
  GRU gru;
  Linear output;
  Dropout dropout;
};

/// Logistic regression on a bag of words: p(label) = softmax(sum_t W[x_t] + b), whatever the order.
struct BagOfWords : Module {
  BagOfWords(std::int64_t tokens, std::int64_t labels)
      : weight(child("weight", Embedding(tokens, labels, {.padding_idx = kPadding}))),
        bias(param("bias", zeros({labels}))) {
    const NoGrad no_grad;
    weight.weight.fill_(0);
  }

  Tensor operator()(const PaddedBatch& batch) const { return sum(weight(batch.x), 0) + bias; }

  Embedding weight;
  Tensor bias;
};

/// Both, side by side: they see the same batches and have the same optimizer.
struct Models : Module {
  Models(const Config& config, const Vocab& tokens, const Vocab& labels)
      : reader(child("reader", Reader(config, tokens.size(), labels.size()))),
        bag(child("bag", BagOfWords(tokens.size(), labels.size()))) {}
  Reader reader;
  BagOfWords bag;
};

// --- Data ---------------------------------------------------------------------------------------

struct Examples {
  Sequences texts;
  Tensor labels;  ///< [N]

  /// [B], those of a batch.
  Tensor targets(const PaddedBatch& batch) const {
    return index_select(labels, 0, from_vector(batch.indices));
  }
};

std::vector<std::string> split(const Config& config, const std::string& text) {
  return config.language == "chinese" ? split_characters(text)
                                      : split_punctuation(lower_case(text));
}

Examples encode(const Config& config, const std::vector<LabelledLine>& lines,
                const std::string& path, const Vocab& tokens, const Vocab& labels) {
  Sequences texts;
  std::vector<std::int64_t> targets;
  for (const LabelledLine& line : lines) {
    if (!labels.contains(line.label))
      throw ValueError(fmt::format("{}: line {}: the label '{}' is not among those to learn: {}",
                                   path, line.line, line.label, join(labels.tokens(), ", ")));
    texts.push_back(tokens.encode(split(config, line.text)));
    targets.push_back(labels.index(line.label));
  }
  return {texts, from_vector(targets)};
}

/// The fraction of texts whose most probable label is the right one.
template <class Model>
double accuracy(const Model& model, const Examples& data) {
  const NoGrad no_grad;
  Generator generator;
  double right = 0;
  for (const PaddedBatch& batch : bucketed_batches(data.texts, {.padding = kPadding}, generator))
    right += sum(argmax(model(batch)) == data.targets(batch)).item();
  return right / static_cast<double>(data.texts.size());
}

// --- Commands -----------------------------------------------------------------------------------

int train(const Config& config, const examples::Call& call, const examples::Checkpoint* saved) {
  const auto files = config.files.or_bundled("sentiment." + config.language, "txt");
  const std::vector<LabelledLine> lines = read_labelled_lines(files.train);
  std::vector<std::string> all_tokens, all_labels;
  for (const LabelledLine& line : lines) {
    for (std::string& token : split(config, line.text)) all_tokens.push_back(std::move(token));
    all_labels.push_back(line.label);
  }
  const Vocab tokens =
      saved ? saved->vocab("tokens")
            : Vocab(all_tokens, {.min_freq = config.min_freq, .reserved_tokens = {"<pad>"}});
  const Vocab labels = saved ? saved->vocab("labels") : Vocab(all_labels, {.unknown_token = ""});
  if (labels.size() < 2) throw ValueError(files.train + " has only one label");
  const Examples train_set = encode(config, lines, files.train, tokens, labels);
  const auto read = [&](const std::string& file) {
    return file.empty() ? Examples()
                        : encode(config, read_labelled_lines(file), file, tokens, labels);
  };
  const Examples dev = read(files.dev), test = read(files.test);

  manual_seed(config.training.seed);
  Models models(config, tokens, labels);
  Adam optimizer(models.parameters(), {.lr = config.training.lr});
  examples::Training training(config.training, call, models, optimizer,
                              [&](examples::Checkpoint& file) {
                                file.add_values("config", config);
                                file.add_text("tokens", tokens.to_text());
                                file.add_text("labels", labels.to_text());
                              });
  if (saved) training.go_on_from(*saved);
  if (!call.quiet)
    fmt::print("{} texts, {} kinds of tokens, labels {}. GRU: {} parameters, bag of words: {}.\n",
               train_set.texts.size(), tokens.size(), join(labels.tokens(), ", "),
               examples::grouped(models.reader.parameter_count()),
               examples::grouped(models.bag.parameter_count()));

  const auto measure = [&](const std::string& part, const Examples& data) {
    return examples::Metrics{{part + "_accuracy", accuracy(models.reader, data)},
                             {part + "_accuracy_bag", accuracy(models.bag, data)}};
  };
  const std::string part = dev.texts.empty() ? "train" : "dev";
  const bool complete = training.run(
      [&](Generator& generator) {
        return bucketed_batches(
            train_set.texts, {.batch_size = config.training.batch, .padding = kPadding}, generator);
      },
      [&](const PaddedBatch& batch) {
        const Tensor targets = train_set.targets(batch);
        return examples::TrainingLoss{cross_entropy(models.reader(batch), targets) +
                                          cross_entropy(models.bag(batch), targets),
                                      targets.numel()};
      },
      [&] { return measure(part, dev.texts.empty() ? train_set : dev); });
  training.plot({.title = "accuracy, " + part, .y_label = "accuracy"},
                {{part + "_accuracy", "GRU"}, {part + "_accuracy_bag", "bag of words"}});
  if (!complete) return training.exit_code();

  fmt::print("\nAccuracy after {} epochs, {:.1f} s:\n\n{:<10} {:>8} {:>14}\n", training.epochs(),
             training.seconds(), "", "GRU", "bag of words");
  examples::Metrics all;
  for (const auto& [name, data] : {std::pair("train", train_set), {"dev", dev}, {"test", test}}) {
    if (data.texts.empty()) continue;
    const examples::Metrics both = measure(name, data);
    fmt::print("{:<10} {:>7.1f}% {:>13.1f}%\n", name, 100 * both[0].second, 100 * both[1].second);
    all.insert(all.end(), both.begin(), both.end());
  }
  training.log_final(all);
  return 0;
}

/// Prints the label, its probability, and the line.
void classify(const examples::Checkpoint& saved, const std::vector<std::string>& lines) {
  const auto config = saved.values<Config>("config");
  const Vocab tokens = saved.vocab("tokens");
  const Vocab labels = saved.vocab("labels");
  Models models(config, tokens, labels);
  saved.load("model", models);
  models.eval();
  const NoGrad no_grad;
  examples::for_each_line(lines, [&](const std::string& line, const std::string& where) {
    const std::vector<std::int64_t> text = examples::encode(split(config, line), tokens, where);
    if (text.empty()) return fmt::print("{:<10} {:>5}\n", "-", "-");
    const Tensor p = softmax(models.reader(pad_sequences({text}, kPadding)));
    const auto best = static_cast<std::int64_t>(argmax(p).item());
    fmt::print("{:<10} {:.3f}  {}\n", labels.token(best), p[0][best].item(), line);
  });
}

}  // namespace

int main(int argc, char** argv) {
  Config config;
  std::vector<std::string> lines;
  examples::TrainingProgram program("Sentiment of sentences by a GRU.", "sentiment", argc, argv);
  program.add_command("classify", "print label, probability and text of lines, given or on stdin")
      .add_option("lines", lines, "lines to classify");
  return program.run(
      config, {"language", "embed", "hidden"}, train,
      [&](const CLI::App&, const examples::Checkpoint& saved) { classify(saved, lines); });
}
