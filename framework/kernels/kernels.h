#pragma once
/// The numeric kernels: raw pointers in, raw pointers out. Nothing here knows a Tensor.
///
/// Every kernel is compiled once per instruction set (framework/kernels/isa/*.cpp) from the same
/// xsimd templates, and `active()` picks the best table that this CPU runs. The environment
/// variable UNROLL_ISA (sse2, avx2, avx512, neon) forces one, for tests and for comparisons.

#include <array>
#include <cstdint>
#include <string_view>
#include <vector>

namespace unroll::kernels {

/// One elementwise instruction. a, b, c are its operands, s its immediate scalars.
enum class Op : std::uint8_t {
  copy,        ///< a
  affine,      ///< s0 * a + s1
  neg,         ///< -a
  abs,         ///< |a|
  sign,        ///< -1, 0 or 1; NaN stays NaN
  square,      ///< a * a
  relu,        ///< max(a, 0); NaN stays NaN
  clamp,       ///< min(max(a, s0), s1); NaN stays NaN
  add,         ///< a + b
  sub,         ///< a - b
  mul,         ///< a * b
  minimum,     ///< min(a, b); NaN if either is
  maximum,     ///< max(a, b); NaN if either is
  eq,          ///< a == b ? 1 : 0
  ne,          ///< a != b ? 1 : 0
  lt,          ///< a < b ? 1 : 0
  le,          ///< a <= b ? 1 : 0
  gt,          ///< a > b ? 1 : 0
  ge,          ///< a >= b ? 1 : 0
  where,       ///< a != 0 ? b : c
  muladd,      ///< a * b + c
  scaled_mul,  ///< s0 * a * b
  // From here on for floating-point types only.
  div,           ///< a / b
  exp,           ///< e^a
  log,           ///< natural logarithm; -inf at 0, NaN below
  sqrt,          ///< square root; NaN below 0
  sin,           ///< sine, radians
  cos,           ///< cosine, radians
  tanh,          ///< hyperbolic tangent
  sigmoid,       ///< 1 / (1 + e^-a), relative accuracy kept far below 0
  softplus,      ///< log(1 + e^a) = max(a, 0) + log1p(e^-|a|)
  pow,           ///< a^b as C's pow (any sign rule of C's pow holds)
  tanh_grad,     ///< a * (1 - b * b):   a the gradient, b = tanh(x)
  sigmoid_grad,  ///< a * b * (1 - b):   a the gradient, b = sigmoid(x)
  // Two instructions in one, for chains of them (fused.cpp).
  tanh_of_sum,          ///< tanh(a + b)
  sigmoid_of_sum,       ///< sigmoid(a + b)
  tanh_mul,             ///< tanh(a) * b
  sigmoid_mul_tanh,     ///< sigmoid(a) * tanh(b) with one division; 0 where below 3e-31
  tanh_grad_of_mul,     ///< a * b * (1 - c * c)
  sigmoid_grad_of_mul,  ///< a * b * c * (1 - c)
  tanh_grad_add,        ///< a * (1 - b * b) + c
  count
};
inline constexpr int kOpCount = static_cast<int>(Op::count);
inline constexpr Op kFirstFloatOp = Op::div;

/// How many of a, b, c an instruction reads.
constexpr int arity(Op op) {
  switch (op) {
    case Op::add:
    case Op::sub:
    case Op::mul:
    case Op::scaled_mul:
    case Op::minimum:
    case Op::maximum:
    case Op::eq:
    case Op::ne:
    case Op::lt:
    case Op::le:
    case Op::gt:
    case Op::ge:
    case Op::div:
    case Op::pow:
    case Op::tanh_grad:
    case Op::sigmoid_grad:
    case Op::tanh_of_sum:
    case Op::sigmoid_of_sum:
    case Op::tanh_mul:
    case Op::sigmoid_mul_tanh: return 2;
    case Op::where:
    case Op::muladd:
    case Op::tanh_grad_of_mul:
    case Op::sigmoid_grad_of_mul:
    case Op::tanh_grad_add: return 3;
    default: return 1;
  }
}

/// The most that work() says.
inline constexpr std::int64_t kMostWork = 64;
/// How much longer an instruction takes than an addition, roughly.
constexpr std::int64_t work(Op op) {
  switch (op) {
    case Op::exp:
    case Op::log:
    case Op::tanh:
    case Op::sigmoid:
    case Op::tanh_of_sum:
    case Op::sigmoid_of_sum:
    case Op::tanh_mul:
    case Op::softplus: return 8;
    case Op::sigmoid_mul_tanh: return 12;
    case Op::copy: return 4;  // waits for memory
    case Op::pow:
    case Op::sin:
    case Op::cos: return kMostWork;
    default: return 1;
  }
}

/// Additions that a thread should have to do: some 0.1 us, so few because the rows that it does
/// itself need not come from the cache of another core; and in all, so that it is worth waking.
inline constexpr std::int64_t kAdditionsPerThread = 1 << 12;
inline constexpr std::int64_t kAdditionsWorthWaking = 1 << 17;

/// Elements from one row to the next, of the result and of each operand; and, where it is not 0,
/// from a row to one that is needed soon, which the processor is asked for.
struct RowStrides {
  std::int64_t out = 0, a = 0, b = 0, c = 0;
  std::int64_t ahead_out = 0, ahead_a = 0, ahead_b = 0, ahead_c = 0;
  bool asks = false;  ///< whether any of these is not 0
};

/// out[i] = op(a[i], b[i], c[i]) for i < n, in each of `rows` rows. Contiguous rows, any alignment,
/// n >= 0; out may be one of the operands (same address and stride) but may not otherwise overlap
/// them. Operands past the arity are null; s holds the immediates (null where the op has none).
template <class T>
using ElementwiseRowsFn = void (*)(std::int64_t rows, std::int64_t n, T* out, const T* a,
                                   const T* b, const T* c, const RowStrides& strides,
                                   const double* s);

/// The same as a function of one row.
template <class T>
struct ElementwiseFn {
  ElementwiseRowsFn<T> rows = nullptr;
  void operator()(std::int64_t n, T* out, const T* a, const T* b, const T* c,
                  const double* s) const {
    static constexpr RowStrides none{};
    rows(1, n, out, a, b, c, none, s);
  }
  explicit operator bool() const { return rows != nullptr; }
};

/// A matrix that gemm reads: element (i, j) is data[i * row_stride + j * col_stride].
template <class T>
struct MatrixRef {
  const T* data;
  std::int64_t row_stride;
  std::int64_t col_stride;
};

/// Up to so many rows of C the second operand of a product may be read in place, where its rows are
/// contiguous; from more rows on it is packed, and sums are taken in another order.
inline constexpr std::int64_t kRowsInPlace = 256;

/// One term A [m, k] B [k, n] of a sum of products.
template <class T>
struct Term {
  std::int64_t k;
  MatrixRef<T> a, b;
};

/// What a product adds to a matrix product: nothing, a matrix, or, with stride 0, a row that
/// repeats.
template <class T>
struct Addend {
  const T* data = nullptr;
  std::int64_t row_stride = 0;
  Addend from(std::int64_t row, std::int64_t column) const {
    return {data ? data + row * row_stride + column : nullptr, row_stride};
  }
};

/// Everything that exists once per instruction set and floating-point type.
template <class T>
struct FloatKernels {
  std::array<ElementwiseFn<T>, kOpCount> elementwise;

  /// Sum / max / min of n contiguous values. `sum` adds blocks of 4,096 in vector lanes and the
  /// blocks in double, so that the error does not grow with n. max and min of n = 0 are -inf and
  /// +inf; NaN if any value is.
  T (*sum)(std::int64_t n, const T* x);
  T (*max)(std::int64_t n, const T* x);
  T (*min)(std::int64_t n, const T* x);
  /// sum of x[i] * y[i]
  T (*dot)(std::int64_t n, const T* x, const T* y);
  /// out[i] = exp(x[i] - shift); returns their sum. out may be x; out may be null (only the sum).
  T (*exp_sum)(std::int64_t n, const T* x, T shift, T* out);

  /// Elements (not bytes) that `pack` writes for a [k, n] matrix.
  std::int64_t (*packed_size)(std::int64_t k, std::int64_t n);
  /// Lays B [k, n] out in the column panels that gemm_packed streams. out is 64-byte aligned.
  /// Threads can share the work: the columns from j on, j a multiple of panel_columns, go to
  /// out + k * j, and may be packed by themselves.
  void (*pack)(std::int64_t k, std::int64_t n, MatrixRef<T> b, T* out);
  /// C[m, n] (row stride ldc, columns contiguous) = A[m, k] * B, + C when accumulate, otherwise +
  /// d. B is packed. [first_column, last_column) restricts the work to these columns of C
  /// (first_column is a multiple of panel_columns), for threads.
  void (*gemm_packed)(std::int64_t m, std::int64_t n, std::int64_t k, MatrixRef<T> a,
                      const T* packed_b, T* c, std::int64_t ldc, bool accumulate, Addend<T> d,
                      std::int64_t first_column, std::int64_t last_column);
  std::int64_t panel_columns;  ///< of a packed B
  /// The same without a packed B, for one thread: packs into a scratch buffer of the thread when
  /// that pays; matrix-vector shapes (m = 1 or n = 1) run unpacked.
  void (*gemm)(std::int64_t m, std::int64_t n, std::int64_t k, MatrixRef<T> a, MatrixRef<T> b, T* c,
               std::int64_t ldc, bool accumulate, Addend<T> d);
  /// C[m, n] = the sum of A B over `count` terms (+ C when accumulate), for one thread, A and B
  /// without their rows and columns before the first ones. Many terms with small k cost no more
  /// than one with their sum.
  void (*gemm_sum)(std::int64_t m, std::int64_t n, const Term<T>* terms, std::int64_t count,
                   std::int64_t first_row, std::int64_t first_column, T* c, std::int64_t ldc,
                   bool accumulate);
  /// out [n, m] = the transpose of x [m, n], both contiguous.
  void (*transpose)(std::int64_t m, std::int64_t n, const T* x, T* out);
};

struct Kernels {
  const char* isa;  ///< "sse2", "avx2", "avx512" or "neon"
  FloatKernels<float> f32;
  FloatKernels<double> f64;
  std::array<ElementwiseFn<std::int64_t>, kOpCount> i64;  ///< null from kFirstFloatOp on
};

/// The table in use: the best that this CPU has, or the one that UNROLL_ISA names. Throws
/// std::runtime_error, naming the choices, when UNROLL_ISA names one that this CPU or this build
/// does not have.
const Kernels& active();
/// Every table of this build that this CPU runs, best first.
const std::vector<const Kernels*>& available();
/// The one of these that is named so. Throws as active() does.
const Kernels& find(std::string_view isa);

template <class T>
const FloatKernels<T>& float_kernels();
template <>
inline const FloatKernels<float>& float_kernels<float>() {
  return active().f32;
}
template <>
inline const FloatKernels<double>& float_kernels<double>() {
  return active().f64;
}

/// C[m, n] = A * B (+ C when accumulate, + d otherwise), shared between the threads of the pool
/// (parallel.h). Any strides for A and B (0 and negative ones too); k = 0 gives zeros (or leaves
/// C).
template <class T>
void gemm(std::int64_t m, std::int64_t n, std::int64_t k, MatrixRef<T> a, MatrixRef<T> b, T* c,
          std::int64_t ldc, bool accumulate, Addend<T> d = {});

/// FloatKernels::pack, shared between the threads.
template <class T>
void pack(std::int64_t k, std::int64_t n, MatrixRef<T> b, T* out);

/// The same as gemm with B in the panels that pack makes.
template <class T>
void gemm_packed(std::int64_t m, std::int64_t n, std::int64_t k, MatrixRef<T> a, const T* packed_b,
                 T* c, std::int64_t ldc, bool accumulate, Addend<T> d = {});

/// The same for a sum of products.
template <class T>
void gemm_sum(std::int64_t m, std::int64_t n, const Term<T>* terms, std::int64_t count, T* c,
              std::int64_t ldc, bool accumulate);

}  // namespace unroll::kernels
