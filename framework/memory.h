#pragma once
/// Memory: a caching pool for every buffer and small object of the engine, and the reference
/// counts that own them. In steady state (a training loop that does the same again) an operation
/// calls malloc not once: what it frees is what the next one takes.

#include <cstddef>
#include <cstdint>
#include <new>
#include <type_traits>
#include <utility>

#if __has_include(<sys/single_threaded.h>)
#include <sys/single_threaded.h>
#endif

namespace unroll {

/// Counters of the calling thread's pool, in bytes and calls.
struct PoolStats {
  std::int64_t in_use;       ///< bytes handed out by this thread minus bytes that it took back
  std::int64_t peak_in_use;  ///< highest in_use since the last reset_peak_memory()
  std::int64_t cached;       ///< bytes kept for reuse
  std::int64_t new_blocks;   ///< how often the pool had nothing to reuse and took new memory
  std::int64_t allocations;  ///< how often the pool was asked for memory
};

/// Counters of this thread's pool. in_use can be negative where other threads' buffers end here.
PoolStats pool_stats();
/// Makes peak_in_use what is in use now.
void reset_peak_memory();
/// Gives all cached memory of this thread back to the system.
void empty_cache();

namespace detail {

/// 64-byte aligned memory of at least `bytes`, from this thread's cache where possible.
/// Throws std::bad_alloc. Thread-safe: memory may be given back by another thread.
void* pool_allocate(std::size_t bytes);
/// Gives memory back; `bytes` as it was asked for.
void pool_release(void* memory, std::size_t bytes) noexcept;

/// Reference counts are plain integers as long as the process has one thread, and atomic
/// operations from then on.
inline bool single_threaded() {
#if __has_include(<sys/single_threaded.h>)
  return __libc_single_threaded;
#else
  return false;
#endif
}

inline std::int32_t count_up(std::int32_t& count) {
  if (single_threaded()) return ++count;
  return __atomic_add_fetch(&count, 1, __ATOMIC_RELAXED);
}
inline std::int32_t count_down(std::int32_t& count) {
  if (single_threaded()) return --count;
  return __atomic_sub_fetch(&count, 1, __ATOMIC_ACQ_REL);
}
inline std::int32_t count_of(const std::int32_t& count) {
  return __atomic_load_n(&count, __ATOMIC_ACQUIRE);
}

/// An intrusive owning pointer. T says what a copy and an end of life mean through the functions
/// `T* retain(T*)` and `void release(T*)`, found by argument-dependent lookup.
template <class T>
class Ref {
 public:
  Ref() = default;
  Ref(std::nullptr_t) {}
  /// Takes over a count that the caller holds.
  static Ref adopt(T* pointer) {
    Ref r;
    r.pointer_ = pointer;
    return r;
  }
  static Ref share(T* pointer) { return adopt(pointer ? retain(pointer) : nullptr); }

  Ref(const Ref& other) : pointer_(other.pointer_ ? retain(other.pointer_) : nullptr) {}
  Ref(Ref&& other) noexcept : pointer_(std::exchange(other.pointer_, nullptr)) {}
  Ref& operator=(const Ref& other) {
    Ref(other).swap(*this);
    return *this;
  }
  Ref& operator=(Ref&& other) noexcept {
    Ref(std::move(other)).swap(*this);
    return *this;
  }
  ~Ref() {
    if (pointer_) release(pointer_);
  }

  void swap(Ref& other) noexcept { std::swap(pointer_, other.pointer_); }
  void reset() { Ref().swap(*this); }
  T* get() const { return pointer_; }
  T* operator->() const { return pointer_; }
  T& operator*() const { return *pointer_; }
  explicit operator bool() const { return pointer_ != nullptr; }
  friend bool operator==(const Ref& a, const Ref& b) { return a.pointer_ == b.pointer_; }

 private:
  T* pointer_ = nullptr;
};

/// The base of a T made by `new` that lives as long as there is a Ref to it.
template <class T>
struct Counted {
  Counted() = default;
  /// A copy is an object of its own, with a count of its own.
  Counted(const Counted&) {}
  Counted& operator=(const Counted&) { return *this; }
  std::int32_t count = 1;

  friend T* retain(T* object) {
    count_up(object->count);
    return object;
  }
  friend void release(T* object) {
    if (count_down(object->count) == 0) delete object;
  }
};

}  // namespace detail
}  // namespace unroll
