#pragma once
/// The walk of backward() over the tape, from results to leaves. Not for users.

#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include "framework/autograd.h"
#include "framework/memory.h"
#include "framework/row_grad.h"
#include "framework/watch.h"

namespace unroll {
namespace detail {

struct Leaf final : Node {
  Leaf() {
    leaf = true;
    keeps_grad = true;
  }
  void run(Back&) override {}
  /// Besides .grad: rows to be added to it, in any order, when somebody reads it.
  std::vector<RowGrad> rows;
};

/// Asks the processor for the lines of memory that a node lies in, or lay in: it may be gone, or
/// none. So these are addresses and no pointers into anything.
inline void prefetch(const void* node) {
  const auto address = reinterpret_cast<std::uintptr_t>(node);
  for (std::uintptr_t line = 0; line < 4; ++line)
    __builtin_prefetch(reinterpret_cast<const void*>(address + 64 * line));
}

/// Memory from the pool, so that sweeping again and again asks the system for none.
template <class T>
struct PoolAllocator {
  using value_type = T;
  PoolAllocator() = default;
  template <class U>
  PoolAllocator(const PoolAllocator<U>&) {}
  T* allocate(std::size_t n) { return static_cast<T*>(pool_allocate(n * sizeof(T))); }
  void deallocate(T* memory, std::size_t n) noexcept { pool_release(memory, n * sizeof(T)); }
  friend bool operator==(PoolAllocator, PoolAllocator) { return true; }
};
template <class T>
using PoolVector = std::vector<T, PoolAllocator<T>>;

/// A T that is made when it is first needed.
template <class T>
class Lazy {
 public:
  Lazy() = default;
  Lazy(Lazy&& other) noexcept : pointer_(std::exchange(other.pointer_, nullptr)) {}
  Lazy& operator=(Lazy&& other) noexcept {
    std::swap(pointer_, other.pointer_);
    return *this;
  }
  ~Lazy() {
    if (!pointer_) return;
    pointer_->~T();
    pool_release(pointer_, sizeof(T));
  }
  void reset() { *this = Lazy(); }
  explicit operator bool() const { return pointer_ != nullptr; }
  T* operator->() const { return pointer_; }
  T& operator*() const { return *pointer_; }
  T& make() {
    if (!pointer_) pointer_ = new (pool_allocate(sizeof(T))) T;
    return *pointer_;
  }

 private:
  T* pointer_ = nullptr;
};

/// The entries of a sweep's leaves: a hash table with open addressing. Other nodes carry theirs
/// themselves; but threads that share a model meet at its leaves, each with a graph of its own, so
/// a sweep writes nothing into those.
class LeafEntries {
 public:
  /// Null if there is none.
  SweepEntry* find(const Node* leaf) const { return slots_.empty() ? nullptr : slot(leaf).entry; }
  /// The entry of a leaf, to set; null at first.
  SweepEntry*& operator[](const Node* leaf) {
    if (2 * (used_ + 1) > slots_.size()) grow();
    Slot& found = const_cast<Slot&>(slot(leaf));
    used_ += found.leaf ? 0 : 1;
    found.leaf = leaf;
    return found.entry;
  }

 private:
  struct Slot {
    const Node* leaf = nullptr;
    SweepEntry* entry = nullptr;
  };
  /// The slot of a leaf, or the empty one where it would go.
  const Slot& slot(const Node* leaf) const {
    const std::size_t mask = slots_.size() - 1;
    // Nodes are 64 bytes apart or more; a multiplication spreads what is left.
    std::size_t i = (reinterpret_cast<std::uintptr_t>(leaf) >> 6) * 0x9e3779b97f4a7c15u >> 20;
    while (slots_[i & mask].leaf && slots_[i & mask].leaf != leaf) ++i;
    return slots_[i & mask];
  }
  void grow() {
    PoolVector<Slot> old(std::max<std::size_t>(2 * slots_.size(), 16));
    old.swap(slots_);
    for (const Slot& s : old)
      if (s.leaf) const_cast<Slot&>(slot(s.leaf)) = s;
  }

  PoolVector<Slot> slots_;
  std::size_t used_ = 0;
};

/// A term a' g of a weight's gradient that is still to be computed.
struct Product {
  Tensor a, g;
};

/// What a sweep knows of a node.
struct SweepEntry {
  /// Elements of a gradient that parts have been put into: from `first` to `last`, but for a gap.
  struct Filled {
    std::int64_t first = 0, last = 0;
    std::int64_t gap = 0, gap_end = 0;
    /// A sum that lies in it (Sweep::place_sum), and the part that it will be; null: none.
    SweepEntry *sum = nullptr, *part = nullptr;
    /// Whether that sum is not complete.
    bool has_open_sum() const { return sum && !sum->visited; }
  };
  /// What few have.
  struct Extra {
    PoolVector<Product> products;  // still to be added to grad
    std::int64_t rows = 0;         // of them
    Tensor transposed;             // their sum so far, if it is kept transposed
    PoolVector<Tensor> matrices;   // whose rows are still to be added to grad
    std::int64_t matrix_rows = 0;  // of them
    PoolVector<Tensor> results;    // gradients of the results from the third on
  };

  explicit SweepEntry(Node* place) : node(place), passes(!place->leaf) {}
  Node* node;
  Tensor grad;          // summed so far
  Tensor second_grad;   // that of the second result, where the node is an operation with several
  Lazy<Filled> filled;  // where only parts of grad are
  Lazy<Extra> extra;
  bool wanted = true;  // its gradient is asked for, or leads to one that is
  bool passes;         // it has such inputs
  bool target = false;
  bool shared = false;   // several rules add to grad; not known of a leaf
  bool placed = false;   // its gradient lies where its rule would put it: Sweep::place
  bool fixed = false;    // grad stays where it is: Sweep::place_sum
  bool visited = false;  // it has been passed on

  bool has_results() const { return second_grad.defined() || (extra && !extra->results.empty()); }
};

/// The entries of a sweep, which stay where they are: memory for many is taken at a time.
class SweepEntries {
 public:
  SweepEntries() = default;
  SweepEntries(const SweepEntries&) = delete;
  SweepEntries& operator=(const SweepEntries&) = delete;
  ~SweepEntries() {
    for (SweepEntry* block : blocks_) {
      std::destroy(block, end_of(block));
      pool_release(block, kBlock * sizeof(SweepEntry));
    }
  }
  SweepEntry* add(Node* node) {
    if (end_ == limit_) [[unlikely]] {
      blocks_.push_back(static_cast<SweepEntry*>(pool_allocate(kBlock * sizeof(SweepEntry))));
      end_ = blocks_.back();
      limit_ = end_ + kBlock;
    }
    return new (end_++) SweepEntry(node);
  }
  /// Calls f with each, first to last.
  template <class F>
  void forwards(const F& f) {
    for (SweepEntry* block : blocks_)
      for (SweepEntry *entry = block, *end = end_of(block); entry != end; ++entry) f(*entry);
  }
  /// Calls f with each, last to first; the node that comes after the next is asked for.
  template <class F>
  void backwards(const F& f) {
    for (auto block = blocks_.rbegin(); block != blocks_.rend(); ++block)
      for (SweepEntry* entry = end_of(*block); entry != *block;) {
        --entry;
        if (entry - *block > 1) prefetch(entry[-2].node);
        f(*entry);
      }
  }

 private:
  static constexpr std::size_t kBlock = 512;
  SweepEntry* end_of(SweepEntry* block) const {
    return block == blocks_.back() ? end_ : block + kBlock;
  }

  PoolVector<SweepEntry*> blocks_;
  SweepEntry *end_ = nullptr, *limit_ = nullptr;
};

}  // namespace detail

/// One walk from results to leaves. `entries` has one for every node that the results depend
/// on, inputs before outputs, so that walking backwards meets a node after all that depend on it.
struct Back::Sweep {
  using Node = detail::Node;
  using Entry = detail::SweepEntry;
  using Extra = Entry::Extra;
  template <class T>
  using PoolVector = detail::PoolVector<T>;

  /// What a node carried before, for a sweep inside a sweep.
  struct Outer {
    Node* node;
    std::uint64_t sweep;
    Entry* entry;
  };
  detail::SweepEntries entries;
  PoolVector<Outer> outer;
  detail::LeafEntries leaves;
  const std::uint64_t id = next_id();
  const bool watched = detail::watched();

  explicit Sweep(const std::vector<Tensor>& roots);
  ~Sweep();
  Sweep(const Sweep&) = delete;
  Sweep& operator=(const Sweep&) = delete;

  Entry* find(const Node* node) const {
    if (!node) return nullptr;
    if (node->leaf) return leaves.find(node);
    return node->sweep == id ? node->entry : nullptr;
  }

  /// Keeps only what leads to one of `targets`.
  void restrict_to(const std::vector<Tensor>& targets);
  /// The gradient that a root begins with: 1 if none is given. `name` begins the messages.
  void seed(const char* name, const Tensor& y, const Tensor& seed);
  /// From the roots to the leaves, whose gradients it adds to .grad if `to_leaves`.
  void run(bool to_leaves, bool retain_graph);

  // What Back does with the gradient of an input.
  static void add(Tensor& sum, Tensor g);
  /// Sums g, a gradient of another shape for input i of an operation, to the shape of that. False
  /// if that was put off. Throws for shapes that do not fit, and for another dtype.
  bool fit(const Node& operation, int i, Entry& entry, Tensor& g) const;
  /// Fills what no part has reached.
  static void finish(Entry& entry) {
    if (entry.filled) fill_rest(entry);
  }
  /// The part of a larger tensor that a node is, or passes its gradient on to, if the gradient can
  /// be written there at once: it has none yet, and nobody else adds to a gradient on the way or
  /// looks at it. The part is marked as placed. Null if there is none within `farthest` nodes.
  Entry* place(Entry& entry, int farthest = 4);
  /// The memory of such a part, for the gradient of `node`.
  Tensor memory_of(const Entry& part, const Node& node) const;
  /// Makes such memory the gradient of a node to which several rules add, from element `begin` on,
  /// if there is any.
  void place_sum(Entry& entry, std::int64_t begin);
  /// Marks the window of a node on the gradient of its input as filled, for the caller to do so.
  /// False if it has none, or if some of it is filled already. What lies between it and the others
  /// is a gap, for other parts or for zeros.
  static bool reserve(Entry& entry, const Node& part);
  /// Adds g, the gradient of a part, to that of the whole; `take(context, whole)` is a window on
  /// the part. The parts of a sequence come one after the other: such a part is copied to its
  /// place, so that nothing is filled with zeros first and read again.
  void add_window(Entry& entry, const Node& part,
                  Tensor (*take)(const void* context, const Tensor& whole), const void* context,
                  const Tensor& g);
  /// The gradient so far as a tensor that may be added to in place.
  static Tensor& own_grad(Entry& entry);
  /// Whether products for the gradient of this matrix are put off: it is a leaf or its transpose.
  static bool puts_off(const Entry& entry);
  /// Computes the products that were put off. The kernel is at its best where a product is wider
  /// than high; where the weight is higher, as [4 * hidden_size, hidden_size], the sum is kept
  /// transposed.
  static void settle(Entry& entry);
  /// Puts off adding the rows of g to the gradient of a leaf, such as a bias. False if that cannot
  /// be.
  static bool put_rows_off(Entry& entry, const Tensor& g);
  /// Adds the rows that were put off.
  static void settle_rows(Entry& entry);

 private:
  static std::uint64_t next_id();
  /// Passes on the gradient of a node, which is complete.
  void visit(Entry& entry, bool to_leaves, bool retain_graph);
  static void fill_rest(Entry& entry);
  /// Leaves the memory of a gradient to the sum that lies in it, which is not complete and will be
  /// added later as other parts are.
  static void leave_to_sum(Entry& entry);
  static void add_transposed(Entry& entry);
  static void keep_grad(Node& node, Entry& entry);
};

}  // namespace unroll
