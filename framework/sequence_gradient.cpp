/// The derivative of a program over the time steps of a sequence.

#include <span>

#include "framework/ops.h"
#include "framework/sequence_rule.h"

namespace unroll::detail {
namespace {

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

}  // namespace

/// One run of the derivative: piece by piece, from the last one on.
template <class T>
class SequenceRule::Derivative {
 public:
  Derivative(const SequenceRule& rule, Back& back)
      : rule_(rule), p_(*rule.program_), sequence_(rule.sequence_), back_(back) {
    for (int k = 0; k < given(); ++k) arguments_.push_back(back.in(k));
    const Tensor outputs = matrix_of(back.grad_of(0));
    if (outputs.defined()) outputs_ = rule.strip(outputs, Place::steps);
    for (int j = 0; j < p_.states; ++j) begin_state(j);
    const std::int64_t B = sequence_.batch();
    for (std::size_t i = 0; i < p_.factors.size(); ++i)
      if (p_.factors[i].differentiable) factors_[i] = zeros({B, p_.factors[i].width}, p_.dtype);
    constants_ = rule.constants(arguments_.data(), copies_);
    if (rule.output_.defined() && !outputs_.data)
      no_output_ = zeros({B, rule.output_.shape()[1]}, p_.dtype);
    if (back.needs(0)) dx_ = back.place(0);
    if (back.needs(0) && !dx_.defined()) dx_ = detail::make(arguments_[0].shape(), p_.dtype);
    only_sums_ = rule.repeated_ && back.takes_rows(0);
  }

  void run() {
    for (auto number = sequence_.pieces().size(); number-- > 0;) {
      const Piece& piece = sequence_.pieces()[number];
      const Gradients gradients = make_gradients(piece);
      run_steps(piece, gradients);
      if (dx_.defined() && !only_sums_)
        input_gradient(piece.rows, gradients,
                       overwrite<T>(dx_) + piece.first_row * rule_.xs_.shape()[1]);
      add_to_sums(piece, gradients);
      add_gradients(piece, gradients);
    }
    take_sums();
    if (dx_.defined()) back_.add(0, dx_);
    for (int j = 0; j < p_.states; ++j)
      if (back_.needs(j + 1)) back_.add(j + 1, buffers_[2 * j]);
  }

 private:
  /// Gradients of arguments and products, by their number.
  struct Gradients {
    Tensor of[kSequenceArguments + kFusedProducts];
    Tensor& operator[](int k) { return of[k]; }
    const Tensor& operator[](int k) const { return of[k]; }
  };
  /// The products of a piece through which gradients go in each time step.
  struct Products {
    std::vector<StepProduct<T>> all;
    std::vector<StepProduct<T>> to_factors[kFusedProducts];  ///< [level - 1]
    StateGradient<T> states[kFusedResults];
  };

  int given() const { return static_cast<int>(p_.given()); }
  int all() const { return static_cast<int>(p_.shapes.size()); }
  const FusedProgram::Product& product(int i) const {
    return p_.products[static_cast<std::size_t>(i)];
  }
  const Tensor& argument(int k) const { return arguments_[static_cast<std::size_t>(k)]; }
  Multiplier<T> transpose_of(const Trace::Product& product) const {
    return Multiplier<T>(argument(product.w), !product.transposed);
  }
  Tensor matrix_of(const Tensor& gradient) {
    if (!gradient.defined()) return Tensor();
    copies_.push_back(dense(gradient));
    return as_matrix(copies_.back(), gradient.numel() / gradient.size(-1));
  }

  void begin_state(int j) {
    StateGradient<T>& state = states_[j];
    const auto& gradient = p_.gradients[static_cast<std::size_t>(j) + 1];
    const Shape shape = {sequence_.batch(), rule_.states_[j].shape()[1]};
    state.width = shape[1];
    state.in_chain = !gradient.content.empty();
    const bool in_place = !state.in_chain || gradient.over == rule_.result_of_state(j);
    buffers_[2 * j] = detail::make(shape, p_.dtype);
    buffers_[2 * j + 1] = in_place ? buffers_[2 * j] : detail::make(shape, p_.dtype);
    for (int i : {0, 1}) state.buffers[i] = overwrite<T>(buffers_[2 * j + i]);
    if (const Tensor last = matrix_of(back_.grad_of(j + 1)); last.defined())
      state.last = read<T>(last);
    if (j == 0 && !rule_.output_.defined()) state.outputs = outputs_;
  }

  /// Where the gradients of the arguments go that are no state.
  Gradients make_gradients(const Piece& piece) const {
    Gradients gradients;
    for (std::size_t k = 0; k < p_.shapes.size(); ++k) {
      const auto& gradient = p_.gradients[k];
      if (gradient.content.empty() || p_.is_state(k)) continue;
      gradients.of[k] = gradient.same_as >= 0
                            ? gradients[gradient.same_as]
                            : detail::make({piece.rows, width_of(gradient.shape)}, p_.dtype);
    }
    for (int i = all() - given(); i-- > 0;)
      if (const int to = product(i).addend; to >= 0)
        gradients[given() + to] = gradients[given() + i];
    return gradients;
  }

  Products make_products(const Piece& piece, const Gradients& gradients) const {
    Products products;
    std::copy_n(states_, p_.states, products.states);
    bool begun[kFusedProducts] = {};
    for (int i = 0; i < all() - given(); ++i) {
      const FusedProgram::Product& of = product(i);
      const Tensor& g = gradients[given() + i];
      if (of.x == 0 || !g.defined()) continue;
      StepProduct<T> made{transpose_of(of), rule_.strip(g, Place::steps, piece.first_row), {}, {}};
      if (of.factor < 0) {
        products.states[of.x - 1].products.push_back(made);
      } else {
        if (!factors_[of.factor].defined()) continue;
        made.to = rule_.strip(factors_[of.factor], Place::same);
        if (std::exchange(begun[of.factor], true)) made.addend = made.to;
        const int level = p_.factors[static_cast<std::size_t>(of.factor)].level;
        products.to_factors[level - 1].push_back(made);
      }
      products.all.push_back(made);
    }
    return products;
  }

  void run_steps(const Piece& piece, const Gradients& gradients) {
    Strips strips;
    rule_.add_arguments(strips, piece, constants_);
    rule_.add_results(strips);
    rule_.add_kept(strips);
    rule_.add_factors(strips);
    const int first_seed = strips.count;
    if (rule_.output_.defined())
      strips.add(outputs_.data ? outputs_ : rule_.strip(no_output_, Place::same));
    for (int j = 0; j < p_.states; ++j) strips.add({});
    for (std::size_t i = 0; i < p_.factors.size(); ++i)
      strips.add(factors_[i].defined() ? rule_.strip(factors_[i], Place::same) : Strip{});
    const int first_gradient = strips.count;
    for (const Tensor& g : std::span(gradients.of, p_.shapes.size()))
      strips.add(g.defined() ? rule_.strip(g, Place::steps, piece.first_row) : Strip{});

    const Products products = make_products(piece, gradients);
    for_sequences(sequence_.batch(), piece, products.all, [&](std::int64_t row, std::int64_t most) {
      Strips mine = strips;
      StepRows step, before = sequence_.rows_of(sequence_.step(piece.end - 1));
      for (std::int64_t done = piece.end; done-- > piece.begin;) {
        step = before;
        if (done > 0) before = sequence_.rows_of(sequence_.step(done - 1));
        const std::int64_t n = std::min(most, sequence_.running(done) - row);
        if (n <= 0) continue;
        for (int j = 0; j < p_.states; ++j) {
          const StateGradient<T>& state = products.states[j];
          state.begin(step, done, std::max(row, sequence_.running(done + 1)), row + n);
          mine.set(first_seed + rule_.result_of_state(j), state.strip(done + 1));
          mine.set(first_gradient + 1 + j, state.strip(done));
        }
        Array* const arrays = mine.at(step, row);
        for (auto level = static_cast<std::size_t>(p_.levels); level-- > 0;) {
          p_.behind[level].run(p_.dtype, arrays, n);
          for (const auto& product : products.to_factors[level]) product(step, row, n);
        }
        p_.backward.run(p_.dtype, arrays, n);
        for (int j = 0; j < p_.states; ++j)
          if (done > 0 || back_.needs(j + 1))
            products.states[j].complete(step, before, done, sequence_.is_cut(done), row, n);
      }
    });
  }

  void add_to_weight(const Trace::Product& product, const Tensor& g, const Tensor& x) {
    if (product.transposed)
      back_.add_product(product.w, g, x);
    else
      back_.add_product(product.w, x, g);
  }
  /// Adds the gradient g [rows, width] of argument k, which is the same in each time step.
  void add_repeated(int k, const Tensor& g) {
    const Tensor& x = argument(k);
    if (x.dim() < 2) return back_.add(k, g);
    const std::int64_t own_rows = x.numel() / x.size(-1);
    Shape shape = x.shape();
    if (own_rows == 1)
      shape[0] = g.shape()[0];
    else
      shape.insert(0, g.shape()[0] / own_rows);
    back_.add(k, attach(g.impl().storage, g.dtype(), shape, g.impl().offset));
  }
  /// Adds those of a piece that are of weights; those with equal rows of x come in the end.
  void add_gradients(const Piece& piece, const Gradients& gradients) {
    for (int k = p_.states + 1; k < given(); ++k)
      if (gradients[k].defined()) add_repeated(k, gradients[k]);
    for (int i = 0; i < all() - given(); ++i) {
      const FusedProgram::Product& of = product(i);
      const Tensor& g = gradients[given() + i];
      if (!g.defined() || (of.x == 0 && rule_.repeated_)) continue;
      if (of.x == 0)
        add_to_weight(of, g, rows_of(rule_.xs_, piece.first_row, piece.rows));
      else if (of.factor >= 0)
        add_to_weight(of, g, rows_of(rule_.factors_[of.factor], piece.first_row, piece.rows));
      else
        sequence_.each_run(piece,
                           [&](std::int64_t first, std::int64_t of_state, std::int64_t rows) {
                             add_to_weight(of, rows_of(g, first, rows),
                                           rows_of(rule_.states_[of.x - 1], of_state, rows));
                           });
      if (of.bias > 0) add_repeated(of.bias, g);
    }
  }

  /// The gradient of rows of xs: that of the chain, of products to which x is added, and of
  /// products with x.
  void input_gradient(std::int64_t rows, const Gradients& gradients, T* to) const {
    Tensor sum = gradients[0];
    for (int i = 0; i < all() - given(); ++i)
      if (const Tensor& g = gradients[given() + i]; product(i).bias == 0 && g.defined())
        sum = sum.defined() ? sum + g : g;
    const std::int64_t width = rule_.xs_.shape()[1];
    const T* before = sum.defined() ? read<T>(sum) : nullptr;
    bool written = false;
    for (int i = 0; i < all() - given(); ++i) {
      const Tensor& g = gradients[given() + i];
      if (product(i).x != 0 || !g.defined()) continue;
      const Multiplier<T> w = transpose_of(product(i));
      w(rows, {read<T>(g), w.rows(), 1}, to, {written ? to : before, width});
      written = true;
    }
    if (written) return;
    if (before)
      std::copy_n(before, rows * width, to);
    else
      std::fill_n(to, rows * width, T(0));
  }

  /// Adds gradients over equal rows of x.
  void add_to_sums(const Piece& piece, const Gradients& gradients) {
    for (int k = 0; rule_.repeated_ && k < all(); ++k) {
      const Tensor& g = gradients[k];
      if (!g.defined() || !rule_.comes_to_x(k)) continue;
      if (!sums_[k].defined()) sums_[k] = zeros({rule_.repeated_->size(), g.shape()[1]}, p_.dtype);
      rule_.repeated_->add_to(sums_[k], g, piece.first_row);
    }
  }
  /// Does with those sums what is done with gradients where no rows are equal.
  void take_sums() {
    if (!rule_.repeated_) return;
    for (int i = 0; i < all() - given(); ++i) {
      const FusedProgram::Product& of = product(i);
      const Tensor& g = sums_[given() + i];
      if (of.x != 0 || !g.defined()) continue;
      add_to_weight(of, g, rule_.repeated_->distinct());
      if (of.bias > 0) add_repeated(of.bias, g);
    }
    if (!only_sums_ || !dx_.defined()) return;
    const Tensor sums = detail::make(rule_.repeated_->distinct().shape(), p_.dtype);
    input_gradient(rule_.repeated_->size(), sums_, overwrite<T>(sums));
    rule_.repeated_->put_sums(sums, dx_);
  }

  const SequenceRule& rule_;
  const FusedProgram& p_;
  const Sequence& sequence_;
  Back& back_;
  std::vector<Tensor> arguments_;
  std::vector<Tensor> copies_;  ///< of what is no contiguous matrix
  std::vector<Strip> constants_;
  Strip outputs_;     ///< gradients of the outputs; no data if there are none
  Tensor no_output_;  ///< zeros in their place
  Tensor buffers_[2 * kFusedResults];
  StateGradient<T> states_[kFusedResults];
  Tensor factors_[kFusedProducts];  ///< gradients of factors [B, width]: of one time step
  Tensor dx_;
  Gradients sums_;  ///< over equal rows of x
  bool only_sums_;  ///< they are all that is asked for
};

void SequenceRule::operator()(Back& back) const {
  for (int k = 0; k <= program_->states; ++k)
    if (result_block(k).impl().storage->version != versions_[k])
      fail<GraphError>(
          "backward: the output of scan, a tensor of shape {}, was written in place; the "
          "gradient needs its old values",
          result(k).shape());
  if (back.create_graph())
    record(back);
  else
    dispatch_floating(program_->dtype, [&]<class T>(T) { Derivative<T>(*this, back).run(); });
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

}  // namespace unroll::detail
