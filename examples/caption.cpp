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

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "caption/model.h"
#include "caption/pictures.h"
#include "common/program.h"
#include "common/training.h"

using namespace unroll;
using namespace caption;
using examples::Metrics;

namespace {

/// What the model says of each picture.
std::vector<std::string> describe(Model& model, const Vocab& vocab, const Tensor& pixels,
                                  std::int64_t beam) {
  const NoGrad no_grad;
  model.eval();
  std::vector<std::string> captions;
  for (const Tensor& some : split(pixels, 100)) {
    const Tensor start = full({some.size(0)}, kBos, DType::i64);
    for (const auto& found : beam_search(model.decoder, model.encode(some), start,
                                         {.beam_size = beam, .max_length = 50, .eos = kEos}))
      captions.push_back(join(vocab.decode(found.at(0).tokens), " "));
  }
  return captions;
}

// --- Training -----------------------------------------------------------------------------------

/// What the model has to beat: for each picture the caption of the most similar one in training, by
/// the squared distance of the pixels.
std::vector<std::string> nearest_captions(const Pictures& known, const Tensor& pixels) {
  const Tensor a = reshape(pixels, {pixels.size(0), -1});
  const Tensor b = reshape(known.pixels, {known.pixels.size(0), -1});
  const Tensor nearest = argmax(2.0 * matmul(a, transpose(b)) - sum(square(b), 1), -1);
  std::vector<std::string> captions;
  for (std::int64_t i : nearest.to_vector<std::int64_t>())
    captions.push_back(known.captions[static_cast<std::size_t>(i)]);
  return captions;
}

/// The part of the captions of which every word is right.
double exact_match(const std::vector<std::string>& found, const std::vector<std::string>& wanted) {
  double right = 0;
  for (std::size_t i = 0; i < found.size(); ++i)
    right += split_words(found[i]) == split_words(wanted[i]) ? 1 : 0;
  return right / static_cast<double>(found.size());
}

/// Throws ValueError unless each picture has so many numbers.
void require_size(const Pictures& pictures, const std::string& path, std::int64_t size) {
  if (pictures.pixels[0].numel() != size)
    throw ValueError(fmt::format("'{}' has pictures of {} numbers, but those to learn have {}",
                                 path, pictures.pixels[0].numel(), size));
}

/// Pictures to measure on, by name.
using Parts = std::vector<std::pair<std::string, Pictures>>;

std::pair<Pictures, Parts> read_data(const Config& config) {
  if (config.pictures.empty() != config.captions.empty())
    throw ValueError("--pictures and --captions go together");
  if (config.test_pictures.empty() != config.test_captions.empty())
    throw ValueError("--test-pictures and --test-captions go together");
  if (config.pictures.empty()) {
    if (!config.test_pictures.empty()) throw ValueError("--test-pictures needs --pictures");
    Generator generator(config.training.seed);
    Pictures known = make_pictures(config.count, false, generator);
    return {std::move(known),
            {{"seen", make_pictures(500, false, generator)},
             {"unseen", make_pictures(500, true, generator)}}};
  }
  Pictures known = read_pictures(config.pictures, config.captions);
  if (config.test_pictures.empty()) return {known, {{"train", known}}};
  Pictures test = read_pictures(config.test_pictures, config.test_captions);
  require_size(test, config.test_pictures, known.pixels[0].numel());
  return {std::move(known), {{"test", std::move(test)}}};
}

int train(const Config& config, const examples::Call& call, const examples::Checkpoint* saved) {
  const auto data = read_data(config);
  const Pictures& known = data.first;
  const Parts& parts = data.second;
  std::vector<std::string> words;
  for (const std::string& caption : known.captions)
    for (std::string& word : split_words(caption)) words.push_back(std::move(word));
  const Vocab vocab = saved ? Vocab::from_text(saved->text("vocabulary"), call.load)
                            : Vocab(words, {.reserved_tokens = {"<pad>", "<bos>", "<eos>"}});
  Sequences captions;  // begin mark, words, end mark
  for (const std::string& caption : known.captions) {
    captions.push_back({kBos});
    for (std::int64_t word : vocab.encode(split_words(caption))) captions.back().push_back(word);
    captions.back().push_back(kEos);
  }

  const std::int64_t quarter = known.pixels[0].numel() / 4;
  manual_seed(config.training.seed);
  Model model = make_model(config, quarter, vocab);
  Adam optimizer(model.parameters(), {.lr = config.training.lr});
  examples::Training training(
      config.training, call, model, optimizer,
      [&](examples::Checkpoint& file) {
        file.add_values("config", config);
        file.add_number("quarter", quarter);
        file.add_text("vocabulary", vocab.to_text());
      },
      "words");
  if (saved) training.go_on_from(*saved);
  if (!config.gallery.empty()) examples::require_writable(config.gallery);
  if (!call.quiet)
    fmt::print("{} parameters. {} pictures to learn, {} kinds of words.\n",
               examples::grouped(model.parameter_count()), known.captions.size(), vocab.size());

  const auto measure = [&] {
    Metrics metrics;
    for (const auto& [name, part] : parts)
      metrics.emplace_back(
          name + "_exact",
          exact_match(describe(model, vocab, part.pixels, config.beam), part.captions));
    return metrics;
  };
  const bool complete = training.run(
      [&](Generator& generator) {
        return bucketed_batches(captions, {config.training.batch, kPad}, generator);
      },
      [&](const PaddedBatch& batch) {
        const std::int64_t steps = batch.x.size(0) - 1;
        const Tensor pixels = index_select(known.pixels, 0, from_vector(batch.indices));
        const Tensor logits = model(pixels, narrow(batch.x, 0, 0, steps));
        return examples::TrainingLoss{
            cross_entropy(logits, narrow(batch.x, 0, 1, steps), {.ignore_index = kPad}),
            static_cast<std::int64_t>(sum(batch.lengths - 1).item())};
      },
      measure);
  std::vector<std::pair<std::string, std::string>> curves;
  for (const auto& [name, part] : parts) curves.emplace_back(name + "_exact", name);
  training.plot(
      {.title = "captions with every word right", .x_label = "epoch", .y_label = "exact match"},
      curves);
  if (!complete) return training.exit_code();

  fmt::print("After {} epochs, {:.1f} s: training loss {:.4f} per word.\n\n{:<20} {:>14} {:>16}\n",
             training.epochs(), training.seconds(), training.curve("train_loss").back(),
             "exact match", "the model", "nearest picture");
  Metrics metrics = measure();
  for (std::size_t i = 0; i < parts.size(); ++i) {
    const auto& [name, part] = parts[i];
    const double nearest = exact_match(nearest_captions(known, part.pixels), part.captions);
    fmt::print("{:<20} {:>12.1f} % {:>14.1f} %\n", name, 100 * metrics[i].second, 100 * nearest);
    metrics.emplace_back(name + "_nearest", nearest);
  }
  training.log_final(metrics);

  const Pictures& last = parts.back().second;
  const std::int64_t shown = std::min<std::int64_t>(last.pixels.size(0), 6);
  const auto found = describe(model, vocab, narrow(last.pixels, 0, 0, shown), config.beam);
  fmt::print("\n");
  for (const std::string& caption : found) fmt::print("  {}\n", caption);
  if (!config.gallery.empty()) draw_pictures(config.gallery, last.pixels, found, shown);
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  Config config, given;
  examples::TrainingProgram program("A GRU that describes pictures.", "caption", argc, argv);
  CLI::App& command = program.add_command("describe", "print a caption for each picture of a file");
  command.add_option("--pictures", given.pictures, "a .npy array (pictures, height, width, 3)")
      ->required();
  given.gallery.clear();
  command.add_option("--gallery", given.gallery, "SVG file for the first six with their captions");
  return program.run(config, {"features", "embed", "hidden"}, train,
                     [&](const CLI::App&, const examples::Checkpoint& saved) {
                       const Vocab vocab = Vocab::from_text(saved.text("vocabulary"), saved.path());
                       const Pictures pictures = read_pictures(given.pictures, "");
                       const std::int64_t quarter = saved.number("quarter");
                       require_size(pictures, given.pictures, 4 * quarter);
                       Model model = make_model(config, quarter, vocab);
                       saved.load("model", model);
                       const auto found = describe(model, vocab, pictures.pixels, config.beam);
                       for (const std::string& caption : found) fmt::print("{}\n", caption);
                       if (!given.gallery.empty())
                         draw_pictures(given.gallery, pictures.pixels, found,
                                       std::min<std::int64_t>(std::ssize(found), 6));
                     });
}
