#include "framework/memory.h"

#include <algorithm>
#include <bit>
#include <cstdlib>

#if defined(__SANITIZE_ADDRESS__)
#define UNROLL_POOL_CACHES 0
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define UNROLL_POOL_CACHES 0
#endif
#endif

namespace unroll {
namespace {

#if defined(UNROLL_POOL_CACHES)
// The address sanitizer must see every end of life.
constexpr bool kCaches = false;
#else
constexpr bool kCaches = true;
#endif

constexpr std::size_t kAlignment = 64;
constexpr int kFineClasses = 16;    // 64, 128, ..., 1024 bytes
constexpr int kStepsPerOctave = 8;  // above: 1152, 1280, ..., 2048, 2304, ... and 64 for a header
constexpr int kClasses = kFineClasses + kStepsPerOctave * 38;
/// Beyond what the thread itself has had in use at once it keeps no more than this: a thread that
/// only ever gives back what others made does not hoard it.
constexpr std::int64_t kSlack = std::int64_t{64} << 20;

struct SizeClass {
  int index;
  std::size_t bytes;
};

/// Rounds up to at most an eighth more. Sizes of tensors are often round; with the header of a
/// Storage they fit exactly.
inline SizeClass size_class(std::size_t bytes) {
  if (bytes <= kFineClasses * kAlignment) [[likely]] {
    const std::size_t n = (bytes + kAlignment - 1 + (bytes == 0)) / kAlignment;
    return {static_cast<int>(n) - 1, n * kAlignment};
  }
  const std::size_t rest = std::max<std::size_t>(bytes - kAlignment, 1025);
  const int octave =
      static_cast<int>(std::bit_width(rest - 1)) - 1;  // 2^octave < rest <= 2^(octave + 1)
  const std::size_t step = std::size_t{1} << (octave - 3);
  const std::size_t steps = (rest - (std::size_t{1} << octave) + step - 1) / step;  // 1 .. 8
  return {kFineClasses + (octave - 10) * kStepsPerOctave + static_cast<int>(steps) - 1,
          kAlignment + (std::size_t{1} << octave) + steps * step};
}

struct FreeBlock {
  FreeBlock* next;
};

/// Plain data, so that it can be used until the very end of its thread.
struct Cache {
  FreeBlock* lists[kClasses];
  PoolStats stats;
  std::int64_t highest_in_use;
  bool closed;  // the thread is ending: nothing is kept any more
};
constinit thread_local Cache cache{};

void give_back_all() {
  for (FreeBlock*& list : cache.lists)
    while (list) std::free(std::exchange(list, list->next));
  cache.stats.cached = 0;
}

struct AtThreadEnd {
  ~AtThreadEnd() {
    give_back_all();
    cache.closed = true;
  }
};

void* system_allocate(std::size_t bytes) {
  thread_local AtThreadEnd at_thread_end;
  (void)&at_thread_end;
  ++cache.stats.system_calls;
  void* memory = std::aligned_alloc(kAlignment, bytes);
  if (!memory && cache.stats.cached > 0) {
    give_back_all();
    memory = std::aligned_alloc(kAlignment, bytes);
  }
  if (!memory) throw std::bad_alloc();
  return memory;
}

}  // namespace

PoolStats pool_stats() { return cache.stats; }
void reset_peak_memory() { cache.stats.peak_in_use = cache.stats.in_use; }
void empty_cache() { give_back_all(); }

namespace detail {

void* pool_allocate(std::size_t bytes) {
  if (bytes > std::size_t{1} << 46) throw std::bad_alloc();
  const SizeClass size = size_class(bytes);
  const auto rounded = static_cast<std::int64_t>(size.bytes);
  PoolStats& stats = cache.stats;
  void* memory = cache.lists[size.index];
  if (memory) [[likely]] {
    cache.lists[size.index] = cache.lists[size.index]->next;
    stats.cached -= rounded;
  } else {
    memory = system_allocate(size.bytes);
  }
  ++stats.allocations;
  stats.in_use += rounded;
  if (stats.in_use > stats.peak_in_use) {
    stats.peak_in_use = stats.in_use;
    cache.highest_in_use = std::max(cache.highest_in_use, stats.in_use);
  }
  return memory;
}

void pool_release(void* memory, std::size_t bytes) noexcept {
  const SizeClass size = size_class(bytes);
  const auto rounded = static_cast<std::int64_t>(size.bytes);
  cache.stats.in_use -= rounded;
  if (!kCaches || cache.closed || cache.stats.cached + rounded > cache.highest_in_use + kSlack)
      [[unlikely]] {
    std::free(memory);
    return;
  }
  cache.stats.cached += rounded;
  auto* block = static_cast<FreeBlock*>(memory);
  block->next = std::exchange(cache.lists[size.index], block);
}

}  // namespace detail
}  // namespace unroll
