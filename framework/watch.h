#pragma once
/// Where those who look (inspect.h, anomaly.h, profiler.h) learn what the tape does. While nobody
/// does, each of these places costs the test of one number.

#include <cstdint>
#include <string>

namespace unroll {

class Tensor;

namespace detail {

class Inputs;
struct Node;

/// How many watchers there are in all threads.
extern int watchers;
inline bool watched() { return __atomic_load_n(&watchers, __ATOMIC_RELAXED) != 0; }

/// Is told what its thread does, from its beginning to its end. What it does itself while it is
/// told is told to nobody.
class Watcher {
 public:
  Watcher();
  virtual ~Watcher();
  Watcher(const Watcher&) = delete;
  Watcher& operator=(const Watcher&) = delete;

  /// An operation has made `value`, its result number k; it is on the tape if it has a node.
  virtual void computed(const char* op, const Inputs& inputs, const Tensor& value, int k);
  /// Memory for elements.
  virtual void allocated(std::int64_t) {}
  /// A sweep has the whole gradient of a node (undefined for an operation with several results).
  /// Its hooks and its rule run next, unless it is a leaf.
  virtual void arrived(const Node&, const Tensor&) {}
  /// The rule of a node adds a gradient to that of input i. Under create_graph this is all that a
  /// rule does; otherwise some gradients go straight to their places.
  virtual void added(const Node&, int, const Tensor&) {}
  /// The sweep is done with a node that it had arrived at.
  virtual void passed(const Node&) {}
  /// A Scope or a Step begins or ends.
  virtual void place_changed() {}
  /// The name of a tensor's place on the tape, or "".
  virtual std::string name_of(const Node*) const { return ""; }
  /// Whether fused() runs as the operations that it is made of.
  virtual bool opens_chains() const { return true; }
};

// To all watchers of this thread.
void computed(const char* op, const Inputs& inputs, const Tensor& value, int k = 0);
void allocated(std::int64_t bytes);
void arrived(const Node& node, const Tensor& grad);
void added(const Node& node, int i, const Tensor& grad);
void passed(const Node& node);
void place_changed();
std::string name_of(const Node* node);
bool opens_chains();

}  // namespace detail
}  // namespace unroll
