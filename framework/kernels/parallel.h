#pragma once
/// One pool of threads for everything. The calling thread works too; idle workers sleep.

#include <cstdint>
#include <type_traits>

namespace unroll {

/// Threads that large operations may use, the calling one included. Default: the environment
/// variable UNROLL_NUM_THREADS, otherwise the number of cores. n < 1 throws ValueError-like
/// std::invalid_argument. May be called at any time from one thread.
void set_num_threads(int n);
/// How many threads large operations use.
int num_threads();

namespace kernels {

/// Flush-to-zero and denormals-are-zero for this thread while it lives; the former mode is put
/// back at its end. Denormals slow a matrix product down a hundredfold.
class FlushDenormals {
 public:
  FlushDenormals();
  ~FlushDenormals();
  FlushDenormals(const FlushDenormals&) = delete;
  FlushDenormals& operator=(const FlushDenormals&) = delete;

 private:
  unsigned saved_;
};

/// Multiply-adds that a thread should have to do: some 1 us; and in all, so that it is worth
/// waking.
inline constexpr std::int64_t kWorkPerThread = 1 << 17;
inline constexpr std::int64_t kWorthWaking = 1 << 21;

namespace detail {
void parallel_run(std::int64_t begin, std::int64_t end, std::int64_t grain, bool wake,
                  void (*call)(void*, std::int64_t, std::int64_t), void* context);
}

/// Calls f(first, last) on disjoint ranges that cover [begin, end), each of at least `grain`
/// where possible, from several threads; returns when all are done. Runs in the calling thread
/// when there is only one thread, too little work, when called from inside a parallel_for, or
/// while another thread uses the pool. Without `wake`, also when the workers are asleep: to wake
/// one takes some microseconds, to share with one that has just worked a tenth of that. The first
/// exception is rethrown. No allocation.
template <class F>
void parallel_for(std::int64_t begin, std::int64_t end, std::int64_t grain, F&& f,
                  bool wake = true) {
  if (end - begin < 2 * grain) {  // one range
    if (begin < end) f(begin, end);
    return;
  }
  using Fn = std::remove_reference_t<F>;
  detail::parallel_run(
      begin, end, grain, wake,
      [](void* context, std::int64_t first, std::int64_t last) {
        (*static_cast<Fn*>(context))(first, last);
      },
      const_cast<void*>(static_cast<const void*>(&f)));
}

}  // namespace kernels
}  // namespace unroll
