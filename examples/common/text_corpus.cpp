#include "examples/common/text_corpus.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstddef>

#include "data/sequences.h"
#include "data/text.h"
#include "examples/common/program.h"
#include "examples/common/training.h"
#include "framework/autograd.h"
#include "framework/check.h"
#include "framework/ops.h"
#include "modules/init.h"

namespace examples {

using namespace unroll;

RecurrentLanguageModel NetworkOptions::make(std::int64_t vocab_size) const {
  if (forget_bias && cell != "lstm")
    throw ValueError(fmt::format("--forget-bias is for --cell lstm, not {}", cell));
  const std::size_t colon = std::min(init.find(':'), init.size());
  const std::string kind = init.substr(0, colon);
  double scale = 0;
  if (!init.empty() && ((kind != "uniform" && kind != "normal") || colon == init.size() ||
                        !CLI::detail::lexical_cast(init.substr(colon + 1), scale) || !(scale >= 0)))
    throw ValueError(fmt::format("--init {}: expected uniform:A or normal:S", init));

  RecurrentLanguageModel model(vocab_size,
                               {cell_type_from_name(cell), embed, hidden, layers, dropout});
  const NoGrad no_grad;
  for (const auto& [name, parameter] : model.named_parameters()) {
    if (kind == "uniform") unroll::init::uniform_(parameter, -scale, scale);
    if (kind == "normal") unroll::init::normal_(parameter, 0, scale);
    // An LSTM has two biases per gate, which are added; the gates stand in the order i f g o.
    if (forget_bias && name.starts_with("network.bias"))
      narrow(parameter, 0, hidden, hidden)
          .fill_(name.starts_with("network.bias_ih") ? *forget_bias : 0.0);
  }
  return model;
}

std::string NetworkOptions::name() const {
  const std::string more = layers > 1 ? fmt::format(", {} layers", layers) : std::string();
  return fmt::format("{}{}, hidden size {}", cell, more, hidden);
}

TextCorpus::TextCorpus(const TextOptions& options, const std::optional<Vocab>& known,
                       double held_out)
    : path(options.text.empty() ? bundled("english.txt") : options.text) {
  const Tokenizer tokenizer = options.tokenizer();
  const std::vector<std::string> tokens = tokenizer.text(read_text(path));
  vocab = known ? *known : Vocab(tokens);
  train = encode(tokens, vocab, path);
  if (options.max_tokens > 0 && options.max_tokens < std::ssize(train))
    train.resize(static_cast<std::size_t>(options.max_tokens));
  for (const auto& [name, file] : {std::pair{"valid", options.valid}, {"test", options.test}})
    if (!file.empty())
      others.emplace_back(name, encode(tokenizer.text(read_text(file)), vocab, file));
  if (others.empty() && held_out > 0) {
    const auto kept = static_cast<double>(train.size()) * (1 - held_out);
    const auto cut = train.begin() + static_cast<std::ptrdiff_t>(kept);
    others.emplace_back("valid", Tokens(cut, train.end()));
    train.erase(cut, train.end());
  }
  for (const auto& [name, part] : others)
    if (part.size() < 2)
      throw ValueError(fmt::format("{}: the {} text has less than two tokens", path, name));
  if (train.size() < 2) throw ValueError(path + " has less than two tokens to learn");
}

WindowBatches TextCorpus::windows(const WindowOptions& options, const std::string& sampling,
                                  Generator& generator) const {
  try {
    return sampling == "random" ? random_windows(train, options, generator)
                                : sequential_windows(train, options, generator);
  } catch (const ValueError& error) {  // too short
    throw ValueError(fmt::format("{}: {}: try a smaller --batch or --steps", path, error.what()));
  }
}

const TextCorpus::Tokens& TextCorpus::part(const std::string& name) const {
  static const Tokens none;
  if (name == "train") return train;
  for (const auto& [other, tokens] : others)
    if (name == other) return tokens;
  return none;
}

std::vector<std::int64_t> read_line(const TextOptions& options, const Vocab& vocab,
                                    const std::string& line, const std::string& where) {
  const Tokenizer tokenizer = options.tokenizer();
  std::vector<std::int64_t> tokens = tokenizer.line_start(vocab);
  for (std::int64_t token : encode(tokenizer.line(line), vocab, where)) tokens.push_back(token);
  return tokens;
}

double perplexity(RecurrentLanguageModel& model, const std::vector<std::int64_t>& corpus) {
  model.eval();
  const auto rows = std::clamp<std::int64_t>(std::ssize(corpus) / 1000, 1, 32);
  RecurrentLanguageModel::State state;
  return std::exp(mean_loss(evaluation_windows(corpus, {rows, 35}), [&](const WindowBatch& window) {
    auto [logits, next] = model(window.x, state);
    state = std::move(next);
    return TrainingLoss{cross_entropy(logits, window.y), window.y.numel()};
  }));
}

}  // namespace examples
