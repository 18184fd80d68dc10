/// The pool: what is given back is used again, a training loop in its stride asks the system for
/// nothing, and memory may end in another thread than it began in.

#include "framework/memory.h"

#include <doctest/doctest.h>

#include <atomic>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <functional>
#include <new>
#include <thread>
#include <vector>

#include "modules/modules.h"
#include "optim/optim.h"
#include "tests/support.h"

// The sanitizers see every allocation when nothing is cached, and bring an operator new of their
// own.
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define UNROLL_SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define UNROLL_SANITIZED 1
#endif
#endif

namespace {
std::atomic<std::int64_t> news{0};
}

#if !defined(UNROLL_SANITIZED)
// Inlined, the compiler would take malloc and delete for a mismatch.
[[gnu::noinline]] void* operator new(std::size_t size) {
  ++news;
  if (void* memory = std::malloc(size ? size : 1)) return memory;
  throw std::bad_alloc();
}
[[gnu::noinline]] void operator delete(void* memory) noexcept { std::free(memory); }
[[gnu::noinline]] void operator delete(void* memory, std::size_t) noexcept { std::free(memory); }
#endif

using namespace unroll;
using namespace unroll::test;
using detail::pool_allocate;
using detail::pool_release;

namespace {

#if defined(UNROLL_SANITIZED)
constexpr bool kSanitized = true;
#else
constexpr bool kSanitized = false;
#endif
#if defined(__SANITIZE_ADDRESS__)
constexpr bool kCaches = false;
#else
constexpr bool kCaches = true;
#endif

/// A small recurrent model and its training step, in every kind of operation that models use.
struct Trainer {
  Generator generator{1};
  Tensor w = uniform({16, 32}, -0.2, 0.2, DType::f32, generator).requires_grad_();
  Tensor u = uniform({8, 32}, -0.2, 0.2, DType::f32, generator).requires_grad_();
  Tensor table = uniform({10, 8}, -1.0, 1.0, DType::f32, generator).requires_grad_();
  Tensor bias = zeros({32}).requires_grad_();
  Tensor out = uniform({16, 10}, -0.2, 0.2, DType::f32, generator).requires_grad_();
  Tensor inputs, targets;

  explicit Trainer(std::int64_t steps)
      : inputs(randint(0, 10, {steps, 4}, generator)),
        targets(randint(0, 10, {steps, 4}, generator)) {}

  double step() {
    const Tensor xs = matmul(embedding(table, inputs), u) + bias;
    Tensor h = zeros({4, 16});
    std::vector<Tensor> hs;
    for (std::int64_t t = 0; t < inputs.size(0); ++t) {
      const Tensor a = xs[t] + matmul(h, w);
      const Tensor z = sigmoid(slice(a, 1, 0, 32, 2)), c = tanh(narrow(a, 1, 16, 16));
      h = z * c + (1.0 - z) * h;
      hs.push_back(h);
    }
    const Tensor loss = cross_entropy(matmul(stack(hs), out), targets);
    loss.backward();
    NoGrad no_grad;
    for (Tensor parameter : {w, u, table, bias, out}) {
      parameter.add_(parameter.grad(), -0.1);
      parameter.set_grad(Tensor());
    }
    return loss.item();
  }
};

}  // namespace

TEST_CASE("memory: sizes are served, aligned, and counted") {
  const PoolStats before = pool_stats();
  struct Block {
    void* memory;
    std::size_t bytes;
  };
  std::vector<Block> blocks;
  for (std::size_t bytes : {0u, 1u, 63u, 64u, 65u, 1000u, 1023u, 1024u, 1025u, 1152u, 1153u, 4096u,
                            100000u, (1u << 20) + 1u, 5u << 20}) {
    void* memory = pool_allocate(bytes);
    CHECK(reinterpret_cast<std::uintptr_t>(memory) % 64 == 0);
    std::memset(memory, 0xab, bytes);
    blocks.push_back({memory, bytes});
  }
  for (std::size_t i = 0; i < blocks.size(); ++i)
    for (std::size_t k = 0; k < i; ++k) CHECK(blocks[i].memory != blocks[k].memory);
  const PoolStats full = pool_stats();
  std::int64_t asked = 0;
  for (const Block& block : blocks) asked += static_cast<std::int64_t>(block.bytes);
  CHECK(full.in_use - before.in_use >= asked);
  CHECK(full.in_use - before.in_use <= asked + asked / 8 + 64 * 15);
  CHECK(full.allocations - before.allocations == 15);
  for (const Block& block : blocks) pool_release(block.memory, block.bytes);
  CHECK(pool_stats().in_use == before.in_use);
  CHECK_THROWS_AS(pool_allocate(std::size_t{1} << 50), std::bad_alloc);
  CHECK_THROWS_AS(pool_allocate(~std::size_t{0}), std::bad_alloc);
  CHECK(pool_stats().in_use == before.in_use);
}

/// Memory of this process that is there, in bytes; 0 where the system does not say.
std::int64_t resident_bytes() {
  std::int64_t size = 0, pages = 0;
  std::ifstream("/proc/self/statm") >> size >> pages;
  return pages * 4096;
}

TEST_CASE("memory: what is given back is used again until the cache is emptied") {
  if (!kCaches) return;
  empty_cache();
  CHECK(pool_stats().cached == 0);
  const PoolStats before = pool_stats();
  void* first = pool_allocate(5000);
  pool_release(first, 5000);
  CHECK(pool_stats().cached > 0);
  void* again = pool_allocate(5050);  // the same size after rounding
  CHECK(again == first);
  CHECK(pool_stats().new_blocks == before.new_blocks + 1);
  pool_release(again, 5050);
  empty_cache();
  CHECK(pool_stats().cached == 0);
  CHECK(pool_stats().in_use == before.in_use);
  pool_release(pool_allocate(5000), 5000);
  CHECK(pool_stats().new_blocks == before.new_blocks + 2);
}

TEST_CASE("memory: what one thread made and another gave back leaves the process") {
  if (kSanitized) return;  // they keep what was freed, to find those who use it
  const auto round = [] {
    struct Block {
      void* memory;
      std::size_t bytes;
    };
    std::vector<Block> blocks;
    std::thread([&] {
      for (std::size_t bytes = 64; bytes <= std::size_t{4} << 20; bytes += bytes / 7 + 64)
        for (int i = 0; i < 2; ++i) {
          void* memory = pool_allocate(bytes);
          std::memset(memory, static_cast<int>(blocks.size()), bytes);
          blocks.push_back({memory, bytes});
        }
    }).join();
    std::thread([&] {
      int mine = 0;
      for (std::size_t i = 0; i < blocks.size(); ++i) {
        const auto* bytes = static_cast<const unsigned char*>(blocks[i].memory);
        for (std::size_t k : {std::size_t{0}, blocks[i].bytes - 1})
          mine += bytes[k] == static_cast<unsigned char>(i);
        pool_release(blocks[i].memory, blocks[i].bytes);
      }
      CHECK(mine == 2 * static_cast<int>(blocks.size()));
    }).join();
  };
  round();
  const std::int64_t before = resident_bytes();
  for (int i = 0; i < 10; ++i) round();  // 70 MB each
  CHECK(resident_bytes() - before < std::int64_t{70} << 20);
}

TEST_CASE("memory: the peak follows what is in use") {
  reset_peak_memory();
  const std::int64_t before = pool_stats().in_use;
  CHECK(pool_stats().peak_in_use == before);
  { const Tensor x = zeros({1000000}); }
  CHECK(pool_stats().in_use == before);
  CHECK(pool_stats().peak_in_use >= before + 4000000);
  CHECK(pool_stats().peak_in_use <= before + 4600000);
  reset_peak_memory();
  CHECK(pool_stats().peak_in_use == before);
}

TEST_CASE("memory: a tensor lives as long as anything that looks at it") {
  const std::int64_t before = pool_stats().in_use;
  Tensor row;
  {
    Tensor x = arange(1000, DType::f64);
    row = slice(x, 0, 10, 12);
  }
  CHECK(to_array(row).values == std::vector{10.0, 11.0});
  CHECK(pool_stats().in_use - before > 8000);
  row = Tensor();
  CHECK(pool_stats().in_use == before);
  Tensor x = zeros({3});
  x = Tensor(x);
  Tensor& same = x;
  x = same;
  CHECK(x.numel() == 3);
}

TEST_CASE("memory: a training loop in its stride asks the system for nothing") {
  Trainer trainer(12);
  double first = trainer.step(), last = 0.0;
  for (int i = 0; i < 5; ++i) trainer.step();
  const PoolStats before = pool_stats();
  for (int i = 0; i < 30; ++i) last = trainer.step();
  const PoolStats after = pool_stats();
  CHECK(last < first);
  CHECK(after.in_use == before.in_use);
  CHECK(after.allocations - before.allocations > 30 * 12 * 10);
  if (kCaches) CHECK(after.new_blocks == before.new_blocks);
}

TEST_CASE("memory: it is flat over 10,000 training steps") {
  // Everything that a real training has: batches of changing length, dropout, clipping, a schedule.
  manual_seed(1);
  Embedding embed(10, 6);
  LSTM lstm(6, 8);
  Linear out(8, 10);
  Adam optimizer(parameters(embed, lstm, out), {.lr = 1e-3});
  LRScheduler schedule(optimizer, ExponentialLR{.gamma = 0.9999});
  const auto step = [&](std::int64_t i) {
    const Tensor x = randint(0, 10, {2 + i % 5, 2});
    const auto [hs, last] = lstm(dropout(embed(x), 0.1));
    optimizer.zero_grad();
    cross_entropy(out(hs), x).backward();
    // Always: what is not clipped may be a view, and hold a few bytes more.
    clip_grad_norm(optimizer.parameters(), 1e-9);
    optimizer.step();
    schedule.step();
  };
  // The sanitizers keep nothing, so there 1,000 steps show as much as 10,000.
  const std::int64_t hundreds = kSanitized ? 10 : 100;
  for (std::int64_t i = 0; i < 100; ++i) step(i);
  const PoolStats before = pool_stats();
  reset_peak_memory();
  step(0), step(4);
  const std::int64_t peak = pool_stats().peak_in_use;
  for (std::int64_t hundred = 0; hundred < hundreds; ++hundred) {
    for (std::int64_t i = 0; i < 100; ++i) step(i);
    const PoolStats now = pool_stats();
    REQUIRE(now.in_use == before.in_use);
    REQUIRE(now.peak_in_use == peak);
    REQUIRE(now.cached == before.cached);
    if (kCaches) REQUIRE(now.new_blocks == before.new_blocks);
  }
}

TEST_CASE("memory: a training step calls operator new as often for 256 time steps as for 16") {
  if (kSanitized) return;
  // The vector of hidden states doubles four times more.
  const auto count = [](std::int64_t steps) {
    Trainer trainer(steps);
    for (int i = 0; i < 3; ++i) trainer.step();
    const std::int64_t before = news;
    trainer.step();
    return news - before;
  };
  const std::int64_t few = count(16), many = count(256);
  CHECK(many - few <= 4);
}

TEST_CASE("memory: no operation calls operator new, forward or backward") {
  if (kSanitized) return;
  Generator generator(1);
  Tensor x = uniform({6, 6}, 0.1, 0.9, DType::f32, generator).requires_grad_();
  const Tensor index = randint(0, 6, {6, 6}, generator), list = randint(0, 6, {4}, generator);
  const Tensor row = uniform({6}, 0.0, 1.0, DType::f32, generator);
  const std::vector<Tensor> two = {x, x};
  struct Row {
    std::string name;
    std::function<Tensor()> run;
  };
  for (const Row& op :
       std::vector<Row>{{"add", [&] { return x + row; }},
                        {"mul", [&] { return x * x; }},
                        {"div", [&] { return 1.0 / x; }},
                        {"tanh", [&] { return tanh(x); }},
                        {"sigmoid", [&] { return sigmoid(x); }},
                        {"exp", [&] { return exp(x); }},
                        {"clamp", [&] { return clamp(x, 0.2, 0.8); }},
                        {"maximum", [&] { return maximum(x, row); }},
                        {"where", [&] { return where(index, x, row); }},
                        {"masked_fill", [&] { return masked_fill(x, index, 0.0); }},
                        {"pow", [&] { return pow(x, x); }},
                        {"matmul", [&] { return matmul(x, x); }},
                        {"matmul of vectors", [&] { return matmul(x, x[0]); }},
                        {"sum", [&] { return sum(x, 0); }},
                        {"sum of all", [&] { return sum(x); }},
                        {"mean", [&] { return mean(x, 1, true); }},
                        {"max", [&] { return max(x, -1); }},
                        {"logsumexp", [&] { return logsumexp(x, 1); }},
                        {"var", [&] { return var(x, 1); }},
                        {"norm", [&] { return norm(x); }},
                        {"cumsum", [&] { return cumsum(x, 0); }},
                        {"softmax", [&] { return softmax(x); }},
                        {"log_softmax", [&] { return log_softmax(x, 0); }},
                        {"cross_entropy", [&] { return cross_entropy(x, index[0]); }},
                        {"reshape",
                         [&] {
                           return reshape(x, {4, 9});
                         }},
                        {"reshape of a copy",
                         [&] {
                           return reshape(transpose(x), {4, 9});
                         }},
                        {"permute",
                         [&] {
                           return permute(x, {1, 0});
                         }},
                        {"broadcast_to",
                         [&] {
                           return broadcast_to(x, {2, 6, 6});
                         }},
                        {"flip", [&] { return flip(x, 1); }},
                        {"concatenate", [&] { return concatenate(two, 1); }},
                        {"stack", [&] { return stack(two); }},
                        {"select", [&] { return x[2]; }},
                        {"slice", [&] { return slice(x, 1, 0, 6, 2); }},
                        {"index_select", [&] { return index_select(x, 1, list); }},
                        {"gather", [&] { return gather(x, 1, index); }},
                        {"embedding", [&] { return embedding(x, index); }},
                        {"tril", [&] { return tril(x); }},
                        {"clone", [&] { return x.clone(); }},
                        {"to", [&] { return x.to(DType::f64); }},
                        {"dropout", [&] { return dropout(x, 0.5, generator); }}}) {
    CAPTURE(op.name);
    // What a sweep itself calls does not grow with the number of operations.
    const auto count = [&](int times) {
      const std::int64_t before = news;
      Tensor total = zeros({});
      for (int i = 0; i < times; ++i) total = total + sum(op.run()).to(DType::f32);
      total.backward();
      x.set_grad(Tensor());
      return news - before;
    };
    count(40);
    CHECK(count(40) - count(10) == 0);
  }
}

TEST_CASE("[thread] memory: may be given back by another thread") {
  // Made here, released there, and the other way round.
  const std::int64_t before = pool_stats().in_use;
  std::vector<Tensor> made_here, made_there;
  for (int i = 0; i < 100; ++i) made_here.push_back(full({1000}, i));
  std::int64_t in_use_there = 0;
  std::thread thread([&] {
    for (int i = 0; i < 100; ++i) made_there.push_back(full({1000}, -i));
    made_here.clear();
    in_use_there = pool_stats().in_use;
  });
  thread.join();
  CHECK(in_use_there == 0);
  for (int i = 0; i < 100; ++i) CHECK(made_there[static_cast<std::size_t>(i)][999].item() == -i);
  made_there.clear();
  CHECK(pool_stats().in_use == before);
}

TEST_CASE("[thread] memory: threads that come and go leave nothing cached or broken") {
  Tensor shared = ones({64, 64});
  for (int round = 0; round < 20; ++round) {
    std::vector<std::thread> threads;
    std::vector<Tensor> results(4);
    for (std::size_t i = 0; i < 4; ++i) {
      threads.emplace_back([&results, &shared, i] {
        Tensor x = shared;
        for (int k = 0; k < 10; ++k) x = tanh(x) + shared;
        results[i] = sum(x);
      });
    }
    for (std::thread& thread : threads) thread.join();
    for (const Tensor& result : results) CHECK(result.item() == results[0].item());
  }
}
