#pragma once
/// Matrix products. See simd.impl.h.
///
/// C [m, n] = A [m, k] B [k, n] is computed in tiles of up to kRows x kPanel elements that stay in
/// registers while the inner dimension runs. B is laid out beforehand in panels, kPanel columns
/// wide, in which the rows follow one another, so that a tile reads it as one stream; A is read in
/// place when its rows are contiguous, and otherwise copied to strips in the order in which the
/// tiles read it. (Goto, van de Geijn 2008: Anatomy of high-performance matrix multiplication.)

#include "framework/kernels/kernels.h"
#include "framework/kernels/scratch.h"
#include "framework/kernels/simd.impl.h"

#include <cstddef>
#include <cstdint>
#include <utility>

namespace unroll::kernels {
namespace {

/// max_rows and max_vectors: the size of the largest tile. As large as the registers allow, with
/// one row of the panel and one element of A beside it.
template <class T, class Arch, int max_rows, int max_vectors>
struct Gemm {
  using V = xsimd::batch<T, Arch>;
  using Index = std::int64_t;
  using Addend = kernels::Addend<T>;

  static constexpr Index kVector = kLanes<V>;
  static constexpr int kRows = max_rows;
  static constexpr int kVectors = max_vectors;
  static constexpr Index kPanel = kVectors * kVector;

  // Blocks of B [kDepth, kWidth] and of A [kHeight, kDepth] stay in the L2 cache together, where
  // that has room for both: beside vectors of 64 bytes. Elsewhere the panels of B come from the L3
  // cache anyway, and B is wide, so that A is packed less often.
  static constexpr Index kDepth = 256;
  static constexpr Index kWidth =
      (sizeof(V) == 64 ? 480 : 2048) * 4 / static_cast<Index>(sizeof(T)) / kPanel * kPanel;
  static constexpr Index kBlockOfA = 224 * 1024 / static_cast<Index>(sizeof(T));
  // An inner dimension up to this one runs in one go when A needs no packing.
  static constexpr Index kMaxDepth = 2048;
  // Up to so many rows of C it is faster to take the dot products with the columns of B, where
  // those are contiguous, than to pack it.
  static constexpr Index kRowsOfDots = 4;

  /// Whether rows so far apart compete for the same places in the L1 cache, and a panel is too
  /// narrow to make up for it.
  static bool crowded(Index row_stride) {
    return kPanel * static_cast<Index>(sizeof(T)) < 128 &&
           row_stride * static_cast<Index>(sizeof(T)) % 2048 == 0;
  }

  static T* buffer(Scratch use, Index count) {
    return static_cast<T*>(scratch(use, static_cast<std::size_t>(count) * sizeof(T)));
  }

  static constexpr Index blocks(Index n, Index size) { return (n + size - 1) / size; }
  static constexpr Index padded(Index n) { return blocks(n, kVector) * kVector; }

  // --- The tile ----------------------------------------------------------------------------------

  /// C [rows, vectors * kVector] = A [rows, k] B + D. Row p of B is at b + p * ldb. Element (i, p)
  /// of A is a[i * lda + p], or a[p * rows + i] in a packed strip.
  ///
  /// The loop is not unrolled: g++ would spill the sums. A tile with few sums, whose additions
  /// would wait for one another, keeps several of each, for every `ways`-th element of the inner
  /// dimension, and asks for B further ahead, since it uses each row of it at once; for the first
  /// line of each row alone, which shows the processor where to go on: to ask for all of them takes
  /// longer than to read them.
  template <int rows, int vectors, bool packed>
  static void tile(Index k, const T* a, Index lda, const T* b, Index ldb, T* c, Index ldc,
                   Addend d) {
    constexpr int ways = rows > 1 ? 1 : (7 + vectors) / vectors;
    constexpr Index ahead = rows > 1 ? 8 : 24;
    V sums[ways][rows][vectors];
    unrolled<rows>([&](auto i) __attribute__((always_inline)) {
      unrolled<vectors>([&](auto j) __attribute__((always_inline)) {
        unrolled<ways>([&](auto q) __attribute__((always_inline)) { sums[q][i][j] = V(T(0)); });
        __builtin_prefetch(c + i * ldc + j * kVector, 1);
      });
    });
    if (d.data && d.data != c) {
      unrolled<rows>([&](auto i) __attribute__((always_inline)) {
        unrolled<vectors>([&](auto j) __attribute__((always_inline)) {
          __builtin_prefetch(d.data + i * d.row_stride + j * kVector);
        });
      });
    }
    const auto step = [&](Index p, auto q) __attribute__((always_inline)) {
      V row[vectors];
      unrolled<vectors>([&](auto j) __attribute__((always_inline)) {
        row[j] = V::load_unaligned(b + j * kVector);
        if (rows > 1 || j == 0) __builtin_prefetch(b + j * kVector + ahead * ldb);
      });
      unrolled<rows>([&](auto i) __attribute__((always_inline)) {
        const V x(packed ? a[p * rows + i] : a[i * lda + p]);
        unrolled<vectors>([&](auto j) __attribute__((always_inline)) {
          sums[q][i][j] = xsimd::fma(x, row[j], sums[q][i][j]);
        });
      });
      b += ldb;
    };
    Index p = 0;
    if constexpr (ways > 1) {
      for (; p + ways <= k; p += ways)
        unrolled<ways>([&](auto q) __attribute__((always_inline)) { step(p + q, q); });
    }
#pragma GCC unroll 1
    for (; p < k; ++p) step(p, std::integral_constant<int, 0>());
    unrolled<rows>([&](auto i) __attribute__((always_inline)) {
      unrolled<vectors>([&](auto j) __attribute__((always_inline)) {
        T* to = c + i * ldc + j * kVector;
        V y = sums[0][i][j];
        unrolled<ways - 1>([&](auto q) __attribute__((always_inline)) { y += sums[q + 1][i][j]; });
        if (d.data) y += V::load_unaligned(d.data + i * d.row_stride + j * kVector);
        y.store_unaligned(to);
      });
    });
  }

  using TileFn = void (*)(Index, const T*, Index, const T*, Index, T*, Index, Addend);

  template <int... I>
  static TileFn find_tile(bool packed, Index rows, Index vectors,
                          std::integer_sequence<int, I...>) {
    static constexpr TileFn kTiles[2][sizeof...(I)] = {
        {tile<I / kVectors + 1, I % kVectors + 1, false>...},
        {tile<I / kVectors + 1, I % kVectors + 1, true>...}};
    return kTiles[packed][(rows - 1) * kVectors + vectors - 1];
  }
  /// The tile of so many rows, and of vectors for so many columns.
  static TileFn find_tile(bool packed, Index rows, Index columns) {
    return find_tile(packed, rows, blocks(columns, kVector),
                     std::make_integer_sequence<int, kRows * kVectors>());
  }

  /// Where the columns do not fill the vectors of the tile `run`, C gets those behind the first
  /// `skip` ones.
  [[gnu::always_inline]] static void run_tile(TileFn run, Index rows, Index columns, Index skip,
                                              Index k, const T* a, Index lda, const T* b, Index ldb,
                                              T* c, Index ldc, Addend d) {
    const Index width = padded(columns);
    if (columns == width) [[likely]] {
      run(k, a, lda, b, ldb, c, ldc, d);
      return;
    }
    alignas(64) T whole[kRows * kPanel];
    run(k, a, lda, b, ldb, whole, width, {});
    for (Index i = 0; i < rows; ++i) {
      const T *from = whole + i * width + skip, *add = d.from(i, 0).data;
      T* to = c + i * ldc;
      for (Index j = 0; j < columns; ++j) to[j] = add ? add[j] + from[j] : from[j];
    }
  }

  // --- Packing -----------------------------------------------------------------------------------

  static Index packed_size(Index k, Index n) { return k * padded(n); }

  /// Panel by panel, each with its rows one after another; the last panel is only as wide as n
  /// asks for, in whole vectors, and filled up with zeros. Contiguous rows are read one by one.
  static void pack(Index k, Index n, MatrixRef<T> b, T* out) {
    const auto columns_from = [n](Index j) { return n - j < kPanel ? n - j : kPanel; };
    if (b.col_stride == 1) {
      for (Index p = 0; p < k; ++p) {
        const T* row = b.data + p * b.row_stride;
        for (Index j = 0; j < n; j += kPanel) {
          const Index columns = columns_from(j);
          pack_row(columns, row + j, out + j * k + p * padded(columns));
        }
      }
      return;
    }
    for (Index j = 0; j < n; j += kPanel)
      pack_panel(k, columns_from(j), {b.data + j * b.col_stride, b.row_stride, b.col_stride},
                 out + j * k);
  }

  /// One contiguous row of a panel.
  [[gnu::always_inline]] static void pack_row(Index columns, const T* row, T* out) {
    if (columns == kPanel) [[likely]] {
      unrolled<kVectors>([&](auto v) __attribute__((always_inline)) {
        V::load_unaligned(row + v * kVector).store_aligned(out + v * kVector);
      });
      return;
    }
    Index j = 0;
    for (; j + kVector <= columns; j += kVector) V::load_unaligned(row + j).store_aligned(out + j);
    for (; j < columns; ++j) out[j] = row[j];
    for (; j < padded(columns); ++j) out[j] = T(0);
  }

  static void pack_panel(Index k, Index columns, MatrixRef<T> b, T* out) {
    const Index width = padded(columns);
    if (b.col_stride == 1) {
      for (Index p = 0; p < k; ++p, out += width) {
        const T* row = b.data + p * b.row_stride;
        for (Index j = 0; j < columns; j += kVector) __builtin_prefetch(row + j + 8 * b.row_stride);
        pack_row(columns, row, out);
      }
      return;
    }
    // Some rows of all columns at a time, which the L1 cache holds until their lines are full.
    constexpr Index block = 128;
    for (Index p0 = 0; p0 < k; p0 += block) {
      const Index last = p0 + block < k ? p0 + block : k;
      Index j = 0;
      for (; j + kSquare <= columns; j += kSquare) {
        const T* from = b.data + j * b.col_stride;
        Index p = p0;
        if (b.row_stride == 1) {
          for (; p + kSquare <= last; p += kSquare)
            transpose_square(from + p, b.col_stride, out + p * width + j, width);
        }
        for (; p < last; ++p) {
          for (Index q = 0; q < kSquare; ++q) {
            out[p * width + j + q] = from[p * b.row_stride + q * b.col_stride];
          }
        }
      }
      for (; j < width; ++j) {
        for (Index p = p0; p < last; ++p) {
          out[p * width + j] = j < columns ? b.data[p * b.row_stride + j * b.col_stride] : T(0);
        }
      }
    }
  }

  /// n elements in a register, and the same where they lie in memory at any address. (A memcpy into
  /// the register would be compiled to shorter moves by way of the stack, and to wait for them.)
  template <int n>
  struct Lanes {
    using Register [[gnu::vector_size(n * sizeof(T))]] = T;
    using InMemory [[gnu::vector_size(n * sizeof(T)), gnu::aligned(alignof(T)), gnu::may_alias]] =
        T;
    static const InMemory& at(const T* x) { return *reinterpret_cast<const InMemory*>(x); }
    static InMemory& at(T* x) { return *reinterpret_cast<InMemory*>(x); }
  };

  /// Four columns of four elements each, `from_stride` apart, become four rows.
  static void transpose4(const T* from, Index from_stride, T* to, Index to_stride) {
    using Four = Lanes<4>;
    typename Four::Register c[4], pairs[4];
    for (Index i = 0; i < 4; ++i) c[i] = Four::at(from + i * from_stride);
    for (Index i = 0; i < 4; i += 2) {
      pairs[i] = __builtin_shufflevector(c[i], c[i + 1], 0, 4, 1, 5);
      pairs[i + 1] = __builtin_shufflevector(c[i], c[i + 1], 2, 6, 3, 7);
    }
    for (Index i = 0; i < 2; ++i) {
      T* const row = to + 2 * i * to_stride;
      Four::at(row) = __builtin_shufflevector(pairs[i], pairs[i + 2], 0, 1, 4, 5);
      Four::at(row + to_stride) = __builtin_shufflevector(pairs[i], pairs[i + 2], 2, 3, 6, 7);
    }
  }

  /// The same with eight.
  static void transpose8(const T* from, Index from_stride, T* to, Index to_stride) {
    using Eight = Lanes<8>;
    typename Eight::Register c[8], pairs[8], fours[8];
    for (Index i = 0; i < 8; ++i) c[i] = Eight::at(from + i * from_stride);
    for (Index i = 0; i < 8; i += 2) {
      pairs[i] = __builtin_shufflevector(c[i], c[i + 1], 0, 8, 1, 9, 4, 12, 5, 13);
      pairs[i + 1] = __builtin_shufflevector(c[i], c[i + 1], 2, 10, 3, 11, 6, 14, 7, 15);
    }
    for (Index i = 0; i < 8; i += 4) {
      for (Index j = i; j < i + 2; ++j) {
        const Index k = 2 * j - i;
        fours[k] = __builtin_shufflevector(pairs[j], pairs[j + 2], 0, 1, 8, 9, 4, 5, 12, 13);
        fours[k + 1] = __builtin_shufflevector(pairs[j], pairs[j + 2], 2, 3, 10, 11, 6, 7, 14, 15);
      }
    }
    for (Index i = 0; i < 4; ++i) {
      Eight::at(to + i * to_stride) =
          __builtin_shufflevector(fours[i], fours[i + 4], 0, 1, 2, 3, 8, 9, 10, 11);
      Eight::at(to + (i + 4) * to_stride) =
          __builtin_shufflevector(fours[i], fours[i + 4], 4, 5, 6, 7, 12, 13, 14, 15);
    }
  }

  /// Squares of so many columns and rows are transposed in registers.
  static constexpr Index kSquare = kVector >= 8 ? 8 : 4;
  [[gnu::always_inline]] static void transpose_square(const T* from, Index from_stride, T* to,
                                                      Index to_stride) {
    if constexpr (kSquare == 8)
      transpose8(from, from_stride, to, to_stride);
    else
      transpose4(from, from_stride, to, to_stride);
  }

  /// out [n, m] = the transpose of x [m, n], in blocks that the L1 cache holds.
  static void transpose(Index m, Index n, const T* x, T* out) {
    constexpr Index block = 32;
    for (Index i0 = 0; i0 < m; i0 += block) {
      const Index i1 = i0 + block < m ? i0 + block : m;
      for (Index j0 = 0; j0 < n; j0 += block) {
        const Index j1 = j0 + block < n ? j0 + block : n;
        Index i = i0;
        for (; i + kSquare <= i1; i += kSquare) {
          Index j = j0;
          for (; j + kSquare <= j1; j += kSquare)
            transpose_square(x + i * n + j, n, out + j * m + i, m);
          for (; j < j1; ++j) {
            for (Index q = 0; q < kSquare; ++q) out[j * m + i + q] = x[(i + q) * n + j];
          }
        }
        for (; i < i1; ++i) {
          for (Index j = j0; j < j1; ++j) out[j * m + i] = x[i * n + j];
        }
      }
    }
  }

  /// Consecutive rows of A as the tiles read them: strip by strip, in each the columns of the strip
  /// one after the other.
  struct Strips {
    Index count, rows, taller;  ///< the first `taller` ones have rows + 1
    Index depth;                ///< columns of each
    Index rows_of(Index strip) const { return rows + (strip < taller); }
  };

  /// Columns [first, first + k) of the strips, from A [m, k]. All strips at once, so that a
  /// transposed A is read along its rows.
  static void pack_strips(const Strips& strips, Index first, Index m, Index k, MatrixRef<T> a,
                          T* out) {
    for (Index p = 0; p < k; ++p) {
      const T* from = a.data + p * a.col_stride;
      T* to = out;
      Index left = m;
      for (Index s = 0; s < strips.count; ++s) {
        const Index rows = strips.rows_of(s);
        T* column = to + (first + p) * rows;
        // Whole vectors where what they write too much is written again with the next column.
        if (a.row_stride == 1 && padded(rows) <= left &&
            (first + p) * rows + padded(rows) <= rows * strips.depth) {
          __builtin_prefetch(from + 4 * a.col_stride);
          for (Index i = 0; i < rows; i += kVector)
            V::load_unaligned(from + i).store_unaligned(column + i);
        } else {
          for (Index i = 0; i < rows; ++i) column[i] = from[i * a.row_stride];
        }
        from += rows * a.row_stride;
        to += rows * strips.depth;
        left -= rows;
      }
    }
  }

  // --- Products ----------------------------------------------------------------------------------

  /// B as the tiles read it: in panels of `rows` rows, of which `first` are left out; or, rows
  /// being 0, in place with contiguous rows.
  struct Operand {
    const T* data;
    Index rows, first;
    Index row_stride;
  };

  /// C [m, n] = A [m, k] B + D, k >= 1. Where B is read in place, its columns may be read from
  /// kVector - 1 columns before the first one on.
  static void multiply(Index m, Index n, Index k, MatrixRef<T> a, Operand b, T* c, Index ldc,
                       Addend d) {
    if (a.col_stride == 1) {
      run_tiles(m, n, k, a, b, c, ldc, d, nullptr);
    } else {
      run_tiles(m, n, k, {}, b, c, ldc, d, [&](const Strips& strips, Index row, T* out) {
        pack_strips(strips, 0, m - row, k,
                    {a.data + row * a.row_stride, a.row_stride, a.col_stride}, out);
      });
    }
  }

  /// The tiles of C, strip by strip of A: its rows in place, or, where there is one,
  /// pack_rows(strips, row, out) packs the strips from a row on.
  template <class PackRows>
  static void run_tiles(Index m, Index n, Index k, MatrixRef<T> a, Operand b, T* c, Index ldc,
                        Addend d, const PackRows& pack_rows) {
    constexpr bool packed = !std::is_same_v<PackRows, std::nullptr_t>;
    const Index strips = blocks(m, kRows);
    const Index rows_low = m / strips, rows_extra = m % strips;
    const Index fitting = kBlockOfA / (k * kRows);
    const Index at_once = blocks(strips, blocks(strips, fitting < 1 ? 1 : fitting));
    T* strip_buffer = packed ? buffer(Scratch::packed_a, at_once * kRows * k) : nullptr;

    Index block_row = 0;
    for (Index s0 = 0; s0 < strips; s0 += at_once) {
      const Index s1 = s0 + at_once < strips ? s0 + at_once : strips;
      Index row = block_row;
      if constexpr (packed) {
        const Index taller = rows_extra < s0 ? 0 : rows_extra - s0;
        pack_rows(Strips{s1 - s0, rows_low, taller < s1 - s0 ? taller : s1 - s0, k}, row,
                  strip_buffer);
      }
      Index columns = 0;
      for (Index j = 0; j < n; j += columns) {
        columns = n - j < kPanel ? n - j : kPanel;
        const T* panel = b.data + j * b.rows + b.first * padded(columns);
        Index ldb = padded(columns), skip = 0;
        if (b.rows == 0) {
          // A last vector that is not full begins further left, so that it ends inside of B.
          if (columns > kVector) columns = columns / kVector * kVector;
          skip = padded(columns) - columns;
          panel = b.data + j - skip;
          ldb = b.row_stride;
        }
        const TileFn low = find_tile(packed, rows_low, columns);
        const TileFn high = rows_extra > 0 ? find_tile(packed, rows_low + 1, columns) : low;
        row = block_row;
        for (Index s = s0; s < s1; ++s) {
          const Index rows = rows_low + (s < rows_extra);
          const T* strip =
              packed ? strip_buffer + (row - block_row) * k : a.data + row * a.row_stride;
          run_tile(s < rows_extra ? high : low, rows, columns, skip, k, strip, a.row_stride, panel,
                   ldb, c + row * ldc + j, ldc, d.from(row, j));
          row += rows;
        }
      }
      block_row = row;
    }
  }

  /// Whether the B of each term begins where that of the one before it ends, or, `last_first`, of
  /// the one after it: they are one matrix.
  static bool joined(const Term<T>* terms, Index count, bool last_first) {
    for (Index t = 0; t + 1 < count; ++t) {
      const Term<T>&one = terms[last_first ? t + 1 : t], &next = terms[last_first ? t : t + 1];
      if (next.b.data != one.b.data + one.k * one.b.row_stride ||
          next.b.row_stride != one.b.row_stride || next.b.col_stride != one.b.col_stride)
        return false;
    }
    return true;
  }

  /// Whether a product with m rows reads B [k, n] in place.
  static bool reads_in_place(Index m, Index n, MatrixRef<T> b) {
    return b.col_stride == 1 && n >= kVector && m <= kRowsInPlace &&
           (m <= kRows || !crowded(b.row_stride));
  }

  /// C [m, n] (+)= the sum of A B over all terms: one product, whose inner dimension runs through
  /// the terms, packed as if they lay in one piece. Gradients of time steps do: they are read where
  /// they are.
  static void gemm_sum(Index m, Index n, const Term<T>* terms, Index count, Index first_row,
                       Index first_column, T* c, Index ldc, bool accumulate) {
    if (m <= 0 || n <= 0) return;
    const auto rows_of = [&](Index t, Index row) {
      const MatrixRef<T>& a = terms[t].a;
      return MatrixRef<T>{a.data + (first_row + row) * a.row_stride, a.row_stride, a.col_stride};
    };
    const auto columns_of = [&](Index t, Index column) {
      const MatrixRef<T>& b = terms[t].b;
      return MatrixRef<T>{b.data + (first_column + column) * b.col_stride, b.row_stride,
                          b.col_stride};
    };
    Index k = 0;
    for (Index t = 0; t < count; ++t) k += terms[t].k;
    if (count == 1 || k > 2 * kDepth) {
      for (Index t = 0; t < count; ++t)
        gemm(m, n, terms[t].k, rows_of(t, 0), columns_of(t, 0), c, ldc, accumulate || t > 0, {});
      if (count == 0 && !accumulate) zero(m, n, c, ldc);
      return;
    }
    if (k <= 0) {
      if (!accumulate) zero(m, n, c, ldc);
      return;
    }
    const bool last_first = joined(terms, count, true);
    const bool one_piece = last_first || joined(terms, count, false);
    const auto pack_rows = [&](const Strips& strips, Index row, T* to) {
      Index first = 0;
      for (Index i = 0; i < count; ++i) {
        const Index t = last_first ? count - 1 - i : i;
        pack_strips(strips, first, m - row, terms[t].k, rows_of(t, row), to);
        first += terms[t].k;
      }
    };
    const MatrixRef<T> whole = columns_of(last_first ? count - 1 : 0, 0);
    if (one_piece && reads_in_place(m, n, whole)) {
      run_tiles(m, n, k, {}, {whole.data, 0, 0, whole.row_stride}, c, ldc,
                accumulate ? Addend{c, ldc} : Addend{}, pack_rows);
      return;
    }
    const Index width = blocks(blocks(n, blocks(n, kWidth)), kPanel) * kPanel;
    T* panels = buffer(Scratch::packed_b, packed_size(k, n < width ? n : width));
    for (Index j0 = 0; j0 < n; j0 += width) {
      const Index last = n - j0 < width ? n : j0 + width;
      T* out = panels;
      for (Index j = j0; j < last; j += kPanel) {
        const Index columns = last - j < kPanel ? last - j : kPanel;
        for (Index i = 0; i < count; ++i) {
          const Index t = last_first ? count - 1 - i : i;
          pack_panel(terms[t].k, columns, columns_of(t, j), out);
          out += terms[t].k * padded(columns);
        }
      }
      const Addend d = accumulate ? Addend{c + j0, ldc} : Addend{};
      run_tiles(m, last - j0, k, {}, {panels, k, 0, 0}, c + j0, ldc, d, pack_rows);
    }
  }

  static void zero(Index m, Index n, T* c, Index ldc) {
    for (Index i = 0; i < m; ++i) {
      for (Index j = 0; j < n; ++j) c[i * ldc + j] = T(0);
    }
  }

  /// C = D.
  static void fill(Index m, Index n, T* c, Index ldc, Addend d) {
    for (Index i = 0; i < m; ++i) {
      for (Index j = 0; j < n; ++j) c[i * ldc + j] = d.data[i * d.row_stride + j];
    }
  }

  /// Without an inner dimension.
  static void gemm_nothing(Index m, Index n, T* c, Index ldc, bool accumulate, Addend d) {
    if (accumulate) return;
    if (d.data)
      fill(m, n, c, ldc, d);
    else
      zero(m, n, c, ldc);
  }

  /// One row. The panels are read forwards and backwards in turn, so that the last ones of one time
  /// step, which are still in the cache, are the first ones of the next. Each matrix has its own
  /// turns, found by its address; two that meet there only lose what the turns are for.
  static void gemv_packed(Index k, Index n, const T* a, const T* b, T* c, Addend d) {
    static thread_local bool turns[64] = {};
    constexpr std::uint64_t golden_ratio = 0x9E3779B97F4A7C15u;  // times 2^64
    bool& backwards = turns[reinterpret_cast<std::uintptr_t>(b) / 64 * golden_ratio >> 58];
    backwards = !backwards;
    const auto panel = [&](Index j) __attribute__((always_inline)) {
      const Index columns = n - j < kPanel ? n - j : kPanel;
      run_tile(find_tile(false, 1, columns), 1, columns, 0, k, a, 0, b + j * k, padded(columns),
               c + j, 0, d.from(0, j));
    };
    if (backwards) {
      for (Index j = (n - 1) / kPanel * kPanel; j >= 0; j -= kPanel) panel(j);
    } else {
      for (Index j = 0; j < n; j += kPanel) panel(j);
    }
  }

  static void gemm_packed(Index m, Index n, Index k, MatrixRef<T> a, const T* b, T* c, Index ldc,
                          bool accumulate, Addend d, Index first_column, Index last_column) {
    if (m <= 0 || last_column <= first_column) return;
    if (last_column > n) last_column = n;
    const Index columns = last_column - first_column;
    c += first_column;
    d = d.from(0, first_column);
    if (k <= 0) {
      gemm_nothing(m, columns, c, ldc, accumulate, d);
      return;
    }
    if (m == 1 && a.col_stride == 1 && k <= kMaxDepth) {
      gemv_packed(k, columns, a.data, b + first_column * k, c, accumulate ? Addend{c, ldc} : d);
      return;
    }
    const Index depth = blocks(k, blocks(k, a.col_stride == 1 ? kMaxDepth : kDepth));
    for (Index p = 0; p < k; p += depth) {
      if (accumulate || p > 0) d = {c, ldc};
      multiply(m, columns, k - p < depth ? k - p : depth,
               {a.data + p * a.col_stride, a.row_stride, a.col_stride},
               {b + first_column * k, k, p, 0}, c, ldc, d);
    }
  }

  static void gemm(Index m, Index n, Index k, MatrixRef<T> a, MatrixRef<T> b, T* c, Index ldc,
                   bool accumulate, Addend d) {
    if (m <= 0 || n <= 0) return;
    if (k <= 0) {
      gemm_nothing(m, n, c, ldc, accumulate, d);
      return;
    }
    const bool by_rows = m == 1 && gemv_fits(n, b);
    const MatrixRef<T> transposed_a = {a.data, a.col_stride, a.row_stride};
    const bool by_columns = !by_rows && n == 1 && gemv_fits(m, transposed_a);
    const bool by_dots = m <= kRowsOfDots && b.row_stride == 1 && b.col_stride != 1 && k >= kVector;
    if (by_rows || by_columns || by_dots) {
      if (d.data && !accumulate) {
        fill(m, n, c, ldc, d);
        accumulate = true;
      }
      if (by_rows) {
        gemv(n, k, a.data, a.col_stride, b, c, 1, accumulate);
      } else if (by_columns) {
        gemv(m, k, b.data, b.row_stride, transposed_a, c, ldc, accumulate);
      } else {
        for (Index i = 0; i < m; ++i)
          gemv(n, k, a.data + i * a.row_stride, a.col_stride, b, c + i * ldc, 1, accumulate);
      }
      return;
    }
    const bool in_place = reads_in_place(m, n, b);
    const Index depth = blocks(k, blocks(k, in_place && a.col_stride == 1 ? kMaxDepth : kDepth));
    const Index width = blocks(blocks(n, blocks(n, kWidth)), kPanel) * kPanel;
    T* panels =
        in_place ? nullptr : buffer(Scratch::packed_b, packed_size(depth, n < width ? n : width));
    for (Index p = 0; p < k; p += depth) {
      const Index rows = k - p < depth ? k - p : depth;
      const MatrixRef<T> a_part = {a.data + p * a.col_stride, a.row_stride, a.col_stride};
      const T* b_part = b.data + p * b.row_stride;
      if (accumulate || p > 0) d = {c, ldc};
      if (in_place) {
        multiply(m, n, rows, a_part, {b_part, 0, 0, b.row_stride}, c, ldc, d);
        continue;
      }
      for (Index j = 0; j < n; j += width) {
        const Index columns = n - j < width ? n - j : width;
        pack(rows, columns, {b_part + j * b.col_stride, b.row_stride, b.col_stride}, panels);
        multiply(m, columns, rows, a_part, {panels, rows, 0, 0}, c + j, ldc, d.from(0, j));
      }
    }
  }

  // --- Matrix times vector -----------------------------------------------------------------------

  static bool gemv_fits(Index n, MatrixRef<T> b) {
    return (b.col_stride == 1 && n >= kVector) || b.row_stride == 1;
  }

  /// y [n] (+)= x [k] B [k, n], without packing: these products read B once and are as fast as
  /// memory. The rows or the columns of B must be contiguous: gemv_fits.
  static void gemv(Index n, Index k, const T* x, Index x_stride, MatrixRef<T> b, T* y,
                   Index y_stride, bool accumulate) {
    const bool by_rows = b.col_stride == 1 && n >= kVector;
    if (x_stride != 1) {
      T* contiguous = buffer(Scratch::vector_in, k);
      for (Index p = 0; p < k; ++p) contiguous[p] = x[p * x_stride];
      x = contiguous;
    }
    if (!by_rows) {
      dot_columns(n, k, x, b, y, y_stride, accumulate);
    } else if (y_stride == 1) {
      add_rows(n, k, x, b, y, accumulate);
    } else {
      T* out = buffer(Scratch::vector_out, n);
      add_rows(n, k, x, b, out, false);
      for (Index j = 0; j < n; ++j) {
        y[j * y_stride] = accumulate ? y[j * y_stride] + out[j] : out[j];
      }
    }
  }

  /// y (+)= the sum of x[p] times row p, the rows being contiguous and at least a vector long.
  static void add_rows(Index n, Index k, const T* x, MatrixRef<T> b, T* y, bool accumulate) {
    constexpr int vectors = 8;
    Index j = 0;
    for (; j + vectors * kVector <= n; j += vectors * kVector) {
      tile<1, vectors, false>(k, x, 0, b.data + j, b.row_stride, y + j, 0,
                              accumulate ? Addend{y + j, 0} : Addend{});
    }
    multiply(1, n - j, k, {x, 0, 1}, {b.data + j, 0, 0, b.row_stride}, y + j, 0,
             accumulate ? Addend{y + j, 0} : Addend{});
  }

  /// y[j] (+)= dot(x, column j), the columns being contiguous.
  static void dot_columns(Index n, Index k, const T* x, MatrixRef<T> b, T* y, Index y_stride,
                          bool accumulate) {
    Index j = 0;
    for (; j + 4 <= n; j += 4) {
      dot_some<4>(k, x, b.data + j * b.col_stride, b.col_stride, y + j * y_stride, y_stride,
                  accumulate);
    }
    for (; j < n; ++j) {
      dot_some<1>(k, x, b.data + j * b.col_stride, b.col_stride, y + j * y_stride, y_stride,
                  accumulate);
    }
  }

  template <int count>
  static void dot_some(Index k, const T* x, const T* b, Index ldb, T* y, Index y_stride,
                       bool accumulate) {
    V sums[count];
    unrolled<count>([&](auto i) __attribute__((always_inline)) { sums[i] = V(T(0)); });
    Index p = 0;
    for (; p + kVector <= k; p += kVector) {
      const V v = V::load_unaligned(x + p);
      unrolled<count>([&](auto i) __attribute__((always_inline)) {
        sums[i] = xsimd::fma(v, V::load_unaligned(b + i * ldb + p), sums[i]);
      });
    }
    unrolled<count>([&](auto i) __attribute__((always_inline)) {
      T total = sum_lanes(sums[i]);
      for (Index q = p; q < k; ++q) total += x[q] * b[i * ldb + q];
      y[i * y_stride] = accumulate ? y[i * y_stride] + total : total;
    });
  }
};

}  // namespace
}  // namespace unroll::kernels
