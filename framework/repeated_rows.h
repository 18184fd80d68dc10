#pragma once
/// Rows of a sequence that are equal because they are the same row of a table, as those of an
/// embedding. What is multiplied by a weight is the same for all of them, and so is what becomes of
/// the sum of their gradients: it is done once for each row of the table. Not for users.

#include <cstdint>
#include <optional>

#include "framework/tensor.h"

namespace unroll::detail {

class RepeatedRows {
 public:
  /// Of x [T, B, width], if it is an embedding on the tape, of a table with at most half as many
  /// rows as x has.
  static std::optional<RepeatedRows> find(const Tensor& x);

  std::int64_t size() const { return first_.numel(); }  ///< different rows
  /// [size, width]: each once.
  const Tensor& distinct() const { return distinct_; }
  /// Copies to `to` [rows, width] what the rows of x from `row` on have become in `from`
  /// [size, width].
  template <class T>
  void take(const T* from, std::int64_t width, std::int64_t row, std::int64_t rows, T* to) const;
  /// sums [size, width] += the rows of g [rows, width], which belong to those of x from `row` on.
  /// To the same bits with every number of threads.
  void add_to(const Tensor& sums, const Tensor& g, std::int64_t row) const;
  /// A gradient of x for one who adds equal rows up: their sum is in the first of them. `dx`: of
  /// x's shape, contiguous.
  void put_sums(const Tensor& sums, const Tensor& dx) const;

 private:
  Tensor distinct_;
  Tensor number_;  ///< [rows of x]: which of the different ones each is
  Tensor first_;   ///< [size]: a row of x for each of the different ones, the first of these
};

}  // namespace unroll::detail
