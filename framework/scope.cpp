#include "framework/scope.h"

#include <utility>

namespace unroll {

namespace {

thread_local detail::Place here;

}  // namespace

void Scope::enter(std::string_view name, bool whole) {
  entered_ = true;
  outer_ = here.module;
  if (whole) here.module.clear();
  if (!here.module.empty() && !name.empty()) here.module += '.';
  here.module += name;
  if (here.module != outer_) detail::place_changed();
}

void Scope::leave() {
  const bool changes = here.module != outer_;
  here.module = std::move(outer_);
  if (changes) detail::place_changed();
}

void Step::enter(std::int64_t t) {
  entered_ = true;
  outer_ = std::exchange(here.step, t);
  detail::place_changed();
}

void Step::leave() {
  here.step = outer_;
  detail::place_changed();
}

namespace detail {

const Place& place() { return here; }

NamingWatcher::NamingWatcher(const NamedTensors& names) {
  for (const auto& [name, tensor] : names)
    if (tensor.requires_grad()) names_.emplace(tensor.impl().node.get(), name);
}

std::string NamingWatcher::name_of(const Node* node) const {
  const auto found = names_.find(node);
  return found == names_.end() ? "" : found->second;
}

}  // namespace detail
}  // namespace unroll
