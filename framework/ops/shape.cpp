/// Operations on shapes. Most give a view: another window on the same memory.

#include <algorithm>

#include "framework/internal.h"
#include "framework/ops.h"

namespace unroll {

using detail::fail;
using detail::wrap_dim;

namespace {

/// The strides that `shape` has on x's memory, if there are any: groups of x's dimensions without
/// gaps between them are cut anew. Returns false where a copy is needed.
bool strides_for(const Tensor& x, const Shape& shape, Shape& strides) {
  strides.resize(shape.size());
  if (x.is_contiguous()) {
    strides = detail::contiguous_strides(shape);
    return true;
  }
  std::int64_t to = shape.size() - 1;
  std::int64_t step = x.dim() > 0 ? x.strides().back() : 1;
  std::int64_t available = 1, taken = 1;
  for (std::int64_t d = x.dim() - 1; d >= 0; --d) {
    available *= x.shape()[d];
    const bool ends = d == 0 || (x.shape()[d - 1] != 1 && x.strides()[d - 1] != available * step);
    if (!ends) continue;
    while (to >= 0 && (taken < available || shape[to] == 1)) {
      strides[to] = taken * step;
      taken *= shape[to--];
    }
    if (taken != available) return false;
    if (d > 0) {
      step = x.strides()[d - 1];
      available = taken = 1;
    }
  }
  return to < 0;
}

/// The sizes that are asked for, with -1 replaced by what is left.
Shape complete(const Tensor& x, const Shape& wanted) {
  Shape shape = wanted;
  std::int64_t unknown = -1;
  for (std::int64_t d = 0; d < shape.size(); ++d) {
    if (shape[d] != -1) continue;
    if (unknown >= 0) fail<ShapeError>("reshape: only one size may be -1, got {}", wanted);
    unknown = d;
    shape[d] = 1;
  }
  detail::require_shape("reshape", shape);
  if (unknown >= 0) {
    const std::int64_t known = shape.numel();
    if (known == 0)
      fail<ShapeError>("reshape: -1 in {} may stand for any size: {} has no elements", wanted,
                       x.shape());
    shape[unknown] = x.numel() / known;
  }
  if (shape.numel() != x.numel())
    fail<ShapeError>("reshape: {} elements of shape {} do not fit {}", x.numel(), x.shape(),
                     wanted);
  return shape;
}

}  // namespace

Tensor reshape(const Tensor& x, const Shape& wanted) {
  const Shape shape = complete(x, wanted);
  Shape strides;
  Tensor value;
  if (strides_for(x, shape, strides)) {
    value = detail::view(x, shape, strides, x.impl().offset);
  } else {
    const Tensor copy = detail::dense(x);
    value = detail::view(copy, shape, detail::contiguous_strides(shape), 0);
  }
  Tensor y = record("reshape", {x}, std::move(value), Keep::none,
                    [from = x.shape()](Back& back) { back.add(0, reshape(back.grad, from)); });
  if (y.impl().node) y.impl().node->passes_on = 1u << 0;
  return y;
}

Tensor flatten(const Tensor& x, std::int64_t start, std::int64_t end) {
  if (x.dim() == 0) return reshape(x, {1});
  const std::int64_t first = wrap_dim("flatten", start, x.shape());
  const std::int64_t last = wrap_dim("flatten", end, x.shape());
  if (first > last) fail<ShapeError>("flatten: dimension {} comes after {}", start, end);
  Shape shape;
  for (std::int64_t d = 0; d < x.dim(); ++d) {
    if (d > first && d <= last)
      shape[first] *= x.shape()[d];
    else
      shape.push_back(x.shape()[d]);
  }
  return reshape(x, shape);
}

Tensor squeeze(const Tensor& x, std::int64_t dim) {
  const std::int64_t d = wrap_dim("squeeze", dim, x.shape());
  if (x.shape()[d] != 1)
    fail<ShapeError>("squeeze: dimension {} of shape {} has size {}, not 1", dim, x.shape(),
                     x.shape()[d]);
  Shape shape = x.shape(), strides = x.strides();
  shape.erase(d);
  strides.erase(d);
  return record("squeeze", {x}, detail::view(x, shape, strides, x.impl().offset), Keep::none,
                [d](Back& back) { back.add(0, unsqueeze(back.grad, d)); });
}

Tensor unsqueeze(const Tensor& x, std::int64_t dim) {
  Shape shape = x.shape(), strides = x.strides();
  if (dim < -x.dim() - 1 || dim > x.dim())
    fail<IndexError>("unsqueeze: dimension {} is out of range for shape {}: expected {} to {}", dim,
                     x.shape(), -x.dim() - 1, x.dim());
  const std::int64_t d = dim < 0 ? dim + x.dim() + 1 : dim;
  strides.insert(d, d < x.dim() ? shape[d] * strides[d] : 1);
  shape.insert(d, 1);
  return record("unsqueeze", {x}, detail::view(x, shape, strides, x.impl().offset), Keep::none,
                [d](Back& back) { back.add(0, squeeze(back.grad, d)); });
}

Tensor transpose(const Tensor& x, std::int64_t dim0, std::int64_t dim1) {
  const std::int64_t a = wrap_dim("transpose", dim0, x.shape());
  const std::int64_t b = wrap_dim("transpose", dim1, x.shape());
  Shape shape = x.shape(), strides = x.strides();
  std::swap(shape[a], shape[b]);
  std::swap(strides[a], strides[b]);
  Tensor y = record("transpose", {x}, detail::view(x, shape, strides, x.impl().offset), Keep::none,
                    [a, b](Back& back) { back.add(0, transpose(back.grad, a, b)); });
  if (y.impl().node) y.impl().node->is_transpose = x.dim() == 2 && a != b;
  return y;
}

Tensor permute(const Tensor& x, const Shape& order) {
  const std::int64_t n = x.dim();
  Shape shape = x.shape(), strides = x.strides(), inverse = x.shape();
  std::fill(inverse.begin(), inverse.end(), -1);
  bool valid = order.size() == n;
  for (std::int64_t i = 0; valid && i < n; ++i) {
    const std::int64_t d = wrap_dim("permute", order[i], x.shape());
    valid = inverse[d] == -1;
    inverse[d] = i;
    shape[i] = x.shape()[d];
    strides[i] = x.strides()[d];
  }
  if (!valid)
    fail<ShapeError>("permute: {} is no order of the {} dimensions of shape {}", order, n,
                     x.shape());
  return record("permute", {x}, detail::view(x, shape, strides, x.impl().offset), Keep::none,
                [inverse](Back& back) { back.add(0, permute(back.grad, inverse)); });
}

Tensor broadcast_to(const Tensor& x, const Shape& shape) {
  detail::require_shape("broadcast_to", shape);
  if (x.dim() > shape.size() || detail::broadcast_shapes("broadcast_to", x.shape(), shape) != shape)
    fail<ShapeError>("broadcast_to: shape {} does not broadcast to {}", x.shape(), shape);
  return record("broadcast_to", {x}, detail::expand(x, shape), Keep::none,
                [](Back& back) { back.add(0, back.grad); });  // summed to x's shape by back
}

Tensor flip(const Tensor& x, const Axes& dims) {
  Shape strides = x.strides(), flipped;
  std::int64_t offset = x.impl().offset;
  for (std::int64_t dim : dims.list()) {
    const std::int64_t d = wrap_dim("flip", dim, x.shape());
    if (std::count(flipped.begin(), flipped.end(), d) > 0)
      fail<ShapeError>("flip: dimension {} is named twice", dim);
    flipped.push_back(d);
    offset += std::max<std::int64_t>(x.shape()[d] - 1, 0) * strides[d];
    strides[d] = -strides[d];
  }
  return record("flip", {x}, detail::view(x, x.shape(), strides, offset), Keep::none,
                [dims](Back& back) { back.add(0, flip(back.grad, dims)); });
}

namespace {

/// The tensors one after the other along dimension d of a result of that shape; not recorded.
Tensor joined(const char* op, const std::vector<Tensor>& tensors, const Shape& shape,
              std::int64_t d) {
  Tensor out = empty(shape, tensors[0].dtype());
  std::int64_t at = 0;
  for (const Tensor& piece : tensors) {
    detail::require_same_dtype(op, tensors[0], piece);
    Shape window = shape;
    window[d] = piece.shape()[d];
    detail::copy_into(detail::view(out, window, out.strides(), at * out.strides()[d]), piece);
    at += piece.shape()[d];
  }
  return out;
}

}  // namespace

Tensor concatenate(const std::vector<Tensor>& tensors, std::int64_t dim) {
  if (tensors.empty()) fail<ShapeError>("concatenate: needs one tensor or more");
  Shape shape = tensors[0].shape();
  const std::int64_t d = wrap_dim("concatenate", dim, shape);
  Shape starts;
  std::int64_t total = 0;
  for (std::size_t i = 0; i < tensors.size(); ++i) {
    Shape other = tensors[i].shape();
    starts.push_back(total);
    if (other.size() == shape.size()) {
      total += other[d];
      other[d] = shape[d];
    }
    if (other != shape)
      fail<ShapeError>(
          "concatenate: tensor {} has shape {}, tensor 0 has {}: they must agree but for "
          "dimension {}",
          i, tensors[i].shape(), tensors[0].shape(), d);
  }
  starts.push_back(total);
  shape[d] = total;
  return record("concatenate", tensors, joined("concatenate", tensors, shape, d), Keep::none,
                [d, starts](Back& back) {
                  for (int i = 0; i + 1 < static_cast<int>(starts.size()); ++i)
                    if (back.needs(i))
                      back.add(i, narrow(back.grad, d, starts[i], starts[i + 1] - starts[i]));
                });
}

Tensor stack(const std::vector<Tensor>& tensors, std::int64_t dim) {
  if (tensors.empty()) fail<ShapeError>("stack: needs one tensor or more");
  const Shape& first = tensors[0].shape();
  if (dim < -first.size() - 1 || dim > first.size())
    fail<IndexError>("stack: dimension {} is out of range for shape {}: expected {} to {}", dim,
                     first, -first.size() - 1, first.size());
  const std::int64_t d = dim < 0 ? dim + first.size() + 1 : dim;
  Shape shape = first;
  shape.insert(d, static_cast<std::int64_t>(tensors.size()));
  Tensor out = empty(shape, tensors[0].dtype());
  Shape strides = out.strides();
  strides.erase(d);
  for (std::size_t i = 0; i < tensors.size(); ++i) {
    if (tensors[i].shape() != first)
      fail<ShapeError>("stack: tensor {} has shape {}, tensor 0 has {}", i, tensors[i].shape(),
                       first);
    detail::require_same_dtype("stack", tensors[0], tensors[i]);
    const std::int64_t begin = static_cast<std::int64_t>(i) * out.strides()[d];
    if (d == 0)
      detail::copy_into(out, begin, tensors[i]);
    else
      detail::copy_into(detail::view(out, first, strides, begin), tensors[i]);
  }
  return record("stack", tensors, std::move(out), Keep::none,
                [d, n = static_cast<int>(tensors.size())](Back& back) {
                  for (int i = 0; i < n; ++i)
                    if (back.needs(i)) back.add(i, select(back.grad, d, i));
                });
}

}  // namespace unroll
