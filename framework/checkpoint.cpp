#include "framework/checkpoint.h"

#include <algorithm>
#include <array>
#include <bit>

#include "framework/internal.h"

namespace unroll {

using detail::fail;

Checkpoint::Checkpoint(const std::string& path) : path_(path), file_(load_safetensors(path)) {}

void Checkpoint::save(const std::string& path) const {
  save_safetensors(path, file_.tensors, file_.metadata);
}

namespace {

void check_name(const std::string& name, const NamedTensors& tensors) {
  if (name.empty() || name.find('.') != name.npos)
    fail<ValueError>("Checkpoint: '{}' cannot be a name: it is empty or has a '.'", name);
  const auto taken = [&](const auto& entry) {
    return entry.first == name || entry.first.starts_with(name + ".");
  };
  if (std::any_of(tensors.begin(), tensors.end(), taken))
    fail<ValueError>("Checkpoint: '{}' is there already", name);
}

}  // namespace

void Checkpoint::add(const std::string& part, const NamedTensors& tensors) {
  check_name(part, file_.tensors);
  for (const auto& [name, tensor] : tensors) file_.tensors.emplace_back(part + "." + name, tensor);
}

void Checkpoint::add(const std::string& part, const Generator& generator) {
  std::vector<std::int64_t> words;
  for (const std::uint64_t word : generator.state())
    words.push_back(std::bit_cast<std::int64_t>(word));
  add(part, NamedTensors{{"state", from_vector(words)}});
}

void Checkpoint::add_number(const std::string& name, std::int64_t value) {
  check_name(name, file_.tensors);
  file_.tensors.emplace_back(name, from_vector<std::int64_t>({value}, {}));
}

void Checkpoint::add_text(const std::string& key, const std::string& text) {
  file_.metadata[key] = text;
}

NamedTensors Checkpoint::part(const std::string& part) const {
  const std::string prefix = part + ".";
  NamedTensors tensors;
  for (const auto& [name, tensor] : file_.tensors)
    if (name.starts_with(prefix)) tensors.emplace_back(name.substr(prefix.size()), tensor);
  return tensors;
}

void Checkpoint::load(const std::string& part, Generator& generator) const {
  restore(part, [&](const NamedTensors& state) {
    std::array<std::uint64_t, 6> words{};
    const Tensor saved = zeros({std::ssize(words)}, DType::i64);
    copy_values(state, {{"state", saved}}, "Generator");
    for (std::size_t i = 0; i < words.size(); ++i)
      words[i] = std::bit_cast<std::uint64_t>(saved.data<std::int64_t>()[i]);
    generator.set_state(words);
  });
}

std::int64_t Checkpoint::number(const std::string& name) const {
  const Tensor value = find(file_.tensors, name);
  if (!value.defined() || value.dim() != 0 || value.dtype() != DType::i64)
    fail<FileError>("'{}' has no number '{}'", path_, name);
  return *detail::read<std::int64_t>(value);
}

const std::string& Checkpoint::text(const std::string& key) const {
  const auto found = file_.metadata.find(key);
  if (found == file_.metadata.end()) fail<FileError>("'{}' has no text '{}'", path_, key);
  return found->second;
}

void Checkpoint::restore(const std::string& part,
                         const std::function<void(const NamedTensors&)>& load) const {
  try {
    load(this->part(part));
  } catch (const Error& error) {
    fail<FileError>("'{}', {}: {}", path_, part, error.what());
  }
}

}  // namespace unroll
