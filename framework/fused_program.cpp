/// Makes programs of what trace.h has written down.

#include "framework/fused_program.h"

#include <algorithm>

#include "framework/autograd.h"
#include "framework/internal.h"
#include "framework/ops.h"

namespace unroll::detail {

namespace {

using kernels::Op;
using Kind = TracedValue::Kind;

constexpr std::size_t kMostSeeds = 16;

/// For each value of the forward stage the tensor that it is, or is a part of, on the way to the
/// results, so that a gradient of the value can be sent back through it. Null where there is none:
/// the value is not differentiable, or (`recompute`) only rules and what nobody uses know it.
struct Origins {
  std::vector<const Trace::Origin*> of;
  std::vector<bool> recompute;

  /// `results`: those of the function, and its factors.
  Origins(const Trace& traced, std::size_t values, const std::vector<Tensor>& results)
      : of(values), recompute(values) {
    std::vector<const Node*> behind;
    const auto reach = [&](const Node* node) {
      if (node && std::find(behind.begin(), behind.end(), node) == behind.end())
        behind.push_back(node);
    };
    for (const Tensor& y : results) reach(y.impl().node.get());
    for (std::size_t i = 0; i < behind.size(); ++i)
      for (std::uint32_t k = 0; k < behind[i]->input_count; ++k) reach(behind[i]->input(k));
    for (const Trace::Origin& o : traced.origins) {
      const Node* node = o.tensor.impl().node.get();
      const auto v = static_cast<std::size_t>(o.value);
      if (!node || of[v]) continue;
      recompute[v] = std::find(behind.begin(), behind.end(), node) == behind.end();
      if (!recompute[v]) of[v] = &o;
    }
  }
};

/// The value that a tensor made of `content` is, or -1 if it is made of several, or of a part of
/// one.
int whole_value(const std::vector<TracedValue>& values, const std::vector<Window>& content) {
  if (content.size() != 1 || content[0].offset != 0) return -1;
  const TracedValue& value = values[static_cast<std::size_t>(content[0].value)];
  return content[0].width == value.width() ? content[0].value : -1;
}

/// Finds what the derivative needs of the forward stage.
class NeededValues {
 public:
  NeededValues(FusedProgram& program, const Origins& origins)
      : program_(program), origins_(origins), seen_(program.values.size()) {}

  void visit(const Window& w) {
    const auto v = static_cast<std::size_t>(w.value);
    if (seen_[v]) return;
    seen_[v] = true;
    const TracedValue& value = program_.values[v];
    if (value.kind == Kind::constant) return;
    if (value.kind == Kind::argument) {
      for (std::size_t k = 0; k < program_.shapes.size(); ++k)
        if (program_.argument_value(k) == w.value) program_.kept_arguments |= 1u << k;
      return;
    }
    // What costs one multiplication is not worth the memory.
    const bool cheap = value.op == Op::affine || value.op == Op::neg;
    if (v < origins_.of.size() && !cheap && keep(w.value, value)) return;
    for (int k = 0; k < value.operands; ++k) visit(value.in[k]);
  }

 private:
  bool keep(int v, const TracedValue& value) {
    for (auto& result : program_.results)
      if (result.value == v) {
        result.needed = true;
        return true;
      }
    for (auto& factor : program_.factors)
      if (factor.value == v) {
        factor.needed = true;
        return true;
      }
    if (origins_.recompute[static_cast<std::size_t>(v)]) return false;
    if (value.one_row) throw TraceStop();
    program_.kept.push_back({v});
    return true;
  }

  FusedProgram& program_;
  const Origins& origins_;
  std::vector<bool> seen_;
};

/// Throws if what is computed as one row belongs in all.
void check_rows(const std::vector<TracedValue>& values, const std::vector<Window>& content) {
  for (const Window& w : content)
    if (values[static_cast<std::size_t>(w.value)].one_row) throw TraceStop();
}

/// Finds kept values that may be written over an argument while the forward stage runs, and the
/// argument that takes most of them.
void reuse_argument(FusedProgram& program) {
  const auto place = [&](std::size_t a, std::size_t k) {
    const Shape &argument = program.shapes[a],
                &kept = program.values[static_cast<std::size_t>(program.kept[k].value)].shape;
    const bool is_temporary = program.states < 0 || a >= program.given();
    const bool fits = is_temporary && (program.kept_arguments >> a & 1u) == 0 &&
                      argument.size() == kept.size() && !kept.empty() &&
                      std::equal(kept.begin(), kept.end() - 1, argument.begin()) &&
                      rows_of(argument) == program.rows;
    return fits ? program.forward.overwrites(program.kept_array(k), program.argument_array(a)) : -1;
  };
  std::size_t most = 0;
  for (std::size_t a = 0; a < program.shapes.size(); ++a) {
    std::size_t count = 0;
    for (std::size_t k = 0; k < program.kept.size(); ++k) count += place(a, k) >= 0;
    if (count <= most) continue;
    most = count;
    program.reused = static_cast<int>(a);
  }
  const auto reused = static_cast<std::size_t>(program.reused);
  for (std::size_t k = 0; k < program.kept.size(); ++k) {
    auto& kept = program.kept[k];
    const std::int64_t column = program.reused >= 0 ? place(reused, k) : -1;
    kept.in_argument = column >= 0;
    if (kept.in_argument) {
      kept.begin = column;
      kept.stride = width_of(program.shapes[reused]);
    } else {
      kept.begin = program.kept_elements;
      kept.stride = program.values[static_cast<std::size_t>(kept.value)].width();
      program.kept_elements += program.rows * kept.stride;
    }
  }
}

/// Finds the gradients that come in over which those of arguments may be written.
void reuse_seeds(FusedProgram& program) {
  std::vector<bool> taken(program.results.size());
  for (std::size_t k = 0; k < program.gradients.size(); ++k) {
    auto& gradient = program.gradients[k];
    if (gradient.content.empty() || gradient.same_as >= 0) continue;
    for (std::size_t i = 0; gradient.over < 0 && i < taken.size(); ++i) {
      if (taken[i] || program.results[i].shape != gradient.shape ||
          !program.backward.has_read(program.seed_array(i), program.gradient_array(k)))
        continue;
      gradient.over = static_cast<int>(i);
      taken[i] = true;
    }
  }
}

/// Whether a value is needed to compute columns that are made of `content`.
bool depends(const std::vector<TracedValue>& values, const std::vector<Window>& content,
             int value) {
  std::vector<bool> seen(values.size());
  std::vector<Window> open = content;
  while (!open.empty()) {
    const int v = open.back().value;
    open.pop_back();
    if (v == value) return true;
    if (seen[static_cast<std::size_t>(v)]) continue;
    seen[static_cast<std::size_t>(v)] = true;
    const TracedValue& x = values[static_cast<std::size_t>(v)];
    open.insert(open.end(), x.in, x.in + x.operands);
  }
  return false;
}

/// Makes the stages that compute factors, level by level, and results. `contents`: what the results
/// are made of. A value that is kept is computed in the first stage that needs it.
void assemble_forward(FusedProgram& program, const std::vector<std::vector<Window>>& contents) {
  std::vector<bool> there(program.kept.size());
  for (int level = 1; level <= program.levels + 1; ++level) {
    const bool last = level > program.levels;
    Assembler stage(program.values);
    for (std::size_t k = 0; k < program.shapes.size(); ++k)
      if (program.level_of(k) < level)
        stage.give(program.argument_value(k), program.argument_array(k));
    for (std::size_t i = 0; i < program.factors.size(); ++i)
      if (program.factors[i].level < level && program.factors[i].value >= 0)
        stage.give(program.factors[i].value, program.factor_array(i));
    for (std::size_t k = 0; k < there.size(); ++k)
      if (there[k]) stage.give(program.kept[k].value, program.kept_array(k));

    for (std::size_t k = 0; last && k < contents.size(); ++k)
      stage.want(contents[k], program.result_array(k));
    for (std::size_t i = 0; i < program.factors.size(); ++i)
      if (program.factors[i].level == level)
        stage.want(program.factors[i].content, program.factor_array(i));
    for (std::size_t k = 0; k < there.size(); ++k) {
      const int v = program.kept[k].value;
      bool here = last;
      for (const auto& factor : program.factors)
        here = here || (factor.level == level && depends(program.values, factor.content, v));
      if (there[k] || !here) continue;
      stage.want({{v, 0, program.values[static_cast<std::size_t>(v)].width()}},
                 program.kept_array(k));
      there[k] = true;
    }
    if (last)
      program.forward = stage.assemble();
    else
      program.ahead.push_back(stage.assemble());
  }
  reuse_argument(program);
}

/// Makes the stages of the derivative, from the highest level down.
void assemble_backward(FusedProgram& program) {
  program.behind.resize(static_cast<std::size_t>(program.levels));
  for (int level = program.levels; level >= 0; --level) {
    Assembler stage(program.values);
    const auto give_if = [&](bool needed, int value, int array) {
      if (needed) stage.give(value, array);
    };
    for (std::size_t k = 0; k < program.shapes.size(); ++k)
      give_if((program.kept_arguments >> k & 1u) != 0, program.argument_value(k),
              program.argument_array(k));
    for (std::size_t k = 0; k < program.results.size(); ++k)
      give_if(program.results[k].needed, program.results[k].value, program.result_array(k));
    for (std::size_t k = 0; k < program.kept.size(); ++k)
      stage.give(program.kept[k].value, program.kept_array(k));
    for (std::size_t i = 0; i < program.factors.size(); ++i)
      give_if(program.factors[i].needed, program.factors[i].value, program.factor_array(i));
    const std::size_t others = program.seeds.size() - program.factors.size();
    for (std::size_t k = 0; k < program.seeds.size(); ++k)
      give_if(k < others || program.factors[k - others].level > level, program.seeds[k],
              program.seed_array(k));
    bool any = false;
    for (std::size_t k = 0; k < program.shapes.size(); ++k) {
      const auto& gradient = program.gradients[k];
      if (gradient.content.empty() || gradient.same_as >= 0) continue;
      if (program.level_of(k) == level) {
        stage.want(gradient.content, program.gradient_array(k));
        any = true;
      } else if (program.level_of(k) > level) {
        const int whole = whole_value(program.values, gradient.content);
        give_if(whole >= 0, whole, program.gradient_array(k));
      }
    }
    if (any)
      (level > 0 ? program.behind[static_cast<std::size_t>(level) - 1] : program.backward) =
          stage.assemble();
  }
  reuse_seeds(program);
}

/// Makes the stages of a program of its values.
void assemble(FusedProgram& program, const std::vector<std::vector<Window>>& contents,
              bool runs_forward) {
  program.number_arrays();
  if (static_cast<std::size_t>(program.gradient_array(program.shapes.size())) > kMostArrays ||
      program.seeds.size() > kMostSeeds)
    throw TraceStop();
  if (runs_forward) assemble_forward(program, contents);
  if (program.differentiate != 0) assemble_backward(program);
}

/// Whether x broadcasts to the rows of `lead` without making them more.
bool repeats_in(const Shape& x, const Shape& lead) {
  if (x.size() > lead.size()) return false;
  for (std::int64_t d = 2; d <= x.size(); ++d)
    if (x[x.size() - d] != 1 && x[x.size() - d] != lead[lead.size() - d]) return false;
  return true;
}

/// Throws if the function does anything else with arguments of the shapes that it gets than it did
/// with those that the trace put in their places.
void check_shapes(const FusedProgram& program, const Trace& traced, std::size_t values,
                  FusedFunction::Call call, const std::vector<Tensor>& results) {
  const GradMode off(false);
  Trace again(program.dtype, program.rows);
  again.may_multiply = program.states >= 0;
  std::vector<Tensor> arguments, ys(results.size());
  for (const Shape& shape : program.shapes) arguments.push_back(again.argument(shape));
  call(arguments.data(), ys.data());
  bool same = again.values.size() == values && again.products.size() == traced.products.size() &&
              again.factors.size() == traced.factors.size();
  for (std::size_t i = 0; same && i < again.products.size(); ++i) {
    const Trace::Product &a = again.products[i], &b = traced.products[i];
    same = a.x == b.x && a.factor == b.factor && a.w == b.w && a.bias == b.bias &&
           a.addend == b.addend && a.transposed == b.transposed && a.value == b.value &&
           a.tensor.shape() == b.tensor.shape();
  }
  for (std::size_t i = 0; same && i < again.factors.size(); ++i)
    same = again.factors[i].content == traced.factors[i].content;
  for (std::size_t i = 0; same && i < values; ++i) {
    const TracedValue &a = again.values[i], &b = traced.values[i];
    same = a.kind == b.kind && a.op == b.op && a.operands == b.operands &&
           std::equal(a.in, a.in + a.operands, b.in) && std::equal(a.s, a.s + 2, b.s);
  }
  for (std::size_t k = 0; same && k < ys.size(); ++k)
    same = ys[k].shape() == results[k].shape() && again.read(ys[k]) == traced.read(results[k]);
  if (!same) throw TraceStop();
}

/// Throws if a time step is none that can be run over a sequence.
void check_step(const FusedProgram& program, std::size_t forward_values,
                const std::vector<std::vector<Window>>& contents) {
  std::vector<int> uses(program.shapes.size());
  const auto use = [&](const Window& w) {
    for (std::size_t k = 0; k < uses.size(); ++k) uses[k] += program.argument_value(k) == w.value;
  };
  for (std::size_t i = 0; i < forward_values; ++i)
    std::for_each_n(program.values[i].in, program.values[i].operands, use);
  for (const auto& content : contents) std::for_each(content.begin(), content.end(), use);
  for (const auto& factor : program.factors)
    std::for_each(factor.content.begin(), factor.content.end(), use);

  const auto states = static_cast<std::size_t>(program.states);
  const std::size_t own_output = program.results.size() - states;
  bool fits = program.results[0].shape.size() == 2;
  for (std::size_t k = 0; k <= states; ++k) {
    const Shape& shape = program.shapes[k];
    fits = fits && shape.size() == 2 && shape[0] == program.rows;
    if (k > 0) fits = fits && program.results[k - 1 + own_output].shape == shape;
  }
  for (std::size_t k = 0; k < program.given(); ++k)
    if ((program.weights >> k & 1u) != 0) fits = fits && k > states && uses[k] == 0;
  for (const Trace::Product& p : program.products) {
    fits = fits && p.x <= program.states && (p.x >= 0 || p.factor >= 0) &&
           (p.bias <= 0 || (p.bias > program.states &&
                            program.shapes[static_cast<std::size_t>(p.bias)].size() == 1));
    // What another product is added to is that sum from then on: nobody else may use it.
    if (p.addend >= 0)
      fits = fits && uses[program.given() + static_cast<std::size_t>(p.addend)]++ == 0;
  }
  if (!fits) throw TraceStop();
}

/// What the rows of a program are the rows of: a time step's input, or the argument with most rows.
const Shape& lead_of(const FusedProgram& program) {
  const Shape* lead = &program.shapes[0];
  if (program.states >= 0) return *lead;
  for (const Shape& shape : program.shapes)
    if (rows_of(shape) > rows_of(*lead) ||
        (rows_of(shape) == rows_of(*lead) && shape.size() > lead->size()))
      lead = &shape;
  return *lead;
}

/// Arguments that a time step multiplies by, as bits.
std::uint32_t find_weights(const FusedProgram& program, FusedFunction::Call call, std::size_t m) {
  if (program.states < 0) return 0;
  const GradMode off(false);
  Trace trial(program.dtype, program.rows);
  trial.may_multiply = true;
  std::vector<Tensor> arguments, results(m);
  for (const Shape& shape : program.shapes) arguments.push_back(trial.argument(shape));
  call(arguments.data(), results.data());
  std::uint32_t weights = 0;
  for (const Trace::Product& p : trial.products) weights |= 1u << p.w;
  return weights;
}

/// Puts the products with x in front in each sum of products: they are there for many time steps
/// before the first of these begins.
void begin_with_x(std::vector<FusedProgram::Product>& products) {
  for (FusedProgram::Product& product : products)
    for (FusedProgram::Product* p = &product; p->addend >= 0;) {
      FusedProgram::Product& before = products[static_cast<std::size_t>(p->addend)];
      if (p->x == 0 && before.x != 0) {
        std::swap(p->x, before.x);
        std::swap(p->factor, before.factor);
        std::swap(p->w, before.w);
        std::swap(p->transposed, before.transposed);
      }
      p = &before;
    }
}

/// Takes products and factors from the trace of the function, and finds their levels.
void take_products(FusedProgram& program, const Trace& traced) {
  if (traced.products.size() > kFusedProducts) throw TraceStop();
  for (const Trace::Product& p : traced.products) {
    program.shapes.push_back(p.tensor.shape());
    program.products.push_back({p});
    program.products.back().tensor = Tensor();
  }
  begin_with_x(program.products);
  for (const Trace::Factor& factor : traced.factors) {
    check_rows(traced.values, factor.content);
    // What was written over it later would have the gradient instead.
    if (traced.read(factor.tensor) != factor.content) throw TraceStop();
    program.factors.push_back({.content = factor.content,
                               .width = factor.tensor.size(-1),
                               .level = 1,
                               .differentiable = factor.tensor.requires_grad(),
                               .value = whole_value(traced.values, factor.content)});
  }
  std::vector<int> ready(traced.values.size());  // the level from which on a value may be computed
  for (std::size_t v = 0; v < ready.size(); ++v) {
    const TracedValue& value = traced.values[v];
    for (int k = 0; k < value.operands; ++k)
      ready[v] = std::max(ready[v], ready[static_cast<std::size_t>(value.in[k].value)]);
    for (FusedProgram::Product& p : program.products) {
      if (p.value != static_cast<int>(v)) continue;
      if (p.addend >= 0) p.level = program.products[static_cast<std::size_t>(p.addend)].level;
      if (p.factor >= 0) {
        FusedProgram::Factor& factor = program.factors[static_cast<std::size_t>(p.factor)];
        for (const Window& w : factor.content)
          factor.level = std::max(factor.level, ready[static_cast<std::size_t>(w.value)]);
        p.level = std::max(p.level, factor.level);
      }
      program.levels = std::max(program.levels, p.level);
      ready[v] = p.level + 1;
    }
  }
}

}  // namespace

void make_program(FusedProgram& program, FusedFunction::Call call, int result_count,
                  const FusedProgram* base) {
  std::size_t n = program.shapes.size();
  const std::size_t m = static_cast<std::size_t>(result_count);
  const Shape lead = lead_of(program);
  program.rows = rows_of(lead);
  if (program.rows == 0) throw TraceStop();
  program.weights = find_weights(program, call, m);
  GradMode recording(program.differentiate != 0);
  Trace traced(program.dtype, program.rows);
  traced.may_multiply = program.states >= 0;
  std::vector<Tensor> arguments, results(m);
  bool widened = false;
  for (std::size_t k = 0; k < n; ++k) {
    Shape shape = program.shapes[k];
    const bool wanted = (program.differentiate >> k & 1u) != 0;
    const bool is_weight = (program.weights >> k & 1u) != 0;
    if (!is_weight && rows_of(shape) != program.rows && rows_of(shape) != 1) throw TraceStop();
    // One that repeats in others has the gradient of one that does not; the tape sums it.
    if ((wanted || program.states >= 0) && !is_weight && repeats_in(shape, lead) &&
        !std::equal(shape.begin(), shape.end() - !shape.empty(), lead.begin(),
                    lead.end() - !lead.empty())) {
      const std::int64_t width = width_of(shape);
      shape = lead;
      shape[shape.size() - 1] = width;
      widened = true;
    }
    arguments.push_back(traced.argument(shape));
    if (wanted) arguments.back().requires_grad_();
  }
  call(arguments.data(), results.data());
  traced.forward = false;
  const std::size_t forward_values = traced.values.size();
  if (widened) check_shapes(program, traced, forward_values, call, results);
  take_products(program, traced);
  for (const Trace::Product& p : traced.products) arguments.push_back(p.tensor);
  n = program.shapes.size();

  std::vector<std::vector<Window>> contents;
  for (const Tensor& y : results) {
    contents.push_back(traced.read(y));
    if (rows_of(y.shape()) != program.rows) throw TraceStop();
    program.results.push_back({y.shape(), width_of(y.shape()), y.requires_grad(),
                               whole_value(traced.values, contents.back())});
  }

  std::vector<Tensor> made = results;
  for (const Trace::Factor& factor : traced.factors) made.push_back(factor.tensor);
  const Origins origins(traced, forward_values, made);
  if (program.differentiate != 0) {
    std::vector<Tensor> ys, xs, seeds;
    const auto seed = [&](const Tensor& y) {
      program.seeds.push_back(static_cast<int>(traced.values.size()));
      const Tensor g = traced.argument(y.shape());
      if (!y.requires_grad()) return;
      ys.push_back(y);
      seeds.push_back(g);
    };
    for (const Tensor& y : results) seed(y);
    for (std::size_t k = 0; base && k < base->kept.size(); ++k) {
      const auto v = static_cast<std::size_t>(base->kept[k].value);
      const Trace::Origin* origin = origins.of[v];
      const TracedValue value = traced.values[v];
      if (!origin)
        seed(zeros(value.shape, program.dtype));
      else if (value.width() == width_of(origin->tensor.shape()))
        seed(origin->tensor);
      else
        seed(narrow(origin->tensor, -1, origin->column, value.width()));
    }
    for (const Trace::Factor& factor : traced.factors) seed(factor.tensor);
    for (std::size_t k = 0; k < n; ++k)
      if (arguments[k].requires_grad()) xs.push_back(arguments[k]);
    std::vector<Tensor> gs(xs.size());
    if (!ys.empty()) gs = grad(ys, xs, {.grad_outputs = seeds, .allow_unused = true});
    std::size_t next = 0;
    for (std::size_t k = 0; k < n; ++k) {
      program.gradients.push_back({.shape = arguments[k].shape(), .content = {}});
      if (!arguments[k].requires_grad()) continue;
      const Tensor& g = gs[next++];
      if (!g.defined()) continue;
      auto& gradient = program.gradients.back();
      gradient.content = traced.read(g);
      for (std::size_t j = 0; j < k; ++j)
        if (program.gradients[j].content == gradient.content && program.gradients[j].same_as < 0 &&
            program.level_of(j) >= program.level_of(k) &&
            program.gradients[j].shape == gradient.shape && !program.is_state(j) &&
            !program.is_state(k))
          gradient.same_as = static_cast<int>(j);
    }
  }
  program.values = std::move(traced.values);
  if (program.states >= 0) check_step(program, forward_values, contents);

  NeededValues needed(program, origins);
  for (const auto& gradient : program.gradients) {
    check_rows(program.values, gradient.content);
    for (const Window& w : gradient.content) needed.visit(w);
  }
  if (base) {  // it runs on what base has kept
    for (auto& kept : program.kept)
      kept = *std::find_if(base->kept.begin(), base->kept.end(),
                           [&](const auto& k) { return k.value == kept.value; });
    program.reused = base->reused;
  }
  try {
    assemble(program, contents, base == nullptr);
    program.possible = true;
  } catch (const TraceStop&) {
    if (!base) throw;  // otherwise its instructions run one by one
  }
}

}  // namespace unroll::detail
