/// The pool of threads: parallel_for, set_num_threads, and FlushDenormals in all of them.

#include "framework/kernels/parallel.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <limits>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

using namespace unroll;
using namespace unroll::kernels;

namespace {

/// Restores the number of threads at the end of a test.
struct Threads {
  explicit Threads(int n) : before(num_threads()) { set_num_threads(n); }
  ~Threads() { set_num_threads(before); }
  int before;
};

}  // namespace

TEST_CASE("[thread] parallel_for: covers the range once, whatever its size") {
  for (int threads : {1, 2, 3, 7}) {
    const Threads guard(threads);
    CHECK(num_threads() == threads);
    for (std::int64_t n : {0, 1, 2, 5, 64, 1000}) {
      for (std::int64_t grain : {0, 1, 10, 2000}) {
        std::vector<std::atomic<int>> hits(static_cast<std::size_t>(n));
        std::atomic<int> calls = 0;
        std::atomic<bool> small = false;
        parallel_for(100, 100 + n, grain, [&](std::int64_t first, std::int64_t last) {
          calls.fetch_add(1);
          if (last - first < grain && last - first < n) small = true;
          for (std::int64_t i = first; i < last; ++i) ++hits[static_cast<std::size_t>(i - 100)];
        });
        CHECK(calls.load() <= threads);
        CHECK(!small.load());
        for (const auto& hit : hits) CHECK(hit.load() == 1);
      }
    }
  }
}

TEST_CASE("[thread] parallel_for: really runs in several threads") {
  const Threads guard(2);
  // Each half waits for the other, so that neither thread can do both.
  std::atomic<int> arrived = 0;
  std::atomic<bool> together = true;
  parallel_for(0, 2, 1, [&](std::int64_t, std::int64_t) {
    ++arrived;
    const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(20);
    while (arrived.load() < 2) {
      if (std::chrono::steady_clock::now() > deadline) {
        together = false;
        break;
      }
      std::this_thread::yield();
    }
  });
  CHECK(together.load());
}

TEST_CASE("[thread] parallel_for: wakes its workers after a pause, many times") {
  const Threads guard(2);
  std::atomic<std::int64_t> sum = 0;
  for (int round = 0; round < 300; ++round) {
    parallel_for(0, 10, 1, [&](std::int64_t first, std::int64_t last) {
      for (std::int64_t i = first; i < last; ++i) sum += i;
    });
    if (round % 100 == 0) std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  CHECK(sum.load() == 300 * 45);
}

TEST_CASE("[thread] parallel_for: what a job has written the next one reads, whoever does it") {
  constexpr std::size_t n = 97;  // no multiple of any number of threads
  for (int threads : {2, 3, 5}) {
    const Threads guard(threads);
    std::vector<std::int64_t> values(n), expected(n);
    for (std::size_t round = 0; round < 500; ++round) {
      parallel_for(0, n, 1, [&](std::int64_t first, std::int64_t last) {
        for (auto i = static_cast<std::size_t>(first); i < static_cast<std::size_t>(last); ++i)
          values[i] = 3 * values[i] % 1009 + first;
      });
      const std::int64_t parts = std::min<std::int64_t>(threads, n);
      for (std::int64_t part = 0, i = 0; part < parts; ++part) {
        const std::int64_t first = i;
        const auto whole = static_cast<std::int64_t>(n);
        const std::int64_t size = whole / parts + (part < whole % parts);
        for (; i < first + size; ++i) {
          std::int64_t& e = expected[static_cast<std::size_t>(i)];
          e = 3 * e % 1009 + first;
        }
      }
      values[round % n] += 1;  // and what the caller has written in between
      expected[round % n] += 1;
    }
    CHECK(values == expected);
  }
}

TEST_CASE("[thread] parallel_for: a nested call runs in its own thread") {
  const Threads guard(3);
  std::atomic<int> total = 0;
  std::atomic<bool> moved = false;
  parallel_for(0, 3, 1, [&](std::int64_t first, std::int64_t last) {
    const std::thread::id here = std::this_thread::get_id();
    for (std::int64_t i = first; i < last; ++i) {
      parallel_for(0, 100, 1, [&](std::int64_t a, std::int64_t b) {
        if (std::this_thread::get_id() != here) moved = true;
        total += static_cast<int>(b - a);
      });
    }
  });
  CHECK(total.load() == 300);
  CHECK(!moved.load());
}

TEST_CASE("[thread] parallel_for: two user threads at once") {
  const Threads guard(2);
  std::atomic<int> total = 0;
  const auto user = [&] {
    for (int i = 0; i < 200; ++i) {
      parallel_for(0, 50, 1,
                   [&](std::int64_t a, std::int64_t b) { total += static_cast<int>(b - a); });
    }
  };
  std::thread other(user);
  user();
  other.join();
  CHECK(total.load() == 2 * 200 * 50);
}

TEST_CASE("[thread] parallel_for: rethrows the exception of any thread, and goes on working") {
  const Threads guard(2);
  for (std::int64_t thrower : {0, 1}) {
    const auto failing = [&] {
      parallel_for(0, 2, 1, [&](std::int64_t first, std::int64_t) {
        if (first == thrower) throw std::runtime_error("chunk " + std::to_string(first));
      });
    };
    CHECK_THROWS_WITH_AS(failing(), ("chunk " + std::to_string(thrower)).c_str(),
                         std::runtime_error);
  }
  std::atomic<int> total = 0;
  parallel_for(0, 10, 1, [&](std::int64_t a, std::int64_t b) { total += static_cast<int>(b - a); });
  CHECK(total.load() == 10);
}

TEST_CASE("set_num_threads: n < 1 is an error and changes nothing") {
  const int before = num_threads();
  CHECK_THROWS_WITH_AS(set_num_threads(0), "set_num_threads: n must be from 1 to 4096, not 0",
                       std::invalid_argument);
  CHECK(num_threads() == before);
}

TEST_CASE("FlushDenormals: flushes while it lives, in the workers as in the thread that asks") {
  volatile float small = std::numeric_limits<float>::min();
  const auto halves_to_zero = [&] {
    volatile float half = small * 0.5F;
    return half == 0.0F;
  };
  CHECK(!halves_to_zero());
  {
    const FlushDenormals outer;
    CHECK(halves_to_zero());
    {
      const FlushDenormals inner;
      CHECK(halves_to_zero());
    }
    CHECK(halves_to_zero());
  }
  CHECK(!halves_to_zero());

  const Threads guard(2);
  const auto flushed = [&] {  // by how many of two threads
    std::atomic<int> yes = 0, arrived = 0;
    parallel_for(0, 2, 1, [&](std::int64_t first, std::int64_t last) {
      arrived += static_cast<int>(last - first);
      while (arrived < 2) std::this_thread::yield();  // nobody does both
      if (halves_to_zero()) yes += static_cast<int>(last - first);
    });
    return yes.load();
  };
  for (int i = 0; i < 3; ++i) {
    CHECK(flushed() == 0);
    const FlushDenormals flush;
    CHECK(flushed() == 2);
  }
}
