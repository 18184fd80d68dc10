#include "framework/watch.h"

#include <algorithm>
#include <vector>

#include "framework/autograd.h"
#include "framework/trace.h"

namespace unroll::detail {

int watchers = 0;

namespace {

thread_local std::vector<Watcher*> watching;
thread_local bool telling = false;

template <class Tell>
void tell(const Tell& all) {
  if (telling || watching.empty() || trace) return;  // a trace computes nothing
  struct Telling {
    Telling() { telling = true; }
    ~Telling() { telling = false; }
  } scope;
  const NoGrad no_grad;
  for (Watcher* watcher : watching) all(*watcher);
}

}  // namespace

Watcher::Watcher() {
  watching.push_back(this);
  __atomic_add_fetch(&watchers, 1, __ATOMIC_RELAXED);
}
Watcher::~Watcher() {
  std::erase(watching, this);
  __atomic_sub_fetch(&watchers, 1, __ATOMIC_RELAXED);
}

void Watcher::computed(const char*, const Inputs&, const Tensor&, int) {}

void computed(const char* op, const Inputs& inputs, const Tensor& value, int k) {
  tell([&](Watcher& watcher) { watcher.computed(op, inputs, value, k); });
}
void allocated(std::int64_t bytes) {
  tell([&](Watcher& watcher) { watcher.allocated(bytes); });
}
void arrived(const Node& node, const Tensor& grad) {
  tell([&](Watcher& watcher) { watcher.arrived(node, grad); });
}
void added(const Node& node, int i, const Tensor& grad) {
  tell([&](Watcher& watcher) { watcher.added(node, i, grad); });
}
void passed(const Node& node) {
  tell([&](Watcher& watcher) { watcher.passed(node); });
}
void place_changed() {
  tell([](Watcher& watcher) { watcher.place_changed(); });
}
std::string name_of(const Node* node) {
  std::string name;
  for (auto watcher = watching.rbegin(); watcher != watching.rend() && name.empty(); ++watcher)
    name = (*watcher)->name_of(node);
  return name;
}
bool opens_chains() {
  return std::any_of(watching.begin(), watching.end(),
                     [](const Watcher* watcher) { return watcher->opens_chains(); });
}

}  // namespace unroll::detail
