#include "framework/autograd.h"

#include <algorithm>
#include <atomic>

#include "framework/internal.h"
#include "framework/kernels/parallel.h"
#include "framework/ops.h"
#include "framework/row_grad.h"
#include "framework/trace.h"

namespace unroll {

using detail::fail;
using detail::Node;
using detail::Ref;

namespace {

thread_local bool recording = true;

struct Leaf final : Node {
  Leaf() {
    leaf = true;
    keeps_grad = true;
  }
  void run(Back&) override {}
  /// Besides .grad: rows to be added to it, in any order, when somebody reads it.
  std::vector<RowGrad> rows;
};

}  // namespace

bool grad_enabled() { return recording; }
NoGrad::NoGrad() : saved_(std::exchange(recording, false)) {}
NoGrad::~NoGrad() { recording = saved_; }
detail::GradMode::GradMode(bool on) : saved_(std::exchange(recording, on)) {}
detail::GradMode::~GradMode() { recording = saved_; }

// --- Nodes --------------------------------------------------------------------------------------

namespace detail {

namespace {

/// Nodes whose count has reached zero. A node's end ends its inputs: without this list a long
/// tape would be taken down recursively and overflow the stack.
struct Graveyard {
  Node* first;
  bool digging;
};
constinit thread_local Graveyard graveyard{};

}  // namespace

Node* retain(Node* node) {
  count_up(node->count);
  return node;
}

void release(Node* node) {
  if (count_down(node->count) != 0) return;
  node->next_dead = std::exchange(graveyard.first, node);
  if (graveyard.digging) return;
  graveyard.digging = true;
  while (Node* dead = graveyard.first) {
    graveyard.first = dead->next_dead;
    const std::uint32_t bytes = dead->allocated;
    dead->~Node();
    pool_release(dead, bytes);
  }
  graveyard.digging = false;
}

Node::~Node() {
  for (std::uint32_t i = 0; i < input_count; ++i) inputs[i].~Ref();
  if (saved)
    for (std::uint32_t i = 0; i < input_count; ++i) saved[i].~Saved();
  delete hooks;
}

void Node::release_buffers() noexcept {
  if (leaf) return;
  released = true;
  drop_rule();
  output.reset();
  if (saved)
    for (std::uint32_t i = 0; i < input_count; ++i) saved[i].tensor = Tensor();
}

bool any_requires_grad(const Inputs& inputs) {
  for (std::size_t i = 0; i < inputs.size(); ++i)
    if (inputs[i].requires_grad()) return true;
  return false;
}

void* allocate_node(std::size_t bytes, std::size_t inputs, bool saves, std::uint32_t& total) {
  total = static_cast<std::uint32_t>(bytes +
                                     inputs * (sizeof(Ref<Node>) + (saves ? sizeof(Saved) : 0)));
  return pool_allocate(total);
}

void link(Node& node, const char* op, const Inputs& inputs, const Tensor& value, Keep keep,
          std::size_t bytes, bool saves, std::uint32_t total) {
  char* memory = reinterpret_cast<char*>(&node) + bytes;
  node.op = op;
  node.allocated = total;
  node.dtype = value.dtype();
  node.shape = value.shape();
  node.inputs = reinterpret_cast<Ref<Node>*>(memory);
  if (saves) node.saved = reinterpret_cast<Saved*>(memory + inputs.size() * sizeof(Ref<Node>));
  for (std::size_t i = 0; i < inputs.size(); ++i) {
    new (node.inputs + i) Ref<Node>(inputs[i].impl().node);
    if (!saves) continue;
    new (node.saved + i) Saved;
    if (!keep.has_input(static_cast<int>(i))) continue;
    node.saved[i].tensor = inputs[i];
    node.saved[i].version = version(inputs[i]);
  }
  node.input_count = static_cast<std::uint32_t>(inputs.size());
  if (keep.has_output()) {
    node.output = value.impl().storage;
    node.output_offset = value.impl().offset;
    node.output_version = version(value);
  }
}

}  // namespace detail

/// The place of one of several results: it hands its gradient to the operation.
struct detail::Result final : Node {
  explicit Result(int index) : k(index) {}
  void run(Back& back) override { back.pass_to_operation(k); }
  int k;
};

const detail::Node* detail::operation_of(const Node* node) {
  return dynamic_cast<const Result*>(node) ? node->inputs[0].get() : node;
}

void detail::link_result(Node& operation, int k, const Tensor& value) {
  std::uint32_t total = 0;
  void* memory = allocate_node(sizeof(Result), 1, false, total);
  auto* node = new (memory) Result(k);
  node->op = operation.op;
  node->allocated = total;
  node->dtype = value.dtype();
  node->shape = value.shape();
  node->inputs = reinterpret_cast<Ref<Node>*>(static_cast<char*>(memory) + sizeof(Result));
  new (node->inputs) Ref<Node>(Ref<Node>::share(&operation));
  node->input_count = 1;
  value.impl().node = Ref<Node>::adopt(node);
}

// --- The sweep ----------------------------------------------------------------------------------

namespace {

/// Memory from the pool, so that sweeping again and again asks the system for none.
template <class T>
struct PoolAllocator {
  using value_type = T;
  PoolAllocator() = default;
  template <class U>
  PoolAllocator(const PoolAllocator<U>&) {}
  T* allocate(std::size_t n) { return static_cast<T*>(detail::pool_allocate(n * sizeof(T))); }
  void deallocate(T* memory, std::size_t n) noexcept {
    detail::pool_release(memory, n * sizeof(T));
  }
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
    detail::pool_release(pointer_, sizeof(T));
  }
  explicit operator bool() const { return pointer_ != nullptr; }
  T* operator->() const { return pointer_; }
  T& make() {
    if (!pointer_) pointer_ = new (detail::pool_allocate(sizeof(T))) T;
    return *pointer_;
  }

 private:
  T* pointer_ = nullptr;
};

std::uint64_t next_sweep_id() {
  static std::atomic<std::uint64_t> id{0};
  return ++id;
}

/// Where the leaves of a sweep stand in it: a hash table with open addressing. Other nodes carry
/// their place themselves; but threads that share a model meet at its leaves, each with a graph of
/// its own, so a sweep writes nothing into those.
class LeafPlaces {
 public:
  static constexpr std::int64_t kNone = -1;

  std::int64_t find(const Node* leaf) const { return slots_.empty() ? kNone : slot(leaf).place; }
  /// The place of a leaf, to set; kNone at first.
  std::int64_t& operator[](const Node* leaf) {
    if (2 * (used_ + 1) > slots_.size()) grow();
    Slot& found = const_cast<Slot&>(slot(leaf));
    used_ += found.leaf ? 0 : 1;
    found.leaf = leaf;
    return found.place;
  }

 private:
  struct Slot {
    const Node* leaf = nullptr;
    std::int64_t place = kNone;
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

/// Rows of products that are put off until they are done at once: enough for a product at full
/// speed, few enough to be still in the cache; more for a weight so large that reading and writing
/// its gradient each time would cost more.
std::int64_t rows_together(const Shape& weight) {
  return weight.numel() > std::int64_t{1} << 19 ? 512 : 256;
}

}  // namespace

/// One walk from results to leaves. `entries` holds every node that the results depend on, inputs
/// before outputs, so that walking it backwards meets a node after all that depend on it.
struct Back::Sweep {
  /// What few entries have.
  struct Extra {
    PoolVector<Product> products;  // still to be added to grad
    std::int64_t rows = 0;         // of them
    Tensor transposed;             // their sum so far, if it is kept transposed
    PoolVector<Tensor> results;    // gradients of the results from the second on
  };
  struct Entry {
    Node* node = nullptr;
    Tensor grad;                    // summed so far
    std::uint64_t outer_sweep = 0;  // what the node carried before, for a sweep inside a sweep
    std::int64_t outer_slot = 0;
    // Elements of grad that are filled, where parts have been put into it; all of them if `first`
    // is negative.
    std::int64_t first = -1, last = -1;
    Lazy<Extra> extra;
    bool wanted = true;   // its gradient is asked for, or leads to one that is
    bool passes = false;  // it has such inputs
    bool target = false;
    bool shared = false;  // several rules add to grad; not known of a leaf
    bool placed = false;  // its gradient lies where it belongs already: Back::place

    bool has_results() const { return extra && !extra->results.empty(); }
  };
  PoolVector<Entry> entries;
  LeafPlaces leaves;
  const std::uint64_t id = next_sweep_id();
  const bool watched = detail::watched();

  explicit Sweep(const std::vector<Tensor>& roots) {
    struct Visit {
      Node* node;
      std::uint32_t next;
      std::uint64_t outer_sweep;
      std::int64_t outer_slot;
    };
    PoolVector<Visit> path;
    const auto enter = [&](Node* node) {
      if (!node) return;
      if (node->leaf) {
        std::int64_t& place = leaves[node];
        if (place != LeafPlaces::kNone) return;
        place = static_cast<std::int64_t>(entries.size());
        Entry entry{};
        entry.node = node;
        entries.push_back(std::move(entry));
        return;
      }
      if (node->sweep == id) {
        entries[static_cast<std::size_t>(node->slot)].shared = true;
        return;
      }
      path.push_back({node, 0, node->sweep, node->slot});
      node->sweep = id;
    };
    for (const Tensor& root : roots) {
      enter(root.impl().node.get());
      while (!path.empty()) {
        Visit& visit = path.back();
        if (visit.next < visit.node->input_count) {
          enter(visit.node->inputs[visit.next++].get());
          continue;
        }
        visit.node->slot = static_cast<std::int64_t>(entries.size());
        Entry entry{};
        entry.node = visit.node;
        entry.outer_sweep = visit.outer_sweep;
        entry.outer_slot = visit.outer_slot;
        entry.passes = true;
        entries.push_back(std::move(entry));
        path.pop_back();
      }
    }
  }
  ~Sweep() {
    for (Entry& entry : entries) {
      if (entry.node->leaf) continue;
      entry.node->sweep = entry.outer_sweep;
      entry.node->slot = entry.outer_slot;
    }
  }
  Sweep(const Sweep&) = delete;
  Sweep& operator=(const Sweep&) = delete;

  Entry* find(const Node* node) {
    if (!node) return nullptr;
    const std::int64_t place = node->leaf          ? leaves.find(node)
                               : node->sweep == id ? node->slot
                                                   : LeafPlaces::kNone;
    return place == LeafPlaces::kNone ? nullptr : &entries[static_cast<std::size_t>(place)];
  }

  /// Keeps only what leads to one of `targets`.
  void restrict_to(const std::vector<Tensor>& targets) {
    for (const Tensor& x : targets)
      if (Entry* entry = find(x.impl().node.get())) entry->target = true;
    for (Entry& entry : entries) {
      entry.passes = false;
      for (std::uint32_t i = 0; !entry.passes && i < entry.node->input_count; ++i)
        if (const Entry* input = find(entry.node->inputs[i].get())) entry.passes = input->wanted;
      entry.wanted = entry.passes || entry.target;
    }
  }

  static void add(Tensor& sum, Tensor g) {
    if (!sum.defined()) {
      sum = std::move(g);
    } else if (!recording && detail::is_exclusive(sum)) {
      detail::accumulate(sum, g);
    } else {
      sum = sum + g;
    }
  }

  void seed(const char* name, const Tensor& y, const Tensor& seed) {
    Tensor g = seed;
    if (!g.defined()) {
      if (y.numel() != 1)
        fail<GraphError>(
            "{}: a tensor of shape {} needs a seed: the gradient is defined for one "
            "element, such as a loss",
            name, y.shape());
      g = ones(y.shape(), y.dtype());
    }
    if (g.shape() != y.shape())
      fail<ShapeError>("{}: the seed has shape {}, the tensor {}", name, g.shape(), y.shape());
    if (g.dtype() != y.dtype())
      fail<DTypeError>("{}: the seed is {}, the tensor {}", name, g.dtype(), y.dtype());
    add(find(y.impl().node.get())->grad, std::move(g));
  }

  /// Fills what no part has reached.
  static void finish(Entry& entry) {
    if (entry.first < 0) return;
    fill_zero(entry.grad, 0, entry.first);
    fill_zero(entry.grad, entry.last, entry.grad.numel());
    entry.first = -1;
  }

  static void fill_zero(const Tensor& x, std::int64_t first, std::int64_t last) {
    if (first >= last) return;
    detail::dispatch_floating(x.dtype(), [&]<class T>(T) {
      std::fill(detail::overwrite<T>(x) + first, detail::overwrite<T>(x) + last, T(0));
    });
  }

  /// Marks the elements [begin, end) as filled, for the caller to do so. False if some of them are
  /// already. What lies between them and the others is filled with zeros.
  static bool reserve(Entry& entry, std::int64_t begin, std::int64_t end) {
    if (!entry.grad.defined()) {
      entry.grad = empty(entry.node->shape, entry.node->dtype);
      entry.first = entry.last = begin;
    }
    if (entry.first < 0 || (end > entry.first && begin < entry.last)) return false;
    if (end <= entry.first) {
      fill_zero(entry.grad, end, entry.first);
      entry.first = begin;
    } else {
      fill_zero(entry.grad, entry.last, begin);
      entry.last = end;
    }
    return true;
  }

  /// Adds g to a part of the gradient; `take(whole)` is a window on the part. The parts of a
  /// sequence come one after the other: such a part is copied to its place, so that nothing is
  /// filled with zeros first and read again.
  template <class Take>
  static void add_window(Entry& entry, const Take& take, const Tensor& g) {
    if (g.numel() > 0 && !detail::trace && (!entry.grad.defined() || entry.first >= 0)) {
      const Tensor part =
          take(entry.grad.defined() ? entry.grad
                                    : entry.grad = empty(entry.node->shape, entry.node->dtype));
      const std::int64_t begin = part.impl().offset;
      if (entry.first < 0) entry.first = entry.last = begin;
      if (part.is_contiguous() && reserve(entry, begin, begin + g.numel())) {
        detail::copy_into(part, g);
        return;
      }
    }
    detail::accumulate(take(own_grad(entry)), g);
  }

  /// The gradient so far as a tensor that may be added to in place.
  static Tensor& own_grad(Entry& entry) {
    Tensor& sum = entry.grad;
    finish(entry);
    if (!sum.defined()) {
      sum = zeros(entry.node->shape, entry.node->dtype);
    } else if (!detail::is_exclusive(sum)) {
      Tensor own = empty(sum.shape(), sum.dtype());
      detail::copy_into(own, sum);
      sum = std::move(own);
    }
    return sum;
  }

  /// Computes the products that were put off. The kernel is at its best where a product is wider
  /// than high; where the weight is higher, as [4 * hidden_size, hidden_size], the sum is kept
  /// transposed.
  static void settle(Entry& entry) {
    if (!entry.extra || entry.extra->products.empty()) return;
    const Shape& shape = entry.node->shape;
    const bool transposed = shape[0] > shape[1];
    Tensor& sum = transposed ? entry.extra->transposed : entry.grad;
    const bool first = !sum.defined();
    if (first) sum = empty(transposed ? Shape{shape[1], shape[0]} : shape, entry.node->dtype);
    if (!transposed) own_grad(entry);
    detail::dispatch_floating(sum.dtype(), [&]<class T>(T) {
      PoolVector<kernels::Term<T>> terms;
      for (const Product& p : entry.extra->products) {
        const Tensor &a = transposed ? p.g : p.a, &g = transposed ? p.a : p.g;
        terms.push_back({a.size(0),
                         {detail::read<T>(a), a.strides()[1], a.strides()[0]},
                         {detail::read<T>(g), g.strides()[0], g.strides()[1]}});
      }
      kernels::gemm_sum<T>(sum.size(0), sum.size(1), terms.data(),
                           static_cast<std::int64_t>(terms.size()), detail::overwrite<T>(sum),
                           sum.size(1), !first);
    });
    entry.extra->products.clear();
    entry.extra->rows = 0;
  }

  /// Adds the sum of products that is kept transposed.
  static void add_transposed(Entry& entry) {
    if (!entry.extra || !entry.extra->transposed.defined()) return;
    const Tensor sum = std::exchange(entry.extra->transposed, Tensor());
    if (entry.grad.defined()) {
      add(entry.grad, transpose(sum));
      return;
    }
    entry.grad = empty(entry.node->shape, entry.node->dtype);
    detail::dispatch_floating(sum.dtype(), [&]<class T>(T) {
      kernels::float_kernels<T>().transpose(sum.size(0), sum.size(1), detail::read<T>(sum),
                                            detail::overwrite<T>(entry.grad));
    });
  }

  void run(bool to_leaves, bool retain_graph) {
    kernels::FlushDenormals flush;
    for (std::size_t i = entries.size(); i-- > 0;) {
      Entry& entry = entries[i];
      Node& node = *entry.node;
      if (!entry.wanted) continue;
      finish(entry);
      settle(entry);
      add_transposed(entry);
      if (entry.grad.defined() || entry.has_results()) {
        if (watched) [[unlikely]]
          detail::arrived(node, entry.grad);
        if (node.hooks && entry.grad.defined()) run_hooks(node, entry.grad);
        if (to_leaves && node.keeps_grad && entry.grad.defined()) keep_grad(node, entry);
        if (entry.passes) {
          if (node.released)
            fail<GraphError>(
                "backward: the graph behind {} has been freed by an earlier backward; "
                "pass retain_graph to the first one",
                node.op);
          Back back(entry.grad, node, *this);
          node.run(back);
        }
        if (watched) [[unlikely]]
          detail::passed(node);
        if (!entry.target) entry.grad = Tensor();
        if (entry.extra) entry.extra->results.clear();
      }
      if (!retain_graph && entry.passes) node.release_buffers();
    }
  }

  static void run_hooks(const Node& node, Tensor& g) {
    const auto hooks = *node.hooks;  // a hook may remove itself
    for (const auto& [number, hook] : hooks) {
      Tensor replaced = hook(g);
      if (!replaced.defined()) continue;
      if (replaced.shape() != g.shape() || replaced.dtype() != g.dtype())
        fail<ShapeError>("hook: a gradient of shape {} and dtype {} was replaced by {} and {}",
                         g.shape(), g.dtype(), replaced.shape(), replaced.dtype());
      g = std::move(replaced);
    }
  }

  /// Adds to .grad. What is stored is nobody else's, so the next sum can go in place.
  static void keep_grad(Node& node, Entry& entry) {
    Tensor g = entry.node->leaf && !entry.target ? std::move(entry.grad) : entry.grad;
    if (!node.grad.defined() && !recording && !detail::is_exclusive(g)) {
      node.grad = empty(g.shape(), g.dtype());
      detail::copy_into(node.grad, g);
    } else {
      add(node.grad, std::move(g));
    }
  }
};

bool Back::needs(int i) const {
  const auto* entry = sweep_.find(node_.inputs[i].get());
  return entry && entry->wanted;
}

Tensor Back::in(int i) const {
  const detail::Saved& saved = node_.saved[i];
  if (detail::version(saved.tensor) != saved.version)
    fail<GraphError>(
        "backward: input {} of {}, a tensor of shape {}, was written in place after it "
        "was used; the gradient needs its old values",
        i, node_.op, saved.tensor.shape());
  return saved.tensor;
}

Tensor Back::out() const {
  if (node_.output->version != node_.output_version)
    fail<GraphError>(
        "backward: the output of {}, a tensor of shape {}, was written in place; the "
        "gradient needs its old values",
        node_.op, node_.shape);
  Tensor y = detail::attach(node_.output, node_.dtype, node_.shape, node_.output_offset);
  if (grad_enabled()) y.impl().node = Ref<Node>::share(&node_);
  return y;
}

void Back::add(int i, Tensor g) {
  auto* entry = sweep_.find(node_.inputs[i].get());
  if (!entry || !entry->wanted || entry->placed) return;
  const Node& input = *entry->node;
  if (g.dtype() != input.dtype)
    fail<DTypeError>("backward: {} gives input {} a gradient of dtype {}, the input is {}",
                     node_.op, i, g.dtype(), input.dtype);
  if (g.shape() != input.shape) {
    if (g.dim() < input.shape.size() ||
        detail::broadcast_shapes(node_.op, g.shape(), input.shape) != g.shape())
      fail<ShapeError>("backward: {} gives input {} a gradient of shape {}, the input is {}",
                       node_.op, i, g.shape(), input.shape);
    g = sum_to(g, input.shape);
  }
  if (sweep_.watched) [[unlikely]]
    detail::added(node_, i, g);
  Sweep::finish(*entry);
  Sweep::add(entry->grad, std::move(g));
}

Tensor Back::take_grad(int i) {
  auto* entry = sweep_.find(node_.inputs[i].get());
  if (!entry || !entry->wanted || entry->placed || sweep_.watched || create_graph())
    return Tensor();
  Sweep::finish(*entry);
  return std::exchange(entry->grad, Tensor());
}

bool Back::puts_off(int i) const {
  const Sweep::Entry* entry = sweep_.find(node_.inputs[i].get());
  if (!entry || !entry->wanted || create_graph()) return false;
  const Node& weight = *entry->node;
  if (!weight.is_transpose) return weight.leaf;
  return weight.inputs[0]->leaf && !weight.hooks && !weight.keeps_grad && !entry->target;
}

void Back::add_product(int i, const Tensor& a, const Tensor& g) {
  if (!puts_off(i)) {
    if (needs(i)) add(i, matmul(transpose(a), g));
    return;
  }
  const Node* weight = node_.inputs[i].get();
  const bool transposed = weight->is_transpose;
  Sweep::Entry& entry = *sweep_.find(transposed ? weight->inputs[0].get() : weight);
  Sweep::Extra& extra = entry.extra.make();
  extra.products.push_back(transposed ? Product{g, a} : Product{a, g});
  extra.rows += a.shape()[0];
  if (extra.rows >= rows_together(entry.node->shape)) Sweep::settle(entry);
}

void Back::pass_to_operation(int k) {
  Sweep::Entry* operation = sweep_.find(node_.inputs[0].get());
  if (!operation || !operation->wanted) return;
  auto& results = operation->extra.make().results;
  if (results.size() < static_cast<std::size_t>(k)) results.resize(static_cast<std::size_t>(k));
  // Under create_graph a sweep may come here by several places of the same result.
  Sweep::add(results[static_cast<std::size_t>(k) - 1], grad);
}

Tensor Back::grad_of(int k) const {
  if (k == 0) return grad;
  const Sweep::Entry& entry = *sweep_.find(&node_);
  if (!entry.extra || entry.extra->results.size() < static_cast<std::size_t>(k)) return Tensor();
  return entry.extra->results[static_cast<std::size_t>(k) - 1];
}

Tensor Back::result(int k, Tensor value) const {
  if (!create_graph()) return value;
  if (k == 0)
    value.impl().node = Ref<Node>::share(&node_);
  else
    detail::link_result(node_, k, value);
  return value;
}

bool Back::add_rows(int i, const Tensor& rows, const Tensor& values) {
  const auto* entry = sweep_.find(node_.inputs[i].get());
  if (!entry || !entry->wanted || !entry->node->leaf || entry->node->hooks || entry->target ||
      create_graph())
    return false;
  static_cast<Leaf*>(entry->node)->rows.push_back({rows, values});
  return true;
}

Tensor Back::part_target(int i) {
  auto* entry = sweep_.find(node_.inputs[i].get());
  return entry && entry->wanted ? Sweep::own_grad(*entry) : Tensor();
}

void Back::add_window(int i, Tensor (*take)(const void*, const Tensor&), const void* context) {
  auto* entry = sweep_.find(node_.inputs[i].get());
  if (!entry || !entry->wanted) return;
  Sweep::add_window(
      *entry, [&](const Tensor& whole) { return take(context, whole); }, grad);
}

Tensor Back::place(int i) {
  if (create_graph() || detail::trace) return Tensor();
  const auto untouched = [](const Sweep::Entry* e) {
    return e && e->wanted && !e->target && !e->shared && !e->grad.defined() && !e->node->hooks &&
           !e->node->keeps_grad;
  };
  const Node* part = node_.inputs[i].get();
  auto* entry = sweep_.find(part);
  if (!untouched(entry)) return Tensor();
  if (part->passes_on >= 0) {
    part = part->inputs[part->passes_on].get();
    entry = sweep_.find(part);
    if (!untouched(entry)) return Tensor();
  }
  if (part->window < 0) return Tensor();
  auto* whole = sweep_.find(part->inputs[0].get());
  if (!whole || !whole->wanted || part->shape.numel() == 0 ||
      !Sweep::reserve(*whole, part->window, part->window + part->shape.numel()))
    return Tensor();
  entry->placed = true;
  return detail::attach(whole->grad.impl().storage, part->dtype, part->shape, part->window);
}

void Back::add_recorded_part(int i, const std::function<void(const Tensor&, const Tensor&)>& put,
                             const std::function<Tensor(const Tensor&)>& take) {
  if (!needs(i)) return;
  const Node& input = *node_.inputs[i];
  Tensor whole = zeros(input.shape, input.dtype);
  {
    NoGrad no_grad;
    put(whole, grad);
  }
  add(i, record("part", {grad}, std::move(whole), Keep::none,
                [take](Back& back) { back.add(0, take(back.grad)); }));
}

// --- backward and grad --------------------------------------------------------------------------

namespace {

void check_roots(const char* name, const std::vector<Tensor>& ys,
                 const std::vector<Tensor>& seeds) {
  if (ys.empty()) fail<GraphError>("{}: nothing to start from", name);
  if (!seeds.empty() && seeds.size() != ys.size())
    fail<ValueError>("{}: {} seeds for {} tensors", name, seeds.size(), ys.size());
  for (const Tensor& y : ys)
    if (!y.requires_grad())
      fail<GraphError>(
          "{}: the tensor of shape {} is not on the tape: nothing that it was computed "
          "from requires a gradient, or it was computed under NoGrad",
          name, y.shape());
}

}  // namespace

void backward(const std::vector<Tensor>& ys, const std::vector<Tensor>& seeds, bool retain_graph,
              bool create_graph) {
  check_roots("backward", ys, seeds);
  detail::GradMode mode(create_graph);
  Back::Sweep sweep(ys);
  for (std::size_t i = 0; i < ys.size(); ++i)
    sweep.seed("backward", ys[i], seeds.empty() ? Tensor() : seeds[i]);
  sweep.run(true, retain_graph || create_graph);
}

std::vector<Tensor> grad(const std::vector<Tensor>& ys, const std::vector<Tensor>& xs,
                         const GradOptions& options) {
  check_roots("grad", ys, options.grad_outputs);
  for (std::size_t i = 0; i < xs.size(); ++i)
    if (!xs[i].requires_grad())
      fail<GraphError>("grad: x number {} of shape {} does not require a gradient", i,
                       xs[i].shape());
  detail::GradMode mode(options.create_graph);
  Back::Sweep sweep(ys);
  sweep.restrict_to(xs);
  for (std::size_t i = 0; i < ys.size(); ++i)
    sweep.seed("grad", ys[i], options.grad_outputs.empty() ? Tensor() : options.grad_outputs[i]);
  sweep.run(false, options.retain_graph.value_or(options.create_graph));
  std::vector<Tensor> result;
  for (std::size_t i = 0; i < xs.size(); ++i) {
    const auto* entry = sweep.find(xs[i].impl().node.get());
    result.push_back(entry ? entry->grad : Tensor());
    if (!result.back().defined() && !options.allow_unused)
      fail<GraphError>(
          "grad: no y depends on x number {} of shape {}; pass allow_unused to get an "
          "undefined gradient",
          i, xs[i].shape());
  }
  return result;
}

Tensor grad(const Tensor& y, const Tensor& x, const GradOptions& options) {
  return grad(std::vector<Tensor>{y}, std::vector<Tensor>{x}, options)[0];
}

// --- A tensor's place on the tape ---------------------------------------------------------------

void Tensor::backward(const Tensor& seed, bool retain_graph, bool create_graph) const {
  unroll::backward({*this}, seed.defined() ? std::vector<Tensor>{seed} : std::vector<Tensor>{},
                   retain_graph, create_graph);
}

Tensor& Tensor::requires_grad_(bool value) {
  auto& node = impl().node;
  if (value) {
    detail::require_floating("requires_grad_", *this);
    if (node) return *this;
    auto* leaf = new (detail::pool_allocate(sizeof(Leaf))) Leaf;
    leaf->allocated = sizeof(Leaf);
    leaf->dtype = dtype();
    leaf->shape = shape();
    node = Ref<Node>::adopt(leaf);
  } else if (node) {
    if (!node->leaf)
      fail<GraphError>("requires_grad_: the tensor is the result of {}; use detach()", node->op);
    node.reset();
  }
  return *this;
}

bool Tensor::is_leaf() const { return !impl().node || impl().node->leaf; }

Tensor Tensor::grad() const {
  if (!impl().node) return Tensor();
  Node& node = *impl().node;
  if (node.leaf && !static_cast<Leaf&>(node).rows.empty()) {
    Tensor whole = node.grad;
    if (!whole.defined()) {
      whole = zeros(node.shape, node.dtype);
    } else {  // somebody may hold it
      whole = empty(node.shape, node.dtype);
      detail::copy_into(whole, node.grad);
    }
    for (const RowGrad& part : std::exchange(static_cast<Leaf&>(node).rows, {}))
      detail::add_rows(whole, part);
    node.grad = whole;
  }
  return node.grad;
}

RowGrad row_grad(const Tensor& leaf) {
  const auto& node = leaf.impl().node;
  if (!node || !node->leaf || node->grad.defined()) return {};
  auto& rows = static_cast<Leaf&>(*node).rows;
  if (rows.empty()) return {};
  rows = {detail::coalesce(rows)};
  return rows[0];
}

void set_row_grad(const Tensor& leaf, const RowGrad& grad) {
  if (!leaf.is_leaf() || !leaf.requires_grad())
    fail<GraphError>("set_row_grad: the tensor is not a leaf that requires a gradient");
  detail::check_rows("set_row_grad", leaf, grad);
  Tensor(leaf).set_grad(Tensor());
  static_cast<Leaf&>(*leaf.impl().node).rows = {{grad.rows.contiguous(), grad.values}};
}

void Tensor::set_grad(const Tensor& grad) {
  const auto& node = impl().node;
  if (node && node->leaf) static_cast<Leaf&>(*node).rows.clear();
  if (!grad.defined()) {
    if (node) node->grad = Tensor();
    return;
  }
  if (!node) fail<GraphError>("set_grad: the tensor does not require a gradient");
  if (grad.shape() != shape())
    fail<ShapeError>("set_grad: the gradient has shape {}, the tensor {}", grad.shape(), shape());
  if (grad.dtype() != dtype())
    fail<DTypeError>("set_grad: the gradient is {}, the tensor {}", grad.dtype(), dtype());
  node->grad = grad;
}

namespace {

Node& node_of(const Tensor& x, const char* what) {
  const auto& node = x.impl().node;
  if (!node) fail<GraphError>("{}: the tensor does not require a gradient", what);
  return *node;
}

}  // namespace

void Tensor::retain_grad() { node_of(*this, "retain_grad").keeps_grad = true; }

std::int64_t Tensor::register_hook(Hook hook) {
  Node& node = node_of(*this, "register_hook");
  if (!node.hooks) node.hooks = new std::vector<std::pair<std::int64_t, Hook>>;
  static std::atomic<std::int64_t> next{0};  // a removed hook's number is not given out again
  const std::int64_t number = next++;
  node.hooks->emplace_back(number, std::move(hook));
  return number;
}

void Tensor::remove_hook(std::int64_t number) {
  Node& node = node_of(*this, "remove_hook");
  if (node.hooks)
    std::erase_if(*node.hooks, [&](const auto& entry) { return entry.first == number; });
}

}  // namespace unroll
