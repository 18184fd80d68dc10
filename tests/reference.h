#pragma once
/// Reads the numbers that tests/reference/make_reference.py made with PyTorch.

#include <doctest/doctest.h>

#include <cstdint>
#include <fstream>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "framework/tensor.h"

namespace unroll {

inline nlohmann::json read_reference(const std::string& name) {
  std::ifstream file(UNROLL_SOURCE_DIR "/tests/reference/" + name);
  REQUIRE(file.good());
  return nlohmann::json::parse(file);
}

/// {"shape": [...], "data": [...]}
inline Tensor read_tensor(const nlohmann::json& json, DType dtype) {
  return from_vector(json["data"].get<std::vector<double>>(),
                     Shape(json["shape"].get<std::vector<std::int64_t>>()))
      .to(dtype);
}

/// [...], in the shape of `like`.
inline Tensor read_numbers(const nlohmann::json& json, const Tensor& like) {
  return from_vector(json.get<std::vector<double>>(), like.shape());
}

/// The script's class Draw: the numbers that both sides compute with.
class Draw {
 public:
  explicit Draw(std::uint64_t seed) : state_(seed) {}
  Tensor operator()(const Shape& shape, DType dtype) {
    std::vector<double> values(static_cast<std::size_t>(shape.numel()));
    for (double& value : values) {
      state_ = (state_ * 1103515245 + 12345) % (std::uint64_t{1} << 31);
      value = (static_cast<double>((state_ >> 16) % 1001) - 500.0) / 1024.0;
    }
    return from_vector(values, shape).to(dtype);
  }

 private:
  std::uint64_t state_;
};

}  // namespace unroll
