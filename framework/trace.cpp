#include "framework/trace.h"

#include <algorithm>
#include <utility>

#include "framework/internal.h"

namespace unroll::detail {

using kernels::Op;

constinit thread_local Trace* trace = nullptr;

namespace {

constexpr int kUnset = -1;

/// Columns [offset, offset + width) of a row that is made of `pieces`.
std::vector<Window> cut(const std::vector<Window>& pieces, std::int64_t offset,
                        std::int64_t width) {
  std::vector<Window> part;
  for (const Window& piece : pieces) {
    const std::int64_t first = std::max<std::int64_t>(offset, 0);
    const std::int64_t last = std::min(offset + width, piece.width);
    if (first < last) part.push_back({piece.value, piece.offset + first, last - first});
    offset -= piece.width;
  }
  return part;
}

}  // namespace

Trace::Trace(DType dtype, std::int64_t rows)
    : dtype_(dtype), rows_(rows), outer_(std::exchange(trace, this)) {}
Trace::~Trace() { trace = outer_; }

int Trace::add(TracedValue value) {
  values.push_back(std::move(value));
  return static_cast<int>(values.size()) - 1;
}

Tensor Trace::make(const Shape& shape, Window content, bool argument) {
  const std::int64_t width = content.width, n = shape.numel();
  if (n == 0) throw TraceStop();
  Ref<Storage> storage = Storage::make(0);
  storage->traced = static_cast<std::int32_t>(states_.size());
  states_.push_back({width, n / width, argument, {content}});
  return attach(storage, dtype_, shape, 0);
}

Tensor Trace::argument(const Shape& shape) {
  TracedValue value{.kind = TracedValue::Kind::argument, .shape = shape};
  value.one_row = shape.numel() == value.width() && rows_ > 1;
  const std::int64_t width = value.width();
  return make(shape, {add(std::move(value)), 0, width}, true);
}

int Trace::argument_number(const Tensor& x) const {
  const TensorImpl& impl = x.impl();
  const std::int32_t number = impl.storage->traced;
  if (number < 0 || !states_[static_cast<std::size_t>(number)].argument || !impl.contiguous)
    return -1;
  const int value = states_[static_cast<std::size_t>(number)].pieces[0].value;
  return impl.shape == values[static_cast<std::size_t>(value)].shape ? value : -1;
}

/// x among the factors.
int Trace::factor_number(const Tensor& x) {
  std::vector<Window> content = read(x);
  if (x.size(0) != rows_) throw TraceStop();
  for (std::size_t i = 0; i < factors.size(); ++i)
    if (factors[i].content == content) return static_cast<int>(i);
  factors.push_back({std::move(content), x});
  return static_cast<int>(factors.size()) - 1;
}

Tensor Trace::product(const Tensor& x, const Tensor& w, const Tensor& bias, bool transposed) {
  if (!may_multiply || !forward || x.dim() != 2 || w.dim() != 2) throw TraceStop();
  bool differentiable = x.requires_grad() || w.requires_grad();
  Product made;
  made.x = argument_number(x);
  made.w = argument_number(w);
  made.transposed = transposed;
  if (bias.defined()) {
    differentiable = differentiable || bias.requires_grad();
    made.bias = argument_number(bias);
  }
  if ((differentiable && !grad_enabled()) || made.w < 0 || (bias.defined() && made.bias < 0))
    throw TraceStop();
  for (std::size_t i = 0; i < products.size(); ++i) {
    const int value = products[i].value;
    if (value == made.w) throw TraceStop();
    if (value == made.x) made.x = -1;
    if (value != made.bias) continue;
    made.bias = -1;
    made.addend = static_cast<int>(i);
  }
  if (made.x < 0) made.factor = factor_number(x);
  made.value = static_cast<int>(values.size());
  made.tensor = argument({x.size(0), w.size(transposed ? 0 : 1)});
  if (differentiable) made.tensor.requires_grad_();
  products.push_back(made);
  return made.tensor;
}

Tensor Trace::empty(const Shape& shape, DType dtype) {
  if (dtype != dtype_) throw TraceStop();
  return make(shape, {kUnset, 0, shape.empty() ? 1 : shape.back()}, false);
}

Tensor Trace::full(const Shape& shape, double number, DType dtype) {
  if (dtype != dtype_) throw TraceStop();
  TracedValue value{.kind = TracedValue::Kind::constant, .shape = shape};
  value.s[0] = number;
  const std::int64_t width = value.width();
  return make(shape, {add(std::move(value)), 0, width}, false);
}

Trace::Place Trace::place(const Tensor& x) const {
  const TensorImpl& impl = x.impl();
  if (impl.storage->traced < 0 || impl.dtype != dtype_) throw TraceStop();
  const State& state = states_[static_cast<std::size_t>(impl.storage->traced)];
  const std::int64_t width = impl.shape.empty() ? 1 : impl.shape.back();
  bool fits = impl.offset >= 0 && impl.offset + width <= state.width &&
              (width == 1 || impl.strides.back() == 1);
  std::int64_t rows = 1;
  for (std::int64_t d = impl.shape.size() - 2; d >= 0; --d) {
    fits = fits && (impl.shape[d] == 1 || impl.strides[d] == rows * state.width);
    rows *= impl.shape[d];
  }
  if (!fits || rows != state.rows) throw TraceStop();
  return {impl.storage->traced, impl.offset, width, rows};
}

std::vector<Window> Trace::read(const Tensor& x) const {
  const Place p = place(x);
  std::vector<Window> pieces =
      cut(states_[static_cast<std::size_t>(p.state)].pieces, p.offset, p.width);
  for (const Window& w : pieces)
    if (w.value == kUnset) throw TraceStop();
  return pieces;
}

bool Trace::is_zero(const Window& w) const {
  const TracedValue& value = values[static_cast<std::size_t>(w.value)];
  return value.kind == TracedValue::Kind::constant && value.s[0] == 0.0;
}

/// The window that holds the result of an instruction: a new value, or one that is there already.
Window Trace::instruction(const TracedValue& value) {
  const auto stands_for = [&](const Window& w) {  // w has every element of the result
    const TracedValue& v = values[static_cast<std::size_t>(w.value)];
    return w.width == value.width() && v.one_row == value.one_row &&
           v.kind != TracedValue::Kind::constant;
  };
  if (value.op == Op::copy && stands_for(value.in[0])) return value.in[0];
  if (value.op == Op::affine && value.s[0] == 1.0 && value.s[1] == 0.0 && stands_for(value.in[0]))
    return value.in[0];
  if (value.op == Op::add && is_zero(value.in[0]) && stands_for(value.in[1])) return value.in[1];
  if (value.op == Op::add && is_zero(value.in[1]) && stands_for(value.in[0])) return value.in[0];
  for (std::size_t i = 0; i < values.size(); ++i) {
    const TracedValue& v = values[i];
    if (v.kind == TracedValue::Kind::instruction && v.op == value.op &&
        v.one_row == value.one_row && v.shape == value.shape &&
        std::equal(v.in, v.in + v.operands, value.in) && v.s[0] == value.s[0] &&
        v.s[1] == value.s[1])
      return {static_cast<int>(i), 0, value.width()};
  }
  return {add(value), 0, value.width()};
}

bool Trace::map_into(const Tensor& out, Op op, const Operands& operands, double s0, double s1) {
  if (out.impl().storage->traced < 0) {
    for (const Tensor* x : operands)
      if (x->impl().storage->traced >= 0) throw TraceStop();
    return false;
  }
  const Place to = place(out);
  if (states_[static_cast<std::size_t>(to.state)].argument) throw TraceStop();
  if (to.rows != rows_ && to.rows != 1) throw TraceStop();
  std::vector<Window> in[3];
  int count = 0;
  for (const Tensor* x : operands) {
    // A value that is kept off the tape would be taken for one that is on it.
    if (forward && x->requires_grad() && !grad_enabled()) throw TraceStop();
    const Place p = place(*x);
    if ((p.rows != to.rows && p.rows != 1) || (p.width != to.width && p.width != 1))
      throw TraceStop();
    in[count++] = read(*x);
  }

  // One instruction for each run of columns in which every operand is one value.
  std::vector<Window> made;
  for (std::int64_t at = 0; at < to.width;) {
    TracedValue value{.kind = TracedValue::Kind::instruction, .shape = out.shape()};
    std::int64_t width = to.width - at;
    value.op = op;
    value.operands = count;
    value.s[0] = s0;
    value.s[1] = s1;
    value.one_row = to.rows == 1 && rows_ > 1;
    for (int k = 0; k < count; ++k) {
      std::int64_t all = 0;
      for (const Window& w : in[k]) all += w.width;
      value.in[k] = all == to.width ? cut(in[k], at, to.width - at).front() : in[k].front();
      if (all == to.width) width = std::min(width, value.in[k].width);
    }
    for (int k = 0; k < count; ++k)
      if (value.in[k].width > width) value.in[k].width = width;
    if (!value.shape.empty()) value.shape[value.shape.size() - 1] = width;
    made.push_back(instruction(value));
    const Window& w = made.back();
    const TracedValue& whole = values[static_cast<std::size_t>(w.value)];
    if (forward && whole.kind == TracedValue::Kind::instruction && w.width == whole.width())
      origins.push_back({w.value, out, at});
    at += width;
  }

  State& state = states_[static_cast<std::size_t>(to.state)];
  std::vector<Window> pieces = cut(state.pieces, 0, to.offset);
  pieces.insert(pieces.end(), made.begin(), made.end());
  const std::int64_t end = to.offset + to.width;
  for (const Window& w : cut(state.pieces, end, state.width - end)) pieces.push_back(w);
  state.pieces = std::move(pieces);
  return true;
}

}  // namespace unroll::detail
