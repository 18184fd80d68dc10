/// fused() over the time steps of a sequence, one operation on the tape for all of them, and of one
/// time step.

#include <algorithm>
#include <utility>

#include "framework/fused.h"
#include "framework/sequence_rule.h"
#include "framework/step_products.h"
#include "framework/watch.h"

namespace unroll::detail {

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
    products[i] =
        addend >= 0 ? products[addend] : detail::make({B, p.shapes[p.given() + i][1]}, p.dtype);
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
