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
constexpr std::size_t kHeaders = 192;  // of a tensor, in front of its elements
constexpr int kFineClasses = 19;       // 64, 128, ..., 1024 and kHeaders bytes
constexpr int kStepsPerOctave = 8;     // above: kHeaders and 1152, 1280, ..., 2048, 2304, ...
constexpr int kClasses = kFineClasses + kStepsPerOctave * 38;
/// Beyond what the thread itself has had in use at once it keeps no more than this: a thread that
/// only ever gives back what others made does not hoard it.
constexpr std::int64_t kSlack = std::int64_t{64} << 20;

struct SizeClass {
  int index;
  std::size_t bytes;
};

/// Rounds up to at most an eighth more. Sizes of tensors are often round; with their headers they
/// fit exactly. Throws std::bad_alloc for what no memory holds.
inline SizeClass size_class(std::size_t bytes) {
  if (bytes <= kFineClasses * kAlignment) [[likely]] {
    const std::size_t n = (bytes + kAlignment - 1 + (bytes == 0)) / kAlignment;
    return {static_cast<int>(n) - 1, n * kAlignment};
  }
  if (bytes > std::size_t{1} << 46) throw std::bad_alloc();
  const std::size_t rest = bytes - kHeaders;  // more than 1024
  const int octave =
      static_cast<int>(std::bit_width(rest - 1)) - 1;  // 2^octave < rest <= 2^(octave + 1)
  const std::size_t step = std::size_t{1} << (octave - 3);
  const std::size_t steps = (rest - (std::size_t{1} << octave) + step - 1) / step;  // 1 .. 8
  return {kFineClasses + (octave - 10) * kStepsPerOctave + static_cast<int>(steps) - 1,
          kHeaders + (std::size_t{1} << octave) + steps * step};
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

/// Plain data, so that it can be used until the very end of its thread. What is in use is what the
/// system gave less what is cached, so that reusing a block changes one number.
struct Cache {
  FreeBlock* lists[kClasses];
  std::int64_t from_system;     // bytes, less those that went back
  std::int64_t cached;          // bytes in the lists
  std::int64_t least_cached;    // since the last reset of the peak, which is from_system less this
  std::int64_t most_cached;     // more is not kept; 0 until the first block comes back
  std::int64_t highest_in_use;  // not counting what came after the last reset of the peak
  std::int64_t new_blocks, allocations;
  Slab* slab;        // that blocks are cut from
  std::size_t used;  // bytes of it
  bool open;         // the end of the thread is taken care of
  bool closed;       // and has come: nothing is kept any more

  std::int64_t peak() const { return from_system - least_cached; }
  /// Memory came from the system or, negative, went back. The peak stays.
  void count(std::int64_t bytes) {
    from_system += bytes;
    least_cached += bytes;
  }
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
  return kHeaders + (std::size_t{1} << octave) + (steps << (octave - 3));
}

void give_back_all() {
  for (int i = 0; i < kClasses; ++i)
    while (FreeBlock* block = cache.lists[i]) {
      cache.lists[i] = block->next;
      system_free(block, bytes_of_class(i));
    }
  cache.count(-std::exchange(cache.cached, 0));
}

void leave_slab() { let_go(std::exchange(cache.slab, nullptr)); }

struct AtThreadEnd {
  ~AtThreadEnd() {
    give_back_all();
    leave_slab();
    cache.closed = true;
    cache.most_cached = 0;
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

[[gnu::noinline]] void* system_allocate(std::size_t bytes) {
  if (!cache.open) open_cache();
  ++cache.new_blocks;
  void* memory = try_system(bytes);
  if (!memory && cache.cached > 0) {
    give_back_all();
    memory = try_system(bytes);
  }
  if (!memory) throw std::bad_alloc();
  if (cache.closed) leave_slab();  // nobody comes who would do it later
  cache.from_system += static_cast<std::int64_t>(bytes);
  cache.least_cached =
      std::min(cache.least_cached + static_cast<std::int64_t>(bytes), cache.cached);
  return memory;
}

/// Whether the cache takes so much more, where most_cached says no: it may be old.
[[gnu::noinline]] bool keeps(std::int64_t bytes) {
  if (!kCaches || cache.closed) return false;
  if (!cache.open) open_cache();
  cache.highest_in_use = std::max(cache.highest_in_use, cache.peak());
  cache.most_cached = cache.highest_in_use + kSlack;
  return cache.cached + bytes <= cache.most_cached;
}

}  // namespace

PoolStats pool_stats() {
  return {.in_use = cache.from_system - cache.cached,
          .peak_in_use = cache.peak(),
          .cached = cache.cached,
          .new_blocks = cache.new_blocks,
          .allocations = cache.allocations};
}
void reset_peak_memory() {
  cache.highest_in_use = std::max(cache.highest_in_use, cache.peak());
  cache.least_cached = cache.cached;
}
void empty_cache() { give_back_all(); }

namespace detail {

void* pool_allocate(std::size_t bytes) {
  const SizeClass size = size_class(bytes);
  ++cache.allocations;
  FreeBlock* block = cache.lists[size.index];
  if (!block) [[unlikely]]
    return system_allocate(size.bytes);
  FreeBlock* const next = block->next;
  __builtin_prefetch(next, 1);  // it will be asked for, and was last touched long ago
  cache.lists[size.index] = next;
  cache.cached -= static_cast<std::int64_t>(size.bytes);
  if (cache.cached < cache.least_cached) [[unlikely]]
    cache.least_cached = cache.cached;
  return block;
}

void pool_release(void* memory, std::size_t bytes) noexcept {
  const SizeClass size = size_class(bytes);
  const auto rounded = static_cast<std::int64_t>(size.bytes);
  if (cache.cached + rounded > cache.most_cached && !keeps(rounded)) [[unlikely]] {
    cache.count(-rounded);
    system_free(memory, size.bytes);
    return;
  }
  cache.cached += rounded;
  auto* block = static_cast<FreeBlock*>(memory);
  block->next = std::exchange(cache.lists[size.index], block);
}

}  // namespace detail
}  // namespace unroll
