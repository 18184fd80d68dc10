/// fused(): makes programs of what trace.h has written down, and runs them.

#include "framework/fused.h"

#include <algorithm>

#include "framework/autograd.h"
#include "framework/internal.h"
#include "framework/ops.h"
#include "framework/stage.h"
#include "framework/trace.h"

namespace unroll::detail {
namespace {

using kernels::Op;
using Kind = TracedValue::Kind;

constexpr std::size_t kMostArrays = 64;
constexpr std::size_t kMostSeeds = 16;
constexpr std::size_t kMostPrograms = 256;  // of one function; a padded batch has one per size

}  // namespace

// --- A program: both stages, and what lies between them ------------------------------------------

/// Arrays are numbered: the stage's own registers, arguments, results, values that are kept for the
/// derivative, gradients of the results and of the kept values, gradients of the arguments.
struct FusedProgram {
  std::int32_t count = 1;

  // What it is for.
  DType dtype;
  std::vector<Shape> shapes;    ///< of the arguments
  std::uint32_t differentiate;  ///< arguments that require a gradient, as bits

  bool possible = false;  ///< to run it; if not, the function runs as it stands
  std::int64_t rows = 0;
  std::vector<TracedValue> values;
  Stage forward;
  struct Result {
    Shape shape;
    std::int64_t width;
    bool differentiable;
    int value;            ///< the value that it is, or -1
    bool needed = false;  ///< by the derivative
  };
  std::vector<Result> results;

  // The derivative.
  std::uint32_t kept_arguments = 0;  ///< as bits
  struct Kept {
    int value;
    std::int64_t offset;      ///< in the memory of kept values
    std::int64_t column;      ///< or, if it is not negative, of the memory that `reused` had
    std::int64_t stride = 0;  ///< from one row to the next
  };
  std::vector<Kept> kept;
  int reused = -1;  ///< an argument whose memory takes kept values, if nobody else needs it
  std::int64_t kept_elements = 0;
  std::vector<int> seeds;  ///< the values that stand for the gradients that come in
  struct Gradient {
    Shape shape;
    std::vector<Window> content;  ///< empty: the argument has no influence
    int same_as = -1;             ///< the gradient of this argument is the same
  };
  std::vector<Gradient> gradients;
  Stage backward;
  /// The program that also takes gradients of the kept values, for higher derivatives.
  Ref<FusedProgram> extended;

  // The first array of each kind, once it is known how many there are.
  static constexpr int first_argument = kRegisters + 1;
  int first_result = 0, first_kept = 0, first_seed = 0, first_gradient = 0;
  void number_arrays() {
    first_result = first_argument + static_cast<int>(shapes.size());
    first_kept = first_result + static_cast<int>(results.size());
    first_seed = first_kept + static_cast<int>(kept.size());
    first_gradient = first_seed + static_cast<int>(seeds.size());
  }
  int argument_array(std::size_t k) const { return first_argument + static_cast<int>(k); }
  int result_array(std::size_t k) const { return first_result + static_cast<int>(k); }
  int kept_array(std::size_t k) const { return first_kept + static_cast<int>(k); }
  int seed_array(std::size_t k) const { return first_seed + static_cast<int>(k); }
  int gradient_array(std::size_t k) const { return first_gradient + static_cast<int>(k); }
};
FusedProgram* retain(FusedProgram* program) {
  count_up(program->count);
  return program;
}
void release(FusedProgram* program) {
  if (count_down(program->count) == 0) delete program;
}

namespace {

std::int64_t width_of(const Shape& shape) { return shape.empty() ? 1 : shape.back(); }
std::int64_t rows_of(const Shape& shape) {
  return shape.numel() / std::max<std::int64_t>(width_of(shape), 1);
}

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
      if (v < program_.shapes.size()) program_.kept_arguments |= 1u << v;
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
    program_.kept.push_back({v, program_.kept_elements, -1});
    program_.kept_elements += program_.rows * value.width();
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
    const bool fits = (program.kept_arguments >> a & 1u) == 0 && argument.size() == kept.size() &&
                      !kept.empty() && std::equal(kept.begin(), kept.end() - 1, argument.begin()) &&
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
  program.kept_elements = 0;
  for (std::size_t k = 0; k < program.kept.size(); ++k) {
    auto& kept = program.kept[k];
    if (program.reused >= 0) kept.column = place(static_cast<std::size_t>(program.reused), k);
    kept.offset = program.kept_elements;
    if (kept.column >= 0) {
      kept.stride = width_of(program.shapes[static_cast<std::size_t>(program.reused)]);
    } else {
      kept.stride = program.values[static_cast<std::size_t>(kept.value)].width();
      program.kept_elements += program.rows * kept.stride;
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
    forward.give(static_cast<int>(k), program.argument_array(k));
    if ((program.kept_arguments >> k & 1u) != 0)
      backward.give(static_cast<int>(k), program.argument_array(k));
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
  if (any) program.backward = backward.assemble();
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
  std::vector<Tensor> arguments, ys(results.size());
  for (const Shape& shape : program.shapes) arguments.push_back(again.argument(shape));
  call(arguments.data(), ys.data());
  bool same = again.values.size() == values;
  for (std::size_t i = 0; same && i < values; ++i) {
    const TracedValue &a = again.values[i], &b = traced.values[i];
    same = a.kind == b.kind && a.op == b.op && a.operands == b.operands &&
           std::equal(a.in, a.in + a.operands, b.in) && std::equal(a.s, a.s + 2, b.s);
  }
  for (std::size_t k = 0; same && k < ys.size(); ++k)
    same = ys[k].shape() == results[k].shape() && again.read(ys[k]) == traced.read(results[k]);
  if (!same) throw TraceStop();
}

/// Calls the function with tensors that stand for arguments of these shapes, and writes down what
/// happens. With `base`: the program for the same that also takes gradients of the values that base
/// keeps.
void make(FusedProgram& program, FusedFunction::Call call, int result_count,
          const FusedProgram* base = nullptr) {
  const std::size_t n = program.shapes.size(), m = static_cast<std::size_t>(result_count);
  Shape lead;
  for (const Shape& shape : program.shapes)
    if (rows_of(shape) > program.rows ||
        (rows_of(shape) == program.rows && shape.size() > lead.size())) {
      program.rows = rows_of(shape);
      lead = shape;
    }
  if (program.rows == 0) throw TraceStop();
  GradMode recording(program.differentiate != 0);
  Trace traced(program.dtype, program.rows);
  std::vector<Tensor> arguments, results(m);
  bool widened = false;
  for (std::size_t k = 0; k < n; ++k) {
    Shape shape = program.shapes[k];
    const bool wanted = (program.differentiate >> k & 1u) != 0;
    if (rows_of(shape) != program.rows && rows_of(shape) != 1) throw TraceStop();
    // One that repeats in others has the gradient of one that does not; the tape sums it.
    if (wanted && repeats_in(shape, lead) &&
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
      program.gradients.push_back({arguments[k].shape(), {}, -1});
      if (!arguments[k].requires_grad()) continue;
      const Tensor& g = gs[next++];
      if (!g.defined()) continue;
      auto& gradient = program.gradients.back();
      gradient.content = traced.read(g);
      for (std::size_t j = 0; j < k; ++j)
        if (program.gradients[j].content == gradient.content && program.gradients[j].same_as < 0 &&
            program.gradients[j].shape == gradient.shape)
          gradient.same_as = static_cast<int>(j);
    }
  }
  program.values = std::move(traced.values);

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

// --- Running a program ---------------------------------------------------------------------------

/// Elements from one row of x to the next if the rows lie at equal distances, 0 for a row that
/// repeats, or -1.
std::int64_t row_stride(const Tensor& x, std::int64_t rows) {
  const Shape &shape = x.shape(), &strides = x.strides();
  const std::int64_t width = width_of(shape);
  if (width > 1 && strides.back() != 1) return -1;
  std::int64_t stride = -1, next = 0;  // next: the stride that the dimension before must have
  for (std::int64_t d = shape.size() - 2; d >= 0; --d) {
    if (shape[d] == 1) continue;
    if (strides[d] < 0 || (stride >= 0 && strides[d] != next)) return -1;
    if (stride < 0) stride = strides[d];
    next = strides[d] * shape[d];
  }
  return stride >= 0 ? stride : rows > 1 ? 0 : width;
}

Array array_of(const Tensor& x, std::int64_t rows, std::vector<Tensor>& copies);

/// The same for an x with gaps.
[[gnu::noinline]] Array array_with_gaps(const Tensor& x, std::int64_t rows,
                                        std::vector<Tensor>& copies) {
  const std::int64_t stride = row_stride(x, rows);
  if (stride >= 0) return {const_cast<void*>(read(x)), stride};
  copies.push_back(dense(x));
  return array_of(copies.back(), rows, copies);
}

/// x as an array. If its rows lie at other distances, it is that of a copy, which goes to `copies`.
/// Only stages that read it get it.
inline Array array_of(const Tensor& x, std::int64_t rows, std::vector<Tensor>& copies) {
  if (!x.is_contiguous()) return array_with_gaps(x, rows, copies);
  const std::int64_t width = width_of(x.shape());
  return {const_cast<void*>(read(x)), x.numel() == rows * width ? width : 0};
}

/// The memory of kept values: that of the argument `reused`, and one for the rest.
struct KeptMemory {
  Ref<Storage> reused, rest;

  Array array(DType dtype, const FusedProgram::Kept& kept) const {
    Storage& memory = kept.column < 0 ? *rest : *reused;
    const std::int64_t begin = kept.column < 0 ? kept.offset : kept.column;
    return {static_cast<char*>(memory.data()) + begin * size_of(dtype), kept.stride};
  }
  Tensor tensor(const FusedProgram& p, std::size_t k) const {
    const auto& kept = p.kept[k];
    const Shape& shape = p.values[static_cast<std::size_t>(kept.value)].shape;
    if (kept.column < 0) return attach(rest, p.dtype, shape, kept.offset);
    const GradMode off(false);
    const Tensor whole = attach(reused, p.dtype, p.shapes[static_cast<std::size_t>(p.reused)], 0);
    return narrow(whole, -1, kept.column, width_of(shape));
  }
};

/// Differentiates a chain: by the program, or, under create_graph or where they are too many for
/// one, by the same instructions as operations.
struct FusedRule {
  Ref<FusedProgram> program;
  FusedFunction::Call call;
  KeptMemory kept;
  struct {
    Ref<Storage> storage;
    std::uint32_t version = 0;
  } results[kFusedResults];

  void operator()(Back& back) const {
    bool more = false;
    for (int k = static_cast<int>(program->results.size()); k < back.grad_count(); ++k)
      more = more || back.grad_of(k).defined();
    const FusedProgram& p = more ? extended() : *program;
    for (std::size_t k = 0; k < p.results.size(); ++k)
      if (results[k].storage && results[k].storage->version != results[k].version)
        fail<GraphError>(
            "backward: the output of fused, a tensor of shape {}, was written in place; the "
            "gradient needs its old values",
            p.results[k].shape);
    if (back.create_graph() || !p.possible)
      record(p, back);
    else
      compute(p, back);
  }

 private:
  const FusedProgram& extended() const {
    if (!program->extended) {
      auto more = Ref<FusedProgram>::adopt(new FusedProgram);
      more->dtype = program->dtype;
      more->shapes = program->shapes;
      more->differentiate = program->differentiate;
      make(*more, call, static_cast<int>(program->results.size()), program.get());
      program->extended = std::move(more);
    }
    return *program->extended;
  }

  /// The gradient of a result, or of a kept value, that nothing depends on.
  static Tensor no_gradient(const FusedProgram& p, int k) {
    const int value = p.seeds[static_cast<std::size_t>(k)];
    return zeros(p.values[static_cast<std::size_t>(value)].shape, p.dtype);
  }

  /// Where the gradient of argument k, or of one with the same gradient, belongs.
  static Tensor place(const FusedProgram& p, Back& back, int k) {
    const auto& own = p.gradients[static_cast<std::size_t>(k)];
    for (int i = k; i < static_cast<int>(p.shapes.size()); ++i) {
      const auto n = static_cast<std::size_t>(i);
      if ((i != k && p.gradients[n].same_as != k) || own.shape != p.shapes[n]) continue;
      if (Tensor there = back.place(i); there.defined()) return there;
    }
    return Tensor();
  }

  void compute(const FusedProgram& p, Back& back) const {
    Array arrays[kMostArrays];
    std::vector<Tensor> held;
    const int arguments = static_cast<int>(p.shapes.size());
    Array* next = arrays + FusedProgram::first_argument;
    for (int k = 0; k < arguments; ++k, ++next)
      if ((p.kept_arguments >> k & 1u) != 0) *next = array_of(back.in(k), p.rows, held);
    const auto* saved = results;
    for (const auto& result : p.results) {
      if (result.needed) *next = {saved->storage->data(), result.width};
      ++next;
      ++saved;
    }
    for (const auto& k : p.kept) *next++ = kept.array(p.dtype, k);
    for (int k = 0; next < arrays + p.first_gradient; ++k) {
      const Tensor& g = back.grad_of(k);
      if (!g.defined()) held.push_back(no_gradient(p, k));
      *next++ = array_of(g.defined() ? g : held.back(), p.rows, held);
    }
    Tensor gradients[kFusedArguments];
    for (int k = 0; k < arguments; ++k, ++next) {
      const auto& gradient = p.gradients[static_cast<std::size_t>(k)];
      if (gradient.content.empty()) continue;
      if (gradient.same_as >= 0) {
        gradients[k] = gradients[gradient.same_as];
        continue;
      }
      gradients[k] = place(p, back, k);
      if (!gradients[k].defined()) gradients[k] = detail::make(gradient.shape, p.dtype);
      *next = {overwrite(gradients[k]), width_of(gradient.shape)};
    }
    p.backward.run(p.dtype, arrays, p.rows);
    for (int k = 0; k < arguments; ++k)
      if (gradients[k].defined()) back.add(k, std::move(gradients[k]));
  }

  void record(const FusedProgram& p, Back& back) const {
    std::vector<Tensor> made(p.values.size());
    for (std::size_t k = 0; k < p.shapes.size(); ++k)
      if ((p.kept_arguments >> k & 1u) != 0) made[k] = back.in(static_cast<int>(k));
    for (std::size_t k = 0; k < p.results.size(); ++k)
      if (p.results[k].needed)
        made[static_cast<std::size_t>(p.results[k].value)] = back.result(
            static_cast<int>(k), attach(results[k].storage, p.dtype, p.results[k].shape, 0));
    for (std::size_t k = 0; k < p.kept.size(); ++k) {
      // Numbered as in the program that the forward stage ran, whose kept values these are.
      const auto& all = program->kept;
      const auto number = static_cast<std::size_t>(
          std::find_if(all.begin(), all.end(),
                       [&](const auto& x) { return x.value == p.kept[k].value; }) -
          all.begin());
      const auto v = static_cast<std::size_t>(p.kept[k].value);
      made[v] = back.result(static_cast<int>(p.results.size() + number), kept.tensor(p, k));
    }
    for (std::size_t k = 0; k < p.seeds.size(); ++k) {
      const Tensor& g = back.grad_of(static_cast<int>(k));
      made[static_cast<std::size_t>(p.seeds[k])] =
          g.defined() ? g : no_gradient(p, static_cast<int>(k));
    }

    const auto window = [&](const Window& w, auto& value) -> Tensor {
      const TracedValue& v = p.values[static_cast<std::size_t>(w.value)];
      const Tensor x = value(w.value, value);
      // Where it was made of constants, it is one number or column that repeats.
      const bool repeats = x.dim() == 0 || x.size(-1) != v.width();
      return repeats || w.width == v.width() ? x : narrow(x, -1, w.offset, w.width);
    };
    const auto value = [&](int i, auto& self) -> Tensor {
      Tensor& x = made[static_cast<std::size_t>(i)];
      if (x.defined()) return x;
      const TracedValue& v = p.values[static_cast<std::size_t>(i)];
      if (v.kind == Kind::constant) return x = scalar(v.s[0], p.dtype);
      Tensor in[3];
      for (int k = 0; k < v.operands; ++k) in[k] = window(v.in[k], self);
      return x = apply(v.op, in, v.s);
    };
    for (std::size_t k = 0; k < p.gradients.size(); ++k) {
      std::vector<Tensor> pieces;
      for (const Window& w : p.gradients[k].content) {
        Shape shape = p.gradients[k].shape;
        if (!shape.empty()) shape[shape.size() - 1] = w.width;
        pieces.push_back(broadcast_to(window(w, value), shape));
      }
      if (pieces.empty()) continue;
      back.add(static_cast<int>(k), pieces.size() == 1 ? pieces[0] : concatenate(pieces, -1));
    }
  }

  /// One instruction as operations of the tape.
  static Tensor apply(Op op, const Tensor* in, const double* s) {
    const Tensor &a = in[0], &b = in[1], &c = in[2];
    switch (op) {
      case Op::copy: return a;
      case Op::affine: return a * s[0] + s[1];
      case Op::neg: return -a;
      case Op::abs: return abs(a);
      case Op::sign: return sign(a);
      case Op::square: return square(a);
      case Op::relu: return relu(a);
      case Op::clamp: return clamp(a, s[0], s[1]);
      case Op::add: return a + b;
      case Op::sub: return a - b;
      case Op::mul: return a * b;
      case Op::minimum: return minimum(a, b);
      case Op::maximum: return maximum(a, b);
      case Op::eq: return a == b;
      case Op::ne: return a != b;
      case Op::lt: return a < b;
      case Op::le: return a <= b;
      case Op::gt: return a > b;
      case Op::ge: return a >= b;
      case Op::where: return where(a, b, c);
      case Op::muladd: return a * b + c;
      case Op::scaled_mul: return a * b * s[0];
      case Op::div: return a / b;
      case Op::exp: return exp(a);
      case Op::log: return log(a);
      case Op::sqrt: return sqrt(a);
      case Op::sin: return sin(a);
      case Op::cos: return cos(a);
      case Op::tanh: return tanh(a);
      case Op::sigmoid: return sigmoid(a);
      case Op::softplus: return softplus(a);
      case Op::pow: return pow(a, b);
      case Op::tanh_grad: return a * (1.0 - square(b));
      case Op::sigmoid_grad: return a * b * (1.0 - b);
      case Op::tanh_of_sum:  // these are made when a stage is assembled
      case Op::sigmoid_of_sum:
      case Op::tanh_mul:
      case Op::sigmoid_mul_tanh:
      case Op::tanh_grad_of_mul:
      case Op::sigmoid_grad_of_mul:
      case Op::tanh_grad_add:
      case Op::count: break;
    }
    throw TraceStop();  // not reached
  }
};

}  // namespace

FusedFunction::FusedFunction(Call call, int arguments, int results)
    : call_(call), arguments_(arguments), results_(results) {}
FusedFunction::~FusedFunction() = default;

void FusedFunction::operator()(const Tensor* arguments, Tensor* results) {
  if (watched() && opens_chains()) [[unlikely]] {
    call_(arguments, results);
    return;
  }
  const auto n = static_cast<std::size_t>(arguments_);
  const bool recording = grad_enabled();
  std::uint32_t differentiate = 0;
  for (std::size_t k = 0; k < n; ++k) {
    if (!arguments[k].defined()) {
      call_(arguments, results);
      return;
    }
    if (recording) differentiate |= static_cast<std::uint32_t>(arguments[k].requires_grad()) << k;
  }
  const auto is_for = [&](const FusedProgram& p) {
    if (p.differentiate != differentiate) return false;
    for (std::size_t k = 0; k < n; ++k)
      if (arguments[k].dtype() != p.dtype || arguments[k].shape() != p.shapes[k]) return false;
    return true;
  };
  FusedProgram* program = nullptr;
  for (const auto& p : programs_)
    if (is_for(*p)) {
      program = p.get();
      break;
    }
  if (!program && !trace && results_ <= kFusedResults) {
    auto made = Ref<FusedProgram>::adopt(new FusedProgram);
    made->dtype = arguments[0].dtype();
    made->differentiate = differentiate;
    bool fits = is_floating(made->dtype);
    for (std::size_t k = 0; k < n; ++k) {
      made->shapes.push_back(arguments[k].shape());
      fits = fits && arguments[k].dtype() == made->dtype;
    }
    if (fits) {
      try {
        make(*made, call_, results_);
      } catch (const TraceStop&) {
      } catch (const Error&) {  // it comes again, about the arguments themselves
        call_(arguments, results);
        return;
      }
      if (programs_.size() == kMostPrograms) programs_.erase(programs_.begin());
      programs_.push_back(std::move(made));
      program = programs_.back().get();
    }
  }
  if (trace || !program || !program->possible) {
    call_(arguments, results);
    return;
  }

  const FusedProgram& p = *program;
  Array arrays[kMostArrays];
  std::vector<Tensor> copies;
  Array* next = arrays + FusedProgram::first_argument;
  for (std::size_t k = 0; k < n; ++k) *next++ = array_of(arguments[k], p.rows, copies);
  Tensor* made = results;
  for (const auto& result : p.results) {
    *made = detail::make(result.shape, p.dtype);
    *next++ = {overwrite(*made++), result.width};
  }
  KeptMemory kept;
  if (p.kept_elements > 0) kept.rest = Storage::make(p.kept_elements * size_of(p.dtype));
  if (p.reused >= 0) {
    const Tensor& x = arguments[p.reused];
    const bool free = is_exclusive(x) && x.is_contiguous() && x.impl().offset == 0;
    if (free) overwrite(x);  // says so
    kept.reused = free ? x.impl().storage
                       : Storage::make(p.rows * size_of(p.dtype) *
                                       width_of(p.shapes[static_cast<std::size_t>(p.reused)]));
  }
  for (const auto& k : p.kept) *next++ = kept.array(p.dtype, k);
  p.forward.run(p.dtype, arrays, p.rows);
  if (differentiate == 0) return;

  FusedRule rule{Ref<FusedProgram>::share(program), call_, std::move(kept), {}};
  Keep keep = Keep::none;
  for (std::size_t k = 0; k < n; ++k)
    if ((p.kept_arguments >> k & 1u) != 0) keep = keep | Keep::input(static_cast<int>(k));
  for (std::size_t k = 0; k < p.results.size(); ++k)
    if (p.results[k].needed) rule.results[k] = {results[k].impl().storage, version(results[k])};
  record_all("fused", Inputs(arguments, n), results, results_, keep, std::move(rule));
  for (std::size_t k = 0; k < p.results.size(); ++k)
    if (!p.results[k].differentiable) results[k].impl().node.reset();
}

}  // namespace unroll::detail
