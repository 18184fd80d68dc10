// Training of a character language model, tokens per second
#include "common/charlm.h"

#include <unroll/unroll.h>

#include "cells.h"
#include "common/options.h"

using namespace unroll;

namespace {

template <class Layer>
void train(const char* what, Layer layer, const bench::Options& options) {
  if (!options.wants(what)) return;
  Embedding embed(bench::kVocabulary, bench::kEmbedding);
  Linear out(bench::kHidden, bench::kVocabulary);
  Adam optimizer(parameters(embed, layer, out), {.lr = bench::kLearningRate});
  bench::Windows windows;
  Tensor inputs = zeros({bench::kSteps, bench::kBatch}, DType::i64), targets = zeros_like(inputs);
  auto state = layer.initial_state(bench::kBatch);
  double loss = 0;
  const auto times = bench::measure(options.budget, [&] {
    windows.next(inputs.write<std::int64_t>().data(), targets.write<std::int64_t>().data());
    auto [hs, last] = layer(embed(inputs), state);
    const Tensor error = cross_entropy(out(hs), targets);
    optimizer.zero_grad();
    error.backward();
    optimizer.step();
    state = detach(last);
    loss = error.item();
  });
  const bench::Size size = {bench::kSteps, bench::kBatch, bench::kEmbedding, bench::kHidden};
  bench::print_times("unroll", what, "charlm", size, options.threads, times);
  std::printf(",%.0f,%.3f\n", bench::kSteps * bench::kBatch / times.median, loss);
  std::fflush(stdout);
}

}  // namespace

int main(int argc, char** argv) {
  const auto options = bench::parse(
      argc, argv, "Character language model: embedding, LSTM, linear, cross entropy, Adam");
  set_num_threads(options.threads);
  bench::print_header(",tokens_per_second,last_loss");
  train("LSTM", LSTM(bench::kEmbedding, bench::kHidden), options);
  train("customLSTM", Recurrent(bench::CustomLSTM(bench::kEmbedding, bench::kHidden)), options);
}
