// Describes pictures: from one small picture the sentence that says what is in it, word by word.
//
//   caption                                          learns to describe generated pictures
//   caption train --pictures FILE --captions FILE    your own: a .npy array, and a line for each
//   caption train --load FILE                        goes on where it was interrupted
//   caption describe --pictures FILE                 what does the saved model see?
//
// docs/examples/caption.md has the equations and all options.

#include <fmt/format.h>
#include <unroll/unroll.h>

#include <cstdint>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "common/pictures.h"
#include "common/program.h"
#include "common/teacher_forcing.h"
#include "common/training.h"
#include "data/shape_pictures.h"

using namespace unroll;

namespace {

using Captions = std::vector<std::vector<std::string>>;
using Parts = std::vector<std::pair<std::string, CaptionedPictures>>;  // with names

constexpr std::int64_t kPad = 1, kBos = 2, kEos = 3;  // in the vocabulary, behind <unk>

/// What a model is and how it learns. A saved model carries it.
struct Config {
  std::string pictures, captions, test_pictures, test_captions, gallery = "caption_pictures.svg";
  std::int64_t count = 6000, features = 64, embed = 32, hidden = 128, beam = 1;
  examples::TrainingOptions training{.epochs = 20, .batch = 64, .lr = 2e-3, .plot = "caption.svg"};

  template <class F>
  void each(F&& option) {
    using examples::at_least;
    option("pictures", pictures, "pictures to learn: a .npy array (pictures, height, width, 3)");
    option("captions", captions, "a line for each of them");
    option("test-pictures", test_pictures, "pictures to describe at the end ...");
    option("test-captions", test_captions, "... and what should come out");
    option("count", count, "pictures to generate, without a file", at_least(1));
    option("features", features, "what the eye makes of a quarter of a picture", at_least(1));
    option("embed", embed, "size of the word embedding", at_least(1));
    option("hidden", hidden, "size of the hidden state", at_least(1));
    option("beam", beam, "width of the beam search; 1: greedy", at_least(1));
    training.each(option);
    option("gallery", gallery, "SVG file for a few pictures and their captions; \"\": none");
  }
};

// --- The model ----------------------------------------------------------------------------------

/// e_q = relu(W' relu(W x_q + b) + b') + p_q for each quarter q of the picture, with the same W and
/// W' for all: a shape is the same shape wherever it stands, and p_q says where that is.
struct Eye : Module {
  Eye(const Config& config, std::int64_t quarter)
      : pixels(child("pixels", Linear(quarter, config.features))),
        shapes(child("shapes", Linear(config.features, config.features))),
        places(param("places", normal({4, 1, config.features}))) {}

  /// picture: [B, height, width, 3]; returns [4, B, features].
  Tensor operator()(const Tensor& picture, const Tensor& /*lengths*/) const {
    const std::int64_t B = picture.size(0), H = picture.size(1) / 2, W = picture.size(2) / 2;
    const Tensor quarters = permute(reshape(picture, {B, 2, H, 2, W, 3}), {1, 3, 0, 2, 4, 5});
    return relu(shapes(relu(pixels(reshape(quarters, {4, B, H * W * 3}))))) + places;
  }

  Linear pixels, shapes;
  Tensor places;
};

/// h_0 = tanh(V mean of e_q);  c_t = sum over q of a_tq e_q, where h_t-1 says what to look at;
/// h_t = GRU([E[word_t-1], c_t], h_t-1);  p(word_t) = softmax(W h_t + b)   (Xu et al. 2015).
struct Writer : Module {
  struct State {
    Tensor h;
    AttentionMemory memory;
    auto fields() { return std::tie(h, memory); }
  };

  Writer(const Config& config, std::int64_t words)
      : embedding(child("embedding", Embedding(words, config.embed))),
        attention(child("attention", Attention(AttentionScore::additive, config.hidden,
                                               config.features, config.features))),
        gru(child("gru", GRU(config.embed + config.features, config.hidden))),
        start(child("start", Linear(config.features, config.hidden))),
        output(child("output", Linear(config.hidden, words))) {}

  State initial_state(const Tensor& seen) const {
    return {tanh(start(mean(seen, 0))), attention.memory(seen)};
  }
  StepResult<State> step(const Tensor& words, const State& state) const {
    const Tensor context = attention(state.h, state.memory).context;
    const Tensor h = gru.step(concatenate({embedding(words), context}, -1), {state.h}).output;
    return {output(h), {h, state.memory}};
  }

  Embedding embedding;
  Attention attention;
  GRU gru;
  Linear start, output;
};

using Model = EncoderDecoder<Eye, Writer>;

/// What the model says of each picture.
Captions describe(Model& model, const Vocab& vocab, const Tensor& pixels, std::int64_t beam) {
  const NoGrad no_grad;
  model.eval();
  Captions captions;
  for (const Tensor& some : split(pixels, 100))
    for (const auto& found :
         beam_search(model.decoder, model.encode(some), full({some.size(0)}, kBos, DType::i64),
                     {.beam_size = beam, .max_length = 50, .eos = kEos}))
      captions.push_back(vocab.decode(found.at(0).tokens));
  return captions;
}

/// Throws ValueError unless pictures have four quarters of so many numbers.
void check_size(const Tensor& pixels, const std::string& path, std::int64_t quarter) {
  if (pixels.size(1) % 2 != 0 || pixels.size(2) % 2 != 0 || pixels[0].numel() != 4 * quarter)
    throw ValueError(
        fmt::format("'{}' has pictures of {} numbers, "
                    "but those to learn have {} in four quarters",
                    path, pixels[0].numel(), 4 * quarter));
}

/// What is learned and, behind it, what is described at the end.
Parts read_parts(const Config& config) {
  const bool given = !config.pictures.empty(), tested = !config.test_pictures.empty();
  if (given == config.captions.empty() || tested == config.test_captions.empty())
    throw ValueError(
        "--pictures and --captions go together, as --test-pictures and --test-captions");
  if (tested && !given) throw ValueError("--test-pictures needs --pictures");
  if (!given) {
    Generator generator(config.training.seed);
    return {{"train", examples::make_shapes(config.count, false, generator)},
            {"seen", examples::make_shapes(500, false, generator)},
            {"unseen", examples::make_shapes(500, true, generator)}};
  }
  const auto known = read_pictures(config.pictures, config.captions);
  const std::int64_t quarter = known.pixels[0].numel() / 4;
  check_size(known.pixels, config.pictures, quarter);
  if (!tested) return {{"train", known}, {"train", known}};
  const auto test = read_pictures(config.test_pictures, config.test_captions);
  check_size(test.pixels, config.test_pictures, quarter);
  return {{"train", known}, {"test", test}};
}

/// Prints captions, and draws the first pictures with them.
void show(const Tensor& pixels, const Captions& captions, const std::string& gallery) {
  for (const auto& caption : captions) fmt::print("{}\n", join(caption, " "));
  if (!gallery.empty()) examples::pictures_svg(gallery, pixels, captions);
}

int train(const Config& config, const examples::Call& call, const examples::Checkpoint* saved) {
  Parts parts = read_parts(config);
  const CaptionedPictures known = parts[0].second;
  parts.erase(parts.begin());
  std::vector<std::string> words;
  for (const auto& caption : known.captions)
    words.insert(words.end(), caption.begin(), caption.end());
  const Vocab vocab = saved ? saved->vocab("vocabulary")
                            : Vocab(words, {.reserved_tokens = {"<pad>", "<bos>", "<eos>"}});
  Sequences captions;
  for (const auto& caption : known.captions)
    captions.push_back(examples::with_marks(vocab.encode(caption), kBos, kEos));

  const std::int64_t quarter = known.pixels[0].numel() / 4;
  manual_seed(config.training.seed);
  Model model{Eye(config, quarter), Writer(config, vocab.size())};
  Adam optimizer(model.parameters(), {.lr = config.training.lr});
  const auto save = [&](examples::Checkpoint& file) {
    file.add_values("config", config);
    file.add_number("quarter", quarter);
    file.add_text("vocabulary", vocab.to_text());
  };
  examples::Training training(config.training, call, model, optimizer, save, "words");
  if (saved) training.go_on_from(*saved);
  if (!config.gallery.empty()) examples::require_writable(config.gallery);
  if (!call.quiet)
    fmt::print("{} parameters. {} pictures to learn, {} kinds of words.\n",
               examples::grouped(model.parameter_count()), known.captions.size(), vocab.size());

  const auto batches = [&](Generator& generator) {
    return bucketed_batches(captions, {config.training.batch, kPad}, generator);
  };
  const auto loss = [&](const PaddedBatch& batch) {
    return examples::teacher_forcing(
        model, index_select(known.pixels, 0, from_vector(batch.indices)), {}, batch, kPad);
  };
  const auto measure = [&] {
    examples::Metrics metrics;
    for (const auto& [name, part] : parts) {
      const Captions found = describe(model, vocab, part.pixels, config.beam);
      metrics.emplace_back(name + "_exact", exact_match(found, part.captions));
    }
    return metrics;
  };
  const bool complete = training.run(batches, loss, measure);
  std::vector<std::pair<std::string, std::string>> curves;
  for (const auto& [name, part] : parts) curves.emplace_back(name + "_exact", name);
  training.plot({.title = "captions with every word right", .y_label = "exact match"}, curves);
  if (!complete) return training.exit_code();

  fmt::print("After {} epochs, {:.1f} s: training loss {:.4f} per word.\n\n{:<20} {:>14} {:>16}\n",
             training.epochs(), training.seconds(), training.curve("train_loss").back(),
             "exact match", "the model", "nearest picture");
  examples::Metrics metrics;
  for (const auto& [name, part] : parts) {
    const double right = training.curve(name + "_exact").back(),
                 nearest = exact_match(nearest_captions(known, part.pixels), part.captions);
    fmt::print("{:<20} {:>12.1f} % {:>14.1f} %\n", name, 100 * right, 100 * nearest);
    metrics.insert(metrics.end(), {{name + "_exact", right}, {name + "_nearest", nearest}});
  }
  training.log_final(metrics);
  fmt::print("\n");
  const Tensor few = split(parts.back().second.pixels, 6)[0];
  show(few, describe(model, vocab, few, config.beam), config.gallery);
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  Config config;
  std::string pictures, gallery;
  examples::TrainingProgram program("A GRU that describes pictures.", "caption", argc, argv);
  CLI::App& command = program.add_command("describe", "print a caption for each picture of a file");
  command.add_option("--pictures", pictures, "a .npy array (N, height, width, 3)")->required();
  command.add_option("--gallery", gallery, "SVG file for the first six with their captions");
  return program.run(
      config, {"features", "embed", "hidden"}, train,
      [&](const CLI::App&, const examples::Checkpoint& saved) {
        const Tensor pixels = read_pictures(pictures);
        check_size(pixels, pictures, saved.number("quarter"));
        const Vocab vocab = saved.vocab("vocabulary");
        Model model{Eye(config, saved.number("quarter")), Writer(config, vocab.size())};
        saved.load("model", model);
        show(pixels, describe(model, vocab, pixels, config.beam), gallery);
      });
}
