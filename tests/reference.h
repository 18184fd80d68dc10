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

}  // namespace unroll
