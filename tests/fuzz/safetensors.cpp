// Any bytes as a safetensors file: refused with an error that names the file, or read and then the
// same after a second time through a file.

#include "framework/safetensors.h"

#include "framework/check.h"
#include "tests/fuzz/fuzz.h"
#include "tests/fuzz/same.h"

using namespace unroll;
using namespace unroll::fuzz;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static const MemoryFile file;
  file.write(text_of(data, size));
  TensorFile first;
  try {
    first = load_safetensors(file.path());
  } catch (const FileError& error) {
    require(std::string(error.what()).starts_with("cannot read '" + file.path() + "': "),
            error.what());
    return 0;
  }
  save_safetensors(file.path(), first.tensors, first.metadata);
  const TensorFile second = load_safetensors(file.path());
  require(second.metadata == first.metadata, "the metadata changed");
  require(second.tensors.size() == first.tensors.size(), "the number of tensors changed");
  for (std::size_t i = 0; i < first.tensors.size(); ++i) {
    require(second.tensors[i].first == first.tensors[i].first, "a name changed");
    require(same(second.tensors[i].second, first.tensors[i].second), "a tensor changed");
  }
  return 0;
}
