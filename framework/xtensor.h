#pragma once
/// The bridge to xtensor: see a tensor as an xt:: expression, make one from an xt:: expression.
/// Opt-in: nothing else of unroll includes it; link unroll::xtensor.
///
/// The forward of an operation can so be one xtensor expression:
///
///   Tensor cube(const Tensor& x) {
///     return record("cube", {x}, from_xtensor(xt::cube(view<double>(x))), Keep::inputs,
///                   [](Back& b) { b.add(0, 3.0 * square(b.in(0)) * b.grad); });
///   }
///
/// Reduce with xt::evaluation_strategy::immediate where the result is broadcast: xtensor computes
/// a lazy reduction anew for each element that reads it, and with xt::keep_dims it reads past the
/// end (seen in 0.24.3 and 0.27.1).

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <type_traits>
#include <utility>

#if __has_include(<xtensor/containers/xarray.hpp>)  // from xtensor 0.26 on
#include <xtensor/containers/xadapt.hpp>
#include <xtensor/containers/xarray.hpp>
#include <xtensor/core/xmath.hpp>
#include <xtensor/core/xnoalias.hpp>
#else
#include <xtensor/xadapt.hpp>
#include <xtensor/xarray.hpp>
#include <xtensor/xmath.hpp>
#include <xtensor/xnoalias.hpp>

// What is evaluated by xtensor (xt::eval, immediate reductions) takes this type from its shape.
// Before 0.26 GCC finds an array of rank 4 here in C++20, and the program crashes.
namespace xt::detail {
template <>
struct xtype_for_shape<dynamic_shape<std::size_t>> {
  template <class T, layout_type L>
  using type = xarray<T, L>;
};
}  // namespace xt::detail
#endif

#include "framework/tensor.h"

namespace unroll {

namespace detail {

/// An xt:: array of that shape on `data`. It keeps `owner`, and so does every expression that it is
/// moved or copied into.
template <class T>
auto adapt(T* data, const Shape& sizes, std::shared_ptr<const void> owner = nullptr) {
  xt::dynamic_shape<std::size_t> shape;
  for (std::int64_t size : sizes) shape.push_back(static_cast<std::size_t>(size));
  return xt::adapt_smart_ptr<xt::layout_type::row_major>(std::move(data), shape, std::move(owner));
}

template <class E>
Shape shape_of(const E& expression) {
  Shape shape;
  for (auto size : expression.shape()) shape.push_back(static_cast<std::int64_t>(size));
  return shape;
}

}  // namespace detail

/// The elements of a contiguous tensor as a read-only xt:: array, without a copy. It keeps the
/// memory alive, also from within an expression that it was made part of as a temporary. T is the
/// tensor's element type (DTypeError). Throws ShapeError if the tensor is not contiguous: view
/// x.contiguous() then.
template <class T>
auto view(const Tensor& tensor) {
  return detail::adapt(tensor.data<T>(), tensor.shape(), std::make_shared<Tensor>(tensor));
}

/// What mutable_view gives: the elements of a tensor, to write as long as this lives.
///
///   auto w = mutable_view<float>(weight);
///   w = xt::exp(view<float>(x)) - 1.f;
///   (*w)(0, 2) = 3.f;
template <class T>
class MutableView {
 public:
  /// Begins a write, as Tensor::write does.
  explicit MutableView(Tensor tensor)
      : write_(tensor.write<T>()), array_(detail::adapt(write_.data(), tensor.shape())) {}

  /// Writes the values of an xt:: expression, broadcast to the tensor's shape. The expression may
  /// read the tensor itself. Throws ShapeError before anything is written.
  template <class E>
  MutableView& operator=(const xt::xexpression<E>& expression) {
    try {
      const xt::xarray<T> values = xt::broadcast(expression.derived_cast(), array_.shape());
      std::copy(values.begin(), values.end(), write_.begin());
    } catch (const xt::broadcast_error& error) {
      throw ShapeError(std::string("mutable_view: ") + error.what());
    }
    return *this;
  }
  /// Sets all elements.
  MutableView& operator=(T value) {
    array_.fill(value);
    return *this;
  }

  /// The elements as an xt:: array; it must not outlive this object.
  auto& operator*() { return array_; }

 private:
  WriteView<T> write_;
  decltype(detail::adapt(std::declval<T*>(), Shape())) array_;
};

/// The elements of a contiguous tensor to write to by means of xtensor, without a copy. The write
/// ends, and counts as one, when the view goes out of scope. Throws as Tensor::write does.
template <class T>
MutableView<T> mutable_view(Tensor tensor) {
  return MutableView<T>(std::move(tensor));
}

/// A tensor with the values of an xt:: expression. float, double and int64_t stay what they are;
/// bool and other integers become i64 (ValueError for one that i64 does not hold). Throws
/// ShapeError if the parts of the expression can't be broadcast.
template <class E>
Tensor from_xtensor(const xt::xexpression<E>& expression) {
  using Element = std::decay_t<typename E::value_type>;
  static_assert(std::is_same_v<Element, float> || std::is_same_v<Element, double> ||
                    std::is_integral_v<Element>,
                "from_xtensor: elements must be float, double, bool or integers: use xt::cast");
  using T = std::conditional_t<std::is_integral_v<Element>, std::int64_t, Element>;
  try {
    const E& e = expression.derived_cast();
    Tensor result = empty(detail::shape_of(e), dtype_of<T>());
    auto out = mutable_view<T>(result);
    if constexpr (std::is_same_v<Element, T>) {
      xt::noalias(*out) = e;
    } else {
      xt::noalias(*out) = xt::cast<T>(e);
    }
    if constexpr (std::is_unsigned_v<Element> && sizeof(Element) == sizeof(T)) {
      for (T value : *out) {
        if (value >= 0) continue;
        throw ValueError("from_xtensor: " + std::to_string(static_cast<Element>(value)) +
                         " is above the largest i64");
      }
    }
    return result;
  } catch (const xt::broadcast_error& error) {
    throw ShapeError(std::string("from_xtensor: ") + error.what());
  }
}

}  // namespace unroll
