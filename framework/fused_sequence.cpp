/// fused() over the time steps of a sequence: one operation on the tape for all of them.

#include <algorithm>
#include <optional>
#include <utility>

#include "framework/autograd.h"
#include "framework/fused.h"
#include "framework/fused_program.h"
#include "framework/internal.h"
#include "framework/kernels/parallel.h"
#include "framework/ops.h"
#include "framework/repeated_rows.h"
#include "framework/sequence.h"
#include "framework/step_products.h"
#include "framework/watch.h"

namespace unroll::detail {
namespace {

/// [..., width] as [rows, width].
Tensor as_matrix(const Tensor& x, std::int64_t rows) {
  return attach(x.impl().storage, x.dtype(), {rows, x.numel() / rows}, x.impl().offset);
}

/// `rows` rows of a block [..., width] from row `first` on.
Tensor rows_of(const Tensor& block, std::int64_t first, std::int64_t rows) {
  const std::int64_t width = block.shape()[1];
  return attach(block.impl().storage, block.dtype(), {rows, width},
                block.impl().offset + first * width);
}

/// Adds the gradient g [rows, width] of argument k, which is the same in each time step.
void add_repeated(Back& back, int k, const std::vector<Tensor>& arguments, const Tensor& g) {
  const Tensor& x = arguments[static_cast<std::size_t>(k)];
  if (x.dim() < 2) return back.add(k, g);
  const std::int64_t own_rows = x.numel() / x.size(-1);
  Shape shape = x.shape();
  if (own_rows == 1)
    shape[0] = g.shape()[0];
  else
    shape.insert(0, g.shape()[0] / own_rows);
  back.add(k, attach(g.impl().storage, g.dtype(), shape, g.impl().offset));
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
    for (const Trace::Product& product : program_->products)
      if (product.x == 0 && !repeated_) repeated_ = RepeatedRows::find(xs);
  }

  /// Computes all time steps; makes what they write to.
  void forward(const Tensor* arguments) {
    dispatch_floating(program_->dtype, [&]<class T>(T) { run_forward<T>(arguments); });
  }

  void operator()(Back& back) const {
    for (int k = 0; k <= program_->states; ++k)
      if (result_block(k).impl().storage->version != versions_[k])
        fail<GraphError>(
            "backward: the output of scan, a tensor of shape {}, was written in place; the "
            "gradient needs its old values",
            result(k).shape());
    if (back.create_graph())
      record(back);
    else
      dispatch_floating(program_->dtype, [&]<class T>(T) { compute<T>(back); });
  }

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
  void compute(Back& back) const;
  /// Gradients of arguments and products, by their number.
  struct Gradients {
    Tensor of[kSequenceArguments + kFusedProducts];
    Tensor& operator[](int k) { return of[k]; }
    const Tensor& operator[](int k) const { return of[k]; }
  };
  Gradients make_gradients(const Piece& piece) const;
  template <class T>
  void input_gradient(std::int64_t rows, const Gradients& gradients,
                      const std::vector<Tensor>& arguments, T* to) const;
  void add_to_weight(Back& back, const Trace::Product& product, const Tensor& g,
                     const Tensor& x) const;
  void add_gradients(Back& back, const Piece& piece, const Gradients& gradients,
                     const std::vector<Tensor>& arguments) const;
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

/// The gradient of a state, from one time step to the one before.
template <class T>
struct StateGradient {
  /// [B, width]; the two may be one, unless the chain still reads what comes to a time step when
  /// it has written what goes on from it.
  T* buffers[2] = {};
  std::int64_t width = 0;
  const T* last = nullptr;  ///< [B, width]: of the state after the last step; null: there is none
  Strip outputs{};          ///< what comes from the outputs
  bool in_chain = false;
  std::vector<StepProduct<T>> products{};

  /// That of the state after `done` time steps.
  T* after(std::int64_t done) const { return buffers[done & 1]; }
  Strip strip(std::int64_t done) const {
    return {reinterpret_cast<char*>(after(done)), width,
            width * static_cast<std::int64_t>(sizeof(T))};
  }

  /// Begins with rows [row, end), whose last step is this one, after `done` others.
  void begin(const StepRows& step, std::int64_t done, std::int64_t row, std::int64_t end) const {
    if (row >= end) return;
    T* const to = after(done + 1) + row * width;
    const T* from_output = rows_at<T>(step, outputs, row);
    if (const T* first = last ? last + row * width : from_output)
      std::copy_n(first, (end - row) * width, to);
    else
      std::fill_n(to, (end - row) * width, T(0));
    if (last && from_output) add(end - row, to, from_output);
  }
  /// Completes what goes on from this step, after `done` others, to the one before: that of the
  /// chain, which is there, of products with the state, both unless the link is cut, and of the
  /// output before.
  void complete(const StepRows& step, const StepRows& before, std::int64_t done, bool cut,
                std::int64_t row, std::int64_t rows) const {
    const T* rest = done > 0 ? rows_at<T>(before, outputs, row) : nullptr;
    T* const to = after(done) + row * width;

    bool begun = in_chain && !cut;
    for (const auto& product : products) {
      if (cut) break;
      const T* addend = begun ? to : std::exchange(rest, nullptr);
      multiply_rows<T>(product.w, row, rows,
                       {rows_at<T>(step, product.from, row), product.from.stride, 1}, to,
                       {addend, width});
      begun = true;
    }
    if (rest && begun)
      add(rows, to, rest);
    else if (rest)
      std::copy_n(rest, rows * width, to);
    else if (!begun)
      std::fill_n(to, rows * width, T(0));
  }
  /// to += x, [rows, width].
  void add(std::int64_t rows, T* to, const T* x) const {
    kernels::float_kernels<T>().elementwise[static_cast<std::size_t>(kernels::Op::add)](
        rows * width, to, to, x, nullptr, nullptr);
  }
};

template <class T>
void SequenceRule::run_forward(const Tensor* arguments) {
  const FusedProgram& p = *program_;
  const std::int64_t rows = xs_.shape()[0], B = sequence_.batch();
  const bool differentiate = p.differentiate != 0;
  const auto block = [&](std::int64_t n, std::int64_t width) {
    return detail::make({n, width}, p.dtype);
  };
  const bool has_output = static_cast<int>(p.results.size()) > p.states;
  if (has_output) output_ = block(rows, p.results[0].width);
  for (int j = 0; j < p.states; ++j) {
    const auto k = static_cast<std::size_t>(j);
    const std::int64_t width = width_of(p.shapes[k + 1]);
    const bool keep =
        differentiate || (j == 0 && !has_output) ||
        !p.forward.has_read(p.argument_array(k + 1), p.result_array(k + (has_output ? 1 : 0)));
    states_[j] = block(keep ? B + rows : B, width);
    const std::int64_t first = keep ? sequence_.rows_of(sequence_.step(0))[Place::before] : 0;
    copy_into(states_[j], first * width, dense(arguments[j + 1]));
  }
  if (p.kept_elements > 0) kept_ = block(sequence_.steps(), p.kept_elements);
  for (std::size_t i = 0; i < p.factors.size(); ++i)
    factors_[i] = block(differentiate ? rows : B, p.factors[i].width);

  for (std::size_t i = 0; i < p.products.size(); ++i) {
    const Trace::Product& product = p.products[i];
    if (product.addend >= 0) {
      products_[i] = products_[product.addend];  // added to where it lies
      continue;
    }
    const bool in_pieces = product.x == 0 && !repeated_;
    products_[i] = block(stays(i)    ? rows
                         : in_pieces ? sequence_.most_rows()
                                     : B,
                         p.shapes[p.given() + i][1]);
  }

  std::vector<Tensor> copies;
  const std::vector<Strip> same = constants(arguments, copies);
  const auto multiply = [&](const FusedProgram::Product& product, const Strip& x,
                            const Strip& from, const Strip& to) {
    Strip addend;
    if (product.addend >= 0)
      addend = to;
    else if (product.bias >= 0)
      addend = product.bias == 0 ? x : same[static_cast<std::size_t>(product.bias)];
    const Multiplier<T> w(arguments[product.w], product.transposed);
    return StepProduct<T>{w, from, to, addend, product.level};
  };
  Tensor of_rows[kFusedProducts];  // [different rows, width]
  for (std::size_t i = 0; repeated_ && i < p.products.size(); ++i) {
    const FusedProgram::Product& product = p.products[i];
    if (product.x != 0) continue;
    of_rows[i] = product.addend >= 0 ? of_rows[product.addend]
                                     : block(repeated_->size(), p.shapes[p.given() + i][1]);
    const Strip x = strip(repeated_->distinct(), Place::same);
    multiply(product, x, x, strip(of_rows[i], Place::same))(StepRows{}, 0, repeated_->size());
  }
  struct Taken {
    Strip from, to;
  };
  std::vector<Taken> taken;
  std::vector<StepProduct<T>> in_each_step;
  const Strip x = strip(xs_, Place::steps);
  for (const Piece& piece : sequence_.pieces()) {
    taken.clear();
    in_each_step.clear();
    for (std::size_t i = 0; i < p.products.size(); ++i) {
      const FusedProgram::Product& product = p.products[i];
      const Strip to = product_strip(i, piece);
      if (product.factor >= 0)
        in_each_step.push_back(
            multiply(product, x, factor_strip(static_cast<std::size_t>(product.factor)), to));
      else if (product.x > 0)
        in_each_step.push_back(multiply(product, x, state_strip(product.x - 1, Place::before), to));
      else if (!repeated_)
        multiply(product, x, x, to)(sequence_.rows_of(piece.first), 0, piece.rows);
      else if (ends_with_x(i))
        taken.push_back({strip(of_rows[i], Place::same), to});
    }
    std::stable_sort(in_each_step.begin(), in_each_step.end(),
                     [](const auto& a, const auto& b) { return a.level < b.level; });
    Strips strips;
    add_arguments(strips, piece, same);
    add_results(strips);
    add_kept(strips);
    add_factors(strips);
    for_sequences(B, piece, in_each_step, [&](std::int64_t row, std::int64_t most) {
      Strips mine = strips;
      for (std::int64_t done = piece.begin; done < piece.end; ++done) {
        const std::int64_t n = std::min(most, sequence_.running(done) - row);
        if (n <= 0) break;
        const StepRows step = sequence_.rows_of(sequence_.step(done));
        for (const Taken& product : taken)
          repeated_->take(rows_at<T>(step, product.from, 0), product.from.stride,
                          step[Place::steps] + row, n, rows_at<T>(step, product.to, row));
        Array* const arrays = mine.at(step, row);
        auto product = in_each_step.begin();
        for (int level = 0; level <= p.levels; ++level) {
          if (level > 0) p.ahead[static_cast<std::size_t>(level) - 1].run(p.dtype, arrays, n);
          for (; product != in_each_step.end() && product->level == level; ++product)
            (*product)(step, row, n);
        }
        p.forward.run(p.dtype, arrays, n);
      }
    });
  }
  if (sequence_.is_packed()) find_last();
  for (int k = 0; k <= p.states; ++k) versions_[k] = result_block(k).impl().storage->version;
  for (std::size_t i = 0; i < p.products.size(); ++i)
    if (!stays(i)) products_[i] = Tensor();
}

/// Gathers the states after the sequences' own last steps.
void SequenceRule::find_last() {
  const std::int64_t B = sequence_.batch();
  for (int j = 0; j < program_->states; ++j) {
    if (states_[j].shape()[0] == B) continue;
    const std::int64_t width = states_[j].shape()[1];
    last_[j] = detail::make({B, width}, program_->dtype);
    for (std::int64_t t = 0; t < sequence_.steps(); ++t) {
      const std::int64_t go_on = sequence_.running(t + 1), end = sequence_.running(t) - go_on;
      if (end > 0)
        copy_into(last_[j], go_on * width,
                  rows_of(states_[j], sequence_.rows_of(t)[Place::after] + go_on, end));
    }
  }
}

template <class T>
void SequenceRule::compute(Back& back) const {
  const FusedProgram& p = *program_;
  const std::int64_t B = sequence_.batch();
  const auto given = static_cast<int>(p.given()), all = static_cast<int>(p.shapes.size());
  std::vector<Tensor> arguments, copies;
  for (int k = 0; k < given; ++k) arguments.push_back(back.in(k));
  const auto matrix_of = [&](const Tensor& gradient) {
    if (!gradient.defined()) return Tensor();
    copies.push_back(dense(gradient));
    return as_matrix(copies.back(), gradient.numel() / gradient.size(-1));
  };

  Tensor own[2 * kFusedResults];
  StateGradient<T> gradients_of[kFusedResults];
  const Tensor from_outputs = matrix_of(back.grad_of(0));
  const Strip outputs = from_outputs.defined() ? strip(from_outputs, Place::steps) : Strip{};
  for (int j = 0; j < p.states; ++j) {
    StateGradient<T>& state = gradients_of[j];
    const auto& gradient = p.gradients[static_cast<std::size_t>(j) + 1];
    const Shape shape = {B, states_[j].shape()[1]};
    state.width = shape[1];
    state.in_chain = !gradient.content.empty();
    own[2 * j] = detail::make(shape, p.dtype);
    own[2 * j + 1] = state.in_chain && gradient.over != result_of_state(j)
                         ? detail::make(shape, p.dtype)
                         : own[2 * j];
    for (int i : {0, 1}) state.buffers[i] = overwrite<T>(own[2 * j + i]);
    if (const Tensor last = matrix_of(back.grad_of(j + 1)); last.defined())
      state.last = read<T>(last);
    if (j == 0 && !output_.defined()) state.outputs = outputs;
  }

  Tensor of_factors[kFusedProducts];
  for (std::size_t i = 0; i < p.factors.size(); ++i)
    if (p.factors[i].differentiable) of_factors[i] = zeros({B, p.factors[i].width}, p.dtype);
  const std::vector<Strip> same = constants(arguments.data(), copies);
  Tensor no_output;
  if (output_.defined() && !outputs.data) no_output = zeros({B, output_.shape()[1]}, p.dtype);
  Tensor dx;
  if (back.needs(0)) dx = back.place(0);
  if (back.needs(0) && !dx.defined()) dx = detail::make(arguments[0].shape(), p.dtype);
  // Sums of gradients over equal rows of x; whether they are all that is asked for.
  Gradients of_rows;
  const bool dx_of_rows = repeated_ && back.takes_rows(0);
  for (auto number = sequence_.pieces().size(); number-- > 0;) {
    const Piece& piece = sequence_.pieces()[number];
    const Gradients gradients = make_gradients(piece);
    const auto of_piece = [&](const Tensor& block) {
      return strip(block, Place::steps, piece.first_row);
    };

    Strips strips;
    add_arguments(strips, piece, same);
    add_results(strips);
    add_kept(strips);
    add_factors(strips);
    const int first_seed = strips.count;
    if (output_.defined()) strips.add(outputs.data ? outputs : strip(no_output, Place::same));
    for (int j = 0; j < p.states; ++j) strips.add({});
    for (std::size_t i = 0; i < p.factors.size(); ++i)
      strips.add(of_factors[i].defined() ? strip(of_factors[i], Place::same) : Strip{});
    const int first_gradient = strips.count;
    for (int k = 0; k < all; ++k)
      strips.add(gradients[k].defined() ? of_piece(gradients[k]) : Strip{});
    std::vector<StepProduct<T>> in_each_step;
    std::vector<StepProduct<T>> to_factors[kFusedProducts];  // of each level
    bool begun[kFusedProducts] = {};
    for (auto& state : gradients_of) state.products.clear();
    for (int i = 0; i < all - given; ++i) {
      const FusedProgram::Product& product = p.products[static_cast<std::size_t>(i)];
      if (product.x == 0 || !gradients[given + i].defined()) continue;
      const Multiplier<T> w(arguments[static_cast<std::size_t>(product.w)], !product.transposed);
      StepProduct<T> made{w, of_piece(gradients[given + i]), {}, {}};
      if (product.factor < 0) {
        gradients_of[product.x - 1].products.push_back(made);
      } else {
        const auto factor = static_cast<std::size_t>(product.factor);
        if (!of_factors[factor].defined()) continue;
        made.to = strip(of_factors[factor], Place::same);
        if (std::exchange(begun[factor], true)) made.addend = made.to;
        to_factors[p.factors[factor].level - 1].push_back(made);
      }
      in_each_step.push_back(made);
    }

    for_sequences(B, piece, in_each_step, [&](std::int64_t row, std::int64_t most) {
      Strips mine = strips;
      StepRows step, before = sequence_.rows_of(sequence_.step(piece.end - 1));
      for (std::int64_t done = piece.end; done-- > piece.begin;) {
        step = before;
        if (done > 0) before = sequence_.rows_of(sequence_.step(done - 1));
        const std::int64_t n = std::min(most, sequence_.running(done) - row);
        if (n <= 0) continue;
        for (int j = 0; j < p.states; ++j) {
          gradients_of[j].begin(step, done, std::max(row, sequence_.running(done + 1)), row + n);
          mine.set(first_seed + result_of_state(j), gradients_of[j].strip(done + 1));
          mine.set(first_gradient + 1 + j, gradients_of[j].strip(done));
        }
        Array* const arrays = mine.at(step, row);
        for (auto level = static_cast<std::size_t>(p.levels); level-- > 0;) {
          p.behind[level].run(p.dtype, arrays, n);
          for (const auto& product : to_factors[level]) product(step, row, n);
        }
        p.backward.run(p.dtype, arrays, n);
        for (int j = 0; j < p.states; ++j)
          if (done > 0 || back.needs(j + 1))
            gradients_of[j].complete(step, before, done, sequence_.is_cut(done), row, n);
      }
    });

    if (dx.defined() && !dx_of_rows)
      input_gradient<T>(piece.rows, gradients, arguments,
                        overwrite<T>(dx) + piece.first_row * xs_.shape()[1]);
    for (int k = 0; repeated_ && k < all; ++k) {
      const Tensor& g = gradients[k];
      if (!g.defined() || !comes_to_x(k)) continue;
      if (!of_rows[k].defined()) of_rows[k] = zeros({repeated_->size(), g.shape()[1]}, p.dtype);
      repeated_->add_to(of_rows[k], g, piece.first_row);
    }
    add_gradients(back, piece, gradients, arguments);
  }
  for (int i = 0; repeated_ && i < all - given; ++i) {
    const Trace::Product& product = p.products[static_cast<std::size_t>(i)];
    const Tensor& g = of_rows[given + i];
    if (product.x != 0 || !g.defined()) continue;
    add_to_weight(back, product, g, repeated_->distinct());
    if (product.bias > 0) add_repeated(back, product.bias, arguments, g);
  }
  if (dx_of_rows && dx.defined()) {
    const Tensor sums = detail::make(repeated_->distinct().shape(), p.dtype);
    input_gradient<T>(repeated_->size(), of_rows, arguments, overwrite<T>(sums));
    repeated_->put_sums(sums, dx);
  }
  if (dx.defined()) back.add(0, dx);
  for (int j = 0; j < p.states; ++j)
    if (back.needs(j + 1)) back.add(j + 1, own[2 * j]);
}

/// Where the gradients of the arguments go that are no state.
SequenceRule::Gradients SequenceRule::make_gradients(const Piece& piece) const {
  const FusedProgram& p = *program_;
  Gradients gradients;
  for (std::size_t k = 0; k < p.shapes.size(); ++k) {
    const auto& gradient = p.gradients[k];
    if (gradient.content.empty() || p.is_state(k)) continue;
    gradients.of[k] = gradient.same_as >= 0
                          ? gradients[gradient.same_as]
                          : detail::make({piece.rows, width_of(gradient.shape)}, p.dtype);
  }
  Tensor* const of_products = gradients.of + p.given();
  for (std::size_t i = p.products.size(); i-- > 0;)
    if (const int to = p.products[i].addend; to >= 0) of_products[to] = of_products[i];
  return gradients;
}

void SequenceRule::add_to_weight(Back& back, const Trace::Product& product, const Tensor& g,
                                 const Tensor& x) const {
  if (product.transposed)
    back.add_product(product.w, g, x);
  else
    back.add_product(product.w, x, g);
}

/// Adds those of a piece that are of weights; those with equal rows of x come in the end.
void SequenceRule::add_gradients(Back& back, const Piece& piece, const Gradients& gradients,
                                 const std::vector<Tensor>& arguments) const {
  const FusedProgram& p = *program_;
  const auto given = static_cast<int>(p.given());
  for (int k = p.states + 1; k < given; ++k)
    if (gradients[k].defined()) add_repeated(back, k, arguments, gradients[k]);
  for (std::size_t i = 0; i < p.products.size(); ++i) {
    const Trace::Product& product = p.products[i];
    const Tensor& g = gradients[given + static_cast<int>(i)];
    if (!g.defined() || (product.x == 0 && repeated_)) continue;
    if (product.x == 0)
      add_to_weight(back, product, g, rows_of(xs_, piece.first_row, piece.rows));
    else if (product.factor >= 0)
      add_to_weight(back, product, g,
                    rows_of(factors_[product.factor], piece.first_row, piece.rows));
    else
      sequence_.each_run(piece, [&](std::int64_t first, std::int64_t of_state, std::int64_t rows) {
        add_to_weight(back, product, rows_of(g, first, rows),
                      rows_of(states_[product.x - 1], of_state, rows));
      });
    if (product.bias > 0) add_repeated(back, product.bias, arguments, g);
  }
}

/// The gradient of rows of xs: that of the chain, of products to which x is added, and of
/// products with x.
template <class T>
void SequenceRule::input_gradient(std::int64_t rows, const Gradients& gradients,
                                  const std::vector<Tensor>& arguments, T* to) const {
  const auto& products = program_->products;
  const Tensor* const of_products = gradients.of + program_->given();
  Tensor sum = gradients[0];
  for (std::size_t i = 0; i < products.size(); ++i)
    if (products[i].bias == 0 && of_products[i].defined())
      sum = sum.defined() ? sum + of_products[i] : of_products[i];
  const std::int64_t width = xs_.shape()[1];
  const T* before = sum.defined() ? read<T>(sum) : nullptr;
  bool written = false;
  for (std::size_t i = 0; i < products.size(); ++i) {
    const Trace::Product& product = products[i];
    if (product.x != 0 || !of_products[i].defined()) continue;
    const Multiplier<T> w(arguments[static_cast<std::size_t>(product.w)], !product.transposed);
    w(rows, {read<T>(of_products[i]), w.rows(), 1}, to, {written ? to : before, width});
    written = true;
  }
  if (written) return;
  if (before)
    std::copy_n(before, rows * width, to);
  else
    std::fill_n(to, rows * width, T(0));
}

/// The time steps once more, as operations of the tape, and their derivative.
void SequenceRule::record(Back& back) const {
  const std::size_t given = program_->given(), m = program_->results.size();
  const auto state_count = static_cast<std::size_t>(program_->states);
  std::vector<Tensor> inputs;
  for (std::size_t k = 0; k < given; ++k) {
    const Tensor& x = back.in(static_cast<int>(k));
    // Hooks of x are for the whole gradient, which is not made here.
    inputs.push_back(unroll::record("alias", {x}, x.detach(), Keep::none,
                                    [](Back& to_x) { to_x.add(0, to_x.grad); }));
  }
  std::vector<Tensor> now = inputs, next(m), outputs(static_cast<std::size_t>(sequence_.steps()));
  std::vector<std::vector<Tensor>> ended(state_count);
  const auto end = [&](std::int64_t n) {
    for (std::size_t j = 0; j < state_count; ++j) {
      Tensor& state = now[1 + j];
      if (state.size(0) == n) continue;
      ended[j].push_back(narrow(state, 0, n, state.size(0) - n));
      state = narrow(state, 0, 0, n);
    }
  };
  for (std::int64_t done = 0; done < sequence_.steps(); ++done) {
    const std::int64_t t = sequence_.step(done), n = sequence_.running(done);
    if (sequence_.is_packed()) {
      now[0] = narrow(inputs[0], 0, sequence_.rows_before(t), n);
      end(n);
    } else {
      now[0] = select(inputs[0], 0, t);
    }
    for (std::size_t j = 0; sequence_.is_cut(done) && j < state_count; ++j)
      now[1 + j] = now[1 + j].detach();
    call_(now.data(), next.data());
    outputs[static_cast<std::size_t>(t)] = next[0];
    for (std::size_t j = 0; j < state_count; ++j) now[1 + j] = next[m - state_count + j];
  }
  if (sequence_.is_packed()) {
    now[0] = concatenate(outputs);
    end(0);
    for (std::size_t j = 0; j < state_count; ++j) {
      std::reverse(ended[j].begin(), ended[j].end());
      now[1 + j] = concatenate(ended[j]);
    }
  } else {
    now[0] = stack(outputs);
  }
  std::vector<Tensor> ys, seeds, xs_of_grad;
  for (std::size_t k = 0; k <= state_count; ++k) {
    const Tensor& g = back.grad_of(static_cast<int>(k));
    if (!g.defined() || !now[k].requires_grad()) continue;
    ys.push_back(now[k]);
    seeds.push_back(g);
  }
  if (ys.empty()) return;
  for (const Tensor& x : inputs)
    if (x.requires_grad()) xs_of_grad.push_back(x);
  const auto gs =
      grad(ys, xs_of_grad, {.create_graph = true, .grad_outputs = seeds, .allow_unused = true});
  auto g = gs.begin();
  for (std::size_t k = 0; k < given; ++k) {
    if (!inputs[k].requires_grad()) continue;
    if (g->defined()) back.add(static_cast<int>(k), *g);
    ++g;
  }
}

}  // namespace

bool FusedFunction::over_time(const Tensor* arguments, const SequenceOptions& options,
                              Tensor* results) {
  const Tensor& xs = arguments[0];
  if (trace || watched() || xs.dim() != (options.running ? 2 : 3) || xs.numel() == 0 ||
      !is_floating(xs.dtype()))
    return false;
  Sequence sequence(xs, options);
  const auto n = static_cast<std::size_t>(arguments_);
  Tensor step[kSequenceArguments];
  bool any = false;
  std::uint32_t differentiate = 0;
  for (std::size_t k = 0; k < n; ++k) {
    if (!arguments[k].defined()) return false;
    step[k] = arguments[k];
    const bool is_state = k >= 1 && static_cast<int>(k) <= states_;
    const bool requires_grad = grad_enabled() && arguments[k].requires_grad();
    any = any || requires_grad;
    if (requires_grad || is_state) differentiate |= 1u << k;
  }
  if (!any) differentiate = 0;
  Tensor steps = dense(xs);
  step[0] = attach(steps.impl().storage, xs.dtype(), {sequence.batch(), xs.size(-1)}, 0);
  FusedProgram* program = program_for(step, differentiate);
  if (!program || !program->possible) return false;
  // Packed sequences come in another order than a weight that has a row for each of them.
  for (std::size_t k = static_cast<std::size_t>(states_) + 1; sequence.is_packed() && k < n; ++k)
    if ((program->weights >> k & 1u) == 0 && step[k].numel() > width_of(step[k].shape()))
      return false;

  std::int64_t widest = 0;
  for (std::size_t i = 0; i < program->products.size(); ++i)
    widest = std::max(widest, program->shapes[program->given() + i][1]);
  const std::int64_t rows = xs.numel() / xs.size(-1);
  sequence.cut(rows <= kWholeRows ? rows : piece_rows(widest));
  SequenceRule rule(Ref<FusedProgram>::share(program), call_, steps, std::move(sequence));
  rule.share_rows(xs);
  rule.forward(arguments);
  for (int k = 0; k <= states_; ++k) results[k] = rule.result(k);
  if (differentiate == 0) return true;
  record_all("scan", Inputs(arguments, n), results, 1 + states_, Keep::inputs, std::move(rule));
  const int own_output = results_ - states_;
  for (int k = 0; k <= states_; ++k) {
    const int made = k == 0 ? 0 : k - 1 + own_output;
    if (!program->results[static_cast<std::size_t>(made)].differentiable)
      results[k].impl().node.reset();
  }
  return true;
}

bool FusedFunction::step(const Tensor* arguments, Tensor* results) {
  const Tensor& x = arguments[0];
  if (trace || watched() || !x.defined() || x.dim() != 2 || x.numel() == 0) return false;
  for (int k = 0; k < arguments_; ++k)
    if (!arguments[k].defined() || (grad_enabled() && arguments[k].requires_grad())) return false;
  const FusedProgram* program = program_for(arguments, 0);
  if (!program || !program->possible) return false;
  const FusedProgram& p = *program;

  const std::int64_t B = p.rows;
  Tensor held[kSequenceArguments], products[kFusedProducts], factors[kFusedProducts];
  Array arrays[kMostArrays];
  Array* next = arrays + FusedProgram::first_argument;
  const auto add = [&](const Tensor& block) { *next++ = {overwrite(block), block.shape()[1]}; };
  for (std::size_t k = 0; k < p.given(); ++k, ++next) {
    if ((p.weights >> k & 1u) != 0) continue;
    held[k] = dense(arguments[k]);
    const std::int64_t width = width_of(held[k].shape());
    *next = {const_cast<void*>(read(held[k])), held[k].numel() == B * width ? width : 0};
  }
  for (std::size_t i = 0; i < p.products.size(); ++i) {
    const int addend = p.products[i].addend;  // added to where it lies
    products[i] = addend >= 0 ? products[addend]
                              : detail::make({B, p.shapes[p.given() + i][1]}, p.dtype);
    add(products[i]);
  }
  for (std::size_t k = 0; k < p.results.size(); ++k)
    add(results[k] = detail::make(p.results[k].shape, p.dtype));
  for (std::size_t i = 0; i < p.factors.size(); ++i)
    add(factors[i] = detail::make({B, p.factors[i].width}, p.dtype));

  for (int level = 0; level <= p.levels; ++level) {
    if (level > 0) p.ahead[static_cast<std::size_t>(level) - 1].run(p.dtype, arrays, B);
    dispatch_floating(p.dtype, [&]<class T>(T) {
      for (std::size_t i = 0; i < p.products.size(); ++i) {
        const FusedProgram::Product& product = p.products[i];
        if (product.level != level) continue;
        const Multiplier<T> w(arguments[product.w], product.transposed);
        const Tensor& from = product.factor >= 0 ? factors[product.factor] : held[product.x];
        T* const to = overwrite<T>(products[i]);
        kernels::Addend<T> addend;
        if (product.addend >= 0) {
          addend = {to, w.columns()};
        } else if (product.bias >= 0) {
          const Array& bias = arrays[p.argument_array(static_cast<std::size_t>(product.bias))];
          addend = {static_cast<const T*>(bias.data), bias.stride};
        }
        w(B, {read<T>(from), w.rows(), 1}, to, addend);
      }
    });
  }
  p.forward.run(p.dtype, arrays, B);
  return true;
}

}  // namespace unroll::detail
