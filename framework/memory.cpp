#include "framework/memory.h"

#include <stdlib.h>  // posix_memalign
#include <algorithm>
#include <atomic>
#include <bit>

#if __has_include(<sys/mman.h>)
#include <sys/mman.h>
#endif

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
constexpr std::size_t kLargePage = std::size_t{2} << 20;
constexpr std::size_t kSlab = 4 * kLargePage;
/// What is larger is asked of the system by itself.
constexpr std::size_t kLargestInSlab = kSlab / 8;
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

void* aligned(std::size_t alignment, std::size_t bytes) {
  void* memory = nullptr;
  if (posix_memalign(&memory, alignment, bytes) != 0) return nullptr;
#if defined(MADV_HUGEPAGE)
  // A hint: the processor remembers few addresses of pages, and finds those of large ones faster.
  if (alignment >= kLargePage) madvise(memory, bytes, MADV_HUGEPAGE);
#endif
  return memory;
}

/// Blocks are cut from slabs, which begin at a multiple of kSlab with this header.
struct Slab {
  std::atomic<std::int64_t> holders;  ///< blocks that have not come back, and who still cuts it
};

void let_go(Slab* slab) {
  if (slab && slab->holders.fetch_sub(1, std::memory_order_acq_rel) == 1) std::free(slab);
}

struct FreeBlock {
  FreeBlock* next;
};

/// Plain data, so that it can be used until the very end of its thread.
struct Cache {
  FreeBlock* lists[kClasses];
  PoolStats stats;
  std::int64_t highest_in_use;
  Slab* slab;        // that blocks are cut from
  std::size_t used;  // bytes of it
  bool open;         // the end of the thread is taken care of
  bool closed;       // and has come: nothing is kept any more
};
constinit thread_local Cache cache{};

bool in_slab(std::size_t bytes) { return kCaches && bytes <= kLargestInSlab; }

void system_free(void* memory, std::size_t bytes) {
  if (in_slab(bytes))
    let_go(reinterpret_cast<Slab*>(reinterpret_cast<std::uintptr_t>(memory) & ~(kSlab - 1)));
  else
    std::free(memory);
}

std::size_t bytes_of_class(int index) {
  if (index < kFineClasses) return static_cast<std::size_t>(index + 1) * kAlignment;
  const int octave = 10 + (index - kFineClasses) / kStepsPerOctave;
  const auto steps = static_cast<std::size_t>((index - kFineClasses) % kStepsPerOctave + 1);
  return kAlignment + (std::size_t{1} << octave) + (steps << (octave - 3));
}

void give_back_all() {
  for (int i = 0; i < kClasses; ++i)
    while (FreeBlock* block = cache.lists[i]) {
      cache.lists[i] = block->next;
      system_free(block, bytes_of_class(i));
    }
  cache.stats.cached = 0;
}

void leave_slab() { let_go(std::exchange(cache.slab, nullptr)); }

struct AtThreadEnd {
  ~AtThreadEnd() {
    give_back_all();
    leave_slab();
    cache.closed = true;
  }
};

/// What a thread keeps must go when it ends.
void open_cache() {
  thread_local AtThreadEnd at_thread_end;
  (void)&at_thread_end;
  cache.open = true;
}

/// Memory from the system, or null.
void* try_system(std::size_t bytes) {
  if (!in_slab(bytes)) {
    return aligned(bytes < kLargePage ? kAlignment : kLargePage, bytes);
  }
  if (!cache.slab || cache.used + bytes > kSlab) {
    void* memory = aligned(kSlab, kSlab);
    if (!memory) return nullptr;
    leave_slab();
    cache.slab = new (memory) Slab{1};
    cache.used = kAlignment;
  }
  cache.slab->holders.fetch_add(1, std::memory_order_relaxed);
  return reinterpret_cast<char*>(cache.slab) + std::exchange(cache.used, cache.used + bytes);
}

void* system_allocate(std::size_t bytes) {
  if (!cache.open) open_cache();
  ++cache.stats.new_blocks;
  void* memory = try_system(bytes);
  if (!memory && cache.stats.cached > 0) {
    give_back_all();
    memory = try_system(bytes);
  }
  if (!memory) throw std::bad_alloc();
  if (cache.closed) leave_slab();  // nobody comes who would do it later
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
    system_free(memory, size.bytes);
    return;
  }
  if (!cache.open) [[unlikely]]
    open_cache();
  cache.stats.cached += rounded;
  auto* block = static_cast<FreeBlock*>(memory);
  block->next = std::exchange(cache.lists[size.index], block);
}

}  // namespace detail
}  // namespace unroll
