#pragma once
/// Tensor: a handle to an n-dimensional array, and to its place on the tape.

#include <cstdint>
#include <functional>
#include <initializer_list>
#include <iosfwd>
#include <string>
#include <vector>

#include "framework/check.h"
#include "framework/memory.h"
#include "framework/shape.h"

namespace unroll {

/// Element types. i64 holds indices and class labels and has no gradient.
enum class DType : std::uint8_t { f32, f64, i64 };

/// "f32", "f64" or "i64".
std::string to_string(DType dtype);
/// Writes to_string(dtype).
std::ostream& operator<<(std::ostream& out, DType dtype);
/// Bytes of one element.
constexpr std::int64_t size_of(DType dtype) { return dtype == DType::f32 ? 4 : 8; }
/// Whether it can have a gradient.
constexpr bool is_floating(DType dtype) { return dtype != DType::i64; }

/// The dtype of float, double or std::int64_t.
template <class T>
constexpr DType dtype_of();
/// @cond
template <>
constexpr DType dtype_of<float>() {
  return DType::f32;
}
template <>
constexpr DType dtype_of<double>() {
  return DType::f64;
}
template <>
constexpr DType dtype_of<std::int64_t>() {
  return DType::i64;
}
/// @endcond

class Tensor;
template <class T>
class WriteView;

namespace detail {

struct Packed;  // packed.cpp

/// A block of memory that tensors share. The elements follow the header; in front of it lies, where
/// `front` is not 0, the TensorImpl for which the block was made.
struct Storage {
  std::int32_t count = 1;
  std::uint32_t version = 0;  ///< raised by every write in place
  std::int32_t traced = -1;   ///< stands for the elements of an argument: trace.h
  std::int32_t front = 0;     ///< bytes of the block in front of this header
  std::int64_t bytes = 0;
  Packed* packed = nullptr;  ///< copies of these elements in the layout of the matrix product

  static Ref<Storage> make(std::int64_t bytes, std::int32_t front = 0);
  void* begin() { return reinterpret_cast<char*>(this) - front; }
  void* data() { return reinterpret_cast<char*>(this) + kHeader; }
  const void* data() const { return reinterpret_cast<const char*>(this) + kHeader; }
  /// data() for kernels that read.
  const void* read() const;
  /// data() for kernels that write.
  void* overwrite();
  static constexpr std::int64_t kHeader = 64;
};
void drop_packed(Storage& storage) noexcept;
inline Storage* retain(Storage* storage) {
  count_up(storage->count);
  return storage;
}
inline void release(Storage* storage) {
  if (count_down(storage->count) != 0) return;
  if (storage->packed) drop_packed(*storage);
  pool_release(storage->begin(),
               static_cast<std::size_t>(storage->front + Storage::kHeader + storage->bytes));
}

struct Node;  // autograd.h
Node* retain(Node* node);
void release(Node* node);

/// The strides of a tensor without gaps.
inline Shape contiguous_strides(const Shape& shape) {
  Shape strides = shape;
  std::int64_t* const sizes = strides.data();
  std::int64_t step = 1;
  for (std::int64_t d = shape.size() - 1; d >= 0; --d) {
    const std::int64_t size = std::exchange(sizes[d], step);
    step *= size > 1 ? size : 1;
  }
  return strides;
}

/// What a Tensor points to: a strided window on a storage, and a node if it is on the tape.
struct TensorImpl {
  std::int32_t count = 1;
  DType dtype;
  bool contiguous;  ///< row-major without gaps
  Ref<Storage> storage;
  Ref<Node> node;
  std::int64_t offset;  ///< in elements
  std::int64_t numel;   ///< of the shape
  Shape shape;
  Shape strides;             ///< in elements
  Storage* block = nullptr;  ///< in whose block this object lies, if it has none of its own

  // Not an aggregate: g++ 12 would fill one with zeros first, slowly.
  TensorImpl(DType type, bool dense, const Shape& sizes, const Shape& steps, std::int64_t elements,
             std::int64_t begin, Ref<Storage> memory)
      : dtype(type),
        contiguous(dense),
        storage(std::move(memory)),
        offset(begin),
        numel(elements),
        shape(sizes),
        strides(steps) {}
  /// A contiguous one; its strides are computed where they stay.
  TensorImpl(DType type, const Shape& sizes, std::int64_t elements, std::int64_t begin,
             Ref<Storage> memory)
      : dtype(type),
        contiguous(true),
        storage(std::move(memory)),
        offset(begin),
        numel(elements),
        shape(sizes),
        strides(contiguous_strides(sizes)) {}

  /// Other elements for everybody who has this tensor. The block that it lies in stays until its
  /// end.
  void replace(Ref<Storage> other) {
    if (block && storage.get() == block) retain(block);
    storage = std::move(other);
  }
};

/// While a module is cloned, the counts of its parameters carry this mark, and a handle that the
/// cloning thread copies becomes a handle to the parameter's copy.
inline constexpr std::int32_t kCloneMark = 1 << 26;  // 31 threads may clone at once
TensorImpl* clone_redirect(TensorImpl* impl);
void destroy(TensorImpl* impl);
inline TensorImpl* retain(TensorImpl* impl) {
  return count_up(impl->count) < kCloneMark ? impl : clone_redirect(impl);
}
inline void release(TensorImpl* impl) {
  if (count_down(impl->count) == 0) destroy(impl);
}

/// The one way to a tensor's memory. `read` is for kernels that read, `overwrite` for those that
/// write: it raises the version, so that whoever saved the old values can tell.
const void* read(const Tensor& tensor);
void* overwrite(const Tensor& tensor);
template <class T>
const T* read(const Tensor& tensor);
template <class T>
T* overwrite(const Tensor& tensor);
std::uint32_t version(const Tensor& tensor);
[[noreturn]] void stop_trace();  // trace.h
void require_dtype(const Tensor& tensor, DType dtype, const char* where);

}  // namespace detail

/// Called with a gradient; returns the gradient to go on with, or an undefined Tensor for "as it
/// was".
using Hook = std::function<Tensor(const Tensor& grad)>;

/// A light handle: copying it copies no element, and both copies are the same tensor, as in
/// Python. A default-made Tensor is undefined. Element type and shape are run-time values; most
/// operations are free functions (ops.h).
///
/// Several threads may read one tensor; writing (in place, or into `.grad` by backward) wants one
/// thread at a time.
class Tensor {
 public:
  Tensor() = default;
  /// For the engine.
  explicit Tensor(detail::Ref<detail::TensorImpl> impl) : impl_(std::move(impl)) {}

  /// Whether there is a tensor behind the handle.
  bool defined() const { return static_cast<bool>(impl_); }
  /// The size of each dimension.
  const Shape& shape() const { return impl().shape; }
  /// Elements from one index to the next, of each dimension.
  const Shape& strides() const { return impl().strides; }
  /// The element type.
  DType dtype() const { return impl().dtype; }
  /// Number of dimensions; 0 for a scalar.
  std::int64_t dim() const { return shape().size(); }
  /// Number of elements.
  std::int64_t numel() const { return impl().numel; }
  /// Size of one dimension; negative ones count from the end. Throws IndexError.
  std::int64_t size(std::int64_t dim) const {
    if (dim < 0 || dim >= this->dim()) dim = from_front(dim);
    return shape()[dim];
  }
  /// Whether the elements lie in memory in row-major order without gaps.
  bool is_contiguous() const { return impl().contiguous; }

  /// The value of a tensor with one element. Throws ShapeError otherwise.
  double item() const;
  /// All elements in row-major order, copied. T is float, double or std::int64_t and must be the
  /// tensor's element type (DTypeError).
  template <class T>
  std::vector<T> to_vector() const;
  /// The elements of a contiguous tensor, to read (ShapeError if it is not contiguous, DTypeError
  /// if T is not its element type). Valid as long as a handle to the tensor lives.
  template <class T>
  const T* data() const {
    check_access(dtype_of<T>());
    return detail::read<T>(*this);
  }
  /// The elements of a contiguous tensor, to write. The write ends, and counts as one, when the
  /// view goes out of scope. Throws as data(), and GraphError for a tensor that an operation made
  /// and that is on the tape.
  template <class T>
  WriteView<T> write();

  /// x[i]: the i-th slice along the first dimension, a view: select(x, 0, i).
  Tensor operator[](std::int64_t index) const;

  /// A copy with memory of its own; differentiable.
  Tensor clone() const;
  /// The tensor itself if contiguous, otherwise a contiguous copy; differentiable.
  Tensor contiguous() const;
  /// Converted to another element type (the tensor itself if it has it); differentiable between
  /// floating-point types.
  Tensor to(DType dtype) const;
  /// The same values, off the tape: a view that needs no gradient.
  Tensor detach() const;

  /// Writes in place. They are not recorded: a leaf that requires a gradient takes them only under
  /// NoGrad, a tensor that an operation recorded on the tape never (GraphError). Return *this.
  Tensor& copy_(const Tensor& source);  ///< source is broadcast; any dtype
  /// Sets all elements. ValueError for a number that i64 does not hold.
  Tensor& fill_(double value);
  /// Sets all elements to 0.
  Tensor& zero_() { return fill_(0.0); }
  Tensor& add_(const Tensor& other, double alpha = 1.0);  ///< this += alpha * other
  /// this *= factor
  Tensor& mul_(double factor);

  /// Whether backward reaches this tensor.
  bool requires_grad() const { return static_cast<bool>(impl().node); }
  /// Starts (or, for a leaf, stops) asking for a gradient. Throws DTypeError for i64, GraphError
  /// for `false` on a tensor that an operation made.
  Tensor& requires_grad_(bool value = true);
  /// Whether no operation on the tape made it.
  bool is_leaf() const;
  /// The gradient that backward() has summed so far; undefined before the first.
  Tensor grad() const;
  /// Replaces .grad; an undefined tensor takes it away.
  void set_grad(const Tensor& grad);
  /// Keeps .grad of a tensor that an operation made, too.
  void retain_grad();
  /// Calls `hook` with the gradient of this tensor each time a backward has it complete. Returns a
  /// number for remove_hook.
  std::int64_t register_hook(Hook hook);
  /// Takes a hook away.
  void remove_hook(std::int64_t id);

  /// Backpropagation: adds d(this)/d(leaf) to .grad of every leaf that asked for it (autograd.h
  /// has the details). `seed` is the gradient of this tensor, by default 1 for a tensor with one
  /// element (GraphError otherwise). The graph is freed on the way unless retain_graph.
  void backward(const Tensor& seed = Tensor(), bool retain_graph = false,
                bool create_graph = false) const;

  /// The object behind the handle. Throws ValueError when undefined.
  detail::TensorImpl& impl() const {
    if (!impl_) throw_undefined();
    return *impl_;
  }
  /// The counted pointer itself, for the engine.
  const detail::Ref<detail::TensorImpl>& impl_ref() const { return impl_; }
  /// Whether both handles are the same tensor.
  bool is(const Tensor& other) const { return impl_ == other.impl_; }

 private:
  [[noreturn]] static void throw_undefined();
  std::int64_t from_front(std::int64_t dim) const;
  void check_access(DType wanted) const;
  void check_writable(const char* what) const;

  detail::Ref<detail::TensorImpl> impl_;
};

/// A scoped window on the elements of a contiguous tensor, for writing.
template <class T>
class WriteView {
 public:
  /// Made by Tensor::write(), which checks.
  explicit WriteView(Tensor tensor)
      : tensor_(std::move(tensor)), data_(detail::overwrite<T>(tensor_)), size_(tensor_.numel()) {}
  WriteView(const WriteView&) = delete;
  WriteView& operator=(const WriteView&) = delete;
  ~WriteView() { detail::overwrite<T>(tensor_); }

  /// The elements, in row-major order.
  T* data() const { return data_; }
  /// Number of elements.
  std::int64_t size() const { return size_; }
  /// The first element.
  T* begin() const { return data_; }
  /// Behind the last element.
  T* end() const { return data_ + size_; }
  /// Element i in row-major order; not checked.
  T& operator[](std::int64_t i) const { return data_[i]; }

 private:
  Tensor tensor_;
  T* data_;
  std::int64_t size_;
};

namespace detail {

inline const void* Storage::read() const {
  if (traced >= 0) stop_trace();
  return data();
}
inline void* Storage::overwrite() {
  if (traced >= 0) stop_trace();
  ++version;
  if (packed) drop_packed(*this);
  return data();
}
inline const void* read(const Tensor& tensor) {
  const TensorImpl& impl = tensor.impl();
  return static_cast<const char*>(impl.storage->read()) + impl.offset * size_of(impl.dtype);
}
inline void* overwrite(const Tensor& tensor) {
  const TensorImpl& impl = tensor.impl();
  return static_cast<char*>(impl.storage->overwrite()) + impl.offset * size_of(impl.dtype);
}
template <class T>
const T* read(const TensorImpl& impl) {
  return static_cast<const T*>(impl.storage->read()) + impl.offset;
}
template <class T>
T* overwrite(const TensorImpl& impl) {
  return static_cast<T*>(impl.storage->overwrite()) + impl.offset;
}
template <class T>
const T* read(const Tensor& tensor) {
  return read<T>(tensor.impl());
}
template <class T>
T* overwrite(const Tensor& tensor) {
  return overwrite<T>(tensor.impl());
}
inline std::uint32_t version(const Tensor& tensor) { return tensor.impl().storage->version; }

/// While it lives, copying a handle to one of `originals` in this thread gives a handle to a copy
/// of its own: a fresh leaf with the same values and the same requires_grad. What Module's clone()
/// stands on. Other threads may go on reading the originals. Scopes don't nest.
class CloneScope {
 public:
  explicit CloneScope(const std::vector<Tensor>& originals);
  ~CloneScope();
  CloneScope(const CloneScope&) = delete;
  CloneScope& operator=(const CloneScope&) = delete;

 private:
  friend TensorImpl* clone_redirect(TensorImpl* impl);
  std::vector<Tensor> originals_, copies_;
};

}  // namespace detail

template <class T>
WriteView<T> Tensor::write() {
  check_access(dtype_of<T>());
  check_writable("write");
  return WriteView<T>(*this);
}

/// For people: shape, dtype and values, elided in the middle of long dimensions.
std::string to_string(const Tensor& tensor);
/// Writes to_string(tensor).
std::ostream& operator<<(std::ostream& out, const Tensor& tensor);

// --- Making tensors -----------------------------------------------------------------------------
// None of them is on the tape; call requires_grad_() on the result for a leaf. Negative sizes
// throw ShapeError.

/// Not initialised.
Tensor empty(const Shape& shape, DType dtype = DType::f32);
/// All 0.
Tensor zeros(const Shape& shape, DType dtype = DType::f32);
/// All 1.
Tensor ones(const Shape& shape, DType dtype = DType::f32);
/// All `value`.
Tensor full(const Shape& shape, double value, DType dtype = DType::f32);
/// All 0, with x's shape and dtype.
Tensor zeros_like(const Tensor& x);
/// All 1, with x's shape and dtype.
Tensor ones_like(const Tensor& x);
/// 0, 1, ..., n - 1, or start, start + step, ... below end (above it for a negative step).
Tensor arange(std::int64_t n, DType dtype = DType::i64);
/// start, start + step, ... below end (above it for a negative step).
Tensor arange(double start, double end, double step, DType dtype = DType::f32);
/// `steps` numbers from start to end, both included, evenly spaced.
Tensor linspace(double start, double end, std::int64_t steps, DType dtype = DType::f32);
/// The n x n identity matrix.
Tensor eye(std::int64_t n, DType dtype = DType::f32);

/// From values: tensor(3.0), tensor({1, 2, 3}), tensor({{1, 2}, {3, 4}}). Rows of different
/// lengths throw ShapeError.
Tensor tensor(double value, DType dtype = DType::f32);
/// One dimension. It is a template so that {{1}, {2}}, which fits this and the next, is a matrix.
template <class = void>
Tensor tensor(std::initializer_list<double> values, DType dtype = DType::f32);
/// A matrix, row by row.
Tensor tensor(std::initializer_list<std::initializer_list<double>> rows, DType dtype = DType::f32);
/// Copies values, in row-major order; T is float, double or std::int64_t. Throws ShapeError when
/// their number is not shape.numel(). Without a shape: one dimension.
template <class T>
Tensor from_vector(const std::vector<T>& values, const Shape& shape);
/// The same as one dimension.
template <class T>
Tensor from_vector(const std::vector<T>& values) {
  return from_vector(values, Shape{static_cast<std::int64_t>(values.size())});
}

/// @cond
extern template std::vector<float> Tensor::to_vector<float>() const;
extern template std::vector<double> Tensor::to_vector<double>() const;
extern template std::vector<std::int64_t> Tensor::to_vector<std::int64_t>() const;
extern template Tensor from_vector(const std::vector<float>&, const Shape&);
extern template Tensor from_vector(const std::vector<double>&, const Shape&);
extern template Tensor from_vector(const std::vector<std::int64_t>&, const Shape&);
/// @endcond

}  // namespace unroll
