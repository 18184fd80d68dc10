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
#include "framework/step_products.h"
#include "framework/watch.h"

namespace unroll::detail {
namespace {

/// An array of a program at one time step after the other.
struct Strip {
  char* data = nullptr;
  std::int64_t step = 0;    ///< bytes from one time step to the next
  std::int64_t stride = 0;  ///< elements from one row to the next
  std::int64_t first = 0;   ///< the time step at `data`
  /// The rows of time step t, without those before `row`; `size`: bytes of an element.
  Array at(std::int64_t t, std::int64_t row, std::int64_t size) const {
    return {data + (t - first) * step + row * stride * size, stride};
  }
};

/// All arrays of a stage.
struct Strips {
  Strip list[kMostArrays];
  int count = FusedProgram::first_argument;
  Array arrays[kMostArrays];

  void add(const Strip& strip) { list[count++] = strip; }
  /// The arrays of time step t, without the rows before `row`.
  Array* at(std::int64_t t, std::int64_t row, std::int64_t size) {
    for (int i = FusedProgram::first_argument; i < count; ++i) arrays[i] = list[i].at(t, row, size);
    return arrays;
  }
};

/// A part of the walk over the time steps: after `begin` others, until `end` are done.
struct Piece {
  std::int64_t begin, end;
  std::int64_t first;  ///< the lowest time step of it
  std::int64_t size() const { return end - begin; }
};

/// What stays the same over time.
struct Sequence {
  std::int64_t T, B;
  bool reverse;
  std::int64_t steps_at_once;
  std::int64_t pieces() const { return (T + steps_at_once - 1) / steps_at_once; }
  /// Piece number i of the walk. What is left over is the first one, so that from the end on the
  /// pieces are those in which backward() sums the gradient of a weight up.
  Piece piece(std::int64_t i) const {
    const std::int64_t end = T - (pieces() - 1 - i) * steps_at_once;
    const std::int64_t begin = std::max<std::int64_t>(end - steps_at_once, 0);
    return {begin, end, reverse ? T - end : begin};
  }
  /// The time step that the walk comes to after `done` others.
  std::int64_t step(std::int64_t done) const { return reverse ? T - 1 - done : done; }
  /// A state has T + 1 places: where a time step finds it, and where it leaves it.
  std::int64_t before(std::int64_t t) const { return reverse ? t + 1 : t; }
  std::int64_t after(std::int64_t t) const { return reverse ? t : t + 1; }
};

/// [..., width] as [rows, width].
Tensor as_matrix(const Tensor& x, std::int64_t rows) {
  return attach(x.impl().storage, x.dtype(), {rows, x.numel() / rows}, x.impl().offset);
}

/// Rows of a block [steps, B, width] from time step `first` on.
Tensor rows_from(const Tensor& block, std::int64_t first, std::int64_t steps) {
  const std::int64_t width = block.numel() / block.size(0);
  return attach(block.impl().storage, block.dtype(), {steps * block.size(1), width / block.size(1)},
                block.impl().offset + first * width);
}

/// Runs the program forward over a sequence, and is the rule of that.
class SequenceRule {
 public:
  SequenceRule(Ref<FusedProgram> p, FusedFunction::Call f, Tensor x, const Sequence& s)
      : program_(std::move(p)), call_(f), xs_(std::move(x)), sequence_(s) {}

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
    Shape shape = block.shape();
    const std::int64_t step = sequence_.B * shape[2];
    if (k == 0) {
      shape[0] = sequence_.T;
      return attach(block.impl().storage, block.dtype(), shape,
                    output_.defined() ? 0 : sequence_.after(0) * step);
    }
    const std::int64_t last = shape[0] > 1 ? sequence_.after(sequence_.step(sequence_.T - 1)) : 0;
    return attach(block.impl().storage, block.dtype(), {shape[1], shape[2]}, last * step);
  }

 private:
  Ref<FusedProgram> program_;
  FusedFunction::Call call_;
  Tensor xs_;  ///< contiguous, off the tape
  Sequence sequence_;
  std::optional<RepeatedRows> repeated_;  ///< in xs, where that has products
  Tensor states_[kFusedResults];          ///< [T + 1, B, ...], or [1, B, ...] written over and over
  Tensor output_;                         ///< [T, B, ...], where it is none of the states
  /// [T, B, ...], or in each piece anew [steps, B, ...], or in each step [1, B, ...].
  Tensor products_[kFusedProducts];
  Tensor kept_;  ///< [T, elements]
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
  /// The places of one time step in a block [steps, B, width], moved on by `first` steps. A block
  /// of one step is used in all of them.
  Strip strip(const Tensor& block, std::int64_t first = 0) const {
    const std::int64_t width = block.shape()[2], step = bytes(sequence_.B * width);
    char* data = static_cast<char*>(block.impl().storage->data()) + bytes(block.impl().offset);
    if (block.shape()[0] == 1) return {data, 0, width};
    return {data + first * step, step, width};
  }
  /// The same for a block of the time steps of a piece, or of all.
  Strip strip_of(const Piece& piece, const Tensor& block) const {
    Strip made = strip(block);
    if (block.shape()[0] < sequence_.T) made.first = piece.first;
    return made;
  }
  /// Arguments of all time steps alike; those that products multiply by are left out.
  std::vector<Strip> constants(const Tensor* arguments, std::vector<Tensor>& copies) const {
    const FusedProgram& p = *program_;
    std::vector<Strip> list(p.given());
    for (std::size_t k = static_cast<std::size_t>(p.states) + 1; k < list.size(); ++k) {
      if ((p.weights >> k & 1u) != 0) continue;
      const Tensor& x = copies.emplace_back(dense(arguments[k]));
      const std::int64_t width = width_of(x.shape());
      list[k] = {const_cast<char*>(static_cast<const char*>(read(x))), 0,
                 x.dim() > 1 && x.numel() == sequence_.B * width ? width : 0};
    }
    return list;
  }
  void add_arguments(Strips& to, const Piece& piece, const std::vector<Strip>& constants) const {
    const FusedProgram& p = *program_;
    to.add(strip(xs_));
    for (int j = 0; j < p.states; ++j) to.add(strip(states_[j], sequence_.before(0)));
    for (std::size_t k = static_cast<std::size_t>(p.states) + 1; k < p.given(); ++k)
      to.add(constants[k]);
    for (std::size_t i = 0; i < p.products.size(); ++i)
      to.add(products_[i].defined() ? strip_of(piece, products_[i]) : Strip{});
  }
  void add_results(Strips& to) const {
    if (output_.defined()) to.add(strip(output_));
    for (int j = 0; j < program_->states; ++j) to.add(strip(states_[j], sequence_.after(0)));
  }
  void add_kept(Strips& to) const {
    const FusedProgram& p = *program_;
    for (const auto& k : p.kept) {
      Strip at = k.in_argument ? strip(products_[static_cast<std::size_t>(p.reused) - p.given()])
                               : Strip{static_cast<char*>(kept_.impl().storage->data()),
                                       bytes(p.kept_elements), 0};
      at.data += bytes(k.begin);
      at.stride = k.stride;
      to.add(at);
    }
  }

  template <class T>
  void run_forward(const Tensor* arguments);
  template <class T>
  void compute(Back& back) const;
  template <class T>
  void input_gradient(std::int64_t rows, const Tensor* gradients,
                      const std::vector<Tensor>& arguments, T* to) const;
  void record(Back& back) const;
};

/// Where the rows of a strip lie at time step t, from `row` on; null if there is none.
template <class T>
T* rows_at(const Strip& strip, std::int64_t t, std::int64_t row) {
  return strip.data ? static_cast<T*>(strip.at(t, row, sizeof(T)).data) : nullptr;
}

/// A product with a state, in each time step.
template <class T>
struct StepProduct {
  Multiplier<T> w;
  Strip from, to, addend;  ///< addend: no data if there is none

  void operator()(std::int64_t row, std::int64_t rows, std::int64_t t) const {
    w(rows, {rows_at<T>(from, t, row), from.stride, 1}, rows_at<T>(to, t, row),
      {rows_at<T>(addend, t, row), addend.stride});
  }
};

/// Calls f(row, rows) for parts of a batch, from several threads where that pays: each takes its
/// sequences through all time steps of a piece. Few sequences are one part, and their products are
/// shared instead.
template <class T, class F>
void for_sequences(std::int64_t B, std::int64_t steps, const std::vector<StepProduct<T>>& products,
                   const F& f) {
  constexpr std::int64_t kFewest = 8;  // in a part
  std::int64_t work = 0;
  bool packed = !products.empty();
  for (const auto& product : products) {
    work += steps * B * product.w.rows() * product.w.columns();
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
  Strip outputs{};  ///< what comes from the outputs
  bool in_chain = false;
  std::vector<StepProduct<T>> products{};

  /// That of the state after `done` time steps.
  T* after(std::int64_t done) const { return buffers[done & 1]; }
  Strip strip(std::int64_t done) const { return {reinterpret_cast<char*>(after(done)), 0, width}; }

  /// Completes what goes on after `done` time steps: that of the chain, which is there, of products
  /// with the state, and of the output.
  void complete(const Sequence& sequence, std::int64_t done, std::int64_t row,
                std::int64_t rows) const {
    const std::int64_t t = sequence.step(done);
    const T* rest = done > 0 ? rows_at<T>(outputs, sequence.step(done - 1), row) : nullptr;
    T* const to = after(done) + row * width;
    bool begun = in_chain;
    for (const auto& product : products) {
      const T* addend = begun ? to : std::exchange(rest, nullptr);
      product.w(rows, {rows_at<T>(product.from, t, row), product.from.stride, 1}, to,
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
  const std::int64_t steps = sequence_.T, B = sequence_.B;
  const bool differentiate = p.differentiate != 0;
  const auto block = [&](std::int64_t n, std::int64_t width) {
    return detail::make({n, B, width}, p.dtype);
  };
  const bool has_output = static_cast<int>(p.results.size()) > p.states;
  if (has_output) output_ = block(steps, p.results[0].width);
  for (int j = 0; j < p.states; ++j) {
    const auto k = static_cast<std::size_t>(j);
    const std::int64_t width = width_of(p.shapes[k + 1]);
    const bool keep =
        differentiate || (j == 0 && !has_output) ||
        !p.forward.has_read(p.argument_array(k + 1), p.result_array(k + (has_output ? 1 : 0)));
    states_[j] = block(keep ? steps + 1 : 1, width);
    copy_into(states_[j], keep ? sequence_.before(sequence_.step(0)) * B * width : 0,
              dense(arguments[j + 1]));
  }
  if (p.kept_elements > 0) kept_ = detail::make({steps, p.kept_elements}, p.dtype);

  for (std::size_t i = 0; i < p.products.size(); ++i) {
    const Trace::Product& product = p.products[i];
    if (product.addend >= 0) {
      products_[i] = products_[product.addend];  // added to where it lies
      continue;
    }
    const bool in_pieces = product.x == 0 && !repeated_;
    const std::int64_t n = stays(i) ? steps : in_pieces ? sequence_.steps_at_once : 1;
    products_[i] = block(n, p.shapes[p.given() + i][1]);
  }

  std::vector<Tensor> copies;
  const std::vector<Strip> same = constants(arguments, copies);
  const auto multiply = [&](const Trace::Product& product, const Tensor& x, const Strip& from,
                            const Strip& to) {
    Strip addend;
    if (product.addend >= 0)
      addend = to;
    else if (product.bias >= 0)
      addend = product.bias == 0 ? strip(x) : same[static_cast<std::size_t>(product.bias)];
    const Multiplier<T> w(arguments[product.w], product.transposed);
    return StepProduct<T>{w, from, to, addend};
  };
  Tensor of_rows[kFusedProducts];  // [1, different rows, width]
  for (std::size_t i = 0; repeated_ && i < p.products.size(); ++i) {
    const Trace::Product& product = p.products[i];
    if (product.x != 0) continue;
    const Tensor& x = repeated_->distinct();
    of_rows[i] = product.addend >= 0
                     ? of_rows[product.addend]
                     : detail::make({1, x.shape()[1], p.shapes[p.given() + i][1]}, p.dtype);
    multiply(product, x, strip(x), strip(of_rows[i]))(0, x.shape()[1], 0);
  }
  struct Taken {
    Strip from, to;
  };
  std::vector<Taken> taken;
  std::vector<StepProduct<T>> in_each_step;
  for (std::int64_t number = 0; number < sequence_.pieces(); ++number) {
    const Piece piece = sequence_.piece(number);
    taken.clear();
    in_each_step.clear();
    for (std::size_t i = 0; i < p.products.size(); ++i) {
      const Trace::Product& product = p.products[i];
      const Strip to = strip_of(piece, products_[i]);
      if (product.x > 0) {
        const Strip from = strip(states_[product.x - 1], sequence_.before(0));
        in_each_step.push_back(multiply(product, xs_, from, to));
      } else if (!repeated_) {
        multiply(product, xs_, strip(xs_), to)(0, piece.size() * B, piece.first);
      } else if (ends_with_x(i)) {
        taken.push_back({strip(of_rows[i]), to});
      }
    }
    Strips strips;
    add_arguments(strips, piece, same);
    add_results(strips);
    add_kept(strips);
    for_sequences(B, piece.size(), in_each_step, [&](std::int64_t row, std::int64_t rows) {
      Strips mine = strips;
      for (std::int64_t done = piece.begin; done < piece.end; ++done) {
        const std::int64_t t = sequence_.step(done);
        for (const Taken& x : taken)
          repeated_->take(rows_at<T>(x.from, 0, 0), x.from.stride, t * B + row, rows,
                          rows_at<T>(x.to, t, row));
        for (const auto& product : in_each_step) product(row, rows, t);
        p.forward.run(p.dtype, mine.at(t, row, sizeof(T)), rows);
      }
    });
  }
  for (int k = 0; k <= p.states; ++k) versions_[k] = result_block(k).impl().storage->version;
  for (std::size_t i = 0; i < p.products.size(); ++i)
    if (!stays(i)) products_[i] = Tensor();
}

template <class T>
void SequenceRule::compute(Back& back) const {
  const FusedProgram& p = *program_;
  const std::int64_t steps = sequence_.T, B = sequence_.B;
  const auto given = static_cast<int>(p.given()), all = static_cast<int>(p.shapes.size());
  std::vector<Tensor> arguments, copies;
  for (int k = 0; k < given; ++k) arguments.push_back(back.in(k));

  Tensor own[2 * kFusedResults];
  StateGradient<T> gradients_of[kFusedResults];
  const Tensor& from_outputs = back.grad_of(0);
  if (from_outputs.defined()) copies.push_back(dense(from_outputs));
  const Strip outputs = from_outputs.defined() ? strip(copies.back()) : Strip{};
  for (int j = 0; j < p.states; ++j) {
    StateGradient<T>& state = gradients_of[j];
    const auto& gradient = p.gradients[static_cast<std::size_t>(j) + 1];
    const Shape shape = {B, states_[j].shape()[2]};
    state.width = shape[1];
    state.in_chain = !gradient.content.empty();
    own[2 * j] = detail::make(shape, p.dtype);
    own[2 * j + 1] = state.in_chain && gradient.over != result_of_state(j)
                         ? detail::make(shape, p.dtype)
                         : own[2 * j];
    for (int i : {0, 1}) state.buffers[i] = overwrite<T>(own[2 * j + i]);
    const Tensor& last = back.grad_of(j + 1);
    if (last.defined())
      std::copy_n(read<T>(dense(last)), shape.numel(), state.after(steps));
    else
      std::fill_n(state.after(steps), shape.numel(), T(0));
    if (j > 0 || output_.defined() || !outputs.data) continue;
    state.outputs = outputs;
    state.add(B, state.after(steps), rows_at<T>(outputs, sequence_.step(steps - 1), 0));
  }

  const std::vector<Strip> same = constants(arguments.data(), copies);
  Tensor no_output;
  if (output_.defined() && !outputs.data) no_output = zeros({1, B, output_.shape()[2]}, p.dtype);
  Tensor dx;
  if (back.needs(0)) dx = back.place(0);
  if (back.needs(0) && !dx.defined()) dx = detail::make(xs_.shape(), p.dtype);
  // Sums of such gradients over equal rows of x; whether they are all that is asked for.
  Tensor of_rows[kSequenceArguments + kFusedProducts];
  const bool dx_of_rows = repeated_ && back.takes_rows(0);
  const auto add_to_constant = [&](int k, const Tensor& g) {
    const bool of_each_row = arguments[static_cast<std::size_t>(k)].dim() == 1;
    back.add(k, of_each_row ? as_matrix(g, g.numel() / g.size(-1)) : g);
  };
  const auto add_to_weights = [&](int i, const Tensor& gradient, const Tensor& x) {
    if (!gradient.defined()) return;
    const Trace::Product& product = p.products[static_cast<std::size_t>(i)];
    const Tensor g = as_matrix(gradient, x.shape()[0]);
    if (product.transposed)
      back.add_product(product.w, g, x);
    else
      back.add_product(product.w, x, g);
    if (product.bias > 0) add_to_constant(product.bias, gradient);
  };
  for (std::int64_t number = sequence_.pieces(); number-- > 0;) {
    const Piece piece = sequence_.piece(number);
    // Where the gradients of the arguments go that are no state.
    Tensor gradients[kSequenceArguments + kFusedProducts];
    for (int k = 0; k < all; ++k) {
      const auto& gradient = p.gradients[static_cast<std::size_t>(k)];
      if (gradient.content.empty() || p.is_state(static_cast<std::size_t>(k))) continue;
      gradients[k] = gradient.same_as >= 0
                         ? gradients[gradient.same_as]
                         : detail::make({piece.size(), B, width_of(gradient.shape)}, p.dtype);
    }
    for (int i = all - given - 1; i >= 0; --i)
      if (const int to = p.products[static_cast<std::size_t>(i)].addend; to >= 0)
        gradients[given + to] = gradients[given + i];

    Strips strips;
    add_arguments(strips, piece, same);
    add_results(strips);
    add_kept(strips);
    const int first_seed = strips.count;
    if (output_.defined()) strips.add(outputs.data ? outputs : strip(no_output));
    for (int j = 0; j < p.states; ++j) strips.add({});
    const int first_gradient = strips.count;
    for (int k = 0; k < all; ++k)
      strips.add(gradients[k].defined() ? strip_of(piece, gradients[k]) : Strip{});
    std::vector<StepProduct<T>> with_states;
    for (auto& state : gradients_of) state.products.clear();
    for (int i = 0; i < all - given; ++i) {
      const Trace::Product& product = p.products[static_cast<std::size_t>(i)];
      if (product.x == 0 || !gradients[given + i].defined()) continue;
      with_states.push_back(
          {Multiplier<T>(arguments[static_cast<std::size_t>(product.w)], !product.transposed),
           strip_of(piece, gradients[given + i]),
           {},
           {}});
      gradients_of[product.x - 1].products.push_back(with_states.back());
    }

    for_sequences(B, piece.size(), with_states, [&](std::int64_t row, std::int64_t rows) {
      Strips mine = strips;
      for (std::int64_t done = piece.end; done-- > piece.begin;) {
        for (int j = 0; j < p.states; ++j) {
          mine.list[first_seed + result_of_state(j)] = gradients_of[j].strip(done + 1);
          mine.list[first_gradient + 1 + j] = gradients_of[j].strip(done);
        }
        p.backward.run(p.dtype, mine.at(sequence_.step(done), row, sizeof(T)), rows);
        for (int j = 0; j < p.states; ++j)
          if (done > 0 || back.needs(j + 1)) gradients_of[j].complete(sequence_, done, row, rows);
      }
    });

    const std::int64_t rows = piece.size() * B, first_row = piece.first * B;
    if (dx.defined() && !dx_of_rows)
      input_gradient<T>(rows, gradients, arguments, overwrite<T>(dx) + first_row * xs_.shape()[2]);
    for (int k = 0; repeated_ && k < all; ++k) {
      const Tensor& g = gradients[k];
      if (!g.defined() || !comes_to_x(k)) continue;
      if (!of_rows[k].defined()) of_rows[k] = zeros({1, repeated_->size(), g.shape()[2]}, p.dtype);
      repeated_->add_to(of_rows[k], g, first_row);
    }
    for (int k = p.states + 1; k < given; ++k)
      if (gradients[k].defined()) add_to_constant(k, gradients[k]);
    for (int i = 0; i < all - given; ++i) {
      const int x = p.products[static_cast<std::size_t>(i)].x;
      if (x == 0 && repeated_) continue;
      add_to_weights(i, gradients[given + i],
                     x == 0
                         ? rows_from(xs_, piece.first, piece.size())
                         : rows_from(states_[x - 1], sequence_.before(piece.first), piece.size()));
    }
  }
  for (int i = 0; repeated_ && i < all - given; ++i)
    if (p.products[static_cast<std::size_t>(i)].x == 0)
      add_to_weights(i, of_rows[given + i], as_matrix(repeated_->distinct(), repeated_->size()));
  if (dx_of_rows && dx.defined()) {
    const Tensor sums = detail::make(repeated_->distinct().shape(), p.dtype);
    input_gradient<T>(repeated_->size(), of_rows, arguments, overwrite<T>(sums));
    repeated_->put_sums(sums, dx);
  }
  if (dx.defined()) back.add(0, dx);
  for (int j = 0; j < p.states; ++j)
    if (back.needs(j + 1)) back.add(j + 1, own[2 * j]);
}

/// The gradient of rows of xs: that of the chain, of products to which x is added, and of
/// products with x.
template <class T>
void SequenceRule::input_gradient(std::int64_t rows, const Tensor* gradients,
                                  const std::vector<Tensor>& arguments, T* to) const {
  const auto& products = program_->products;
  const Tensor* const of_products = gradients + program_->given();
  Tensor sum = gradients[0];
  for (std::size_t i = 0; i < products.size(); ++i)
    if (products[i].bias == 0 && of_products[i].defined())
      sum = sum.defined() ? sum + of_products[i] : of_products[i];
  const std::int64_t width = xs_.shape()[2];
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
  std::vector<Tensor> now = inputs, next(m), outputs(static_cast<std::size_t>(sequence_.T));
  for (std::int64_t done = 0; done < sequence_.T; ++done) {
    const std::int64_t t = sequence_.step(done);
    now[0] = select(inputs[0], 0, t);
    call_(now.data(), next.data());
    outputs[static_cast<std::size_t>(t)] = next[0];
    for (std::size_t j = 0; j < state_count; ++j) now[1 + j] = next[m - state_count + j];
  }
  now[0] = stack(outputs);
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

bool FusedFunction::over_time(const Tensor* arguments, bool reverse, Tensor* results) {
  const Tensor& xs = arguments[0];
  if (trace || watched() || xs.dim() != 3 || xs.numel() == 0 || !is_floating(xs.dtype()))
    return false;
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
  step[0] = attach(steps.impl().storage, xs.dtype(), {xs.size(1), xs.size(2)}, 0);
  FusedProgram* program = program_for(step, differentiate);
  if (!program || !program->possible) return false;

  std::int64_t widest = 0;
  for (std::size_t i = 0; i < program->products.size(); ++i)
    widest = std::max(widest, program->shapes[program->given() + i][1]);
  const std::int64_t T = xs.size(0), B = xs.size(1);
  const std::int64_t rows = widest > kWide ? kPieceRows / 2 : kPieceRows;
  SequenceRule rule(Ref<FusedProgram>::share(program), call_, std::move(steps),
                    {T, B, reverse, T * B <= kWholeRows ? T : (rows + B - 1) / B});
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

}  // namespace unroll::detail
