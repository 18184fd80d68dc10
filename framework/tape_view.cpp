#include "framework/tape_view.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <unordered_map>

namespace unroll {

using detail::fail;
using detail::Node;

namespace {

constexpr std::int64_t kFew = 8;  // elements that are shown

/// The innermost of this thread.
thread_local Inspect* inspecting = nullptr;

}  // namespace

// --- What is remembered -------------------------------------------------------------------------

Inspect::Inspect(const NamedTensors& names)
    : NamingWatcher(names), outer_(std::exchange(inspecting, this)) {}
Inspect::~Inspect() { inspecting = outer_; }

Inspect::Content Inspect::content_of(const Tensor& x) { return {x.shape(), detail::few_values(x)}; }

void Inspect::computed(const char*, const detail::Inputs& inputs, const Tensor& value, int) {
  const Node* node = value.impl().node.get();
  if (!node) return;
  Entry entry{.order = next_++, .place = detail::place(), .value = content_of(value)};
  for (std::size_t i = 0; i < inputs.size(); ++i) {
    entry.inputs.push_back(content_of(inputs[i]));
    const Node* input = inputs[i].impl().node.get();
    if (!input || !input->leaf) continue;
    Entry& leaf = entries_[input];
    if (leaf.order >= 0) leaf = Entry();  // an operation was at this address
    leaf.value = entry.inputs.back();
  }
  if (detail::operation_of(node) != node) entry.inputs = {};  // its one input is the operation
  entries_[node] = std::move(entry);
}

void Inspect::arrived(const Node& node, const Tensor& grad) {
  if (grad.defined()) entries_[&node].grad_norm = detail::norm_of(grad);
}

namespace detail {

// --- The list -----------------------------------------------------------------------------------

namespace {

/// All nodes that y depends on, inputs before outputs.
std::vector<const Node*> nodes_behind(const Node* y) {
  std::vector<const Node*> list;
  std::unordered_map<const Node*, bool> seen;
  std::vector<std::pair<const Node*, std::uint32_t>> path;
  const auto enter = [&](const Node* node) {
    if (node && seen.emplace(node, true).second) path.emplace_back(node, 0);
  };
  enter(y);
  while (!path.empty()) {
    const Node* node = path.back().first;
    if (path.back().second < node->input_count) {
      enter(node->input(path.back().second++));
    } else {
      list.push_back(node);
      path.pop_back();
    }
  }
  return list;
}

}  // namespace

TapeView::TapeView(const char* where, const Tensor& y) {
  if (!y.requires_grad())
    fail<GraphError>("{}: the tensor of shape {} is not on the tape", where, y.shape());
  std::vector<const Node*> nodes = nodes_behind(y.impl().node.get());

  const auto remembered = [&](const Node* node) -> const Inspect::Entry* {
    if (!inspecting) return nullptr;
    const auto found = inspecting->entries_.find(node);
    return found == inspecting->entries_.end() ? nullptr : &found->second;
  };

  // A leaf comes right before the first operation that takes it.
  constexpr double kNever = std::numeric_limits<double>::infinity();
  std::unordered_map<const Node*, double> order;
  bool all_known = true;
  for (const Node* node : nodes) {
    if (node->leaf) continue;
    const Inspect::Entry* entry = remembered(node);
    all_known = all_known && entry && entry->order >= 0;
    if (!all_known) break;
    const auto at = static_cast<double>(entry->order);
    order[node] = at;
    for (std::uint32_t i = 0; i < node->input_count; ++i) {
      const Node* input = node->input(i);
      if (!input || !input->leaf) continue;
      double& first = order.emplace(input, kNever).first->second;
      first = std::min(first, at - 0.5);
    }
  }
  if (all_known)
    std::stable_sort(nodes.begin(), nodes.end(),
                     [&](const Node* a, const Node* b) { return order[a] < order[b]; });

  std::unordered_map<const Node*, int> numbers;
  for (const Node* node : nodes) {
    numbers.emplace(node, static_cast<int>(numbers.size()));
    const Inspect::Entry* known = remembered(node);
    Entry entry{.node = node};
    if (node->leaf) entry.name = name_of(node);
    for (std::uint32_t i = 0; i < node->input_count; ++i) {
      const Node* input = node->input(i);
      Input& added = entry.inputs.emplace_back(Input{input ? numbers.at(input) : -1});
      if (input) {
        added.shape = input->shape;
      } else if (known && i < known->inputs.size()) {
        added.known = true;
        added.shape = known->inputs[i].shape;
        added.values = known->inputs[i].values;
      }
    }
    if (known) {
      entry.place = known->place;
      entry.values = known->value.values;
      entry.grad_norm = known->grad_norm;
    }
    if (node->grad.defined()) entry.grad_norm = norm_of(node->grad);
    entries.push_back(std::move(entry));
  }
}

// --- Text ---------------------------------------------------------------------------------------

std::vector<double> few_values(const Tensor& x) {
  return x.numel() > kFew ? std::vector<double>() : all_values(x);
}

std::vector<double> all_values(const Tensor& x) {
  const Tensor values = dense(x.detach());
  std::vector<double> list;
  dispatch(x.dtype(), [&]<class T>(T) {
    const T* data = read<T>(values);
    list.assign(data, data + values.numel());
  });
  return list;
}

double norm_of(const Tensor& x) {
  double sum = 0.0;
  const Tensor values = dense(x.detach());
  dispatch(x.dtype(), [&]<class T>(T) {
    const T* data = read<T>(values);
    for (std::int64_t i = 0; i < values.numel(); ++i)
      sum += static_cast<double>(data[i]) * static_cast<double>(data[i]);
  });
  return std::sqrt(sum);
}

std::string numbers(const std::vector<double>& values, const Shape& shape) {
  std::size_t next = 0;
  const auto text = [&](const auto& self, std::int64_t d) -> std::string {
    if (d == shape.size()) return detail::format("{:.4g}", values[next++]);
    std::string list = "[";
    for (std::int64_t i = 0; i < shape[d]; ++i) list += (i > 0 ? ", " : "") + self(self, d + 1);
    return list + "]";
  };
  return text(text, 0);
}

std::string table(const std::vector<std::string>& head,
                  const std::vector<std::vector<std::string>>& rows,
                  const std::vector<bool>& right) {
  std::vector<std::size_t> width(head.size(), 0);
  for (std::size_t c = 0; c < head.size(); ++c) {
    for (const auto& row : rows) width[c] = std::max(width[c], row[c].size());
    if (width[c] > 0) width[c] = std::max(width[c], head[c].size());
  }
  std::string text;
  const auto line = [&](const std::vector<std::string>& cells) {
    std::string out;
    for (std::size_t c = 0; c < cells.size(); ++c) {
      if (width[c] == 0) continue;
      if (!out.empty()) out += "  ";
      out += right[c] ? detail::format("{:>{}}", cells[c], width[c])
                      : detail::format("{:<{}}", cells[c], width[c]);
    }
    out.erase(out.find_last_not_of(' ') + 1);
    text += out + "\n";
  };
  line(head);
  for (const auto& row : rows) line(row);
  return text;
}

}  // namespace detail
}  // namespace unroll
