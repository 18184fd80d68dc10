// Training steps on tables of up to 1,000,000 rows: with sparse, time must not grow with the table
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

/// Median of the microseconds of one training step: look up, backward, update.
double measure(std::int64_t rows, bool sparse, int repetitions, const MakeOptimizer& make) {
  const Embedding table(rows, kWidth, {.sparse = sparse});
  const auto optimizer = make(table);
  Generator generator(1);
  std::vector<double> times;
  for (int i = 0; i < repetitions + 3; ++i) {  // the first three warm up
    const Tensor indices = randint(0, rows, {kSteps, kBatch}, generator);
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
  std::printf("embedding: %d indices, rows of %d numbers; look up, backward, clip, update\n\n",
              static_cast<int>(kSteps * kBatch), static_cast<int>(kWidth));
  std::printf("%-12s %10s %14s %14s\n", "optimizer", "rows", "sparse us", "dense us");
  const std::pair<const char*, MakeOptimizer> optimizers[] = {
      {"SGD", [](const Embedding& e) { return std::make_unique<SGD>(e.parameters()); }},
      {"Adagrad", [](const Embedding& e) { return std::make_unique<Adagrad>(e.parameters()); }},
      {"SparseAdam",
       [](const Embedding& e) { return std::make_unique<SparseAdam>(e.parameters()); }},
  };
  for (const auto& [name, make] : optimizers)
    for (const std::int64_t rows : {1'000, 10'000, 100'000, 1'000'000}) {
      const double sparse = measure(rows, true, 101, make);
      const double dense = measure(rows, false, rows < 100'000 ? 31 : 5, make);
      std::printf("%-12s %10d %14.0f %14.0f\n", name, static_cast<int>(rows), sparse, dense);
      std::fflush(stdout);
    }
}
