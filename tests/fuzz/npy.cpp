// Any bytes as an .npy file: refused with an error that names the file, or read and then the same
// after a second time through a file.

#include "framework/npy.h"

#include "framework/check.h"
#include "tests/fuzz/fuzz.h"
#include "tests/fuzz/same.h"

using namespace unroll;
using namespace unroll::fuzz;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static const MemoryFile file;
  file.write(text_of(data, size));
  Tensor first;
  try {
    first = load_npy(file.path());
  } catch (const FileError& error) {
    require(std::string(error.what()).starts_with("cannot read '" + file.path() + "': "),
            error.what());
    return 0;
  }
  save_npy(file.path(), first);
  require(same(load_npy(file.path()), first), "the tensor changed");
  return 0;
}
