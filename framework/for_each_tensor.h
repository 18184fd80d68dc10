#pragma once
/// Values that are made of tensors: a Tensor; a struct that says what it holds,
///
///   struct MyState {
///     Tensor h, c;
///     auto fields() { return std::tie(h, c); }
///   };
///
/// or a std::pair, std::tuple, std::array or std::vector of such values.

#include <tuple>
#include <type_traits>

#include "framework/tensor.h"

namespace unroll {

/// Calls f(Tensor&) for each tensor of a value, in order.
template <class Value, class F>
void for_each_tensor(Value& value, F&& f) {
  if constexpr (std::is_same_v<Value, Tensor>) {
    f(value);
  } else if constexpr (requires { value.fields(); }) {
    auto fields = value.fields();
    for_each_tensor(fields, f);
  } else if constexpr (requires { std::tuple_size<Value>::value; }) {
    std::apply([&](auto&... part) { (for_each_tensor(part, f), ...); }, value);
  } else if constexpr (requires { value.begin() != value.end(); }) {
    for (auto& part : value) for_each_tensor(part, f);
  } else {
    static_assert(
        requires { value.fields(); },
        "a value of tensors is a Tensor, a struct with `auto fields() { return std::tie(a, b); }`, "
        "or a pair, tuple, array or vector of such values");
  }
}

}  // namespace unroll
