#pragma once
/// Makes the table of one instruction set. See simd.impl.h.

#include "framework/kernels/elementwise.impl.h"
#include "framework/kernels/gemm.impl.h"
#include "framework/kernels/isa/tables.h"
#include "framework/kernels/reduce.impl.h"

namespace unroll::kernels {
namespace {

template <class T, class Arch, int rows, int vectors>
constexpr FloatKernels<T> float_table() {
  using Product = Gemm<T, Arch, rows, vectors>;
  return {.elementwise = float_ops<T, Arch>(std::make_integer_sequence<int, kOpCount>()),
          .sum = sum<T, Arch>,
          .max = extremum<T, Arch, false>,
          .min = extremum<T, Arch, true>,
          .dot = dot<T, Arch>,
          .exp_sum = exp_sum<T, Arch>,
          .packed_size = Product::packed_size,
          .pack = Product::pack,
          .gemm_packed = Product::gemm_packed,
          .panel_columns = Product::kPanel,
          .gemm = Product::gemm,
          .gemm_sum = Product::gemm_sum,
          .transpose = Product::transpose};
}

/// rows and vectors: the largest tile of the matrix product.
template <class Arch, int rows, int vectors>
constexpr Kernels table(const char* isa) {
  return {.isa = isa,
          .f32 = float_table<float, Arch, rows, vectors>(),
          .f64 = float_table<double, Arch, rows, vectors>(),
          .i64 = integer_ops(std::make_integer_sequence<int, kOpCount>())};
}

}  // namespace
}  // namespace unroll::kernels
