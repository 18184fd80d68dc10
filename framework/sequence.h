#pragma once
/// The time steps of a batch of sequences, and where their rows lie in memory. Not for users.

#include <algorithm>
#include <cstdint>
#include <iterator>
#include <vector>

#include "framework/fused.h"
#include "framework/fused_program.h"
#include "framework/tensor.h"

namespace unroll::detail {

/// Where the rows of a time step lie in a block of memory.
enum class Place {
  same,    ///< in each time step where those of the last one were
  steps,   ///< behind those of the time step before
  before,  ///< as those of the state that the time step finds
  after    ///< as those of the state that it leaves
};

/// The first rows of a time step in blocks of each kind.
struct StepRows {
  std::int64_t t;
  std::int64_t first[4];
  std::int64_t operator[](Place place) const { return first[static_cast<int>(place)]; }
};

/// A part of the walk over the time steps.
struct Piece {
  std::int64_t begin, end;       ///< from when `begin` steps are done until `end` are
  std::int64_t first;            ///< the lowest time step of it
  std::int64_t first_row, rows;  ///< those of its time steps in memory
};

/// The time steps of a batch, and where their rows lie.
class Sequence {
 public:
  Sequence(const Tensor& xs, const SequenceOptions& options)
      : reverse_(options.reverse), truncate_(options.truncate) {
    if (!options.running) {
      T_ = xs.size(0);
      B_ = xs.size(1);
      return;
    }
    T_ = std::ssize(*options.running);
    B_ = options.running->front();
    rows_.push_back(0);
    for (const std::int64_t n : *options.running) rows_.push_back(rows_.back() + n);
  }

  std::int64_t steps() const { return T_; }
  std::int64_t batch() const { return B_; }
  /// Whether sequences end before others do.
  bool is_packed() const { return !rows_.empty(); }
  /// Rows of the time steps before t.
  std::int64_t rows_before(std::int64_t t) const {
    return is_packed() ? rows_[static_cast<std::size_t>(t)] : t * B_;
  }
  /// The sequences that take part in the step after `done` others; none after the last one.
  std::int64_t running(std::int64_t done) const {
    if (done == T_) return 0;
    return is_packed() ? rows_before(done + 1) - rows_before(done) : B_;
  }
  /// The time step that the walk comes to after `done` others.
  std::int64_t step(std::int64_t done) const { return reverse_ ? T_ - 1 - done : done; }
  /// Whether no gradient of the state after `done` steps goes back to those.
  bool is_cut(std::int64_t done) const {
    return truncate_ > 0 && done > 0 && done % truncate_ == 0;
  }
  /// Where its rows are in blocks. Those of a state begin with the state before the walk, or end
  /// with it if the walk goes backwards.
  StepRows rows_of(std::int64_t t) const {
    const std::int64_t rows = rows_before(t);
    if (reverse_) return {t, {0, rows, rows + B_, rows}};
    const std::int64_t before = t == 0 ? 0 : B_ + rows_before(t - 1);
    return {t, {0, rows, before, B_ + rows}};
  }

  /// Cuts the walk into pieces of `rows` rows or a little more. What is left over is the first one,
  /// so that from the end on the pieces are those in which backward() sums the gradient of a weight
  /// up.
  void cut(std::int64_t rows) {
    std::int64_t end = T_, sum = 0;
    for (std::int64_t done = T_; done-- > 0;) {
      sum += running(done);
      if (sum < rows && done > 0) continue;
      const std::int64_t first = reverse_ ? T_ - end : done;
      pieces_.push_back({done, end, first, rows_before(first), sum});
      end = done;
      sum = 0;
    }
    std::reverse(pieces_.begin(), pieces_.end());
  }
  const std::vector<Piece>& pieces() const { return pieces_; }
  /// Rows of the largest piece.
  std::int64_t most_rows() const {
    std::int64_t most = 0;
    for (const Piece& piece : pieces_) most = std::max(most, piece.rows);
    return most;
  }
  /// Calls f(rows before it in the piece, its first row in a state's block, rows) for each part of
  /// a piece whose time steps find their states one behind the other.
  template <class F>
  void each_run(const Piece& piece, const F& f) const {
    const std::int64_t last = piece.first + piece.end - piece.begin;
    for (std::int64_t t = piece.first, end; t < last; t = end) {
      const std::int64_t at = rows_of(t)[Place::before], first = rows_before(t);
      for (end = t + 1; end < last; ++end)
        if (is_packed() && rows_of(end)[Place::before] - at != rows_before(end) - first) break;
      f(first - piece.first_row, at, rows_before(end) - first);
    }
  }

 private:
  std::int64_t T_, B_;
  bool reverse_;
  std::int64_t truncate_;
  std::vector<std::int64_t> rows_;  ///< [T + 1]: before each time step, if packed
  std::vector<Piece> pieces_;
};

/// An array of a program at one time step after the other.
struct Strip {
  char* data = nullptr;       ///< row 0, or where it would be
  std::int64_t stride = 0;    ///< elements from one row to the next
  std::int64_t row_size = 0;  ///< the same in bytes
  Place place = Place::same;
  std::int64_t step = 0;  ///< bytes from one time step to the next, besides

  char* at(const StepRows& rows, std::int64_t row) const {
    return data + rows.t * step + (rows[place] + row) * row_size;
  }
};

/// Where the rows of a strip lie in a time step, from `row` on; null if there is none.
template <class T>
T* rows_at(const StepRows& step, const Strip& strip, std::int64_t row) {
  if (!strip.data) return nullptr;
  return reinterpret_cast<T*>(strip.at(step, row));
}

/// All arrays of a stage.
struct Strips {
  Strip list[kMostArrays];
  int count = FusedProgram::first_argument;
  Array arrays[kMostArrays];

  void add(const Strip& strip) { set(count++, strip); }
  void set(int i, const Strip& strip) {
    list[i] = strip;
    arrays[i].stride = strip.stride;
  }
  /// The arrays of a time step, without the rows before `row`.
  Array* at(const StepRows& step, std::int64_t row) {
    for (int i = FusedProgram::first_argument; i < count; ++i)
      arrays[i].data = list[i].at(step, row);
    return arrays;
  }
};

}  // namespace unroll::detail
