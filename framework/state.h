#pragma once
/// Named state: what a module, an optimizer or a training loop saves and gets back.

#include <map>
#include <string>
#include <utility>
#include <vector>

#include "framework/tensor.h"

namespace unroll {

/// Tensors with names, in order.
using NamedTensors = std::vector<std::pair<std::string, Tensor>>;

/// Strings with names: what a file says about itself (configuration, vocabulary, position).
using Metadata = std::map<std::string, std::string>;

/// The tensor of that name, or an undefined one.
inline Tensor find(const NamedTensors& tensors, const std::string& name) {
  for (const auto& [key, value] : tensors)
    if (key == name) return value;
  return Tensor();
}

/// Copies the values of `from` into the tensors of `to` by name, dtypes converted. Nothing is
/// changed unless all fits: otherwise a ValueError that begins with `what` lists every missing,
/// unexpected, repeated, undefined and misshapen name.
void copy_values(const NamedTensors& from, const NamedTensors& to, const std::string& what);

}  // namespace unroll
