// Training steps on tables of up to 1,000,000 rows: with sparse, time must not grow with the table
#include <fmt/format.h>
#include <unroll/unroll.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <functional>
#include <memory>
#include <vector>

using namespace unroll;

namespace {

constexpr std::int64_t kSteps = 35, kBatch = 20, kWidth = 64;  // [T, B] indices, rows of 64 numbers

using MakeOptimizer = std::function<std::unique_ptr<Optimizer>(const Embedding&)>;

/// Different rows of a table of so many, as many for every size: [T, B].
Tensor draw_rows(std::int64_t rows, Generator& generator) {
  std::vector<std::int64_t> all(static_cast<std::size_t>(kSteps * kBatch));
  const std::int64_t stride = rows / std::ssize(all);  // one row out of each stretch
  for (std::size_t i = 0; i < all.size(); ++i)
    all[i] = static_cast<std::int64_t>(i) * stride + generator.below(stride);
  return from_vector(all, {kSteps, kBatch});
}

/// Median of the microseconds of one training step: look up, backward, clip, update. The rows are
/// the same in each step, or drawn anew.
double measure(std::int64_t rows, bool sparse, bool same, int repetitions,
               const MakeOptimizer& make) {
  const Embedding table(rows, kWidth, {.sparse = sparse});
  const auto optimizer = make(table);
  Generator generator(1);
  Tensor indices = draw_rows(rows, generator);
  std::vector<double> times;
  for (int i = 0; i < repetitions + 3; ++i) {  // the first three warm up
    if (!same) indices = draw_rows(rows, generator);
    const auto start = std::chrono::steady_clock::now();
    optimizer->zero_grad();
    sum(square(table(indices))).backward();
    clip_grad_norm(optimizer->parameters(), 1.0);
    optimizer->step();
    const std::chrono::duration<double, std::micro> time = std::chrono::steady_clock::now() - start;
    if (i >= 3) times.push_back(time.count());
  }
  std::sort(times.begin(), times.end());
  return times[times.size() / 2];
}

}  // namespace

int main() {
  set_num_threads(1);
  fmt::print(
      "embedding: {} different rows of {} numbers; look up, backward, clip, update, in us\n\n"
      "{:<12} {:>10} {:>18} {:>18} {:>18}\n",
      kSteps * kBatch, kWidth, "optimizer", "rows", "sparse, same rows", "sparse, new rows",
      "dense, new rows");
  const std::pair<const char*, MakeOptimizer> optimizers[] = {
      {"SGD", [](const Embedding& e) { return std::make_unique<SGD>(e.parameters()); }},
      {"Adagrad", [](const Embedding& e) { return std::make_unique<Adagrad>(e.parameters()); }},
      {"SparseAdam",
       [](const Embedding& e) { return std::make_unique<SparseAdam>(e.parameters()); }},
  };
  for (const auto& [name, make] : optimizers)
    for (const std::int64_t rows : {1'000, 10'000, 100'000, 1'000'000}) {
      const double warm = measure(rows, true, true, 301, make);
      const double cold = measure(rows, true, false, 301, make);
      const double dense = measure(rows, false, false, rows < 100'000 ? 31 : 5, make);
      fmt::print("{:<12} {:>10} {:>18.0f} {:>18.0f} {:>18.0f}\n", name, rows, warm, cold, dense);
      std::fflush(stdout);
    }
}
