#pragma once
/// Gradients by rows: what an embedding with `sparse` gives its table.

#include "framework/tensor.h"

namespace unroll {

/// The gradient of a tensor of which only some rows (slices along the first dimension) have one; it
/// is 0 elsewhere.
struct RowGrad {
  Tensor rows;    ///< i64 [n], rising
  Tensor values;  ///< [n, ...], contiguous
  /// Whether there is one.
  bool defined() const { return rows.defined(); }
};

/// The gradient of a leaf by rows, as backward() left it; undefined if there is none, or a dense
/// one. Reading `.grad` makes it dense, at the cost of the whole tensor. For optimizers and
/// whatever else may not touch all rows.
RowGrad row_grad(const Tensor& leaf);
/// Sets it, replacing any gradient. Throws GraphError for a tensor that is no leaf that requires a
/// gradient, ShapeError and DTypeError for values that don't fit, IndexError for rows that don't
/// rise or don't exist.
void set_row_grad(const Tensor& leaf, const RowGrad& grad);

}  // namespace unroll
