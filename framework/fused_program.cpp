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
    if (origins_.recompute[static_cast<std::size_t>(v)]) return false;
    if (value.one_row) throw TraceStop();
    program_.kept.push_back({v});
    return true;
  }

  FusedProgram& program_;
  const Origins& origins_;
  std::vector<bool> seen_;
};

/// Whether the traced gradients may leave the program as they are.
void check_rows(const FusedProgram& program, const std::vector<Window>& content) {
  for (const Window& w : content)
    if (program.values[static_cast<std::size_t>(w.value)].one_row) throw TraceStop();
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

/// Makes the stages of a program of its values. `contents`: what the results are made of.
void assemble(FusedProgram& program, const std::vector<std::vector<Window>>& contents,
              bool runs_forward) {
  const std::size_t n = program.shapes.size(), m = contents.size();
  program.number_arrays();
  if (static_cast<std::size_t>(program.gradient_array(n)) > kMostArrays ||
      program.seeds.size() > kMostSeeds)
    throw TraceStop();
  Assembler forward(program.values), backward(program.values);
  for (std::size_t k = 0; k < n; ++k) {
    forward.give(program.argument_value(k), program.argument_array(k));
    if ((program.kept_arguments >> k & 1u) != 0)
      backward.give(program.argument_value(k), program.argument_array(k));
  }
  for (std::size_t k = 0; k < m; ++k) {
    forward.want(contents[k], program.result_array(k));
    if (program.results[k].needed) backward.give(program.results[k].value, program.result_array(k));
  }
  for (std::size_t k = 0; k < program.kept.size(); ++k) {
    const int v = program.kept[k].value;
    forward.want({{v, 0, program.values[static_cast<std::size_t>(v)].width()}},
                 program.kept_array(k));
    backward.give(v, program.kept_array(k));
  }
  if (runs_forward) {
    program.forward = forward.assemble();
    reuse_argument(program);
  }
  if (program.differentiate == 0) return;
  for (std::size_t k = 0; k < program.seeds.size(); ++k)
    backward.give(program.seeds[k], program.seed_array(k));
  bool any = false;
  for (std::size_t k = 0; k < n; ++k) {
    const auto& gradient = program.gradients[k];
    if (gradient.content.empty() || gradient.same_as >= 0) continue;
    backward.want(gradient.content, program.gradient_array(k));
    any = true;
  }
  if (!any) return;
  program.backward = backward.assemble();
  reuse_seeds(program);
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
  bool same = again.values.size() == values && again.products.size() == traced.products.size();
  for (std::size_t i = 0; same && i < again.products.size(); ++i) {
    const Trace::Product &a = again.products[i], &b = traced.products[i];
    same = a.x == b.x && a.w == b.w && a.bias == b.bias && a.addend == b.addend &&
           a.transposed == b.transposed && a.value == b.value &&
           a.tensor.shape() == b.tensor.shape();
  }
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
    fits = fits && p.x <= program.states &&
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
void begin_with_x(std::vector<Trace::Product>& products) {
  for (Trace::Product& product : products)
    for (Trace::Product* p = &product; p->addend >= 0;) {
      Trace::Product& before = products[static_cast<std::size_t>(p->addend)];
      if (p->x == 0 && before.x != 0) {
        std::swap(p->x, before.x);
        std::swap(p->w, before.w);
        std::swap(p->transposed, before.transposed);
      }
      p = &before;
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
  if (traced.products.size() > kFusedProducts) throw TraceStop();
  for (const Trace::Product& p : traced.products) {
    program.shapes.push_back(p.tensor.shape());
    arguments.push_back(p.tensor);
  }
  program.products = traced.products;
  begin_with_x(program.products);
  n = program.shapes.size();

  std::vector<std::vector<Window>> contents;
  for (const Tensor& y : results) {
    contents.push_back(traced.read(y));
    if (rows_of(y.shape()) != program.rows) throw TraceStop();
    const bool whole =
        contents.back().size() == 1 && contents.back()[0].offset == 0 &&
        contents.back()[0].width ==
            traced.values[static_cast<std::size_t>(contents.back()[0].value)].width();
    program.results.push_back(
        {y.shape(), width_of(y.shape()), y.requires_grad(), whole ? contents.back()[0].value : -1});
  }

  const Origins origins(traced, forward_values, results);
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
            program.gradients[j].shape == gradient.shape && !program.is_state(j) &&
            !program.is_state(k))
          gradient.same_as = static_cast<int>(j);
    }
  }
  program.values = std::move(traced.values);
  for (auto& p : program.products) p.tensor = Tensor();
  if (program.states >= 0) check_step(program, forward_values, contents);

  NeededValues needed(program, origins);
  for (const auto& gradient : program.gradients) {
    check_rows(program, gradient.content);
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
