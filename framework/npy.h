#pragma once
/// The .npy file format of NumPy: one array in one file.
///
/// "\x93NUMPY", a version, the length of a header (u16 in version 1.0, u32 in 2.0 and 3.0), the
/// header, a Python dictionary such as {'descr': '<f4', 'fortran_order': False, 'shape': (3, 4), },
/// padded with spaces and ended by a line break, then the elements.

#include <string>

#include "framework/tensor.h"

namespace unroll {

/// Writes version 1.0 in row-major order ('<f4', '<f8' or '<i8'); replaces a file as
/// save_safetensors does. Throws FileError (naming the path and the system's reason); ValueError
/// for an undefined tensor.
void save_npy(const std::string& path, const Tensor& tensor);

/// Reads versions 1.0 to 3.0, also an array in Fortran's order (the tensor is contiguous all the
/// same). f32, f64 and i64 as they are, other integer types and bool as i64, half precision as f32.
/// Throws FileError, naming the path and what is wrong, for everything that the format forbids, for
/// data that are shorter or longer than the shape needs (checked before memory is allocated for
/// them), for other element types (big-endian numbers, complex ones, text, records, Python
/// objects), and for u64 values that i64 does not hold.
Tensor load_npy(const std::string& path);

}  // namespace unroll
