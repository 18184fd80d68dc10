#include "framework/sweep.h"

#include <algorithm>
#include <atomic>

#include "framework/internal.h"
#include "framework/kernels/parallel.h"
#include "framework/ops.h"
#include "framework/trace.h"

namespace unroll {

using detail::fail;
using detail::Node;
using detail::Product;
using detail::Ref;

namespace {

const Tensor kUndefined;

/// Rows of products that are put off until they are done at once: enough for a product at full
/// speed, few enough to be still in the cache; more for a weight so large that reading and writing
/// its gradient each time would cost more.
std::int64_t rows_together(const Shape& weight) {
  return weight.numel() > std::int64_t{1} << 19 ? 512 : 256;
}

void fill_zero(const Tensor& x, std::int64_t first, std::int64_t last) {
  if (first >= last) return;
  detail::dispatch_floating(x.dtype(), [&]<class T>(T) {
    std::fill(detail::overwrite<T>(x) + first, detail::overwrite<T>(x) + last, T(0));
  });
}

void run_hooks(const Node& node, Tensor& g) {
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

}  // namespace

// --- The walk -----------------------------------------------------------------------------------

std::uint64_t Back::Sweep::next_id() {
  static std::atomic<std::uint64_t> id{0};
  return ++id;
}

Back::Sweep::Sweep(const std::vector<Tensor>& roots) {
  struct Visit {
    Node* node;
    std::uint32_t next;  ///< its input that is to be visited
  };
  PoolVector<Visit> path;  // to the node that is being visited
  /// Whether a node is to be visited before the one that it is an input of.
  const auto is_new = [&](Node* node) {
    if (!node) return false;
    if (node->leaf) {
      Entry*& entry = leaves[node];
      if (!entry) entry = entries.add(node);
      return false;
    }
    if (node->sweep == id) {
      node->entry->shared = true;
      return false;
    }
    if (node->sweep != 0) outer.push_back({node, node->sweep, node->entry});
    node->sweep = id;
    detail::prefetch(node->earlier);
    return true;
  };
  for (const Tensor& root : roots) {
    Visit at{root.impl().node.get(), 0};
    if (!is_new(at.node)) continue;
    for (;;) {
      if (at.next < at.node->input_count) {
        Node* input = at.node->input(at.next++);
        if (!is_new(input)) continue;
        path.push_back(at);
        at = {input, 0};
        continue;
      }
      at.node->entry = entries.add(at.node);
      if (path.empty()) break;
      at = path.back();
      path.pop_back();
    }
  }
}

Back::Sweep::~Sweep() {
  for (const Outer& o : outer) {
    o.node->sweep = o.sweep;
    o.node->entry = o.entry;
  }
}

void Back::Sweep::restrict_to(const std::vector<Tensor>& targets) {
  for (const Tensor& x : targets)
    if (Entry* entry = find(x.impl().node.get())) entry->target = true;
  entries.forwards([&](Entry& entry) {
    entry.passes = false;
    for (std::uint32_t i = 0; !entry.passes && i < entry.node->input_count; ++i)
      if (const Entry* input = find(entry.node->input(i))) entry.passes = input->wanted;
    entry.wanted = entry.passes || entry.target;
  });
}

void Back::Sweep::add(Tensor& sum, Tensor g) {
  if (!sum.defined()) {
    sum = std::move(g);
  } else if (!grad_enabled() && detail::is_exclusive(sum)) {
    detail::accumulate(sum, g);
  } else {
    sum = sum + g;
  }
}

void Back::Sweep::seed(const char* name, const Tensor& y, const Tensor& seed) {
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

void Back::Sweep::leave_to_sum(Entry& entry) {
  Entry& part = *entry.filled->part;
  const Tensor old = std::exchange(entry.grad, empty(entry.node->shape, entry.node->dtype));
  detail::copy_into(entry.grad, old);
  fill_zero(entry.grad, part.node->window, part.node->window + part.node->shape.numel());
  part.placed = false;
}

void Back::Sweep::fill_rest(Entry& entry) {
  if (entry.filled->has_open_sum()) leave_to_sum(entry);
  const auto& filled = *entry.filled;
  fill_zero(entry.grad, 0, filled.first);
  fill_zero(entry.grad, filled.gap, filled.gap_end);
  fill_zero(entry.grad, filled.last, entry.grad.numel());
  entry.filled.reset();
}

Back::Sweep::Entry* Back::Sweep::place(Entry& entry, int farthest) {
  Node& node = *entry.node;
  if (farthest == 0 || watched || !entry.wanted || entry.target || entry.grad.defined() ||
      node.hooks || node.keeps_grad)
    return nullptr;
  if (node.window >= 0) {
    Entry* whole = find(node.input(0));
    if (!whole || !whole->wanted || whole->fixed) return nullptr;
    if (whole->filled && whole->filled->has_open_sum()) return nullptr;
    entry.placed = reserve(*whole, node);
    return entry.placed ? &entry : nullptr;
  }
  for (int i = 0; node.passes_on >> i != 0; ++i) {
    if ((node.passes_on >> i & 1) == 0) continue;
    Entry* input = find(node.input(i));
    if (!input || input->shared) continue;
    if (Entry* part = place(*input, farthest - 1)) return part;
  }
  return nullptr;
}

Tensor Back::Sweep::memory_of(const Entry& part, const Node& node) const {
  const Node& piece = *part.node;
  return detail::attach(find(piece.input(0))->grad.impl().storage, node.dtype, node.shape,
                        piece.window);
}

void Back::Sweep::place_sum(Entry& entry, std::int64_t begin) {
  if (entry.node->passes_on == 0) return;
  Entry* part = place(entry);
  if (!part) return;
  entry.grad = memory_of(*part, *entry.node);
  entry.fixed = true;
  entry.filled.make() = {.first = begin, .last = begin};
  auto& whole = *find(part->node->input(0))->filled;
  whole.sum = &entry;
  whole.part = part;
}

bool Back::Sweep::reserve(Entry& entry, const Node& part) {
  const std::int64_t begin = part.window, end = begin + part.shape.numel();
  if (begin < 0 || begin == end) return false;
  if (!entry.grad.defined()) {
    entry.grad = empty(entry.node->shape, entry.node->dtype);
    entry.filled.make() = {.first = begin, .last = begin};
  }
  if (!entry.filled) return false;
  auto& [first, last, gap, gap_end, sum, open_part] = *entry.filled;
  if (begin >= gap && end <= gap_end) {
    if (begin > gap) {
      fill_zero(entry.grad, end, gap_end);
      gap_end = begin;
    } else {
      gap = end;
    }
    return true;
  }
  if (end > first && begin < last) return false;
  const bool before = end <= first;
  const std::int64_t from = before ? end : last, to = before ? first : begin;
  if (from < to) {
    fill_zero(entry.grad, gap, gap_end);
    gap = from;
    gap_end = to;
  }
  (before ? first : last) = before ? begin : end;
  return true;
}

void Back::Sweep::add_window(Entry& entry, const Node& part,
                             Tensor (*take)(const void* context, const Tensor& whole),
                             const void* context, const Tensor& g) {
  if (!detail::trace && part.window >= 0 && !entry.grad.defined()) place_sum(entry, part.window);
  if (!detail::trace && reserve(entry, part))
    detail::copy_into(entry.grad, part.window, g);
  else
    detail::accumulate(take(context, own_grad(entry)), g);
}

Tensor& Back::Sweep::own_grad(Entry& entry) {
  Tensor& sum = entry.grad;
  finish(entry);
  if (!sum.defined()) {
    sum = zeros(entry.node->shape, entry.node->dtype);
  } else if (!entry.fixed && !detail::is_exclusive(sum)) {
    Tensor own = empty(sum.shape(), sum.dtype());
    detail::copy_into(own, sum);
    sum = std::move(own);
  }
  return sum;
}

bool Back::Sweep::puts_off(const Entry& entry) {
  if (!entry.wanted || grad_enabled()) return false;
  const Node& weight = *entry.node;
  if (!weight.is_transpose) return weight.leaf;
  return weight.input(0)->leaf && !weight.hooks && !weight.keeps_grad && !entry.target;
}

void Back::Sweep::settle(Entry& entry) {
  if (entry.extra->products.empty()) return;
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

bool Back::Sweep::put_rows_off(Entry& entry, const Tensor& g) {
  const Node& bias = *entry.node;
  if (!bias.leaf || bias.shape.size() != 1 || g.dim() != 2 || g.shape()[1] != bias.shape[0] ||
      g.strides()[1] != 1)
    return false;
  Extra& extra = entry.extra.make();
  extra.matrices.push_back(g);
  extra.matrix_rows += g.shape()[0];
  if (extra.matrix_rows >= rows_together(bias.shape)) settle_rows(entry);
  return true;
}

void Back::Sweep::settle_rows(Entry& entry) {
  Extra& extra = entry.extra.make();
  if (extra.matrices.empty()) return;
  Tensor sum = zeros(entry.node->shape, entry.node->dtype);
  detail::dispatch_floating(sum.dtype(), [&]<class T>(T) {
    const auto add_rows =
        kernels::float_kernels<T>().elementwise[static_cast<std::size_t>(kernels::Op::add)].rows;
    T* const to = detail::overwrite<T>(sum);
    for (const Tensor& g : extra.matrices)
      add_rows(g.shape()[0], sum.numel(), to, to, detail::read<T>(g), nullptr,
               {.b = g.strides()[0]}, nullptr);
  });
  extra.matrices.clear();
  extra.matrix_rows = 0;
  add(entry.grad, std::move(sum));
}

bool Back::Sweep::fit(const Node& operation, int i, Entry& entry, Tensor& g) const {
  const Node& input = *entry.node;
  if (g.dtype() != input.dtype)
    fail<DTypeError>("backward: {} gives input {} a gradient of dtype {}, the input is {}",
                     operation.op, i, g.dtype(), input.dtype);
  if (g.dim() < input.shape.size() ||
      detail::broadcast_shapes(operation.op, g.shape(), input.shape) != g.shape())
    fail<ShapeError>("backward: {} gives input {} a gradient of shape {}, the input is {}",
                     operation.op, i, g.shape(), input.shape);
  if (!watched && !grad_enabled() && put_rows_off(entry, g)) return false;
  g = sum_to(g, input.shape);
  return true;
}

void Back::Sweep::add_transposed(Entry& entry) {
  if (!entry.extra->transposed.defined()) return;
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

[[gnu::always_inline]] inline void Back::Sweep::visit(Entry& entry, bool to_leaves,
                                                      bool retain_graph) {
  Node& node = *entry.node;
  finish(entry);
  entry.visited = true;
  if (entry.extra) {
    settle(entry);
    settle_rows(entry);
    add_transposed(entry);
  }
  if (entry.grad.defined() || entry.has_results()) {
    if (watched) [[unlikely]]
      detail::arrived(node, entry.grad);
    if (node.hooks && entry.grad.defined()) run_hooks(node, entry.grad);
    if (to_leaves && node.keeps_grad && entry.grad.defined()) keep_grad(node, entry);
    Tensor asked_for = entry.target ? entry.grad : Tensor();
    if (entry.passes) {
      if (node.released)
        fail<GraphError>(
            "backward: the graph behind {} has been freed by an earlier backward; "
            "pass retain_graph to the first one",
            node.op);
      Back back(entry, *this);
      node.run(back);
    }
    if (watched) [[unlikely]]
      detail::passed(node);
    entry.grad = std::move(asked_for);
    entry.second_grad = Tensor();
    if (entry.extra) entry.extra->results.clear();
  }
  if (!retain_graph && entry.passes) node.release_buffers();
}

void Back::Sweep::run(bool to_leaves, bool retain_graph) {
  kernels::FlushDenormals flush;
  entries.backwards([&](Entry& entry) {
    if (entry.wanted) visit(entry, to_leaves, retain_graph);
  });
}

void Back::Sweep::keep_grad(Node& node, Entry& entry) {
  Tensor g = entry.node->leaf && !entry.target ? std::move(entry.grad) : entry.grad;
  if (!node.grad.defined() && !grad_enabled() && !detail::is_exclusive(g)) {
    node.grad = empty(g.shape(), g.dtype());
    detail::copy_into(node.grad, g);
  } else {
    add(node.grad, std::move(g));
  }
}

// --- What a rule asks for -----------------------------------------------------------------------

Back::Back(detail::SweepEntry& entry, Sweep& sweep)
    : grad(entry.grad), entry_(entry), node_(*entry.node), sweep_(sweep) {}

bool Back::needs(int i) const {
  const auto* entry = sweep_.find(node_.input(i));
  return entry && entry->wanted;
}

const Tensor& Back::in(int i) const {
  const detail::Saved& saved = node_.saved()[i];
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
  auto* entry = sweep_.find(node_.input(i));
  if (!entry || !entry->wanted || entry->placed) return;
  const Node& input = *entry->node;
  const bool fits = g.dtype() == input.dtype && g.shape() == input.shape;
  if (fits && !entry->grad.defined() && !sweep_.watched) [[likely]]
    entry->grad = std::move(g);
  else if (fits || sweep_.fit(node_, i, *entry, g))
    add_to(*entry, i, std::move(g));
}

void Back::add_to(detail::SweepEntry& entry, int i, Tensor g) {
  if (sweep_.watched) [[unlikely]]
    detail::added(node_, i, g);
  Sweep::finish(entry);
  if (entry.fixed)
    detail::accumulate(entry.grad, g);
  else
    Sweep::add(entry.grad, std::move(g));
}

Tensor Back::take_grad(int i) {
  auto* entry = sweep_.find(node_.input(i));
  if (!entry || !entry->wanted || entry->placed || entry->fixed || sweep_.watched || create_graph())
    return Tensor();
  Sweep::finish(*entry);
  return std::exchange(entry->grad, Tensor());
}

bool Back::takes_rows(int i) const {
  const auto* entry = sweep_.find(node_.input(i));
  return entry && entry->node->takes_rows && !entry->target && !entry->node->hooks &&
         !entry->node->keeps_grad && !sweep_.watched && !create_graph();
}

bool Back::puts_off(int i) const {
  const Sweep::Entry* entry = sweep_.find(node_.input(i));
  return entry && sweep_.puts_off(*entry);
}

void Back::add_product(int i, const Tensor& a, const Tensor& g) {
  Sweep::Entry* entry = sweep_.find(node_.input(i));
  if (!entry || !entry->wanted) return;
  if (!sweep_.puts_off(*entry)) return add(i, matmul(transpose(a), g));
  const bool transposed = entry->node->is_transpose;
  if (transposed) entry = sweep_.find(entry->node->input(0));
  Sweep::Extra& extra = entry->extra.make();
  extra.products.push_back(transposed ? Product{g, a} : Product{a, g});
  extra.rows += a.shape()[0];
  if (extra.rows >= rows_together(entry->node->shape)) Sweep::settle(*entry);
}

void Back::pass_to_operation(int k) {
  Sweep::Entry* operation = sweep_.find(node_.input(0));
  if (!operation || !operation->wanted) return;
  // Under create_graph a sweep may come here by several places of the same result.
  if (k == 1) return Sweep::add(operation->second_grad, grad);
  auto& results = operation->extra.make().results;
  const auto i = static_cast<std::size_t>(k) - 2;
  if (results.size() <= i) results.resize(i + 1);
  Sweep::add(results[i], grad);
}

Tensor* Back::result_grad(int k) const {
  if (k == 0) return &entry_.grad;
  if (k == 1) return &entry_.second_grad;
  const auto i = static_cast<std::size_t>(k) - 2;
  return entry_.extra && i < entry_.extra->results.size() ? &entry_.extra->results[i] : nullptr;
}

const Tensor& Back::grad_of(int k) const {
  const Tensor* g = result_grad(k);
  return g ? *g : kUndefined;
}

Tensor Back::release_grad(int k) {
  Tensor* g = result_grad(k);
  return g ? std::move(*g) : Tensor();
}

int Back::grad_count() const {
  return 2 + (entry_.extra ? static_cast<int>(entry_.extra->results.size()) : 0);
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
  const auto* entry = sweep_.find(node_.input(i));
  if (!entry || !entry->wanted || !entry->node->leaf || entry->node->hooks || entry->target ||
      create_graph())
    return false;
  static_cast<detail::Leaf*>(entry->node)->rows.push_back({rows, values});
  return true;
}

Tensor Back::part_target(int i) {
  auto* entry = sweep_.find(node_.input(i));
  return entry && entry->wanted ? Sweep::own_grad(*entry) : Tensor();
}

void Back::add_window(int i, Tensor (*take)(const void*, const Tensor&), const void* context) {
  auto* entry = sweep_.find(node_.input(i));
  if (!entry || !entry->wanted) return;
  sweep_.add_window(*entry, node_, take, context, grad);
}

Tensor Back::place(int i) {
  if (create_graph() || detail::trace) return Tensor();
  auto* entry = sweep_.find(node_.input(i));
  if (!entry || entry->shared) return Tensor();
  const Sweep::Entry* part = sweep_.place(*entry);
  return part ? sweep_.memory_of(*part, *entry->node) : Tensor();
}

void Back::add_recorded_part(int i, const std::function<void(const Tensor&, const Tensor&)>& put,
                             const std::function<Tensor(const Tensor&)>& take) {
  if (!needs(i)) return;
  const Node& input = *node_.input(i);
  Tensor whole = zeros(input.shape, input.dtype);
  {
    NoGrad no_grad;
    put(whole, grad);
  }
  add(i, record("part", {grad}, std::move(whole), Keep::none,
                [take](Back& back) { back.add(0, take(back.grad)); }));
}

}  // namespace unroll
