// A recurrent network from tensors only: each equation of its forward pass and of its training.
//
// To be read from top to bottom. What the network learns is p(next character | characters so far);
// nothing here is a module or an optimizer. docs/examples/rnn_from_scratch.md tells more.

#include <fmt/format.h>
#include <unroll/unroll.h>

#include <cmath>
#include <string>
#include <utility>
#include <vector>

#include "common/interrupt.h"
#include "common/json_log.h"
#include "common/options.h"
#include "common/plot.h"
#include "common/program.h"
#include "common/progress.h"

using namespace unroll;

namespace {

// --- 1. The parameters ---------------------------------------------------------------------------

struct Parameters {
  Tensor w_xh;  ///< [V, H]: from a character to the hidden state
  Tensor w_hh;  ///< [H, H]: from one hidden state to the next
  Tensor b_h;   ///< [H]
  Tensor w_hq;  ///< [H, V]: from the hidden state to the scores of the next character
  Tensor b_q;   ///< [V]

  NamedTensors named() const {
    return {{"w_xh", w_xh}, {"w_hh", w_hh}, {"b_h", b_h}, {"w_hq", w_hq}, {"b_q", b_q}};
  }
  std::vector<Tensor> all() const { return {w_xh, w_hh, b_h, w_hq, b_q}; }
};

/// Weights from N(0, 0.01^2), biases 0.
Parameters make_parameters(std::int64_t V, std::int64_t H) {
  Parameters p{.w_xh = normal({V, H}, 0, 0.01),
               .w_hh = normal({H, H}, 0, 0.01),
               .b_h = zeros({H}),
               .w_hq = normal({H, V}, 0, 0.01),
               .b_q = zeros({V})};
  for (Tensor& w : p.all()) w.requires_grad_();
  return p;
}

// --- 2. The network ------------------------------------------------------------------------------

/// Reads characters, i64 [T, B], from the hidden state h [B, H] on, which it leaves at the one
/// after the last character. Returns the scores (logits) of each next character, [T * B, V].
Tensor read(const Parameters& p, const Tensor& characters, Tensor& h) {
  const Tensor xs = one_hot(characters, p.w_xh.size(0));  // [T, B, V]: 1 at the character, else 0
  std::vector<Tensor> outputs;
  for (std::int64_t t = 0; t < xs.size(0); ++t) {
    // h_t = tanh(x_t W_xh + h_{t-1} W_hh + b_h)
    h = tanh(matmul(xs[t], p.w_xh) + matmul(h, p.w_hh) + p.b_h);
    // q_t = h_t W_hq + b_q
    outputs.push_back(matmul(h, p.w_hq) + p.b_q);
  }
  return concatenate(outputs);
}

/// The mean over all positions of -log p(y), where p = softmax(q): p(y) = e^q_y / sum_v e^q_v.
Tensor mean_loss(const Tensor& q, const Tensor& y) {
  const Tensor right = sum(q * one_hot(flatten(y), q.size(1)), 1);  // q_y of each row
  return mean(logsumexp(q, 1) - right);
}

// --- 3. One step of training ---------------------------------------------------------------------

/// Gradients g become g * min(1, limit / |g|), where |g| is the length of all of them as one
/// vector: a step through many tanh can have a gradient that is far too long, but its direction is
/// right.
void clip_gradients(const Parameters& p, double limit) {
  double squares = 0;
  for (const Tensor& w : p.all()) squares += sum(square(w.grad())).item();
  const double length = std::sqrt(squares);
  if (length <= limit) return;
  for (Tensor& w : p.all()) w.set_grad(w.grad() * (limit / length));
}

/// Stochastic gradient descent: w = w - lr * dL/dw.
void descend(const Parameters& p, double lr) {
  const NoGrad no_grad;  // the step itself is not to be differentiated
  for (Tensor& w : p.all()) {
    w.add_(w.grad(), -lr);
    w.set_grad(Tensor());
  }
}

// --- 4. Prediction -------------------------------------------------------------------------------

/// Reads the prefix (warm-up), then goes on with the most probable character, again and again.
std::string predict(const Parameters& p, const Vocab& vocab, const std::string& prefix,
                    std::int64_t length) {
  const NoGrad no_grad;
  std::vector<std::int64_t> text = vocab.encode(split_characters(prefix));
  Tensor h = zeros({1, p.w_hh.size(0)});
  Tensor q = read(p, from_vector(text, {std::ssize(text), 1}), h);
  for (std::int64_t i = 0; i < length; ++i) {
    text.push_back(static_cast<std::int64_t>(argmax(q[-1]).item()));
    q = read(p, full({1, 1}, static_cast<double>(text.back()), DType::i64), h);
  }
  return join(vocab.decode(text));
}

}  // namespace

// --- 5. All together -----------------------------------------------------------------------------

int main(int argc, char** argv) {
  std::string text = examples::bundled("english.txt"), sampling = "sequential",
              prefix = "the ferry", from, save = "rnn_from_scratch.safetensors", log_file,
              plot = "rnn_from_scratch.svg";
  std::int64_t max_tokens = 10'000, hidden = 512, batch = 32, steps = 35, epochs = 100;
  double lr = 1, clip = 1;
  std::uint64_t seed = 0;
  int threads = 0;
  bool quiet = false;

  CLI::App app("A recurrent network from tensors only.", "rnn_from_scratch");
  app.option_defaults()->always_capture_default();
  app.add_option("--text", text, "text to learn; only letters and spaces count");
  app.add_option("--max-tokens", max_tokens, "characters of it; 0: all")
      ->check(examples::at_least(0));
  app.add_option("--hidden", hidden, "size of the hidden state")->check(examples::at_least(1));
  app.add_option("--batch", batch, "windows side by side")->check(examples::at_least(1));
  app.add_option("--steps", steps, "characters per window")->check(examples::at_least(1));
  app.add_option("--sampling", sampling, "windows at random, or in sequence with the state carried")
      ->check(CLI::IsMember({"random", "sequential"}));
  app.add_option("--epochs", epochs, "times through the text")->check(examples::at_least(1));
  app.add_option("--lr", lr, "learning rate")->check(examples::above(0));
  app.add_option("--clip", clip, "largest length of the gradient")->check(examples::above(0));
  app.add_option("--seed", seed, "of all random numbers")->check(examples::at_least(0));
  app.add_option("--threads", threads, "0: one per core")->check(examples::at_least(0));
  app.add_option("--prefix", prefix, "text to continue");
  app.add_option("--load", from, "file with parameters to start from");
  app.add_option("--save", save, "file for the parameters; \"\": none");
  app.add_option("--log", log_file, "file for one JSON object per epoch");
  app.add_option("--plot", plot, "SVG file for the perplexity; \"\": none");
  app.add_flag("--quiet", quiet, "no progress");

  return examples::run(app, argc, argv, [&] {
    std::vector<std::string> characters;
    for (const std::string& line : read_lines(text))
      for (const std::string& c : split_characters(letters_only(line))) characters.push_back(c);
    const Vocab vocab(characters);
    std::vector<std::int64_t> corpus = vocab.encode(characters);
    if (max_tokens > 0 && max_tokens < std::ssize(corpus))
      corpus.resize(static_cast<std::size_t>(max_tokens));
    if (std::ssize(corpus) < (batch + 1) * steps)
      throw ValueError(
          fmt::format("{}: {} letters and spaces are too few for --batch {} --steps {}", text,
                      corpus.size(), batch, steps));
    prefix = letters_only(prefix);
    if (prefix.empty()) throw ValueError("--prefix has no letters");

    for (const std::string& path : {save, plot})
      if (!path.empty()) examples::require_writable(path);

    if (threads > 0) set_num_threads(threads);
    manual_seed(seed);
    const Parameters p = make_parameters(vocab.size(), hidden);
    if (!from.empty()) {
      const NoGrad no_grad;
      copy_values(load_safetensors(from).tensors, p.named(), from);
    }
    fmt::print("Before training: {}\n", predict(p, vocab, prefix, 50));

    examples::JsonLog log(log_file, false);
    examples::Progress progress({.total = epochs, .quiet = quiet});
    const examples::Interrupt interrupt;  // Ctrl-C ends the training after this epoch
    std::vector<double> perplexity;       // of each epoch
    for (std::int64_t epoch = 1; epoch <= epochs; ++epoch) {
      const WindowOptions windows{batch, steps};
      const WindowBatches batches = sampling == "random" ? random_windows(corpus, windows)
                                                         : sequential_windows(corpus, windows);
      Tensor h = zeros({batch, hidden});
      double total = 0;
      for (const auto& [x, y] : batches) {
        // In sequence each window goes on where the one before it ended. The gradient must not flow
        // that far back: detach() cuts it off (truncated backpropagation through time).
        h = sampling == "random" ? zeros({batch, hidden}) : h.detach();
        const Tensor loss = mean_loss(read(p, x, h), y);
        loss.backward();  // backpropagation through time, the whole of it
        clip_gradients(p, clip);
        descend(p, lr);
        total += loss.item();
      }
      // Perplexity: e^loss, among how many equally probable characters the network hesitates.
      const double loss = total / static_cast<double>(batches.size());
      if (!std::isfinite(loss))
        throw ValueError(fmt::format("the loss is {}: try a smaller --lr or --clip", loss));
      perplexity.push_back(std::exp(loss));
      log.write({{"epoch", epoch}, {"train_perplexity", perplexity.back()}});
      progress.update(epoch, fmt::format("epoch {}/{}  loss {:.3f}  perplexity {:.2f}", epoch,
                                         epochs, loss, perplexity.back()));
      if (interrupt.requested()) break;
    }
    if (!save.empty()) save_safetensors(save, p.named());
    if (!plot.empty())
      examples::plot_svg(plot,
                         {.title = fmt::format("RNN from scratch, hidden size {}", hidden),
                          .x_label = "epoch",
                          .y_label = "perplexity",
                          .log_scale = true},
                         {{"training", perplexity}});
    fmt::print("After training:  {}\n", predict(p, vocab, prefix, 50));
    fmt::print("Training perplexity {:.3f} after {} epochs; a guess has {}\n", perplexity.back(),
               perplexity.size(), vocab.size() - 1);
    return interrupt.exit_code();
  });
}
