#include "framework/autograd.h"

#include <algorithm>
#include <atomic>
#include <memory>

#include "framework/internal.h"
#include "framework/ops.h"
#include "framework/row_grad.h"
#include "framework/sweep.h"

namespace unroll {

using detail::fail;
using detail::Leaf;
using detail::Node;
using detail::Ref;

namespace {

thread_local bool recording = true;

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

/// The nodes that this thread made last, in turn. Who walks over the tape learns of one node from
/// another: to wait for none of them, it asks for those that were made shortly before this one.
struct MadeLast {
  const Node* nodes[4];
  unsigned next;
};
constinit thread_local MadeLast made_last{};

void remember(Node& node) {
  const Node*& place = made_last.nodes[made_last.next++ % std::size(made_last.nodes)];
  node.earlier = std::exchange(place, &node);
}

[[gnu::noinline]] void dig() {
  graveyard.digging = true;
  while (Node* dead = graveyard.first) {
    graveyard.first = dead->next_dead;
    prefetch(dead->earlier);
    const std::uint32_t bytes = dead->allocated;
    dead->~Node();
    pool_release(dead, bytes);
  }
  graveyard.digging = false;
}

}  // namespace

Node* retain(Node* node) {
  count_up(node->count);
  return node;
}

void release(Node* node) {
  if (count_down(node->count) != 0) return;
  node->next_dead = std::exchange(graveyard.first, node);
  if (!graveyard.digging) dig();
}

Node::~Node() {
  std::destroy_n(inputs(), input_count);
  if (saves) std::destroy_n(saved(), input_count);
  if (hooks) [[unlikely]]
    delete hooks;
}

void Node::release_buffers() noexcept {
  if (leaf) return;
  released = true;
  drop_rule();
  output.reset();
  if (saves)
    for (Saved *s = saved(), *end = s + input_count; s != end; ++s) s->tensor = Tensor();
}

void link(Node& node, const char* op, const Inputs& inputs, const Tensor& value, Keep keep,
          std::uint32_t size) {
  const TensorImpl& result = *value.impl_ref();
  remember(node);
  node.op = op;
  node.allocated = size;
  node.input_count = static_cast<std::uint32_t>(inputs.size());
  node.saves = keep.has_any_input();
  node.dtype = result.dtype;
  node.shape = result.shape;
  Ref<Node>* const places = node.inputs();
  Saved* const saved = node.saves ? node.saved() : nullptr;
  inputs.each([&](std::size_t i, const Tensor& x) {
    new (places + i) Ref<Node>(x.impl_ref()->node);
    if (saved) {
      new (saved + i) Saved;
      if (keep.has_input(static_cast<int>(i))) saved[i] = {x, version(x)};
    }
  });
  const TensorImpl& first = *inputs[0].impl_ref();
  node.is_view = places[0] && result.storage == first.storage && &result != &first;
  if (keep.has_output()) {
    node.output = result.storage;
    node.output_offset = result.offset;
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
  return dynamic_cast<const Result*>(node) ? node->input(0) : node;
}

void detail::link_result(Node& operation, int k, const Tensor& value) {
  const std::uint32_t size = node_size(sizeof(Result), 1, false);
  auto* node = new (pool_allocate(size)) Result(k);
  node->op = operation.op;
  node->allocated = size;
  node->input_count = 1;
  node->dtype = value.dtype();
  node->shape = value.shape();
  new (node->inputs()) Ref<Node>(Ref<Node>::share(&operation));
  value.impl().node = Ref<Node>::adopt(node);
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
    // What is given out is nobody else's; other gradients may lie in the same memory.
    const bool shared = entry && entry->grad.defined() && !detail::is_exclusive(entry->grad);
    if (shared && !options.create_graph)
      result.push_back(entry->grad.clone());
    else
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
