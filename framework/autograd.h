#pragma once
/// The tape. Every operation on a tensor that requires a gradient leaves a Node: what was done,
/// to which nodes, and how a gradient passes back through it. `backward` walks the nodes from a
/// result to the leaves, newest first.
///
/// The rule of an operation is written with operations, so it is itself differentiable: under
/// `create_graph` the sweep records what it does, and every derivative has a derivative.

#include <cstdint>
#include <functional>
#include <initializer_list>
#include <optional>
#include <type_traits>
#include <utility>
#include <vector>

#include "framework/tensor.h"
#include "framework/watch.h"

namespace unroll {

/// While one lives, operations of this thread record nothing.
class NoGrad {
 public:
  NoGrad();
  ~NoGrad();
  NoGrad(const NoGrad&) = delete;
  NoGrad& operator=(const NoGrad&) = delete;

 private:
  bool saved_;
};

/// Whether operations of this thread are recorded.
bool grad_enabled();

/// How grad() sweeps.
struct GradOptions {
  bool create_graph = false;           ///< make the gradients differentiable themselves
  std::optional<bool> retain_graph{};  ///< keep the graph for another sweep; default: create_graph
  std::vector<Tensor> grad_outputs{};  ///< seeds, one per y; default 1 where y has one element
  bool allow_unused = false;           ///< an x that no y depends on: undefined instead of an error
};

/// d(sum over ys of seed * y) / dx for each x, leaving every .grad alone.
/// Throws GraphError: a y without a graph, an x that requires no gradient, an x that no y depends
/// on (unless allow_unused), a y with more than one element and no seed, a graph that is gone.
/// Threads may do this at once with graphs of their own on the same leaves, such as the weights of
/// a model that they share.
std::vector<Tensor> grad(const std::vector<Tensor>& ys, const std::vector<Tensor>& xs,
                         const GradOptions& options = {});
/// The same for one y and one x.
Tensor grad(const Tensor& y, const Tensor& x, const GradOptions& options = {});

/// Tensor::backward for several results in one sweep.
void backward(const std::vector<Tensor>& ys, const std::vector<Tensor>& seeds = {},
              bool retain_graph = false, bool create_graph = false);

// --- For those who write operations -------------------------------------------------------------

class Back;
namespace detail {
struct Result;
struct SweepEntry;  // sweep.h
}  // namespace detail

/// Which tensors the rule of an operation will ask for. What it does not ask for is freed early.
class Keep {
 public:
  static const Keep none;    ///< nothing
  static const Keep inputs;  ///< all inputs
  static const Keep output;  ///< the output
  /// Input i alone; combine with |.
  static constexpr Keep input(int i) { return Keep(1u << i); }
  /// What either keeps.
  constexpr Keep operator|(Keep other) const { return Keep(bits_ | other.bits_); }
  /// Whether input i is kept.
  constexpr bool has_input(int i) const { return i < 31 ? (bits_ >> i & 1u) != 0 : all_inputs(); }
  /// Whether any input is kept.
  constexpr bool has_any_input() const { return (bits_ & 0x7fffffffu) != 0; }
  /// Whether the output is kept.
  constexpr bool has_output() const { return (bits_ >> 31) != 0; }

 private:
  explicit constexpr Keep(std::uint32_t bits) : bits_(bits) {}
  constexpr bool all_inputs() const { return (bits_ & 0x7fffffffu) == 0x7fffffffu; }
  std::uint32_t bits_;
};
inline constexpr Keep Keep::none{0u};
inline constexpr Keep Keep::inputs{0x7fffffffu};
inline constexpr Keep Keep::output{0x80000000u};

namespace detail {

/// An input that a rule will read, with the version that it had.
struct Saved {
  Tensor tensor;
  std::uint32_t version = 0;
};

/// A tensor's place on the tape: a leaf, or the result of one operation. Long tapes are walked node
/// by node, so what a walk reads stands in the first 64 bytes.
struct Node {
  std::int32_t count = 1;
  bool leaf = false;
  bool released = false;        ///< a sweep has freed what the rule needs
  bool keeps_grad = false;      ///< a leaf, or asked to by retain_grad()
  bool saves = false;           ///< there are saved()
  std::uint32_t allocated = 0;  ///< bytes of this object, with its inputs
  std::uint32_t input_count = 0;
  std::uint64_t sweep = 0;  ///< not of a leaf: the sweep that last saw it
  union {
    SweepEntry* entry = nullptr;  ///< what that sweep knows of it
    Node* next_dead;              ///< while nodes are taken down
  };
  Ref<Storage> output;               ///< the result's memory where the rule reads the result
  std::uint32_t output_version = 0;  ///< where the rule reads the result, or takes_rows
  DType dtype = DType::f32;          ///< of the output
  bool is_view = false;              ///< on the memory of the first input
  bool is_transpose = false;         ///< of a matrix
  bool takes_rows = false;     ///< of the first input, which the second one names: see RepeatedRows
  std::uint8_t passes_on = 0;  ///< inputs whose gradients are this one's elements as they are: bits
  const char* op = "leaf";
  std::int64_t output_offset = 0;
  std::int64_t window = -1;  ///< of one piece of its input: where it begins, in elements
  Shape shape;               ///< of the output
  Tensor grad;               ///< .grad
  std::vector<std::pair<std::int64_t, Hook>>* hooks = nullptr;
  const void* earlier = nullptr;  ///< a node made shortly before, and perhaps gone: for prefetch()

  Node() = default;
  Node(const Node&) = delete;
  Node& operator=(const Node&) = delete;
  virtual ~Node();
  /// Passes back.grad on to the inputs.
  virtual void run(Back& back) = 0;
  /// Lets go of everything that the rule captured.
  virtual void drop_rule() noexcept {}
  void release_buffers() noexcept;

  /// What the operation was applied to; null where an input needs no gradient. They lie at the end
  /// of this object.
  Ref<Node>* inputs() {
    return reinterpret_cast<Ref<Node>*>(reinterpret_cast<char*>(this) + allocated) - input_count;
  }
  const Node* input(std::int64_t i) const { return const_cast<Node*>(this)->inputs()[i].get(); }
  Node* input(std::int64_t i) { return inputs()[i].get(); }
  /// One per input, in front of those, if any is kept.
  Saved* saved() { return reinterpret_cast<Saved*>(inputs()) - input_count; }
};

}  // namespace detail

/// What the rule of an operation sees when a gradient arrives.
class Back {
 public:
  /// dL/d(output), of the output's shape and dtype.
  const Tensor& grad;

  /// Whether anybody asks for the gradient of input i.
  bool needs(int i) const;
  /// Input i as it was (it must have been kept; GraphError if it was written since).
  const Tensor& in(int i) const;
  /// The output (it must have been kept).
  Tensor out() const;
  /// Adds `g` to the gradient of input i; where the operation broadcast the input, g is summed
  /// back to its shape first.
  void add(int i, Tensor g);
  /// Takes the gradient that input i has so far, for a rule that computes the sum with its own in
  /// one go and add()s that. Undefined where there is none, or it has to be added as it is.
  Tensor take_grad(int i);
  /// Whether input i is an embedding, and nobody else looks at its gradient, which may then be that
  /// of equal rows in one of them.
  bool takes_rows(int i) const;
  /// Adds a gradient to a part of input i only, in place if possible, so that T slices of one
  /// tensor cost O(T). `put(whole, g)` adds g into that part of `whole`, in place; `take(whole)`
  /// reads the part, and is what the derivative of `put` with respect to g needs.
  template <class Put, class Take>
  void add_part(int i, const Put& put, const Take& take) {
    if (create_graph())
      add_recorded_part(i, put, take);
    else
      put(part_target(i), grad);
  }
  /// The same for a part that `take(whole)` gives a view of. Parts that come one after the other,
  /// as the time steps of a sequence do, are copied to their places.
  template <class Take>
  void add_window(int i, const Take& take) {
    if (create_graph())
      add_recorded_part(
          i, [&](const Tensor& whole, const Tensor& g) { take(whole).add_(g); }, take);
    else
      add_window(
          i,
          [](const void* t, const Tensor& whole) { return (*static_cast<const Take*>(t))(whole); },
          &take);
  }
  /// Memory to write the gradient of input i to, before it is add()ed, where it can be what it
  /// belongs to: input i is a piece of a larger tensor, such as a time step, or a sum with one, and
  /// nobody else adds to its gradient or looks at it. Undefined otherwise.
  Tensor place(int i);
  /// Adds a' g to the gradient of input i; a: [n, rows], g: [n, columns]. For a leaf, or the
  /// transpose of one, it is put off: a weight that is multiplied in T time steps gets the sum of T
  /// such products, which is one product of the a's and g's on top of each other.
  void add_product(int i, const Tensor& a, const Tensor& g);
  /// Whether add_product would put a product off for input i.
  bool puts_off(int i) const;
  /// Adds values[k] to row rows[k] of the gradient of input i without touching any other row
  /// (row_grad.h). Only a leaf can keep its gradient so, and only in a plain backward(); otherwise
  /// this returns false and has done nothing.
  bool add_rows(int i, const Tensor& rows, const Tensor& values);
  /// Whether this sweep records itself.
  bool create_graph() const { return grad_enabled(); }

  /// For an operation with several results (record_all): the gradient of result k, undefined where
  /// nothing depends on it.
  const Tensor& grad_of(int k) const;
  /// grad_of(k) is undefined from this k on.
  int grad_count() const;
  /// grad_of(k), which the sweep lets go of: for a rule that reads it for the last time. Where
  /// nobody else has it, it is a temporary that an operation may write its result over. `grad` is
  /// undefined then.
  Tensor release_grad(int k = 0);
  /// `value`, off the tape, as result k of this operation: on the tape under create_graph,
  /// otherwise as it is. k may be a result that record_all has not returned, but that the rule
  /// knows to differentiate.
  Tensor result(int k, Tensor value) const;

  struct Sweep;
  /// Made by a sweep.
  Back(detail::SweepEntry& entry, Sweep& sweep);

 private:
  friend struct detail::Result;
  void pass_to_operation(int k);
  Tensor* result_grad(int k) const;
  Tensor part_target(int i);
  void add_window(int i, Tensor (*take)(const void* context, const Tensor& whole),
                  const void* context);
  void add_to(detail::SweepEntry& entry, int i, Tensor g);
  void add_recorded_part(int i, const std::function<void(const Tensor&, const Tensor&)>& put,
                         const std::function<Tensor(const Tensor&)>& take);

  detail::SweepEntry& entry_;
  detail::Node& node_;
  Sweep& sweep_;
};

namespace detail {

template <class Rule>
struct OpNode final : Node {
  template <class R>
  explicit OpNode(R&& r) : rule(std::forward<R>(r)) {}
  void run(Back& back) override { (*rule)(back); }
  void drop_rule() noexcept override { rule.reset(); }
  std::optional<Rule> rule;
};
/// A rule that owns nothing stays.
template <class Rule>
requires std::is_trivially_destructible_v<Rule>
struct OpNode<Rule> final : Node {
  template <class R>
  explicit OpNode(R&& r) : rule(std::forward<R>(r)) {}
  void run(Back& back) override { rule(back); }
  [[no_unique_address]] Rule rule;
};

/// The inputs of an operation, by address; lives as long as the call that it is made for.
class Inputs {
 public:
  Inputs(std::initializer_list<std::reference_wrapper<const Tensor>> list)
      : list_(list), size_(list.size()) {}
  Inputs(const Tensor* tensors, std::size_t size) : tensors_(tensors), size_(size) {}
  Inputs(const std::vector<Tensor>& tensors) : tensors_(tensors.data()), size_(tensors.size()) {}
  std::size_t size() const { return size_; }
  const Tensor& operator[](std::size_t i) const {
    return tensors_ ? tensors_[i] : list_.begin()[i].get();
  }
  /// Calls f(i, input i) for each.
  template <class F>
  void each(const F& f) const {
    if (tensors_) {
      for (std::size_t i = 0; i < size_; ++i) f(i, tensors_[i]);
    } else {
      const auto* const list = list_.begin();
      for (std::size_t i = 0; i < size_; ++i) f(i, list[i].get());
    }
  }

 private:
  std::initializer_list<std::reference_wrapper<const Tensor>> list_;
  const Tensor* tensors_ = nullptr;
  std::size_t size_;
};

/// Throws ValueError for an undefined one.
inline bool any_requires_grad(const Inputs& inputs) {
  bool any = false;
  inputs.each([&any](std::size_t, const Tensor& x) { any |= x.requires_grad(); });
  return any;
}
/// The operation that a node is a result of, if that has several; otherwise the node itself.
const Node* operation_of(const Node* node);
/// Makes `value` result k of an operation.
void link_result(Node& operation, int k, const Tensor& value);
/// Bytes of a node of `bytes` followed by what it saves of its inputs, if anything, and these.
inline std::uint32_t node_size(std::size_t bytes, std::size_t inputs, bool saves) {
  return static_cast<std::uint32_t>(bytes +
                                    inputs * (sizeof(Ref<Node>) + (saves ? sizeof(Saved) : 0)));
}
void link(Node& node, const char* op, const Inputs& inputs, const Tensor& value, Keep keep,
          std::uint32_t size);

/// The node of an operation whose (first) result is `value`.
template <class Rule>
Ref<Node> make_node(const char* op, const Inputs& inputs, const Tensor& value, Keep keep,
                    Rule&& rule) {
  using N = OpNode<std::decay_t<Rule>>;
  static_assert(alignof(N) <= 64);
  const std::uint32_t size = node_size(sizeof(N), inputs.size(), keep.has_any_input());
  auto node = Ref<Node>::adopt(new (pool_allocate(size)) N(std::forward<Rule>(rule)));
  link(*node, op, inputs, value, keep, size);
  return node;
}

}  // namespace detail

/// Puts an operation on the tape: `value` is its result, computed from `inputs`; `rule(Back&)`
/// passes a gradient back to them. Returns `value`, with its node if anything is to be recorded.
/// `value` must be new: a result of its own or a new view. `op` must be a string that stays.
template <class Rule>
Tensor record(const char* op, const detail::Inputs& inputs, Tensor value, Keep keep, Rule&& rule) {
  if (grad_enabled() && detail::any_requires_grad(inputs))
    value.impl().node = detail::make_node(op, inputs, value, keep, std::forward<Rule>(rule));
  if (detail::watched()) [[unlikely]]
    detail::computed(op, inputs, value);
  return value;
}

/// The same for an operation with several results, all new. The node is the place of the first one
/// and stands behind those of the others. The rule asks for their gradients by back.grad_of(k), and
/// finds back.grad undefined where only the others have one. `keep` can only name inputs.
template <class Rule>
void record_all(const char* op, const detail::Inputs& inputs, const Tensor* values, int count,
                Keep keep, Rule&& rule) {
  if (grad_enabled() && detail::any_requires_grad(inputs)) {
    const auto node = detail::make_node(op, inputs, values[0], keep, std::forward<Rule>(rule));
    values[0].impl().node = node;
    for (int k = 1; k < count; ++k) detail::link_result(*node, k, values[k]);
  }
  if (detail::watched()) [[unlikely]]
    for (int k = 0; k < count; ++k) detail::computed(op, inputs, values[k], k);
}

}  // namespace unroll
