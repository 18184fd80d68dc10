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

/// Multiply-adds that a thread should have to do, so that it is worth waking.
constexpr std::int64_t kWorkPerThread = 1 << 17;

/// Calls f(first, last) on ranges of [0, n) that begin at multiples of `unit`.
template <class F>
void split(std::int64_t n, std::int64_t unit, std::int64_t grain, F&& f) {
  parallel_for(0, (n + unit - 1) / unit, (grain + unit - 1) / unit,
               [&](std::int64_t first, std::int64_t last) {
                 f(first * unit, last * unit < n ? last * unit : n);
               });
}

}  // namespace

template <class T>
void gemm(std::int64_t m, std::int64_t n, std::int64_t k, MatrixRef<T> a, MatrixRef<T> b, T* c,
          std::int64_t ldc, bool accumulate) {
  const FloatKernels<T>& kernels = float_kernels<T>();
  // A product with a vector waits for memory: a second thread helps only with a large matrix.
  const std::int64_t work = (m == 1 || n == 1 ? 8 : 1) * kWorkPerThread;
  if (m > 0 && n > 0 && m * n * k >= 2 * work && num_threads() > 1) {
    if (n >= m) {
      split(n, kernels.panel_columns, work / (m * k) + 1,
            [&](std::int64_t first, std::int64_t last) {
              kernels.gemm(m, last - first, k, a,
                           {b.data + first * b.col_stride, b.row_stride, b.col_stride}, c + first,
                           ldc, accumulate);
            });
    } else {
      split(m, 16, work / (n * k) + 1, [&](std::int64_t first, std::int64_t last) {
        kernels.gemm(last - first, n, k,
                     {a.data + first * a.row_stride, a.row_stride, a.col_stride}, b,
                     c + first * ldc, ldc, accumulate);
      });
    }
  } else {
    kernels.gemm(m, n, k, a, b, c, ldc, accumulate);
  }
}

template <class T>
void gemm_packed(std::int64_t m, std::int64_t n, std::int64_t k, MatrixRef<T> a, const T* packed_b,
                 T* c, std::int64_t ldc, bool accumulate) {
  const FloatKernels<T>& kernels = float_kernels<T>();
  if (m <= 0 || n <= 0 || m * n * k < 2 * kWorkPerThread || num_threads() == 1) {
    kernels.gemm_packed(m, n, k, a, packed_b, c, ldc, accumulate, 0, n);
  } else if (n >= m) {
    split(n, kernels.panel_columns, kWorkPerThread / (m * k) + 1,
          [&](std::int64_t first, std::int64_t last) {
            kernels.gemm_packed(m, n, k, a, packed_b, c, ldc, accumulate, first, last);
          });
  } else {
    split(m, 16, kWorkPerThread / (n * k) + 1, [&](std::int64_t first, std::int64_t last) {
      kernels.gemm_packed(last - first, n, k,
                          {a.data + first * a.row_stride, a.row_stride, a.col_stride}, packed_b,
                          c + first * ldc, ldc, accumulate, 0, n);
    });
  }
}

template void gemm_packed(std::int64_t, std::int64_t, std::int64_t, MatrixRef<float>, const float*,
                          float*, std::int64_t, bool);
template void gemm_packed(std::int64_t, std::int64_t, std::int64_t, MatrixRef<double>,
                          const double*, double*, std::int64_t, bool);
template void gemm(std::int64_t, std::int64_t, std::int64_t, MatrixRef<float>, MatrixRef<float>,
                   float*, std::int64_t, bool);
template void gemm(std::int64_t, std::int64_t, std::int64_t, MatrixRef<double>, MatrixRef<double>,
                   double*, std::int64_t, bool);

}  // namespace unroll::kernels
