/// fused(): runs programs, as one entry on the tape each.

#include "framework/fused.h"

#include <algorithm>

#include "framework/autograd.h"
#include "framework/fused_program.h"
#include "framework/internal.h"
#include "framework/ops.h"

namespace unroll::detail {
namespace {

using kernels::Op;
using Kind = TracedValue::Kind;

constexpr std::size_t kMostPrograms = 256;  // of one function; a padded batch has one per size

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

  /// Writes where they lie; returns the end of what it wrote.
  Array* arrays(const FusedProgram& p, Array* to) const {
    const auto memory = [](const Ref<Storage>& x) {
      return x ? static_cast<char*>(x->data()) : nullptr;
    };
    char *const own = memory(rest), *const argument = memory(reused);
    const std::int64_t size = size_of(p.dtype);
    for (const auto& k : p.kept)
      *to++ = {(k.in_argument ? argument : own) + k.begin * size, k.stride};
    return to;
  }
  Tensor tensor(const FusedProgram& p, std::size_t k) const {
    const auto& kept = p.kept[k];
    const Shape& shape = p.values[static_cast<std::size_t>(kept.value)].shape;
    if (!kept.in_argument) return attach(rest, p.dtype, shape, kept.begin);
    const GradMode off(false);
    const Tensor whole = attach(reused, p.dtype, p.shapes[static_cast<std::size_t>(p.reused)], 0);
    return narrow(whole, -1, kept.begin, width_of(shape));
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
      make_program(*more, call, static_cast<int>(program->results.size()), program.get());
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
    next = kept.arrays(p, next);
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
      if (!gradients[k].defined() && gradient.over >= 0) {
        const Tensor& over = back.grad_of(gradient.over);
        if (over.defined() && is_exclusive(over)) gradients[k] = back.release_grad(gradient.over);
      }
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

FusedFunction::FusedFunction(Call function, int arguments, int results, int states)
    : call_(function), arguments_(arguments), results_(results), states_(states) {}
FusedFunction::~FusedFunction() = default;

FusedProgram* FusedFunction::program_for(const Tensor* arguments, std::uint32_t differentiate) {
  const auto n = static_cast<std::size_t>(arguments_);
  const auto is_for = [&](const FusedProgram& p) {
    if (p.differentiate != differentiate) return false;
    for (std::size_t k = 0; k < n; ++k)
      if (arguments[k].dtype() != p.dtype || arguments[k].shape() != p.shapes[k]) return false;
    return true;
  };
  for (const auto& p : programs_)
    if (is_for(*p)) return p.get();
  if (trace || results_ > kFusedResults) return nullptr;
  auto made = Ref<FusedProgram>::adopt(new FusedProgram);
  made->dtype = arguments[0].dtype();
  made->differentiate = differentiate;
  made->states = states_;
  for (std::size_t k = 0; k < n; ++k) {
    if (!is_floating(made->dtype) || arguments[k].dtype() != made->dtype) return nullptr;
    made->shapes.push_back(arguments[k].shape());
  }
  try {
    make_program(*made, call_, results_);
  } catch (const TraceStop&) {
  } catch (const Error&) {  // it comes again, about the arguments themselves
    return nullptr;
  }
  if (programs_.size() == kMostPrograms) programs_.erase(programs_.begin());
  programs_.push_back(std::move(made));
  return programs_.back().get();
}

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
  FusedProgram* program = program_for(arguments, differentiate);
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
  kept.arrays(p, next);
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
