#pragma once
/// Working memory of the kernels: per thread, grown on demand, reused, freed with the thread.

#include <cstddef>

namespace unroll::kernels {

/// What a buffer is used for. One kernel may hold all of them at once.
enum class Scratch { packed_a, packed_b, vector_in, vector_out, registers, count };

/// This thread's buffer of at least `bytes` for this use, 64-byte aligned; valid until the next
/// call for the same use in this thread. Throws std::bad_alloc.
void* scratch(Scratch use, std::size_t bytes);

}  // namespace unroll::kernels
