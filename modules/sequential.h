#pragma once
/// Sequential: one thing after the other.

#include <functional>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "modules/module.h"

namespace unroll {

/// Modules and functions from Tensor to Tensor in a row, with their positions as names, as in
/// PyTorch:
///
///   Sequential net(Linear(3, 8), relu, Linear(8, 2));     // 0.weight, 0.bias, 2.weight, 2.bias
struct Sequential : Module {
  /// The layers, in the order in which they run.
  template <class... Layers>
  explicit Sequential(Layers... layers) {
    static_assert((std::is_invocable_r_v<Tensor, const Layers&, const Tensor&> && ...),
                  "a layer is called with a Tensor, and returns one");
    layers_.reserve(sizeof...(layers));
    (add(std::move(layers)), ...);
  }

  /// All layers, one after the other.
  Tensor operator()(const Tensor& x) const {
    const Scope here = scope();
    Tensor y = x;
    for (const auto& layer : layers_) y = layer(y);
    return y;
  }

 private:
  template <class Layer>
  void add(Layer layer) {
    if constexpr (std::is_base_of_v<Module, Layer>) child(std::to_string(layers_.size()), layer);
    layers_.emplace_back(std::move(layer));
  }

  std::vector<std::function<Tensor(const Tensor&)>> layers_;
};

}  // namespace unroll
