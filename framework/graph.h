#pragma once
/// The tape as a picture, by Graphviz.

#include <string>

#include "framework/inspect.h"
#include "framework/tensor.h"

namespace unroll {

/// How a graph is drawn.
struct GraphOptions {
  /// Time steps are folded into one: each operation of the loop is drawn once, and what goes from
  /// one step to the next is a dashed edge. Needs an Inspect that saw the graph being recorded.
  bool folded = false;
  NamedTensors names{};  ///< of leaves, besides those that an Inspect was given
};

/// The graph behind y in Graphviz's language: boxes for leaves (name and shape), ellipses for
/// operations (name and shape of the result), plain text for what is not on the tape. If an Inspect
/// saw it being recorded, what belongs to a time step, and in it to a module, stands in a frame.
/// Throws GraphError if y is not on the tape, and for `folded` if no time step is known.
std::string to_dot(const Tensor& y, const GraphOptions& options = {});

/// The same as a file: "x.dot" is the text; "x.svg", "x.png", "x.pdf" are drawn by the program dot.
/// The file is complete or as it was before. Throws also FileError: the file can't be written, dot
/// is not installed, or it knows no such format.
void write_graph(const Tensor& y, const std::string& path, const GraphOptions& options = {});

}  // namespace unroll
