#include "framework/kernels/parallel.h"

#include <algorithm>
#include <atomic>
#include <bit>
#include <condition_variable>
#include <cstdlib>
#include <exception>
#include <mutex>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace unroll {
namespace {

int default_num_threads() {
  if (const char* text = std::getenv("UNROLL_NUM_THREADS")) {
    char* end = nullptr;
    const long n = std::strtol(text, &end, 10);
    if (end == text || *end != '\0' || n < 1 || n > 4096) {
      throw std::runtime_error(
          std::string("UNROLL_NUM_THREADS must be a number from 1 to 4096, not '") + text + "'");
    }
    return static_cast<int>(n);
  }
  const unsigned cores = std::thread::hardware_concurrency();
  return cores < 1 ? 1 : static_cast<int>(cores);
}

std::atomic<int>& thread_count() {
  static std::atomic<int> count = default_num_threads();
  return count;
}

/// What this thread does with denormals: bits of its floating-point control register, kFlush to
/// flush them to zero. Writing the register takes much longer than reading it.
#if defined(__x86_64__)
constexpr unsigned kFlush = 0x8040;  // MXCSR: results are flushed to zero, operands read as zero
unsigned denormal_mode() { return _mm_getcsr() & kFlush; }
void set_denormal_mode(unsigned mode) {
  const unsigned now = _mm_getcsr();
  if ((now & kFlush) != mode) _mm_setcsr((now & ~kFlush) | mode);
}
#elif defined(__aarch64__)
constexpr unsigned kFlush = 1u << 24;  // FPCR: this bit does both
std::uint64_t fpcr() {
  std::uint64_t value;
  __asm__ __volatile__("mrs %0, fpcr" : "=r"(value));
  return value;
}
unsigned denormal_mode() { return static_cast<unsigned>(fpcr()) & kFlush; }
void set_denormal_mode(unsigned mode) {
  const std::uint64_t now = fpcr(), wanted = (now & ~std::uint64_t{kFlush}) | mode;
  if (now != wanted) __asm__ __volatile__("msr fpcr, %0" : : "r"(wanted));
}
#else
constexpr unsigned kFlush = 0;
unsigned denormal_mode() { return 0; }
void set_denormal_mode(unsigned) {}
#endif

/// True while a job runs, and for ever once the pool is gone at the end of the program. Whoever
/// finds it true does its work alone: this serves nested calls and other threads alike.
constinit std::atomic<bool> pool_taken = false;

void relax() {
#if defined(__x86_64__)
  _mm_pause();
#elif defined(__aarch64__)
  __asm__ __volatile__("yield");
#endif
}

/// A job is a range cut into chunks, one for each thread, which the calling thread and the workers
/// claim: first each its own, so that the rows of a matrix stay in one core's cache from job to
/// job, and then what nobody else has claimed. So a sleepy worker never holds the caller up.
class Pool {
 public:
  static constexpr int kMostChunks = 40;

  ~Pool() {
    while (pool_taken.exchange(true)) std::this_thread::yield();  // and it stays taken
    join();
  }

  void run(std::int64_t begin, std::int64_t end, int chunks,
           void (*call)(void*, std::int64_t, std::int64_t), void* context) {
    resize(thread_count().load() - 1);
    begin_ = begin;
    end_ = end;
    chunks_ = chunks;
    call_ = call;
    context_ = context;
    denormal_mode_ = denormal_mode();
    error_ = nullptr;
    finished_.store(0, std::memory_order_relaxed);
    // Sequentially consistent, as is the worker's own pair of accesses: either the worker sees the
    // job before it sleeps, or it is seen here to be asleep.
    unclaimed_.store((++job_ << kMostChunks) | ((std::uint64_t{1} << chunks) - 1));
    if (asleep_.load() > 0) {
      { std::lock_guard lock(mutex_); }
      wake_.notify_all();
    }
    while (work(0)) {
    }
    for (int spins = 0; finished_.load(std::memory_order_acquire) < chunks; ++spins) {
      if (spins < kSpins) {
        relax();
      } else {
        std::this_thread::yield();
      }
    }
    if (error_) std::rethrow_exception(std::exchange(error_, nullptr));
  }

  /// Whether there are workers and none of them sleeps.
  bool awake() const { return !workers_.empty() && asleep_.load(std::memory_order_relaxed) == 0; }

 private:
  static constexpr std::uint64_t kChunkMask = (std::uint64_t{1} << kMostChunks) - 1;
  static constexpr int kSpins = 3000;  // some 40 to 100 us: longer than what a time step does alone

  /// Claims a chunk of the present job, its own if that is left, and does it. False if none is
  /// left. A thread that comes late cannot take a chunk of one job for a chunk of the next: the
  /// number of the job is part of what it exchanges.
  bool work(int own) {
    std::uint64_t now = unclaimed_.load(std::memory_order_acquire);
    int chunk;
    do {
      if ((now & kChunkMask) == 0) return false;
      chunk = (now >> own & 1) != 0 ? own : std::countr_zero(now);
    } while (!unclaimed_.compare_exchange_weak(now, now & ~(std::uint64_t{1} << chunk),
                                               std::memory_order_acq_rel,
                                               std::memory_order_acquire));
    // From here on the job cannot end, and its fields cannot change, before finished_ is raised.
    set_denormal_mode(denormal_mode_);  // so that it does not matter which thread does what
    const std::int64_t size = (end_ - begin_) / chunks_, rest = (end_ - begin_) % chunks_;
    const std::int64_t first = begin_ + chunk * size + (chunk < rest ? chunk : rest);
    try {
      call_(context_, first, first + size + (chunk < rest ? 1 : 0));
    } catch (...) {
      std::lock_guard lock(mutex_);
      if (!error_) error_ = std::current_exception();
    }
    finished_.fetch_add(1, std::memory_order_release);
    return true;
  }

  bool idle() const { return (unclaimed_.load() & kChunkMask) == 0 && !stop_.load(); }

  void serve(int own) {
    while (!stop_.load(std::memory_order_relaxed)) {
      for (int spins = 0; spins < kSpins && idle(); ++spins) relax();
      if (idle()) {
        std::unique_lock lock(mutex_);
        asleep_.fetch_add(1);
        wake_.wait(lock, [this] { return !idle(); });
        asleep_.fetch_sub(1);
      }
      work(own);
    }
  }

  void resize(int workers) {
    if (static_cast<int>(workers_.size()) == workers) return;
    join();
    stop_.store(false);
    workers_.reserve(static_cast<std::size_t>(workers));
    while (static_cast<int>(workers_.size()) < workers) {
      workers_.emplace_back([this, own = static_cast<int>(workers_.size()) + 1] {
        serve(own < kMostChunks ? own : 0);
      });
    }
  }

  void join() {
    {
      std::lock_guard lock(mutex_);
      stop_.store(true);
    }
    wake_.notify_all();
    for (std::thread& worker : workers_) worker.join();
    workers_.clear();
  }

  std::vector<std::thread> workers_;
  std::mutex mutex_;  ///< guards error_ and the sleep of the workers
  std::condition_variable wake_;
  std::atomic<int> asleep_ = 0;
  std::atomic<bool> stop_ = false;

  std::uint64_t job_ = 0;
  std::atomic<std::uint64_t> unclaimed_ = 0;  ///< job << kMostChunks | chunks that nobody has yet
  std::atomic<int> finished_ = 0;             ///< chunks that are done
  std::int64_t begin_ = 0, end_ = 0;
  int chunks_ = 0;
  void (*call_)(void*, std::int64_t, std::int64_t) = nullptr;
  void* context_ = nullptr;
  unsigned denormal_mode_ = 0;  ///< of the thread that asks
  std::exception_ptr error_;
};

Pool& pool() {
  static Pool instance;
  return instance;
}

}  // namespace

void set_num_threads(int n) {
  if (n < 1 || n > 4096) {
    throw std::invalid_argument("set_num_threads: n must be from 1 to 4096, not " +
                                std::to_string(n));
  }
  thread_count().store(n);
}

int num_threads() { return thread_count().load(); }

namespace kernels {

FlushDenormals::FlushDenormals() : saved_(denormal_mode()) { set_denormal_mode(kFlush); }
FlushDenormals::~FlushDenormals() { set_denormal_mode(saved_); }

void detail::parallel_run(std::int64_t begin, std::int64_t end, std::int64_t grain, bool wake,
                          void (*call)(void*, std::int64_t, std::int64_t), void* context) {
  if (begin >= end) return;
  const std::int64_t by_grain = (end - begin) / (grain < 1 ? 1 : grain);
  const std::int64_t threads = by_grain < 2 ? 1 : std::min(num_threads(), Pool::kMostChunks);
  const std::int64_t chunks = by_grain < threads ? by_grain : threads;
  if (chunks < 2 || pool_taken.exchange(true)) {
    call(context, begin, end);
    return;
  }
  struct Release {
    ~Release() { pool_taken.store(false); }
  } release;
  if (wake || pool().awake())
    pool().run(begin, end, static_cast<int>(chunks), call, context);
  else
    call(context, begin, end);
}

}  // namespace kernels
}  // namespace unroll
