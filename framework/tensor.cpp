#include "framework/tensor.h"

#include <algorithm>
#include <cmath>
#include <ostream>

#include "framework/internal.h"
#include "framework/ops.h"
#include "framework/trace.h"
#include "framework/watch.h"

namespace unroll {

using detail::fail;

std::string to_string(DType dtype) {
  switch (dtype) {
    case DType::f32: return "f32";
    case DType::f64: return "f64";
    default: return "i64";
  }
}

std::ostream& operator<<(std::ostream& out, DType dtype) { return out << to_string(dtype); }
std::ostream& operator<<(std::ostream& out, const Tensor& x) { return out << to_string(x); }

namespace detail {

// --- Lifetimes ----------------------------------------------------------------------------------

Ref<Storage> Storage::make(std::int64_t bytes, std::int32_t front) {
  if (watched()) [[unlikely]]
    allocated(bytes);
  void* memory = pool_allocate(static_cast<std::size_t>(front + kHeader + bytes));
  auto* storage = new (static_cast<char*>(memory) + front) Storage;
  storage->front = front;
  storage->bytes = bytes;
  return Ref<Storage>::adopt(storage);
}

void destroy(TensorImpl* impl) {
  const Ref<Storage> elements = std::move(impl->storage);  // the last to go, as it may hold impl
  Storage* const block = impl->block;
  impl->~TensorImpl();
  if (!block)
    pool_release(impl, sizeof(TensorImpl));
  else if (block != elements.get())
    release(block);
}

namespace {

thread_local const CloneScope* clone_scope = nullptr;

}  // namespace

CloneScope::CloneScope(const std::vector<Tensor>& originals) : originals_(originals) {
  for (const Tensor& original : originals_) {
    NoGrad no_grad;
    copies_.push_back(original.clone().requires_grad_(original.requires_grad()));
  }
  for (const Tensor& original : originals_)
    __atomic_add_fetch(&original.impl().count, kCloneMark, __ATOMIC_RELAXED);
  clone_scope = this;
}

CloneScope::~CloneScope() {
  clone_scope = nullptr;
  for (const Tensor& original : originals_)
    __atomic_sub_fetch(&original.impl().count, kCloneMark, __ATOMIC_RELAXED);
}

TensorImpl* clone_redirect(TensorImpl* impl) {
  if (!clone_scope) return impl;  // another thread is cloning
  const auto& originals = clone_scope->originals_;
  for (std::size_t i = 0; i < originals.size(); ++i) {
    if (&originals[i].impl() == impl) {
      count_down(impl->count);
      TensorImpl* copy = &clone_scope->copies_[i].impl();
      count_up(copy->count);
      return copy;
    }
  }
  return impl;
}

// --- Memory access ------------------------------------------------------------------------------

void stop_trace() { throw TraceStop(); }

// --- Checks -------------------------------------------------------------------------------------

void require_dtype(const Tensor& tensor, DType dtype, const char* where) {
  if (tensor.dtype() != dtype)
    fail<DTypeError>("{}: the tensor is {}, not {}", where, tensor.dtype(), dtype);
}

void require_floating(const char* op, const Tensor& x) {
  if (!is_floating(x.dtype()))
    fail<DTypeError>("{}: needs a floating-point tensor, got {}", op, x.dtype());
}

void require_index(const char* op, const Tensor& index) {
  if (index.dtype() != DType::i64)
    fail<DTypeError>("{}: indices are i64, got {}", op, index.dtype());
}

void require_same_dtype(const char* op, const Tensor& a, const Tensor& b) {
  if (a.dtype() != b.dtype())
    fail<DTypeError>("{}: dtypes differ: {} and {}", op, a.dtype(), b.dtype());
}

void require_holds(const char* op, const Tensor& x, double number) {
  if (x.dtype() == DType::i64 && !(std::abs(number) < 0x1p63 && number == std::trunc(number)))
    fail<ValueError>("{}: the tensor is i64, {} is no whole number", op, number);
}

std::int64_t wrap_dim(const char* op, std::int64_t dim, const Shape& shape) {
  const std::int64_t n = shape.size();
  if (dim < -n || dim >= n) {
    if (n == 0) fail<IndexError>("{}: dimension {} is out of range for a scalar", op, dim);
    fail<IndexError>("{}: dimension {} is out of range for shape {}: expected {} to {}", op, dim,
                     shape, -n, n - 1);
  }
  return dim < 0 ? dim + n : dim;
}

Shape broadcast_shapes(const char* op, const Shape& a, const Shape& b) {
  const Shape& longer = a.size() >= b.size() ? a : b;
  const Shape& shorter = a.size() >= b.size() ? b : a;
  Shape result = longer;
  for (std::int64_t i = 1; i <= shorter.size(); ++i) {
    std::int64_t& size = result[result.size() - i];
    const std::int64_t other = shorter[shorter.size() - i];
    if (size == other || other == 1) continue;
    if (size != 1)
      fail<ShapeError>(
          "{}: shapes {} and {} do not broadcast: sizes {} and {} differ at dimension {}", op, a, b,
          a[a.size() - i], b[b.size() - i], -i);
    size = other;
  }
  return result;
}

void require_shape(const char* op, const Shape& shape) {
  std::int64_t n = 1;
  bool fits = true;
  for (std::int64_t size : shape) {
    if (size < 0) fail<ShapeError>("{}: negative size in shape {}", op, shape);
    if (size > 0) fits = fits && !__builtin_mul_overflow(n, size, &n) && n <= std::int64_t{1} << 43;
  }
  if (!fits) fail<ShapeError>("{}: shape {} is too large", op, shape);
}

std::string position(std::int64_t flat, const Shape& shape) {
  if (shape.size() == 1) return std::to_string(flat);
  Shape index = shape;
  for (std::int64_t d = shape.size() - 1; d >= 0; --d) {
    index[d] = flat % shape[d];
    flat /= shape[d];
  }
  return to_string(index);
}

// --- Views --------------------------------------------------------------------------------------

namespace {

bool without_gaps(const Shape& shape, const Shape& strides) {
  std::int64_t step = 1;
  bool dense = true;
  for (std::int64_t d = shape.size() - 1; d >= 0; --d) {
    if (shape[d] == 0) return true;
    dense = dense && (shape[d] == 1 || strides[d] == step);
    step *= shape[d];
  }
  return dense;
}

}  // namespace

namespace {

template <class... Args>
Tensor new_tensor(Args&&... args) {
  return Tensor(Ref<TensorImpl>::adopt(new (pool_allocate(sizeof(TensorImpl)))
                                           TensorImpl(std::forward<Args>(args)...)));
}

/// A contiguous tensor and its elements in one block.
template <class... Args>
Tensor new_block(std::int64_t bytes, Args&&... args) {
  constexpr std::int32_t front = (sizeof(TensorImpl) + 63) / 64 * 64;  // what follows is aligned
  Ref<Storage> storage = Storage::make(bytes, front);
  Storage* const block = storage.get();
  auto* impl = new (block->begin()) TensorImpl(std::forward<Args>(args)..., 0, std::move(storage));
  impl->block = block;
  return Tensor(Ref<TensorImpl>::adopt(impl));
}

}  // namespace

Tensor view(const Tensor& x, const Shape& shape, const Shape& strides, std::int64_t offset) {
  const bool contiguous = without_gaps(shape, strides);
  return new_tensor(x.dtype(), contiguous, shape, strides, shape.numel(), offset, x.impl().storage);
}

Tensor attach(Ref<Storage> storage, DType dtype, const Shape& shape, std::int64_t offset) {
  return new_tensor(dtype, shape, shape.numel(), offset, std::move(storage));
}

Tensor expand(const Tensor& x, const Shape& shape) {
  Shape strides = shape;
  const std::int64_t extra = shape.size() - x.dim();
  for (std::int64_t d = 0; d < shape.size(); ++d)
    strides[d] =
        d < extra || (x.shape()[d - extra] == 1 && shape[d] != 1) ? 0 : x.strides()[d - extra];
  return view(x, shape, strides, x.impl().offset);
}

Tensor scalar(double value, DType dtype) { return full({}, value, dtype); }

Tensor dense(const Tensor& x) {
  if (x.is_contiguous()) return x.detach();
  Tensor out = empty(x.shape(), x.dtype());
  copy_into(out, x);
  return out;
}

}  // namespace detail

// --- Tensor -------------------------------------------------------------------------------------

void Tensor::throw_undefined() { throw ValueError("tensor: undefined (made by Tensor())"); }

std::int64_t Tensor::from_front(std::int64_t d) const {
  return detail::wrap_dim("size", d, shape());
}

void Tensor::check_access(DType wanted) const {
  if (dtype() != wanted) fail<DTypeError>("data: the tensor is {}, not {}", dtype(), wanted);
  if (!is_contiguous())
    fail<ShapeError>("data: the tensor of shape {} is not contiguous; call contiguous()", shape());
}

void Tensor::check_writable(const char* what) const {
  for (std::int64_t d = 0; d < dim(); ++d)
    if (strides()[d] == 0 && shape()[d] > 1)
      fail<ShapeError>(
          "{}: elements of the tensor of shape {} share memory (it was broadcast); "
          "write into a clone()",
          what, shape());
  const auto& node = impl().node;
  if (!node) return;
  if (!node->leaf)
    fail<GraphError>("{}: the tensor is the result of {} on the tape; write into a detached one",
                     what, node->op);
  if (grad_enabled())
    fail<GraphError>("{}: a leaf that requires a gradient is written in place only under NoGrad",
                     what);
}

double Tensor::item() const {
  if (numel() != 1) fail<ShapeError>("item: needs one element, the shape is {}", shape());
  return detail::dispatch(dtype(),
                          [&]<class T>(T) { return static_cast<double>(*detail::read<T>(*this)); });
}

template <class T>
std::vector<T> Tensor::to_vector() const {
  detail::require_dtype(*this, dtype_of<T>(), "to_vector");
  const Tensor x = detail::dense(*this);
  const T* values = detail::read<T>(x);
  return std::vector<T>(values, values + x.numel());
}
template std::vector<float> Tensor::to_vector<float>() const;
template std::vector<double> Tensor::to_vector<double>() const;
template std::vector<std::int64_t> Tensor::to_vector<std::int64_t>() const;

Tensor Tensor::operator[](std::int64_t index) const { return select(*this, 0, index); }

Tensor Tensor::clone() const {
  Tensor out = empty(shape(), dtype());
  detail::copy_into(out, *this);
  return record("clone", {*this}, std::move(out), Keep::none,
                [](Back& back) { back.add(0, back.grad); });
}

Tensor Tensor::contiguous() const { return is_contiguous() ? *this : clone(); }

Tensor Tensor::to(DType wanted) const {
  const DType own = dtype();
  if (own == wanted) return *this;
  Tensor out = empty(shape(), wanted);
  detail::copy_into(out, *this);
  if (!is_floating(wanted)) return out;
  return record("to", {*this}, std::move(out), Keep::none,
                [own](Back& back) { back.add(0, back.grad.to(own)); });
}

Tensor Tensor::detach() const {
  if (detail::trace && requires_grad())
    throw detail::TraceStop();  // a value knows no detached twin
  return detail::view(*this, shape(), strides(), impl().offset);
}

namespace {

/// A source to read while `target` is written: a copy if it is another window on the same memory.
Tensor apart(const Tensor& source, const Tensor& target) {
  const detail::TensorImpl &a = source.impl(), &b = target.impl();
  const bool same = a.shape == b.shape && a.strides == b.strides && a.offset == b.offset;
  return a.storage == b.storage && !same ? source.detach().clone() : source;
}

}  // namespace

Tensor& Tensor::copy_(const Tensor& source) {
  check_writable("copy_");
  if (detail::broadcast_shapes("copy_", shape(), source.shape()) != shape())
    fail<ShapeError>("copy_: shape {} does not broadcast to {}", source.shape(), shape());
  detail::copy_into(*this, apart(source, *this));
  return *this;
}

Tensor& Tensor::fill_(double value) {
  check_writable("fill_");
  detail::require_holds("fill_", *this, value);
  detail::copy_into(*this, detail::scalar(value, dtype()));
  return *this;
}

Tensor& Tensor::add_(const Tensor& other, double alpha) {
  check_writable("add_");
  detail::require_same_dtype("add_", *this, other);
  detail::require_holds("add_", *this, alpha);
  if (detail::broadcast_shapes("add_", shape(), other.shape()) != shape())
    fail<ShapeError>("add_: shape {} does not broadcast to {}", other.shape(), shape());
  const Tensor term = apart(other, *this);
  if (alpha == 1.0) {
    detail::map_into(*this, kernels::Op::add, {this, &term});
  } else {
    const Tensor factor = detail::scalar(alpha, dtype());
    detail::map_into(*this, kernels::Op::muladd, {&term, &factor, this});
  }
  return *this;
}

Tensor& Tensor::mul_(double factor) {
  check_writable("mul_");
  detail::require_holds("mul_", *this, factor);
  detail::map_into(*this, kernels::Op::affine, {this}, factor, 0.0);
  return *this;
}

// --- Making tensors -----------------------------------------------------------------------------

Tensor detail::make(const Shape& shape, DType dtype) {
  if (trace && is_floating(dtype)) return trace->empty(shape, dtype);
  const std::int64_t numel = shape.numel();
  return new_block(numel * size_of(dtype), dtype, shape, numel);
}

Tensor detail::make_like(const TensorImpl& x) {
  return new_block(x.numel * size_of(x.dtype), x.dtype, true, x.shape, x.strides, x.numel);
}

Tensor empty(const Shape& shape, DType dtype) {
  detail::require_shape("empty", shape);
  return detail::make(shape, dtype);
}

Tensor full(const Shape& shape, double value, DType dtype) {
  if (detail::trace && is_floating(dtype)) return detail::trace->full(shape, value, dtype);
  Tensor out = empty(shape, dtype);
  const std::int64_t n = out.numel();
  detail::dispatch(
      dtype, [&]<class T>(T) { std::fill_n(detail::overwrite<T>(out), n, static_cast<T>(value)); });
  return out;
}

Tensor zeros(const Shape& shape, DType dtype) { return full(shape, 0.0, dtype); }
Tensor ones(const Shape& shape, DType dtype) { return full(shape, 1.0, dtype); }
Tensor zeros_like(const Tensor& x) { return zeros(x.shape(), x.dtype()); }
Tensor ones_like(const Tensor& x) { return ones(x.shape(), x.dtype()); }

namespace {

/// The tensor whose i-th element is f(i).
template <class F>
Tensor generate(std::int64_t n, DType dtype, F&& f) {
  Tensor out = empty({n}, dtype);
  detail::dispatch(dtype, [&]<class T>(T) {
    T* values = detail::overwrite<T>(out);
    for (std::int64_t i = 0; i < n; ++i) values[i] = static_cast<T>(f(i));
  });
  return out;
}

}  // namespace

Tensor arange(std::int64_t n, DType dtype) {
  if (n < 0) fail<ValueError>("arange: n = {} is negative", n);
  return generate(n, dtype, [](std::int64_t i) { return i; });
}

Tensor arange(double start, double end, double step, DType dtype) {
  if (!(step != 0.0) || !std::isfinite((end - start) / step))
    fail<ValueError>("arange: no range from {} to {} in steps of {}", start, end, step);
  const double n = std::max(std::ceil((end - start) / step), 0.0);
  if (n > 0x1p43) fail<ValueError>("arange: {} to {} in steps of {} is too long", start, end, step);
  return generate(static_cast<std::int64_t>(n), dtype,
                  [=](std::int64_t i) { return start + static_cast<double>(i) * step; });
}

Tensor linspace(double start, double end, std::int64_t steps, DType dtype) {
  if (steps < 1) fail<ValueError>("linspace: needs 1 step or more, got {}", steps);
  return generate(steps, dtype, [=](std::int64_t i) {
    if (i == steps - 1 && steps > 1) return end;  // exactly
    return start +
           (end - start) * (static_cast<double>(i) / static_cast<double>(steps - 1 + (steps == 1)));
  });
}

Tensor eye(std::int64_t n, DType dtype) {
  Tensor out = zeros({n, n}, dtype);
  detail::view(out, {n}, {n + 1}, 0).fill_(1.0);
  return out;
}

Tensor tensor(double value, DType dtype) { return full({}, value, dtype); }

template <class>
Tensor tensor(std::initializer_list<double> values, DType dtype) {
  return generate(static_cast<std::int64_t>(values.size()), dtype,
                  [&](std::int64_t i) { return values.begin()[i]; });
}
template Tensor tensor(std::initializer_list<double>, DType);

Tensor tensor(std::initializer_list<std::initializer_list<double>> rows, DType dtype) {
  const auto n = static_cast<std::int64_t>(rows.size());
  const auto m = n > 0 ? static_cast<std::int64_t>(rows.begin()->size()) : 0;
  for (const auto& row : rows)
    if (static_cast<std::int64_t>(row.size()) != m)
      fail<ShapeError>("tensor: rows of {} and {} values", m, row.size());
  return reshape(
      generate(n * m, dtype, [&](std::int64_t i) { return rows.begin()[i / m].begin()[i % m]; }),
      {n, m});
}

template <class T>
Tensor from_vector(const std::vector<T>& values, const Shape& shape) {
  Tensor out = empty(shape, dtype_of<T>());
  if (static_cast<std::int64_t>(values.size()) != out.numel())
    fail<ShapeError>("from_vector: {} values do not fill shape {}", values.size(), shape);
  std::copy(values.begin(), values.end(), detail::overwrite<T>(out));
  return out;
}
template Tensor from_vector(const std::vector<float>&, const Shape&);
template Tensor from_vector(const std::vector<double>&, const Shape&);
template Tensor from_vector(const std::vector<std::int64_t>&, const Shape&);

// --- Printing -----------------------------------------------------------------------------------

namespace {

constexpr std::int64_t kEdge = 3;     // values shown at each end of a long dimension
constexpr std::int64_t kLongest = 8;  // dimensions up to this size are shown whole

std::string format_value(std::int64_t value) { return std::to_string(value); }

std::string format_value(double value) {
  if (!std::isfinite(value)) return std::isnan(value) ? "nan" : value > 0 ? "inf" : "-inf";
  const double size = std::abs(value);
  return size != 0.0 && (size < 1e-3 || size >= 1e5) ? detail::format("{:.3e}", value)
                                                     : detail::format("{:.4f}", value);
}

/// The texts of the elements that are shown, in order; and, with `lines`, their layout.
void print_values(const std::vector<std::string>& texts, std::size_t& next, const Shape& shape,
                  std::int64_t dim, std::size_t width, std::string& out) {
  if (dim == shape.size()) {
    const std::string& text = texts[next++];
    out += std::string(width - text.size(), ' ') + text;
    return;
  }
  const bool last = dim + 1 == shape.size();
  const std::string separator =
      last ? ", "
           : "," + std::string(static_cast<std::size_t>(shape.size() - dim - 1), '\n') +
                 std::string(static_cast<std::size_t>(dim + 1), ' ');
  const std::int64_t n = shape[dim];
  out += "[";
  for (std::int64_t i = 0; i < n; ++i) {
    if (i > 0) out += separator;
    if (n > kLongest && i == kEdge) {
      out += "...";
      i = n - kEdge - 1;
      continue;
    }
    print_values(texts, next, shape, dim + 1, width, out);
  }
  out += "]";
}

void collect(const Tensor& x, std::vector<std::string>& texts) {
  if (x.dim() == 0) {
    detail::dispatch(x.dtype(),
                     [&]<class T>(T) { texts.push_back(format_value(*detail::read<T>(x))); });
    return;
  }
  const std::int64_t n = x.shape()[0];
  for (std::int64_t i = 0; i < n; ++i) {
    if (n > kLongest && i == kEdge) i = n - kEdge;
    collect(x[i], texts);
  }
}

}  // namespace

std::string to_string(const Tensor& tensor) {
  if (!tensor.defined()) return "tensor(undefined)";
  std::string out = detail::format("tensor {} {}", tensor.dtype(), tensor.shape());
  if (tensor.requires_grad())
    out +=
        tensor.is_leaf() ? " requires_grad" : detail::format(" made by {}", tensor.impl().node->op);
  out += "\n";
  std::vector<std::string> texts;
  if (tensor.numel() > 0) {
    NoGrad no_grad;
    collect(tensor.detach(), texts);
  }
  std::size_t width = 0;
  for (const std::string& text : texts) width = std::max(width, text.size());
  std::size_t next = 0;
  if (tensor.numel() > 0)
    print_values(texts, next, tensor.shape(), 0, width, out);
  else
    out += "[]";
  return out;
}

}  // namespace unroll
