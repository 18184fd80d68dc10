/// A program over the time steps of a sequence, forward.

#include "framework/sequence_rule.h"

namespace unroll::detail {

void SequenceRule::forward(const Tensor* arguments) {
  dispatch_floating(program_->dtype, [&]<class T>(T) { run_forward<T>(arguments); });
}

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
  const auto multiply = [&](const FusedProgram::Product& product, const Strip& x, const Strip& from,
                            const Strip& to) {
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

}  // namespace unroll::detail
