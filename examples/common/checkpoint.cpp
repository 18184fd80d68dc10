#include "examples/common/checkpoint.h"

#include <fmt/format.h>

#include "framework/check.h"

namespace examples {

Checkpoint::Checkpoint(const std::string& path)
    : path_(path), file_(unroll::load_safetensors(path)) {}

void Checkpoint::save(const std::string& path) const {
  unroll::save_safetensors(path, file_.tensors, file_.metadata);
}

void Checkpoint::add(const std::string& part, const unroll::NamedTensors& tensors) {
  for (const auto& [name, tensor] : tensors)
    file_.tensors.emplace_back(fmt::format("{}.{}", part, name), tensor);
}

unroll::NamedTensors Checkpoint::part(const std::string& part) const {
  const std::string prefix = part + ".";
  unroll::NamedTensors tensors;
  for (const auto& [name, tensor] : file_.tensors)
    if (name.compare(0, prefix.size(), prefix) == 0)
      tensors.emplace_back(name.substr(prefix.size()), tensor);
  return tensors;
}

const std::string& Checkpoint::text(const std::string& key) const {
  const auto found = file_.metadata.find(key);
  if (found == file_.metadata.end())
    throw unroll::FileError(
        fmt::format("{} was not saved by this program: it has no {}", path_, key));
  return found->second;
}

void Checkpoint::damaged(const std::string& key, const std::string& reason) const {
  throw unroll::FileError(fmt::format("{}: the {} is damaged: {}", path_, key, reason));
}

}  // namespace examples
