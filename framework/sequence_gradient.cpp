/// The derivative of a program over the time steps of a sequence.

#include "framework/ops.h"
#include "framework/sequence_rule.h"

namespace unroll::detail {
namespace {

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
    dispatch_floating(program_->dtype, [&]<class T>(T) { compute<T>(back); });
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

}  // namespace unroll::detail
