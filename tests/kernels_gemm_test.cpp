/// Kernels of matrices: products, with what they add, sums of products, and transposing, against
/// plain loops; and the same bits with every number of threads.

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <iterator>
#include <limits>
#include <utility>
#include <vector>

#include "framework/kernels/kernels.h"
#include "framework/kernels/parallel.h"
#include "tests/kernels.h"

using namespace unroll;
using namespace unroll::kernels;
using namespace unroll::test;

namespace {

/// A matrix with room around it, laid out in one of several ways.
template <class T>
struct TestMatrix {
  std::vector<T> values;
  MatrixRef<T> ref;
};

enum class Layout { rows, columns, padded_rows, every_other, row_repeated, reversed };
constexpr Layout kLayouts[] = {Layout::rows,        Layout::columns,      Layout::padded_rows,
                               Layout::every_other, Layout::row_repeated, Layout::reversed};

template <class T>
TestMatrix<T> make_matrix(std::int64_t rows, std::int64_t cols, Layout layout, std::uint64_t seed) {
  TestMatrix<T> m;
  std::int64_t row_stride = cols, col_stride = 1, offset = 0, size = rows * cols;
  switch (layout) {
    case Layout::rows: break;
    case Layout::columns:
      row_stride = 1;
      col_stride = rows;
      break;
    case Layout::padded_rows:
      row_stride = cols + 5;
      size = rows * row_stride;
      break;
    case Layout::every_other:
      row_stride = 2 * cols;
      col_stride = 2;
      size *= 2;
      break;
    case Layout::row_repeated:
      row_stride = 0;
      size = cols;
      break;
    case Layout::reversed:
      row_stride = -cols;
      offset = (rows - 1) * cols;
      break;
  }
  m.values = random_values<T>(static_cast<std::size_t>(size < 1 ? 1 : size), seed);
  m.ref = {m.values.data() + (rows > 0 ? offset : 0), row_stride, col_stride};
  return m;
}

/// Compares C with A B, or with C + A B, in long double, and what stands beside C with what stood
/// there before.
template <class T>
void check_product(std::int64_t m, std::int64_t n, std::int64_t k, MatrixRef<T> a, MatrixRef<T> b,
                   const std::vector<T>& before, const std::vector<T>& after, std::int64_t ldc,
                   bool accumulate) {
  const Real epsilon = std::numeric_limits<T>::epsilon();
  double worst = 0;  // error as a share of what is allowed
  for (std::int64_t i = 0; i < m; ++i) {
    for (std::int64_t j = 0; j < ldc; ++j) {
      const auto at = static_cast<std::size_t>(i * ldc + j);
      if (j >= n) {
        if (after[at] != before[at]) worst = 1e30;  // written beside C
        continue;
      }
      Real sum = accumulate ? Real(before[at]) : 0, scale = std::fabs(sum);
      for (std::int64_t p = 0; p < k; ++p) {
        const Real term = Real(a.data[i * a.row_stride + p * a.col_stride]) *
                          b.data[p * b.row_stride + j * b.col_stride];
        sum += term;
        scale += std::fabs(term);
      }
      const Real error = std::fabs(after[at] - sum);
      // k products and sums in sequence: (k + 2) / 2 in the worst case, far less on average.
      const Real allowed =
          epsilon * scale *
          std::fmin((static_cast<Real>(k) + 2) / 2, 2 + std::sqrt(static_cast<Real>(k)) / 4);
      if (!(error <= allowed)) worst = std::fmax(worst, static_cast<double>(error / allowed));
    }
  }
  CHECK(worst == 0);
}

template <class T>
void check_gemm(const FloatKernels<T>& kernels, std::int64_t m, std::int64_t n, std::int64_t k,
                Layout layout_a, Layout layout_b, bool accumulate) {
  CAPTURE(m);
  CAPTURE(n);
  CAPTURE(k);
  CAPTURE(static_cast<int>(layout_a));
  CAPTURE(static_cast<int>(layout_b));
  CAPTURE(accumulate);
  const TestMatrix<T> a = make_matrix<T>(m, k, layout_a, 11),
                      b = make_matrix<T>(k, n, layout_b, 12);
  const std::int64_t ldc = n + 3;
  // Without `accumulate` C may hold anything, a NaN too.
  std::vector<T> before = random_values<T>(static_cast<std::size_t>(m * ldc), 13);
  std::vector<T> c = before;
  if (!accumulate) {
    for (std::int64_t i = 0; i < m; ++i) {
      for (std::int64_t j = 0; j < n; ++j) {
        c[static_cast<std::size_t>(i * ldc + j)] = std::numeric_limits<T>::quiet_NaN();
      }
    }
  }
  std::vector<T> packed_c = c;
  kernels.gemm(m, n, k, a.ref, b.ref, c.data(), ldc, accumulate, {});
  check_product(m, n, k, a.ref, b.ref, before, c, ldc, accumulate);

  // The packed copy, aligned and with a guard, and C in ranges of its columns.
  const auto size = static_cast<std::size_t>(kernels.packed_size(k, n));
  std::vector<T> memory(size + 17, T(77));
  T* packed = memory.data();
  while (reinterpret_cast<std::uintptr_t>(packed) % 64 != 0) ++packed;
  kernels.pack(k, n, b.ref, packed);
  CHECK(packed[size] == T(77));
  const std::int64_t middle = n / 2 / kernels.panel_columns * kernels.panel_columns;
  kernels.gemm_packed(m, n, k, a.ref, packed, packed_c.data(), ldc, accumulate, {}, 0, middle);
  kernels.gemm_packed(m, n, k, a.ref, packed, packed_c.data(), ldc, accumulate, {}, middle, n);
  check_product(m, n, k, a.ref, b.ref, before, packed_c, ldc, accumulate);
}

template <class T>
void check_all_gemms(const FloatKernels<T>& kernels) {
  // Every size of tile, with whole and partial vectors, and both sides of every block size.
  for (std::int64_t m = 1; m <= 20; ++m) {
    for (std::int64_t n : {1, 2, 3, 7, 8, 15, 16, 17, 33, 48, 50, 100}) {
      for (std::int64_t k : {0, 1, 2, 5, 16, 37}) {
        check_gemm(kernels, m, n, k, Layout::rows, Layout::rows, (m + n + k) % 2 == 0);
      }
    }
  }
  for (Layout layout_a : kLayouts) {
    for (Layout layout_b : kLayouts) {
      for (bool accumulate : {false, true}) {
        for (std::int64_t m : {1, 2, 13, 40}) {
          for (std::int64_t n : {1, 5, 64, 101}) {
            for (std::int64_t k : {1, 3, 19, 70}) {
              check_gemm(kernels, m, n, k, layout_a, layout_b, accumulate);
            }
          }
        }
      }
    }
  }
  for (Layout layout_a : {Layout::rows, Layout::columns}) {
    for (Layout layout_b : {Layout::rows, Layout::columns}) {
      check_gemm(kernels, 3, 40, 2500, layout_a, layout_b, true);
      check_gemm(kernels, 20, 70, 2500, layout_a, layout_b, true);
      check_gemm(kernels, 300, 530, 30, layout_a, layout_b, false);
      check_gemm(kernels, 262, 2100, 10, layout_a, layout_b, true);
      check_gemm(kernels, 129, 49, 600, layout_a, layout_b, false);
    }
  }
}

}  // namespace

TEST_CASE("kernels: gemm f32 agrees with the triple loop") {
  for_each_isa([](const Kernels& table) { check_all_gemms(table.f32); });
}

TEST_CASE("kernels: gemm f64 agrees with the triple loop") {
  for_each_isa([](const Kernels& table) { check_all_gemms(table.f64); });
}

TEST_CASE("kernels: columns can be packed apart") {
  for_each_isa([](const Kernels& table) {
    const FloatKernels<float>& kernels = table.f32;
    const std::int64_t k = 9, n = 3 * kernels.panel_columns + 5, middle = 2 * kernels.panel_columns;
    const TestMatrix<float> b = make_matrix<float>(k, n, Layout::rows, 1);
    const auto size = static_cast<std::size_t>(kernels.packed_size(k, n));
    std::vector<float> memory(2 * size + 32);
    float* whole = memory.data();
    while (reinterpret_cast<std::uintptr_t>(whole) % 64 != 0) ++whole;
    float* parts = whole + (size + 15) / 16 * 16;
    kernels.pack(k, n, b.ref, whole);
    kernels.pack(k, middle, b.ref, parts);
    kernels.pack(k, n - middle, {b.ref.data + middle, b.ref.row_stride, b.ref.col_stride},
                 parts + k * middle);
    CHECK(std::vector<float>(whole, whole + size) == std::vector<float>(parts, parts + size));
  });
}

TEST_CASE("kernels: products with infinities and NaNs say so") {
  for_each_isa([](const Kernels& table) {
    // 21 = one vector and a rest in every instruction set; the infinity is in neither's padding.
    for (Layout layout : {Layout::rows, Layout::columns}) {
      for (std::int64_t m : {1, 4, 20}) {
        TestMatrix<float> b = make_matrix<float>(21, 21, layout, 3);
        std::vector<float> a(static_cast<std::size_t>(m * 21), 1.0F);
        const auto at = b.ref.row_stride * 20 + b.ref.col_stride * 17;
        b.values[static_cast<std::size_t>(at)] = std::numeric_limits<float>::infinity();
        std::vector<float> c(static_cast<std::size_t>(m * 21));
        table.f32.gemm(m, 21, 21, {a.data(), 21, 1}, b.ref, c.data(), 21, false, {});
        for (std::size_t i = 0; i < c.size(); ++i) CHECK(std::isinf(c[i]) == (i % 21 == 17));
      }
    }
  });
}

TEST_CASE("kernels: the shared gemm gives the same with every number of threads") {
  const int threads_before = num_threads();
  struct Shape {
    std::int64_t m, n, k;
  };
  for (const Shape s :
       {Shape{20, 800, 200}, Shape{700, 300, 64}, Shape{1, 2000, 1500}, Shape{2000, 1, 1500},
        Shape{3, 5, 7}, Shape{600, 40, 600}, Shape{280, 100, 600}, Shape{40, 30, 2500}}) {
    for (Layout layout : {Layout::rows, Layout::columns}) {
      CAPTURE(s.m);
      CAPTURE(s.n);
      const TestMatrix<float> a = make_matrix<float>(s.m, s.k, layout, 1);
      const TestMatrix<float> b = make_matrix<float>(s.k, s.n, layout, 2);
      const std::vector<float> before =
          random_values<float>(static_cast<std::size_t>(s.m * s.n), 3);
      const FloatKernels<float>& kernels = float_kernels<float>();
      std::vector<float> memory(static_cast<std::size_t>(kernels.packed_size(s.k, s.n)) + 16);
      float* packed = memory.data();
      while (reinterpret_cast<std::uintptr_t>(packed) % 64 != 0) ++packed;
      kernels.pack(s.k, s.n, b.ref, packed);
      const auto product = [&](int threads, bool from_packed) {
        set_num_threads(threads);
        std::vector<float> c = before;
        if (from_packed) {
          gemm_packed<float>(s.m, s.n, s.k, a.ref, packed, c.data(), s.n, true);
        } else {
          gemm<float>(s.m, s.n, s.k, a.ref, b.ref, c.data(), s.n, true);
        }
        return c;
      };
      for (bool from_packed : {false, true}) {
        const std::vector<float> alone = product(1, from_packed);
        check_product(s.m, s.n, s.k, a.ref, b.ref, before, alone, s.n, true);
        for (int threads : {2, 3, 5}) CHECK(product(threads, from_packed) == alone);
      }
    }
  }
  set_num_threads(threads_before);
}

namespace {

/// C = A B + D, by gemm and by gemm_packed; D is one row that repeats, or a matrix.
template <class T>
void check_bias(const FloatKernels<T>& kernels, std::int64_t m, std::int64_t n, std::int64_t k,
                Layout layout_a, Layout layout_b, std::int64_t stride) {
  CAPTURE(m);
  CAPTURE(n);
  CAPTURE(k);
  CAPTURE(stride);
  CAPTURE(static_cast<int>(layout_a));
  CAPTURE(static_cast<int>(layout_b));
  const TestMatrix<T> a = make_matrix<T>(m, k, layout_a, 21),
                      b = make_matrix<T>(k, n, layout_b, 22);
  const std::vector<T> bias = random_values<T>(static_cast<std::size_t>(n + (m - 1) * stride), 23);
  const Addend<T> d{bias.data(), stride};
  const std::int64_t ldc = n + 2;
  // What check_product takes for C before: D, and a guard behind each row.
  std::vector<T> before(static_cast<std::size_t>(m * ldc), T(77)), c = before;
  for (std::int64_t i = 0; i < m; ++i)
    std::copy_n(bias.begin() + i * stride, n, before.begin() + i * ldc);
  for (std::size_t i = 0; i < c.size(); ++i)
    if (static_cast<std::int64_t>(i) % ldc < n) c[i] = std::numeric_limits<T>::quiet_NaN();
  std::vector<T> packed_c = c;
  kernels.gemm(m, n, k, a.ref, b.ref, c.data(), ldc, false, d);
  check_product(m, n, k, a.ref, b.ref, before, c, ldc, true);

  std::vector<T> memory(static_cast<std::size_t>(kernels.packed_size(k, n)) + 16);
  T* packed = memory.data();
  while (reinterpret_cast<std::uintptr_t>(packed) % 64 != 0) ++packed;
  kernels.pack(k, n, b.ref, packed);
  const std::int64_t middle = n / 2 / kernels.panel_columns * kernels.panel_columns;
  kernels.gemm_packed(m, n, k, a.ref, packed, packed_c.data(), ldc, false, d, 0, middle);
  kernels.gemm_packed(m, n, k, a.ref, packed, packed_c.data(), ldc, false, d, middle, n);
  check_product(m, n, k, a.ref, b.ref, before, packed_c, ldc, true);
}

template <class T>
void check_all_biases(const FloatKernels<T>& kernels) {
  for (Layout layout_a : {Layout::rows, Layout::columns, Layout::reversed})
    for (Layout layout_b : kLayouts) {
      for (std::int64_t m : {1, 3, 5, 14})
        for (std::int64_t n : {1, 3, 16, 17, 70})
          for (std::int64_t k : {0, 1, 37})
            for (std::int64_t stride : {std::int64_t{0}, n + 1})
              check_bias(kernels, m, n, k, layout_a, layout_b, stride);
      check_bias(kernels, 3, 40, 2500, layout_a, layout_b, 0);
      check_bias(kernels, 20, 70, 600, layout_a, layout_b, 71);
    }
}

/// Where the B of the terms of a sum lie: apart, each in a layout of its own, or one after the
/// other in the order of the terms or in the opposite one.
enum class Lying { apart, joined, joined_last_first };

/// Terms of a sum, side by side: A [m, sum of k], B [sum of k, n], compared with the one product.
template <class T>
struct TestSum {
  std::vector<TestMatrix<T>> parts;
  std::vector<Term<T>> terms;
  std::vector<T> a, b;    ///< all of them as one product, with contiguous rows
  std::vector<T> in_one;  ///< the B that are joined
  std::int64_t m, n, k = 0;

  TestSum(std::int64_t rows, std::int64_t columns, const std::vector<std::int64_t>& ks,
          std::size_t first_layout, Lying lying = Lying::apart)
      : m(rows), n(columns) {
    const std::size_t layouts = std::size(kLayouts);
    for (std::size_t t = 0; t < ks.size(); ++t) {
      parts.push_back(make_matrix<T>(m, ks[t], kLayouts[(first_layout + t) % layouts], 2 * t));
      parts.push_back(
          make_matrix<T>(ks[t], n, kLayouts[(first_layout + 2 * t) % layouts], 2 * t + 1));
      k += ks[t];
    }
    for (std::size_t t = 0; t < ks.size(); ++t)
      terms.push_back({ks[t], parts[2 * t].ref, parts[2 * t + 1].ref});
    for (std::int64_t i = 0; i < m; ++i)
      for (const Term<T>& t : terms)
        for (std::int64_t p = 0; p < t.k; ++p)
          a.push_back(t.a.data[i * t.a.row_stride + p * t.a.col_stride]);
    for (const Term<T>& t : terms)
      for (std::int64_t p = 0; p < t.k; ++p)
        for (std::int64_t j = 0; j < n; ++j)
          b.push_back(t.b.data[p * t.b.row_stride + j * t.b.col_stride]);
    if (lying != Lying::apart) join(lying == Lying::joined_last_first);
  }

  void join(bool last_first) {
    const std::int64_t stride = n + 2;
    in_one.resize(static_cast<std::size_t>(k * stride));
    std::int64_t first = 0;  // row of this term in b
    for (Term<T>& t : terms) {
      T* to = in_one.data() + (last_first ? k - first - t.k : first) * stride;
      for (std::int64_t p = 0; p < t.k; ++p)
        std::copy_n(b.data() + (first + p) * n, n, to + p * stride);
      t.b = {to, stride, 1};
      first += t.k;
    }
  }
  MatrixRef<T> whole_a() const { return {a.data(), k, 1}; }
  MatrixRef<T> whole_b() const { return {b.data(), n, 1}; }
  std::int64_t count() const { return static_cast<std::int64_t>(terms.size()); }
};

template <class T>
void check_sum(const FloatKernels<T>& kernels, std::int64_t m, std::int64_t n,
               const std::vector<std::int64_t>& ks, std::size_t layout, bool accumulate,
               Lying lying = Lying::apart) {
  CAPTURE(m);
  CAPTURE(n);
  CAPTURE(ks.size());
  CAPTURE(layout);
  CAPTURE(accumulate);
  CAPTURE(static_cast<int>(lying));
  const TestSum<T> sum(m, n, ks, layout, lying);
  const std::int64_t ldc = n + 3;
  const std::vector<T> before = random_values<T>(static_cast<std::size_t>(m * ldc), 13);
  std::vector<T> c = before;
  for (std::size_t i = 0; !accumulate && i < c.size(); ++i)
    if (static_cast<std::int64_t>(i) % ldc < n) c[i] = std::numeric_limits<T>::quiet_NaN();
  // In four parts, as threads would do it.
  const std::int64_t row = m / 2, column = n / 2;
  std::vector<T> parts = c;
  kernels.gemm_sum(m, n, sum.terms.data(), sum.count(), 0, 0, c.data(), ldc, accumulate);
  check_product(m, n, sum.k, sum.whole_a(), sum.whole_b(), before, c, ldc, accumulate);
  for (std::int64_t i : {std::int64_t{0}, row})
    for (std::int64_t j : {std::int64_t{0}, column})
      kernels.gemm_sum(i == 0 ? row : m - row, j == 0 ? column : n - column, sum.terms.data(),
                       sum.count(), i, j, parts.data() + i * ldc + j, ldc, accumulate);
  if (row > 0 && column > 0)
    check_product(m, n, sum.k, sum.whole_a(), sum.whole_b(), before, parts, ldc, accumulate);
}

template <class T>
void check_all_sums(const FloatKernels<T>& kernels) {
  const std::vector<std::vector<std::int64_t>> ks = {{},
                                                     {0},
                                                     {1},
                                                     {0, 0},
                                                     {3, 0, 2},
                                                     {1, 1, 1, 1, 1},
                                                     {20, 7, 300},
                                                     {200, 200, 113},
                                                     std::vector<std::int64_t>(100, 3),
                                                     std::vector<std::int64_t>(64, 4)};
  for (std::size_t i = 0; i < ks.size(); ++i)
    for (std::int64_t m : {1, 2, 5, 13, 40})
      for (std::int64_t n : {1, 3, 16, 17, 70, 101})
        for (Lying lying : {Lying::apart, Lying::joined, Lying::joined_last_first})
          check_sum(kernels, m, n, ks[i], i + static_cast<std::size_t>(m + n),
                    (i + static_cast<std::size_t>(m)) % 2 == 0, lying);
  check_sum(kernels, 30, 2100, {20, 20, 20}, 0, false);  // wider than a block of B
  check_sum(kernels, 0, 5, {2, 3}, 0, false);
  check_sum(kernels, 5, 0, {2, 3}, 0, false);
}

}  // namespace

TEST_CASE("kernels: a product adds a row or a matrix") {
  for_each_isa([](const Kernels& table) {
    check_all_biases(table.f32);
    check_all_biases(table.f64);
  });
}

TEST_CASE("kernels: a sum of products is the product of what is put side by side") {
  for_each_isa([](const Kernels& table) {
    check_all_sums(table.f32);
    check_all_sums(table.f64);
  });
}

TEST_CASE("kernels: a sum of products is the same with every number of threads") {
  const int before = num_threads();
  for (const auto& size : {std::pair<std::int64_t, std::int64_t>{200, 800},
                           {33, 700},
                           {300, 90},
                           {700, 90},
                           {1, 600},
                           {600, 1}})
    for (const std::vector<std::int64_t>& ks :
         {std::vector<std::int64_t>(32, 8), std::vector<std::int64_t>{300, 600}})
      for (Lying lying : {Lying::apart, Lying::joined, Lying::joined_last_first}) {
        const std::int64_t m = size.first, n = size.second;
        CAPTURE(m);
        CAPTURE(n);
        CAPTURE(ks.size());
        const TestSum<float> sum(m, n, ks, 0, lying);
        const auto compute = [&](int threads) {
          set_num_threads(threads);
          std::vector<float> c(static_cast<std::size_t>(m * n));
          gemm_sum<float>(m, n, sum.terms.data(), sum.count(), c.data(), n, false);
          return c;
        };
        const std::vector<float> alone = compute(1);
        check_product(m, n, sum.k, sum.whole_a(), sum.whole_b(), alone, alone, n, false);
        for (int threads : {2, 3}) CHECK(compute(threads) == alone);
      }
  set_num_threads(before);
}

TEST_CASE("kernels: transpose") {
  for_each_isa([](const Kernels& table) {
    const auto check = [](const auto& transpose, auto value) {
      using T = decltype(value);
      for (std::int64_t m : {0, 1, 3, 4, 7, 32, 33, 70})
        for (std::int64_t n : {0, 1, 2, 4, 5, 31, 64, 65}) {
          const auto size = static_cast<std::size_t>(m * n);
          const std::vector<T> x = random_values<T>(size, 5);
          std::vector<T> y(size + 1, T(77)), expected = y;
          for (std::int64_t i = 0; i < m; ++i)
            for (std::int64_t j = 0; j < n; ++j)
              expected[static_cast<std::size_t>(j * m + i)] =
                  x[static_cast<std::size_t>(i * n + j)];
          transpose(m, n, x.data(), y.data());
          CAPTURE(m);
          CAPTURE(n);
          CHECK(y == expected);
        }
    };
    check(table.f32.transpose, 0.0F);
    check(table.f64.transpose, 0.0);
  });
}
