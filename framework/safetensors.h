#pragma once
/// The safetensors file format: named tensors and string metadata in one file.
///
/// u64 little-endian N, N bytes of JSON (name -> dtype, shape, data_offsets; "__metadata__": string
/// -> string), then the data, row-major and little-endian.

#include <string>

#include "framework/state.h"

namespace unroll {

/// What a file holds.
struct TensorFile {
  NamedTensors tensors;  ///< in the order of the header
  Metadata metadata;     ///< empty where the file has none
};

/// Writes to a temporary file beside `path`, flushes it to disk and renames it, so that `path`
/// holds either the old or the whole new file. Throws FileError (naming the path and the system's
/// reason); ValueError for an undefined tensor, two tensors of one name, one that is named
/// "__metadata__", and for names and metadata that are not UTF-8.
void save_safetensors(const std::string& path, const NamedTensors& tensors,
                      const Metadata& metadata = {});

/// Reads a file; the tensors come in the order of its header. F32, F64 and I64 as they are, other
/// integer types and BOOL as i64, F16 and BF16 as f32. Throws FileError, naming the path and what
/// is wrong, for everything that the format forbids (checked before memory is allocated for data),
/// for other dtypes, and for U64 values that i64 does not hold.
TensorFile load_safetensors(const std::string& path);

}  // namespace unroll
