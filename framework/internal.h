#pragma once
/// What the engine's own .cpp files share. Not for users.

#include "framework/autograd.h"
#include "framework/format.h"
#include "framework/kernels/kernels.h"
#include "framework/row_grad.h"
#include "framework/tensor.h"

namespace unroll::detail {

/// Calls f(T{}) with the C++ type of a dtype.
template <class F>
decltype(auto) dispatch(DType dtype, F&& f) {
  switch (dtype) {
    case DType::f32: return f(float{});
    case DType::f64: return f(double{});
    default: return f(std::int64_t{});
  }
}
template <class F>
decltype(auto) dispatch_floating(DType dtype, F&& f) {
  return dtype == DType::f32 ? f(float{}) : f(double{});
}

/// Whether this thread records, until the end of the scope.
class GradMode {
 public:
  explicit GradMode(bool on);
  ~GradMode();
  GradMode(const GradMode&) = delete;
  GradMode& operator=(const GradMode&) = delete;

 private:
  bool saved_;
};

// --- Checks. `op` begins the message. -----------------------------------------------------------

void require_floating(const char* op, const Tensor& x);
void require_index(const char* op, const Tensor& index);
void require_same_dtype(const char* op, const Tensor& a, const Tensor& b);
/// A plain number takes the dtype of the tensor beside it. Throws ValueError for one that i64 does
/// not hold.
void require_holds(const char* op, const Tensor& x, double number);
/// `dim` counted from the front. Throws IndexError.
std::int64_t wrap_dim(const char* op, std::int64_t dim, const Shape& shape);
/// The shape of a and b broadcast together. Throws ShapeError.
Shape broadcast_shapes(const char* op, const Shape& a, const Shape& b);
/// Throws ShapeError for a negative size, and for sizes whose product no memory holds (0 counts as
/// 1 there, so that no product of a part of them overflows).
void require_shape(const char* op, const Shape& shape);
/// "(1, 2)": where element number `flat` lies.
std::string position(std::int64_t flat, const Shape& shape);

// --- Making results without recording them ------------------------------------------------------

/// Not initialised; of a shape that is known to be one.
Tensor make(const Shape& shape, DType dtype);
/// Not initialised, with the shape and dtype of a contiguous x; not while a function is traced.
Tensor make_like(const TensorImpl& x);
/// A window on the memory of x.
Tensor view(const Tensor& x, const Shape& shape, const Shape& strides, std::int64_t offset);
/// A contiguous tensor on existing memory.
Tensor attach(Ref<Storage> storage, DType dtype, const Shape& shape, std::int64_t offset);
/// x's memory as if x had this shape: stride 0 where it repeats.
Tensor expand(const Tensor& x, const Shape& shape);
/// A tensor without dimensions.
Tensor scalar(double value, DType dtype);

/// What an elementwise instruction is applied to: one to three tensors.
struct Operands {
  const Tensor* tensors[3] = {};  ///< null behind the last one
  const Tensor* const* begin() const { return tensors; }
  const Tensor* const* end() const { return tensors + (tensors[2] ? 3 : tensors[1] ? 2 : 1); }
};
/// The result of one elementwise instruction on operands of one dtype, broadcast together.
Tensor map(const char* name, kernels::Op op, const Operands& operands, double s0 = 0.0,
           double s1 = 0.0);
/// The same for an operation that needs none of its operands again: the result may be one of them,
/// written over, if nobody else holds it. The operation has taken it by value, and was given a
/// temporary.
Tensor map_over(const char* name, kernels::Op op, const Operands& operands, double s0 = 0.0,
                double s1 = 0.0);
/// out[i] = op(operands...)[i] into existing memory of any strides; out may be an operand. Operands
/// broadcast to out. Along dimensions where out has stride 0, op is applied again and again to the
/// same element, first index first.
void map_into(const Tensor& out, kernels::Op op, const Operands& operands, double s0 = 0.0,
              double s1 = 0.0);
/// Copies elements; source is broadcast and converted to the dtype of `out`.
void copy_into(const Tensor& out, const Tensor& source);
/// The same, elements of one dtype, to a contiguous `out` from element `begin` on.
void copy_into(const Tensor& out, std::int64_t begin, const Tensor& source);
/// out += x in place.
void accumulate(const Tensor& out, const Tensor& x);
/// Whether nobody else can see this tensor's memory, which is contiguous.
inline bool is_exclusive(const Tensor& x) {
  const TensorImpl& impl = x.impl();
  return count_of(impl.count) == 1 && count_of(impl.storage->count) == 1 && impl.contiguous;
}

/// The leaf, if x is a weight: a leaf that requires a gradient, or a view on one, such as its
/// transpose or a piece of it. Null otherwise.
const Node* weight_of(const TensorImpl& x);
/// The matrix b [k, n], or the transpose of b [n, k], in the layout of kernels::gemm_packed, or
/// null if it is to be read as it is. A weight, and a matrix that is multiplied a second time
/// without having been written in between, is packed once and the copy kept until the next write.
template <class T>
const T* packed(const Tensor& b, bool transposed);

/// A matrix that others are multiplied by: w [k, n], or w [n, k] read transposed.
template <class T>
class Multiplier {
 public:
  Multiplier(const Tensor& w, bool transposed);
  std::int64_t rows() const { return k_; }     ///< k
  std::int64_t columns() const { return n_; }  ///< n
  /// Whether it is multiplied as panels: rows of a are then independent of each other's number.
  bool is_packed() const { return panels_ != nullptr; }
  /// c [m, n] = a [m, k] w + d, which may be c.
  void operator()(std::int64_t m, kernels::MatrixRef<T> a, T* c, kernels::Addend<T> d = {}) const {
    if (panels_)
      kernels::gemm_packed<T>(m, n_, k_, a, panels_, c, n_, false, d);
    else
      kernels::gemm<T>(m, n_, k_, a, w_, c, n_, false, d);
  }

 private:
  kernels::MatrixRef<T> w_;
  std::int64_t k_, n_;
  const T* panels_;
};

/// Values of a contiguous x, or of a contiguous copy; off the tape.
Tensor dense(const Tensor& x);

// --- Gradients by rows. Those of backward() may name a row several times, in any order. ----------

/// Adds them to a dense gradient, which is contiguous.
void add_rows(const Tensor& whole, const RowGrad& grad);
/// All of them as one: rows rising, each once.
RowGrad coalesce(const std::vector<RowGrad>& grads);
/// Throws as set_row_grad.
void check_rows(const char* name, const Tensor& leaf, const RowGrad& grad);

}  // namespace unroll::detail
