// A cache line's way to another core and back: how long two threads take to answer, in ns
#include <algorithm>
#include <atomic>
#include <cstdio>
#include <exception>
#include <stdexcept>
#include <thread>
#include <vector>

#include "common/options.h"

namespace {

constexpr int kTrips = 1000;

/// Both wait for the other's number and write the next one.
double seconds_per_trip() {
  alignas(64) std::atomic<int> number = 0;
  const auto play = [&](int first) {
    for (int i = first; i < 2 * kTrips; i += 2) {
      while (number.load(std::memory_order_acquire) != i) {
      }
      number.store(i + 1, std::memory_order_release);
    }
  };
  std::atomic<bool> ready = false;
  std::thread other([&] {
    ready = true;
    play(1);
  });
  while (!ready) {
  }
  const double start = bench::now();
  play(0);
  const double seconds = bench::now() - start;
  other.join();
  return seconds / kTrips;
}

}  // namespace

int main(int argc, char** argv) try {
  const auto options = bench::parse(argc, argv, "A cache line's way to another core and back");
  if (options.threads != 2)  // with one, benchmarks/run would keep both on one core
    throw std::invalid_argument("round_trip takes two threads: --threads 2");
  std::vector<double> trips;
  const double start = bench::now();
  for (int i = 0; i < 15 || bench::now() - start < options.budget.seconds; ++i)
    trips.push_back(seconds_per_trip());
  std::puts("peer,what,median_ns,min_ns,max_ns");
  std::printf("round_trip,cores,%.0f,%.0f,%.0f\n", bench::median(trips) * 1e9,
              *std::min_element(trips.begin(), trips.end()) * 1e9,
              *std::max_element(trips.begin(), trips.end()) * 1e9);
} catch (const std::exception& error) {
  std::fprintf(stderr, "error: %s\n", error.what());
  return 1;
}
