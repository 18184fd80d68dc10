#include <algorithm>
#include <cstdlib>
#include <stdexcept>
#include <string>

#include "framework/kernels/isa/tables.h"
#include "framework/kernels/parallel.h"

namespace unroll::kernels {
namespace {

/// The tables of this build that this CPU runs, best first. (The compiler's check looks also at
/// whether the operating system keeps the wide registers.)
std::vector<const Kernels*> find_available() {
  std::vector<const Kernels*> tables;
#if defined(__x86_64__)
  __builtin_cpu_init();
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  if (avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512cd") &&
      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512bw") &&
      __builtin_cpu_supports("avx512vl")) {
    tables.push_back(&kAvx512);
  }
  if (avx2) tables.push_back(&kAvx2);
  tables.push_back(&kSse2);
#elif defined(__aarch64__)
  tables.push_back(&kNeon);
#endif
  return tables;
}

}  // namespace

const std::vector<const Kernels*>& available() {
  static const std::vector<const Kernels*> tables = find_available();
  return tables;
}

const Kernels& find(std::string_view isa) {
  std::string choices;
  for (const Kernels* table : available()) {
    if (isa == table->isa) return *table;
    choices += (choices.empty() ? "" : ", ") + std::string(table->isa);
  }
  throw std::runtime_error("UNROLL_ISA: there are no kernels for '" + std::string(isa) +
                           "' in this build that this CPU runs; choose from " + choices);
}

const Kernels& active() {
  static const Kernels& table = []() -> const Kernels& {
    const char* isa = std::getenv("UNROLL_ISA");
    return isa != nullptr ? find(isa) : *available().front();
  }();
  return table;
}

namespace {

/// As kWorkPerThread and kWorthWaking, for elements that are packed.
constexpr std::int64_t kPackedPerThread = 1 << 13;
constexpr std::int64_t kPackedWorthWaking = 1 << 17;

constexpr std::int64_t kRowGroup = 16;
/// Rows of a time step: from so many on each thread takes some of the sequences, and finds their
/// rows in its cache in every operation of every time step.
constexpr std::int64_t kBatch = 16;

/// Rows that a part of so many must have to be computed as the whole is.
std::int64_t fewest_rows(std::int64_t m) { return m > kRowsInPlace ? kRowsInPlace + 1 : kRowGroup; }

/// Whether C [m, n] of a product without a packed B is cut into columns: where that is its longer
/// side, so that most is packed once; but into rows where some threads would get a panel more than
/// others, of few.
bool cut_into_columns(std::int64_t m, std::int64_t n, std::int64_t panel) {
  if (n < m || m < 4 * kRowGroup || m > kRowsInPlace) return n >= m;
  return n >= 12 * panel || n % panel == 0;
}

/// Shares C [m, n] out: calls f(first_row, last_row, first_column, last_column) on parts of it, cut
/// into groups of rows or columns, the last one up to twice as large. With the right groups a part
/// is computed to the same bits as in one piece.
template <class F>
void share(std::int64_t m, std::int64_t n, std::int64_t k, bool by_columns, std::int64_t row_group,
           std::int64_t column_group, std::int64_t fewest_rows, F&& f) {
  if (m <= 0 || n <= 0) return;
  if (m * n * k < 2 * kWorkPerThread) return f(0, m, 0, n);
  const std::int64_t size = by_columns ? n : m, unit = by_columns ? column_group : row_group;
  const std::int64_t units = size < unit ? 1 : size / unit;
  const std::int64_t work_per_unit = m * n * k / size * unit + 1;
  const std::int64_t fewest = by_columns ? 1 : (fewest_rows + unit - 1) / unit;
  parallel_for(
      0, units, std::max(fewest, (kWorkPerThread + work_per_unit - 1) / work_per_unit),
      [&](std::int64_t first, std::int64_t last) {
        const std::int64_t begin = first * unit;
        const std::int64_t end = last < units ? last * unit : size;
        if (by_columns) {
          f(0, m, begin, end);
        } else {
          f(begin, end, 0, n);
        }
      },
      m * n * k >= kWorthWaking);
}

}  // namespace

template <class T>
void gemm(std::int64_t m, std::int64_t n, std::int64_t k, MatrixRef<T> a, MatrixRef<T> b, T* c,
          std::int64_t ldc, bool accumulate, Addend<T> d) {
  const FloatKernels<T>& kernels = float_kernels<T>();
  // One row or column is computed in tiles of its own, of 8 vectors.
  const std::int64_t tiles = 8 * kernels.panel_columns;
  share(
      m, n, k, cut_into_columns(m, n, kernels.panel_columns), n == 1 ? tiles : kRowGroup,
      m == 1 ? tiles : kernels.panel_columns, fewest_rows(m),
      [&](std::int64_t row, std::int64_t last_row, std::int64_t column, std::int64_t last_column) {
        kernels.gemm(last_row - row, last_column - column, k,
                     {a.data + row * a.row_stride, a.row_stride, a.col_stride},
                     {b.data + column * b.col_stride, b.row_stride, b.col_stride},
                     c + row * ldc + column, ldc, accumulate, d.from(row, column));
      });
}

template <class T>
void pack(std::int64_t k, std::int64_t n, MatrixRef<T> b, T* out) {
  const FloatKernels<T>& kernels = float_kernels<T>();
  const std::int64_t panel = kernels.panel_columns;
  parallel_for(
      0, (n + panel - 1) / panel, kPackedPerThread / (k * panel + 1) + 1,
      [&](std::int64_t first, std::int64_t last) {
        const std::int64_t begin = first * panel, end = std::min(last * panel, n);
        kernels.pack(k, end - begin, {b.data + begin * b.col_stride, b.row_stride, b.col_stride},
                     out + k * begin);
      },
      k * n >= kPackedWorthWaking);
}

template <class T>
void gemm_packed(std::int64_t m, std::int64_t n, std::int64_t k, MatrixRef<T> a, const T* packed_b,
                 T* c, std::int64_t ldc, bool accumulate, Addend<T> d) {
  const FloatKernels<T>& kernels = float_kernels<T>();
  share(
      m, n, k, m < kBatch, 2, kernels.panel_columns, kBatch / 2,
      [&](std::int64_t row, std::int64_t last_row, std::int64_t column, std::int64_t last_column) {
        kernels.gemm_packed(last_row - row, n, k,
                            {a.data + row * a.row_stride, a.row_stride, a.col_stride}, packed_b,
                            c + row * ldc, ldc, accumulate, d.from(row, 0), column, last_column);
      });
}

template <class T>
void gemm_sum(std::int64_t m, std::int64_t n, const Term<T>* terms, std::int64_t count, T* c,
              std::int64_t ldc, bool accumulate) {
  const FloatKernels<T>& kernels = float_kernels<T>();
  const std::int64_t tiles = 8 * kernels.panel_columns;  // as in gemm
  std::int64_t k = 0;
  for (std::int64_t t = 0; t < count; ++t) k += terms[t].k;
  share(
      m, n, k, cut_into_columns(m, n, kernels.panel_columns), n == 1 ? tiles : kRowGroup,
      m == 1 ? tiles : kernels.panel_columns, fewest_rows(m),
      [&](std::int64_t row, std::int64_t last_row, std::int64_t column, std::int64_t last_column) {
        kernels.gemm_sum(last_row - row, last_column - column, terms, count, row, column,
                         c + row * ldc + column, ldc, accumulate);
      });
}

template void gemm_sum(std::int64_t, std::int64_t, const Term<float>*, std::int64_t, float*,
                       std::int64_t, bool);
template void gemm_sum(std::int64_t, std::int64_t, const Term<double>*, std::int64_t, double*,
                       std::int64_t, bool);
template void pack(std::int64_t, std::int64_t, MatrixRef<float>, float*);
template void pack(std::int64_t, std::int64_t, MatrixRef<double>, double*);
template void gemm_packed(std::int64_t, std::int64_t, std::int64_t, MatrixRef<float>, const float*,
                          float*, std::int64_t, bool, Addend<float>);
template void gemm_packed(std::int64_t, std::int64_t, std::int64_t, MatrixRef<double>,
                          const double*, double*, std::int64_t, bool, Addend<double>);
template void gemm(std::int64_t, std::int64_t, std::int64_t, MatrixRef<float>, MatrixRef<float>,
                   float*, std::int64_t, bool, Addend<float>);
template void gemm(std::int64_t, std::int64_t, std::int64_t, MatrixRef<double>, MatrixRef<double>,
                   double*, std::int64_t, bool, Addend<double>);

}  // namespace unroll::kernels
