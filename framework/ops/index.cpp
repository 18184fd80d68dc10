/// Indexing. The gradient of a part is added in place into the gradient of the whole.

#include <algorithm>
#include <cstring>
#include <functional>
#include <utility>
#include <vector>

#include "framework/internal.h"
#include "framework/ops.h"

namespace unroll {

using detail::fail;
using detail::wrap_dim;

namespace {

/// Whether an index of dimension d, or several in a row, is one piece of x's elements.
bool is_piece(const Tensor& x, std::int64_t d) {
  for (std::int64_t i = 0; i < d; ++i)
    if (x.shape()[i] != 1) return false;
  return true;
}

/// Tells the tape that y is one piece of x: `length` indices from `index` on along dimension d.
void mark_window(const Tensor& y, std::int64_t index, std::int64_t length) {
  if (const auto& node = y.impl().node; node && length > 0)
    node->window = index * (length == 1 ? y.numel() : y.numel() / length);
}

/// x[..., i, ...] along dimension d, off the tape.
Tensor slice_of(const Tensor& x, std::int64_t d, std::int64_t i) {
  const detail::TensorImpl& whole = x.impl();
  const std::int64_t offset = whole.offset + i * whole.strides[d];
  Shape shape = whole.shape;
  if (d == 0 && whole.contiguous) {  // a time step, usually
    shape.erase(0);
    return detail::attach(whole.storage, whole.dtype, shape, offset);
  }
  Shape strides = whole.strides;
  shape.erase(d);
  strides.erase(d);
  return detail::view(x, shape, strides, offset);
}

}  // namespace

Tensor select(const Tensor& x, std::int64_t dim, std::int64_t index) {
  const std::int64_t d = wrap_dim("select", dim, x.shape());
  const std::int64_t size = x.shape()[d];
  if (index < -size || index >= size)
    fail<IndexError>("select: index {} is out of range for size {} of dimension {}", index, size,
                     d);
  const std::int64_t i = index < 0 ? index + size : index;
  const Tensor y = record("select", {x}, slice_of(x, d, i), Keep::none, [d, i](Back& back) {
    back.add_window(0, [d, i](const Tensor& whole) { return select(whole, d, i); });
  });
  if (is_piece(x, d)) mark_window(y, i, 1);
  return y;
}

namespace {

/// start, start + step, ... `length` times along dimension d, all of it inside.
Tensor strided(const char* op, const Tensor& x, std::int64_t d, std::int64_t start,
               std::int64_t length, std::int64_t step) {
  const detail::TensorImpl& whole = x.impl();
  const std::int64_t offset = whole.offset + start * whole.strides[d];
  Shape shape = whole.shape;
  shape[d] = length;
  const bool piece = step == 1 && is_piece(x, d);
  Tensor y;
  if (piece && whole.contiguous) {
    y = detail::attach(whole.storage, whole.dtype, shape, offset);
  } else {
    Shape strides = whole.strides;
    strides[d] *= step;
    y = detail::view(x, shape, strides, offset);
  }
  y = record(op, {x}, std::move(y), Keep::none, [=](Back& back) {
    back.add_window(0, [=](const Tensor& w) { return strided(op, w, d, start, length, step); });
  });
  if (piece) mark_window(y, start, length);
  return y;
}

}  // namespace

Tensor slice(const Tensor& x, std::int64_t dim, std::int64_t start, std::int64_t end,
             std::int64_t step) {
  const std::int64_t d = wrap_dim("slice", dim, x.shape());
  if (step < 1) fail<ValueError>("slice: step must be 1 or more, got {}", step);
  const std::int64_t size = x.shape()[d];
  const auto cut = [size](std::int64_t i) {
    return std::clamp<std::int64_t>(i < 0 ? i + size : i, 0, size);
  };
  const std::int64_t first = cut(start), last = std::max(first, cut(end));
  const std::int64_t stride = std::min(step, size + 1);  // further on there is nothing
  return strided("slice", x, d, first, (last - first + stride - 1) / stride, stride);
}

Tensor narrow(const Tensor& x, std::int64_t dim, std::int64_t start, std::int64_t length) {
  const std::int64_t d = wrap_dim("narrow", dim, x.shape());
  const std::int64_t size = x.shape()[d];
  if (start < 0 || length < 0 || start > size - length)
    fail<IndexError>("narrow: {} elements from {} are out of range for size {} of dimension {}",
                     length, start, size, d);
  return strided("narrow", x, d, start, length, 1);
}

std::vector<Tensor> split(const Tensor& x, std::int64_t size, std::int64_t dim) {
  const std::int64_t d = wrap_dim("split", dim, x.shape());
  if (size < 1) fail<ValueError>("split: needs pieces of 1 or more, got {}", size);
  std::vector<Tensor> pieces;
  for (std::int64_t at = 0; at < x.shape()[d]; at += size)
    pieces.push_back(strided("narrow", x, d, at, std::min(size, x.shape()[d] - at), 1));
  return pieces;
}

std::vector<Tensor> chunk(const Tensor& x, std::int64_t chunks, std::int64_t dim) {
  const std::int64_t d = wrap_dim("chunk", dim, x.shape());
  const std::int64_t size = x.shape()[d];
  if (chunks < 1 || size % chunks != 0)
    fail<ShapeError>("chunk: dimension {} of shape {} does not divide into {} equal parts", dim,
                     x.shape(), chunks);
  std::vector<Tensor> pieces;
  pieces.reserve(static_cast<std::size_t>(chunks));
  for (std::int64_t i = 0; i < chunks; ++i)
    pieces.push_back(strided("narrow", x, d, i * (size / chunks), size / chunks, 1));
  return pieces;
}

namespace {

void check_indices(const char* op, const Tensor& index, std::int64_t limit) {
  detail::require_index(op, index);
  const Tensor flat = detail::dense(index);
  const std::int64_t* i = detail::read<std::int64_t>(flat);
  for (std::int64_t n = 0; n < flat.numel(); ++n)
    if (i[n] < 0 || i[n] >= limit)
      fail<IndexError>("{}: index {} at position {} is out of range [0, {})", op, i[n],
                       detail::position(n, index.shape()), limit);
}

/// A tensor seen as [outer, size, inner] around one of its dimensions.
struct Slabs {
  std::int64_t outer, size, inner;
  Slabs(const Shape& shape, std::int64_t d) : outer(1), size(shape[d]), inner(1) {
    for (std::int64_t i = 0; i < d; ++i) outer *= shape[i];
    for (std::int64_t i = d + 1; i < shape.size(); ++i) inner *= shape[i];
  }
};

/// Slices `index` of x along d, one after the other; nothing recorded. The dimensions of the index
/// are in the place of dimension d.
Tensor take_slices(const Tensor& x, std::int64_t d, const Tensor& index) {
  const Slabs slabs(x.shape(), d);
  const std::int64_t n = index.numel();
  Shape shape;
  for (std::int64_t k = 0; k < d; ++k) shape.push_back(x.shape()[k]);
  for (std::int64_t size : index.shape()) shape.push_back(size);
  for (std::int64_t k = d + 1; k < x.dim(); ++k) shape.push_back(x.shape()[k]);
  Tensor out = empty(shape, x.dtype());
  if (out.numel() == 0) return out;
  const Tensor from = detail::dense(x);
  const std::int64_t* i = detail::read<std::int64_t>(index);
  const std::int64_t bytes = slabs.inner * size_of(x.dtype());
  const char* source = static_cast<const char*>(detail::read(from));
  char* target = static_cast<char*>(detail::overwrite(out));
  for (std::int64_t o = 0; o < slabs.outer; ++o, source += slabs.size * bytes)
    for (std::int64_t k = 0; k < n; ++k, target += bytes)
      std::memcpy(target, source + i[k] * bytes, static_cast<std::size_t>(bytes));
  return out;
}

/// Adds slice k of g to slice index[k] of `whole`, which is contiguous. Index `skip` is left out.
void put_slices(const Tensor& whole, std::int64_t d, const Tensor& index, const Tensor& g,
                std::int64_t skip) {
  const Slabs slabs(whole.shape(), d);
  const Tensor from = detail::dense(g);
  const std::int64_t* i = detail::read<std::int64_t>(index);
  const std::int64_t n = index.numel();
  detail::dispatch_floating(whole.dtype(), [&]<class T>(T) {
    const auto add =
        kernels::float_kernels<T>().elementwise[static_cast<std::size_t>(kernels::Op::add)];
    const T* source = detail::read<T>(from);
    T* target = detail::overwrite<T>(whole);
    for (std::int64_t o = 0; o < slabs.outer; ++o, target += slabs.size * slabs.inner)
      for (std::int64_t k = 0; k < n; ++k, source += slabs.inner) {
        T* row = target + i[k] * slabs.inner;
        if (i[k] != skip) add(slabs.inner, row, row, source, nullptr, nullptr);
      }
  });
}

/// A copy: the caller may change the index later.
Tensor own(const Tensor& index) {
  Tensor copy = empty(index.shape(), DType::i64);
  detail::copy_into(copy, index);
  return copy;
}

/// Those rows of a gradient [rows, width] whose index is not `skip`.
RowGrad rows_without(std::int64_t skip, const Tensor& index, const Tensor& g) {
  std::vector<std::int64_t> kept;
  const std::int64_t* row = detail::read<std::int64_t>(index);
  for (std::int64_t k = 0; k < index.numel(); ++k)
    if (row[k] != skip) kept.push_back(k);
  if (std::ssize(kept) == index.numel()) return {index, g};
  const Tensor positions = from_vector(kept);
  return {take_slices(index, 0, positions), take_slices(g, 0, positions)};
}

/// index_select without checks; slices at index `skip` get no gradient. With `sparse` (along
/// dimension 0) the gradient goes by rows where it can.
Tensor slices(const char* op, const Tensor& x, std::int64_t d, const Tensor& index,
              std::int64_t skip, bool sparse = false) {
  const auto rule = [=](Back& back) {
    const Tensor& of = back.in(1);
    if (sparse) {
      const std::int64_t n = of.numel(), width = back.grad.size(-1);
      const RowGrad g = rows_without(skip, reshape(of, {n}), reshape(back.grad, {n, width}));
      if (back.add_rows(0, g.rows, g.values)) return;
    }
    back.add_part(
        0, [&](const Tensor& whole, const Tensor& g) { put_slices(whole, d, of, g, skip); },
        [=](const Tensor& whole) {
          const Tensor part = slices(op, whole, d, of, skip);
          if (skip < 0) return part;
          Shape shape = of.shape();
          while (shape.size() < part.dim()) shape.push_back(1);
          return masked_fill(part, reshape(of == static_cast<double>(skip), shape), 0.0);
        });
  };
  return record(op, {x, index}, take_slices(x, d, index), Keep::input(1), rule);
}

}  // namespace

Tensor index_select(const Tensor& x, std::int64_t dim, const Tensor& index) {
  const std::int64_t d = wrap_dim("index_select", dim, x.shape());
  if (index.dim() != 1)
    fail<ShapeError>("index_select: the index has one dimension, got shape {}", index.shape());
  check_indices("index_select", index, x.shape()[d]);
  return slices("index_select", x, d, own(index), -1);
}

Tensor embedding(const Tensor& weight, const Tensor& indices, std::int64_t padding_idx,
                 bool sparse) {
  if (weight.dim() != 2)
    fail<ShapeError>("embedding: the table has two dimensions, got shape {}", weight.shape());
  check_indices("embedding", indices, weight.size(0));
  if (padding_idx < -1 || padding_idx >= weight.size(0))
    fail<IndexError>("embedding: padding_idx {} is out of range for {} rows", padding_idx,
                     weight.size(0));
  const Tensor rows = slices("embedding", weight, 0, own(indices), padding_idx, sparse);
  if (detail::Node* node = rows.impl().node.get()) {
    node->takes_rows = true;
    node->output_version = detail::version(rows);
  }
  return rows;
}

// --- Gradients by rows --------------------------------------------------------------------------

namespace detail {

void add_rows(const Tensor& whole, const RowGrad& grad) {
  put_slices(whole, 0, grad.rows, grad.values, -1);
}

namespace {

bool rising(const Tensor& rows) {
  const std::int64_t* row = read<std::int64_t>(rows);
  return std::adjacent_find(row, row + rows.numel(), std::greater_equal<>()) == row + rows.numel();
}

}  // namespace

RowGrad coalesce(const std::vector<RowGrad>& grads) {
  if (grads.size() == 1 && rising(grads[0].rows)) return {grads[0].rows, dense(grads[0].values)};

  // Every row with the number of its values among all, so that rows are summed in that order.
  std::vector<std::pair<std::int64_t, std::size_t>> order;
  std::vector<Tensor> values;
  std::vector<const char*> sources;
  Shape shape = grads[0].values.shape();
  const DType dtype = grads[0].values.dtype();
  shape[0] = 1;
  const std::int64_t width = shape.numel(), bytes = width * size_of(dtype);
  for (const RowGrad& grad : grads) {
    values.push_back(dense(grad.values));
    const std::int64_t* row = read<std::int64_t>(grad.rows);
    const char* source = static_cast<const char*>(read(values.back()));
    for (std::int64_t k = 0; k < grad.rows.numel(); ++k) {
      order.emplace_back(row[k], sources.size());
      sources.push_back(source + k * bytes);
    }
  }
  std::sort(order.begin(), order.end());
  std::vector<std::int64_t> rows;
  for (const auto& [row, k] : order)
    if (rows.empty() || rows.back() != row) rows.push_back(row);
  shape[0] = std::ssize(rows);
  RowGrad result{from_vector(rows), zeros(shape, dtype)};
  dispatch_floating(dtype, [&]<class T>(T) {
    const auto add =
        kernels::float_kernels<T>().elementwise[static_cast<std::size_t>(kernels::Op::add)];
    T* sums = overwrite<T>(result.values);
    std::size_t place = 0;
    for (const auto& [row, k] : order) {
      if (rows[place] != row) ++place;
      T* sum = sums + static_cast<std::int64_t>(place) * width;
      add(width, sum, sum, reinterpret_cast<const T*>(sources[k]), nullptr, nullptr);
    }
  });
  return result;
}

void check_rows(const char* name, const Tensor& leaf, const RowGrad& grad) {
  require_index(name, grad.rows);
  require_same_dtype(name, leaf, grad.values);
  Shape expected = leaf.shape();
  if (grad.rows.dim() == 1 && !expected.empty()) expected[0] = grad.rows.numel();
  if (grad.rows.dim() != 1 || leaf.dim() == 0 || grad.values.shape() != expected)
    fail<ShapeError>("{}: rows {} and values {} do not fit the tensor {}", name, grad.rows.shape(),
                     grad.values.shape(), leaf.shape());
  check_indices(name, grad.rows, leaf.size(0));
  if (!rising(dense(grad.rows))) fail<IndexError>("{}: the rows do not rise", name);
}

}  // namespace detail

namespace {

/// f(position in x, position in index) for every element of index, row-major; both contiguous.
template <class F>
void each_gathered(const Shape& x, const Tensor& index, std::int64_t d, F&& f) {
  const Shape strides = detail::contiguous_strides(x);
  const std::int64_t* chosen = detail::read<std::int64_t>(index);
  Shape at = index.shape();
  std::fill(at.begin(), at.end(), 0);
  for (std::int64_t n = 0; n < index.numel(); ++n) {
    std::int64_t offset = chosen[n] * strides[d];
    for (std::int64_t k = 0; k < at.size(); ++k)
      if (k != d) offset += at[k] * strides[k];
    f(offset, n);
    for (std::int64_t k = at.size() - 1; k >= 0 && ++at[k] == index.shape()[k]; --k) at[k] = 0;
  }
}

Tensor gathered(const Tensor& x, std::int64_t d, const Tensor& index) {
  Tensor value = empty(index.shape(), x.dtype());
  const Tensor from = detail::dense(x);
  detail::dispatch(x.dtype(), [&]<class T>(T) {
    const T* in = detail::read<T>(from);
    T* out = detail::overwrite<T>(value);
    each_gathered(x.shape(), index, d,
                  [&](std::int64_t source, std::int64_t n) { out[n] = in[source]; });
  });
  return record("gather", {x}, std::move(value), Keep::none, [d, index](Back& back) {
    back.add_part(
        0,
        [&](const Tensor& whole, const Tensor& grad) {
          const Tensor g = detail::dense(grad);
          detail::dispatch_floating(g.dtype(), [&]<class T>(T) {
            const T* in = detail::read<T>(g);
            T* out = detail::overwrite<T>(whole);
            each_gathered(whole.shape(), index, d,
                          [&](std::int64_t target, std::int64_t n) { out[target] += in[n]; });
          });
        },
        [d, index](const Tensor& whole) { return gathered(whole, d, index); });
  });
}

}  // namespace

Tensor gather(const Tensor& x, std::int64_t dim, const Tensor& index) {
  const std::int64_t d = wrap_dim("gather", dim, x.shape());
  bool fits = index.dim() == x.dim();
  for (std::int64_t k = 0; fits && k < x.dim(); ++k)
    fits = k == d || index.shape()[k] <= x.shape()[k];
  if (!fits)
    fail<ShapeError>(
        "gather: index {} does not fit {}: same rank, and no size but that of dimension "
        "{} larger",
        index.shape(), x.shape(), d);
  check_indices("gather", index, x.shape()[d]);
  return gathered(x, d, own(index));
}

Tensor one_hot(const Tensor& indices, std::int64_t classes, DType dtype) {
  if (classes < 0) fail<ValueError>("one_hot: classes must not be negative, got {}", classes);
  check_indices("one_hot", indices, classes);
  Shape shape = indices.shape();
  shape.push_back(classes);
  Tensor out = zeros(shape, dtype);
  const Tensor flat = detail::dense(indices);
  const std::int64_t* i = detail::read<std::int64_t>(flat);
  detail::dispatch(dtype, [&]<class T>(T) {
    T* row = detail::overwrite<T>(out);
    for (std::int64_t n = 0; n < flat.numel(); ++n, row += classes) row[i[n]] = T{1};
  });
  return out;
}

namespace {

Tensor triangle(const char* op, const Tensor& x, std::int64_t diagonal, bool lower) {
  if (x.dim() < 2)
    fail<ShapeError>("{}: needs two dimensions or more, got shape {}", op, x.shape());
  Tensor value = empty(x.shape(), x.dtype());
  detail::copy_into(value, x);
  const std::int64_t rows = x.size(-2), columns = x.size(-1);
  const std::int64_t k = std::clamp(diagonal, -rows, columns);  // further out nothing changes
  if (value.numel() > 0) {
    detail::dispatch(x.dtype(), [&]<class T>(T) {
      T* out = detail::overwrite<T>(value);
      for (std::int64_t r = 0; r < value.numel() / columns; ++r, out += columns) {
        // Column j of row i is kept while j - i <= k (lower) or >= k (upper).
        const std::int64_t edge =
            std::clamp<std::int64_t>(r % rows + k + (lower ? 1 : 0), 0, columns);
        if (lower)
          std::fill(out + edge, out + columns, T{0});
        else
          std::fill(out, out + edge, T{0});
      }
    });
  }
  return record(op, {x}, std::move(value), Keep::none,
                [=](Back& back) { back.add(0, triangle(op, back.grad, diagonal, lower)); });
}

}  // namespace

Tensor tril(const Tensor& x, std::int64_t diagonal) { return triangle("tril", x, diagonal, true); }
Tensor triu(const Tensor& x, std::int64_t diagonal) { return triangle("triu", x, diagonal, false); }

}  // namespace unroll
