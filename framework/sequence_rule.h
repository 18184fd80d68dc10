#pragma once
/// A program over the time steps of a sequence: an operation, and its rule. Not for users.

#include <algorithm>
#include <optional>
#include <utility>
#include <vector>

#include "framework/autograd.h"
#include "framework/fused.h"
#include "framework/fused_program.h"
#include "framework/internal.h"
#include "framework/kernels/parallel.h"
#include "framework/repeated_rows.h"
#include "framework/sequence.h"

namespace unroll::detail {

/// [..., width] as [rows, width].
inline Tensor as_matrix(const Tensor& x, std::int64_t rows) {
  return attach(x.impl().storage, x.dtype(), {rows, x.numel() / rows}, x.impl().offset);
}

/// `rows` rows of a block [..., width] from row `first` on.
inline Tensor rows_of(const Tensor& block, std::int64_t first, std::int64_t rows) {
  const std::int64_t width = block.shape()[1];
  return attach(block.impl().storage, block.dtype(), {rows, width},
                block.impl().offset + first * width);
}

/// Runs the program forward over a sequence, and is the rule of that.
class SequenceRule {
 public:
  /// xs: [T, B, width] or [rows, width], contiguous.
  SequenceRule(Ref<FusedProgram> p, FusedFunction::Call f, const Tensor& xs, Sequence s)
      : program_(std::move(p)),
        call_(f),
        xs_(as_matrix(xs, xs.numel() / xs.size(-1))),
        sequence_(std::move(s)) {}

  /// Multiplies rows of xs that are known to be equal once.
  void share_rows(const Tensor& xs) {
    const auto& products = program_->products;
    if (std::any_of(products.begin(), products.end(), [](const auto& p) { return p.x == 0; }))
      repeated_ = RepeatedRows::find(xs);
  }

  /// Computes all time steps; makes what they write to.
  void forward(const Tensor* arguments);
  /// The derivative.
  void operator()(Back& back) const;

  /// Result k of the operation: the outputs, and the state after the last step.
  Tensor result(int k) const {
    const Tensor& block = result_block(k);
    const std::int64_t T = sequence_.steps(), B = sequence_.batch();
    // Not the tensor that the rule holds: on the tape it would hold the rule.
    if (k > 0 && last_[k - 1].defined()) return rows_of(last_[k - 1], 0, B);
    if (k > 0) {
      const bool kept = block.shape()[0] > B;
      const StepRows last = sequence_.rows_of(sequence_.step(T - 1));
      return rows_of(block, kept ? last[Place::after] : 0, B);
    }
    const Place place = output_.defined() ? Place::steps : Place::after;
    const Tensor rows = rows_of(block, sequence_.rows_of(0)[place], sequence_.rows_before(T));
    if (sequence_.is_packed()) return rows;
    return attach(block.impl().storage, block.dtype(), {T, B, block.shape()[1]},
                  rows.impl().offset);
  }

 private:
  Ref<FusedProgram> program_;
  FusedFunction::Call call_;
  Tensor xs_;  ///< [rows, width]
  Sequence sequence_;
  std::optional<RepeatedRows> repeated_;  ///< in xs, where that has products
  Tensor states_[kFusedResults];     ///< [B + rows, width], or [B, width] written over and over
  Tensor last_[kFusedResults];       ///< [B, width]: after each sequence's own last step, if packed
  Tensor output_;                    ///< [rows, width], where it is none of the states
  Tensor products_[kFusedProducts];  ///< [rows, width]: of all time steps, of a piece or of one
  Tensor factors_[kFusedProducts];   ///< [rows, width], or [B, width] written over and over
  Tensor kept_;                      ///< [T, elements]
  std::uint32_t versions_[1 + kFusedResults] = {};

  /// The result of the program that is the next state's tensor j.
  int result_of_state(int j) const { return j + (output_.defined() ? 1 : 0); }
  const Tensor& result_block(int k) const {
    return k > 0 ? states_[k - 1] : output_.defined() ? output_ : states_[0];
  }
  std::int64_t bytes(std::int64_t elements) const { return elements * size_of(program_->dtype); }

  /// Whether the derivative reads product i, another one that is added to it, or what is kept
  /// there.
  bool stays(std::size_t i) const {
    const FusedProgram& p = *program_;
    const std::size_t k = p.given() + i;
    if ((p.kept_arguments >> k & 1u) != 0 || p.reused == static_cast<int>(k)) return true;
    for (std::size_t j = i + 1; j < p.products.size(); ++j)
      if (p.products[j].addend == static_cast<int>(i)) return stays(j);
    return false;
  }
  /// Whether product i is one with x that no further one with x is added to.
  bool ends_with_x(std::size_t i) const {
    const auto& products = program_->products;
    if (products[i].x != 0) return false;
    for (std::size_t j = i + 1; j < products.size(); ++j)
      if (products[j].addend == static_cast<int>(i) && products[j].x == 0) return false;
    return true;
  }
  /// Whether the gradient of array k is one of x, or of a product with x, or added to x.
  bool comes_to_x(int k) const {
    const auto i = static_cast<std::size_t>(k), given = program_->given();
    if (i < given) return i == 0;
    return program_->products[i - given].x == 0 || program_->products[i - given].bias == 0;
  }
  /// A block [rows, width] whose first row is number `first` of all.
  Strip strip(const Tensor& block, Place place, std::int64_t first = 0) const {
    const std::int64_t width = block.shape()[1];
    char* data = static_cast<char*>(block.impl().storage->data());
    return {data + bytes(block.impl().offset - first * width), width, bytes(width), place};
  }
  /// That of product i, which lies where the one is that it is added to.
  Strip product_strip(std::size_t i, const Piece& piece) const {
    if (!products_[i].defined()) return {};
    const Trace::Product& product = program_->products[i];
    if (product.addend >= 0) return product_strip(static_cast<std::size_t>(product.addend), piece);
    if (stays(i)) return strip(products_[i], Place::steps);
    if (product.x == 0 && !repeated_) return strip(products_[i], Place::steps, piece.first_row);
    return strip(products_[i], Place::same);
  }
  Strip state_strip(int j, Place place) const {
    const bool kept = states_[j].shape()[0] > sequence_.batch();
    return strip(states_[j], kept ? place : Place::same);
  }
  Strip factor_strip(std::size_t i) const {
    const bool kept = program_->differentiate != 0;
    return strip(factors_[i], kept ? Place::steps : Place::same);
  }
  /// Arguments of all time steps alike; those that products multiply by are left out.
  std::vector<Strip> constants(const Tensor* arguments, std::vector<Tensor>& copies) const {
    const FusedProgram& p = *program_;
    std::vector<Strip> list(p.given());
    for (std::size_t k = static_cast<std::size_t>(p.states) + 1; k < list.size(); ++k) {
      if ((p.weights >> k & 1u) != 0) continue;
      const Tensor& x = copies.emplace_back(dense(arguments[k]));
      const std::int64_t width = width_of(x.shape());
      const bool by_row = x.dim() > 1 && x.numel() == sequence_.batch() * width;
      list[k] = {const_cast<char*>(static_cast<const char*>(read(x))), by_row ? width : 0,
                 by_row ? bytes(width) : 0};
    }
    return list;
  }
  void add_arguments(Strips& to, const Piece& piece, const std::vector<Strip>& constants) const {
    const FusedProgram& p = *program_;
    to.add(strip(xs_, Place::steps));
    for (int j = 0; j < p.states; ++j) to.add(state_strip(j, Place::before));
    for (std::size_t k = static_cast<std::size_t>(p.states) + 1; k < p.given(); ++k)
      to.add(constants[k]);
    for (std::size_t i = 0; i < p.products.size(); ++i) to.add(product_strip(i, piece));
  }
  void add_results(Strips& to) const {
    if (output_.defined()) to.add(strip(output_, Place::steps));
    for (int j = 0; j < program_->states; ++j) to.add(state_strip(j, Place::after));
  }
  void add_kept(Strips& to) const {
    const FusedProgram& p = *program_;
    for (const auto& k : p.kept) {
      Strip at = k.in_argument ? strip(products_[static_cast<std::size_t>(p.reused) - p.given()],
                                       Place::steps)
                               : Strip{.data = static_cast<char*>(kept_.impl().storage->data()),
                                       .step = bytes(p.kept_elements)};
      at.data += bytes(k.begin);
      at.stride = k.stride;
      at.row_size = bytes(k.stride);
      to.add(at);
    }
  }
  void add_factors(Strips& to) const {
    for (std::size_t i = 0; i < program_->factors.size(); ++i) to.add(factor_strip(i));
  }
  void find_last();

  template <class T>
  void run_forward(const Tensor* arguments);
  template <class T>
  class Derivative;
  void record(Back& back) const;
};

/// c = a w + d for rows from `row` on of a batch, with the bits that they have as a part of it: one
/// row alone is summed up in another order than one of several.
template <class T>
void multiply_rows(const Multiplier<T>& w, std::int64_t row, std::int64_t rows,
                   kernels::MatrixRef<T> a, T* c, kernels::Addend<T> d) {
  if (rows > 1 || row == 0) return w(rows, a, c, d);
  const Tensor twice = detail::make({2, w.columns()}, dtype_of<T>());
  w(2, {a.data, 0, a.col_stride}, overwrite<T>(twice), {d.data, 0});
  std::copy_n(read<T>(twice), w.columns(), c);
}

/// A product in each time step.
template <class T>
struct StepProduct {
  Multiplier<T> w;
  Strip from, to, addend;  ///< addend: no data if there is none
  int level = 0;

  void operator()(const StepRows& step, std::int64_t row, std::int64_t rows) const {
    multiply_rows<T>(w, row, rows, {rows_at<T>(step, from, row), from.stride, 1},
                     rows_at<T>(step, to, row), {rows_at<T>(step, addend, row), addend.stride});
  }
};

/// Calls f(row, rows) for parts of a batch, from several threads where that pays: each takes its
/// sequences through all time steps of a piece. Few sequences are one part, and their products are
/// shared instead.
template <class T, class F>
void for_sequences(std::int64_t B, const Piece& piece, const std::vector<StepProduct<T>>& products,
                   const F& f) {
  constexpr std::int64_t kFewest = 8;  // in a part
  std::int64_t work = 0;
  bool packed = !products.empty();
  for (const auto& product : products) {
    work += piece.rows * product.w.rows() * product.w.columns();
    packed = packed && product.w.is_packed();
  }
  if (!packed || work < 2 * kernels::kWorkPerThread) return f(0, B);
  kernels::parallel_for(
      0, B, kFewest, [&](std::int64_t row, std::int64_t last) { f(row, last - row); },
      work >= kernels::kWorthWaking);
}

}  // namespace unroll::detail
