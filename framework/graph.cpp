#include "framework/graph.h"

#include <algorithm>
#include <cstdlib>
#include <map>
#include <set>
#include <string_view>
#include <tuple>

#include "framework/autograd.h"
#include "framework/external.h"
#include "framework/file.h"
#include "framework/tape_view.h"

namespace unroll {

using detail::fail;
using detail::Place;
using detail::TapeView;

namespace {

std::string quoted(std::string_view text) {
  std::string result = "\"";
  for (const char c : text) {
    if (c == '"' || c == '\\') result += '\\';
    if (c == '\n')
      result += "\\n";
    else
      result += c;
  }
  return result + "\"";
}

/// What is drawn: a vertex may stand for the same operation of all time steps.
struct Vertex {
  std::string name, shape;
  enum class Kind { leaf, operation, outside } kind;
  Place place;
  int part = 0;  ///< outside of time steps: between which of them
  bool result = false;
};
struct Edge {
  int from, to;
  std::int64_t steps = 0;  ///< from one time step to another: how far

  friend auto operator<=>(const Edge&, const Edge&) = default;
};

struct Drawing {
  std::vector<Vertex> vertices;
  std::vector<Edge> edges;
};

Drawing drawing_of(const TapeView& view, const GraphOptions& options) {
  Drawing drawing;
  std::vector<int> vertex_of;  // by number of the entry
  // The k-th operation of that name in a module is the same in all time steps.
  std::map<std::tuple<std::string, std::string, int>, int> folded;
  std::map<std::tuple<std::int64_t, std::string, std::string>, int> counts;
  std::set<Edge> drawn;
  int part = 0;
  bool in_step = false;
  const auto connect = [&](Edge edge) {
    if (drawn.insert(edge).second) drawing.edges.push_back(edge);
  };
  for (const TapeView::Entry& entry : view.entries) {
    const Place& place = entry.place;
    Vertex vertex{entry.label(), detail::format("{}", entry.node->shape),
                  entry.node->leaf ? Vertex::Kind::leaf : Vertex::Kind::operation, place};
    if (entry.node->leaf && entry.name.empty())
      for (const auto& [name, tensor] : options.names)
        if (tensor.requires_grad() && tensor.impl().node.get() == entry.node) vertex.name = name;
    if (!entry.node->leaf) {
      if (in_step && place.step < 0) ++part;
      in_step = place.step >= 0;
      vertex.part = in_step ? 0 : part;
    }
    auto number = static_cast<int>(drawing.vertices.size());
    bool again = false;
    if (options.folded && place.step >= 0) {
      const int k = counts[{place.step, place.module, vertex.name}]++;
      const auto [found, added] = folded.emplace(std::tuple(place.module, vertex.name, k), number);
      again = !added;
      number = found->second;
    }
    if (!again) {
      if (options.folded && place.step >= 0) vertex.place.step = 0;
      drawing.vertices.push_back(std::move(vertex));
    }
    vertex_of.push_back(number);
    for (const TapeView::Input& input : entry.inputs) {
      if (input.number >= 0) {
        const TapeView::Entry& from = view.entries[static_cast<std::size_t>(input.number)];
        const bool both = options.folded && from.place.step >= 0 && place.step >= 0;
        connect({vertex_of[static_cast<std::size_t>(input.number)], number,
                 both ? from.place.step - place.step : 0});
      } else if (input.known && !again) {
        const bool few = input.values.size() == 1;
        connect({static_cast<int>(drawing.vertices.size()), number});
        const Vertex& user = drawing.vertices[static_cast<std::size_t>(number)];
        drawing.vertices.push_back({few ? detail::numbers(input.values, input.shape) : "",
                                    few ? "" : detail::format("{}", input.shape),
                                    Vertex::Kind::outside, user.place, user.part});
      }
    }
  }
  drawing.vertices[static_cast<std::size_t>(vertex_of.back())].result = true;
  return drawing;
}

}  // namespace

std::string to_dot(const Tensor& y, const GraphOptions& options) {
  const TapeView view("to_dot", y);
  const auto in_step = [](const TapeView::Entry& entry) { return entry.place.step >= 0; };
  if (options.folded && std::none_of(view.entries.begin(), view.entries.end(), in_step))
    fail<GraphError>(
        "to_dot: nothing to fold: no time step is known. An Inspect must live while the graph is "
        "recorded, and its loop must be scan(), or open a Step");
  const Drawing drawing = drawing_of(view, options);

  std::string text =
      "digraph tape {\n"
      "  rankdir=LR; nodesep=0.15; ranksep=0.3; fontname=\"sans-serif\"; fontsize=12;\n"
      "  node [fontname=\"sans-serif\", fontsize=11, height=0.3, margin=\"0.06,0.03\"];\n"
      "  edge [arrowsize=0.5, color=\"#555555\"];\n";
  const auto add = [&]<class... Args>(fmt::format_string<Args...> format, Args&&... args) {
    text += detail::format(format, std::forward<Args>(args)...);
  };

  // By step, part and module.
  std::map<std::pair<std::int64_t, int>, std::map<std::string, std::vector<int>>> frames;
  for (std::size_t i = 0; i < drawing.vertices.size(); ++i) {
    const Vertex& v = drawing.vertices[i];
    frames[{v.place.step, v.part}][v.place.module].push_back(static_cast<int>(i));
  }
  int clusters = 0;
  const auto vertex = [&](int i, const std::string& indent) {
    const Vertex& v = drawing.vertices[static_cast<std::size_t>(i)];
    const char* look = v.kind == Vertex::Kind::leaf
                           ? "shape=box, style=filled, fillcolor=\"#dbe9f6\""
                       : v.kind == Vertex::Kind::outside ? "shape=plaintext, fontcolor=\"#777777\""
                       : v.result ? "shape=ellipse, style=filled, fillcolor=\"#f6e3c5\""
                                  : "shape=ellipse";
    const std::string label = v.name.empty()    ? v.shape
                              : v.shape.empty() ? v.name
                                                : v.name + "\n" + v.shape;
    add("{}n{} [label={}, {}];\n", indent, i, quoted(label), look);
  };
  for (const auto& [key, modules] : frames) {
    const std::int64_t step = key.first;
    std::string indent = "  ";
    if (step >= 0) {
      add("{}subgraph cluster{} {{\n", indent, clusters++);
      indent += "  ";
      add("{}label={}; style=filled; color=\"#f2f2f2\";\n", indent,
          quoted(options.folded ? "every t" : detail::format("t = {}", step)));
    }
    for (const auto& [module, members] : modules) {
      const bool framed = !module.empty();
      if (framed)
        add("{0}subgraph cluster{1} {{\n{0}  label={2}; style=rounded; color=\"#aaaaaa\";\n",
            indent, clusters++, quoted(module));
      for (const int i : members) vertex(i, framed ? indent + "  " : indent);
      if (framed) add("{}}}\n", indent);
    }
    if (step >= 0) add("  }}\n");
  }
  for (const Edge& edge : drawing.edges) {
    add("  n{} -> n{}", edge.from, edge.to);
    if (edge.steps != 0)
      add(" [style=dashed, color=\"#c0392b\", fontcolor=\"#c0392b\", fontname=\"sans-serif\", "
          "fontsize=10, label=\"t {} {}\", constraint=false]",
          edge.steps < 0 ? '-' : '+', std::abs(edge.steps));
    else if (drawing.vertices[static_cast<std::size_t>(edge.from)].kind == Vertex::Kind::leaf)
      add(" [color=\"#9db8d2\"]");
    add(";\n");
  }
  return text + "}\n";
}

void write_graph(const Tensor& y, const std::string& path, const GraphOptions& options) {
  const std::string text = to_dot(y, options);
  const std::size_t dot = path.rfind('.');
  const std::string format = dot == std::string::npos ? "" : path.substr(dot + 1);
  if (format.empty() || format.find('/') != std::string::npos)
    fail<FileError>("{}: the end of the name must say the format, as in graph.svg", path);
  if (format == "dot") {
    write_file_atomically(path, text);
    return;
  }
  detail::write_by_program(path, text, [&](const std::string& from, const std::string& to) {
    return std::vector<std::string>{"dot", "-T" + format, "-o", to, from};
  });
}

}  // namespace unroll
