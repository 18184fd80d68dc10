#pragma once
/// Operations on plain arrays, written index by index from their definitions: what the operations
/// on tensors are compared with. Dimensions are not negative here.

#include <cmath>
#include <cstdint>
#include <vector>

#include "tests/support.h"

namespace unroll::test::naive {

/// The shape that both are broadcast to.
inline Shape broadcast_shape(const Shape& a, const Shape& b) {
  Shape result;
  result.resize(std::max(a.size(), b.size()));
  for (std::int64_t d = 1; d <= result.size(); ++d) {
    const std::int64_t m = d <= a.size() ? a[a.size() - d] : 1;
    const std::int64_t n = d <= b.size() ? b[b.size() - d] : 1;
    result[result.size() - d] = m == 1 ? n : m;
  }
  return result;
}

inline Array broadcast_to(const Array& x, const Shape& shape) {
  return generate(shape, [&](const Shape& index) {
    Shape source = x.shape;
    for (std::int64_t d = 0; d < source.size(); ++d)
      source[d] = x.shape[d] == 1 ? 0 : index[shape.size() - source.size() + d];
    return x.at(source);
  });
}

template <class F>
Array map(F f, const Array& x) {
  return generate(x.shape, [&](const Shape& i) { return f(x.at(i)); });
}

template <class F>
Array map(F f, const Array& a, const Array& b) {
  const Shape shape = broadcast_shape(a.shape, b.shape);
  const Array x = broadcast_to(a, shape), y = broadcast_to(b, shape);
  return generate(shape, [&](const Shape& i) { return f(x.at(i), y.at(i)); });
}

// --- Reductions ---------------------------------------------------------------------------------

inline bool contains(const Shape& list, std::int64_t value) {
  for (std::int64_t v : list)
    if (v == value) return true;
  return false;
}

/// Calls f on the list of elements (in row-major order) that each element of the result is made
/// of. No axes: all.
template <class F>
Array reduce(F f, const Array& x, Shape axes, bool keepdim) {
  if (axes.empty())
    for (std::int64_t d = 0; d < x.shape.size(); ++d) axes.push_back(d);
  Shape kept, result_shape, inner;
  for (std::int64_t d = 0; d < x.shape.size(); ++d) {
    const bool reduced = contains(axes, d);
    kept.push_back(reduced ? 1 : x.shape[d]);
    inner.push_back(reduced ? x.shape[d] : 1);
    if (!reduced) result_shape.push_back(x.shape[d]);
  }
  Array result{keepdim ? kept : result_shape, {}};
  for_each_index(kept, [&](const Shape& outer_index) {
    std::vector<double> elements;
    for_each_index(inner, [&](const Shape& inner_index) {
      Shape index = outer_index;
      for (std::int64_t d = 0; d < index.size(); ++d) index[d] += inner_index[d];
      elements.push_back(x.at(index));
    });
    result.values.push_back(f(elements));
  });
  return result;
}

inline double sum(const std::vector<double>& x) {
  double s = 0.0;
  for (double v : x) s += v;
  return s;
}
inline double mean(const std::vector<double>& x) { return sum(x) / static_cast<double>(x.size()); }
inline double max(const std::vector<double>& x) {
  double m = x.at(0);
  for (double v : x) m = v > m ? v : m;
  return m;
}
inline double min(const std::vector<double>& x) {
  double m = x.at(0);
  for (double v : x) m = v < m ? v : m;
  return m;
}
inline double argmax(const std::vector<double>& x) {
  std::size_t best = 0;
  for (std::size_t i = 1; i < x.size(); ++i)
    if (x[i] > x[best]) best = i;
  return static_cast<double>(best);
}
inline double logsumexp(const std::vector<double>& x) {
  double s = 0.0;
  for (double v : x) s += std::exp(v);
  return std::log(s);
}

inline Array sum(const Array& x, const Shape& axes, bool keepdim) {
  return reduce([](const auto& v) { return sum(v); }, x, axes, keepdim);
}

inline Array cumsum(const Array& x, std::int64_t dim) {
  Array result = x;
  for_each_index(x.shape, [&](const Shape& index) {
    if (index[dim] == 0) return;
    Shape before = index;
    --before[dim];
    result.at(index) += result.at(before);
  });
  return result;
}

/// f(element, sum over dim of exp(element)).
template <class F>
Array normalise(F f, const Array& x, std::int64_t dim) {
  const Array total = reduce(
      [](const auto& v) {
        double s = 0.0;
        for (double e : v) s += std::exp(e);
        return s;
      },
      x, {dim}, true);
  return map(f, x, total);
}

// --- Shape --------------------------------------------------------------------------------------

inline Array reshape(const Array& x, const Shape& shape) { return {shape, x.values}; }

inline Array permute(const Array& x, const Shape& order) {
  Shape shape;
  for (std::int64_t d : order) shape.push_back(x.shape[d]);
  return generate(shape, [&](const Shape& index) {
    Shape source = index;
    for (std::int64_t d = 0; d < order.size(); ++d) source[order[d]] = index[d];
    return x.at(source);
  });
}

inline Array transpose(const Array& x, std::int64_t dim0, std::int64_t dim1) {
  Shape shape = x.shape;
  std::swap(shape[dim0], shape[dim1]);
  return generate(shape, [&](Shape index) {
    std::swap(index[dim0], index[dim1]);
    return x.at(index);
  });
}

inline Array flip(const Array& x, const Shape& dims) {
  return generate(x.shape, [&](Shape index) {
    for (std::int64_t d : dims) index[d] = x.shape[d] - 1 - index[d];
    return x.at(index);
  });
}

inline Array concatenate(const std::vector<Array>& arrays, std::int64_t dim) {
  Shape shape = arrays.at(0).shape;
  shape[dim] = 0;
  for (const Array& a : arrays) shape[dim] += a.shape[dim];
  return generate(shape, [&](Shape index) {
    std::size_t i = 0;
    for (; index[dim] >= arrays.at(i).shape[dim]; ++i) index[dim] -= arrays[i].shape[dim];
    return arrays[i].at(index);
  });
}

inline Array stack(const std::vector<Array>& arrays, std::int64_t dim) {
  Shape shape = arrays.at(0).shape;
  shape.insert(dim, static_cast<std::int64_t>(arrays.size()));
  return generate(shape, [&](Shape index) {
    const auto i = static_cast<std::size_t>(index[dim]);
    index.erase(dim);
    return arrays[i].at(index);
  });
}

// --- Indexing -----------------------------------------------------------------------------------

inline Array index_select(const Array& x, std::int64_t dim, const std::vector<std::int64_t>& list) {
  Shape shape = x.shape;
  shape[dim] = static_cast<std::int64_t>(list.size());
  return generate(shape, [&](Shape index) {
    index[dim] = list[static_cast<std::size_t>(index[dim])];
    return x.at(index);
  });
}

inline Array slice(const Array& x, std::int64_t dim, std::int64_t start, std::int64_t end,
                   std::int64_t step) {
  std::vector<std::int64_t> list;
  for (std::int64_t i = start; i < end; i += step) list.push_back(i);
  return index_select(x, dim, list);
}

inline Array select(const Array& x, std::int64_t dim, std::int64_t position) {
  Shape shape = x.shape;
  shape.erase(dim);
  return generate(shape, [&](Shape index) {
    index.insert(dim, position);
    return x.at(index);
  });
}

inline Array gather(const Array& x, std::int64_t dim, const Array& positions) {
  return generate(positions.shape, [&](Shape index) {
    index[dim] = static_cast<std::int64_t>(positions.at(index));
    return x.at(index);
  });
}

/// Keeps the elements of the last two dimensions for which keep(row, column).
template <class F>
Array band(F keep, const Array& x) {
  return generate(x.shape, [&](const Shape& index) {
    const std::int64_t n = index.size();
    return keep(index[n - 2], index[n - 1]) ? x.at(index) : 0.0;
  });
}

// --- Matrix product -----------------------------------------------------------------------------

inline Array matmul(Array a, Array b) {
  const bool row = a.shape.size() == 1, column = b.shape.size() == 1;
  if (row) a.shape.insert(0, 1);
  if (column) b.shape.insert(1, 1);
  const std::int64_t m = a.shape[a.shape.size() - 2], k = a.shape.back(), n = b.shape.back();
  const auto leading = [](const Shape& s) {
    return Shape(s.data(), static_cast<std::size_t>(s.size() - 2));
  };
  const Shape batch = broadcast_shape(leading(a.shape), leading(b.shape));
  const auto matrices = [&](const Array& x) {
    Shape shape = batch;
    shape.push_back(x.shape[x.shape.size() - 2]);
    shape.push_back(x.shape.back());
    return broadcast_to(x, shape);
  };
  const Array x = matrices(a), y = matrices(b);
  Shape shape = batch;
  shape.push_back(m);
  shape.push_back(n);
  Array result = generate(shape, [&](const Shape& index) {
    double s = 0.0;
    Shape left = index, right = index;
    for (std::int64_t i = 0; i < k; ++i) {
      left[left.size() - 1] = i;
      right[right.size() - 2] = i;
      s += x.at(left) * y.at(right);
    }
    return s;
  });
  if (column) result.shape.erase(result.shape.size() - 1);
  if (row) result.shape.erase(batch.size());
  return result;
}

}  // namespace unroll::test::naive
