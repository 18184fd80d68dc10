#pragma once
/// The tape behind a tensor as a list, for those who print it. Not for users.

#include <cstdint>
#include <string>
#include <vector>

#include "framework/inspect.h"
#include "framework/internal.h"

namespace unroll::detail {

struct TapeView {
  struct Input {
    int number;  ///< of an entry, or -1: not on the tape
    Shape shape{};
    bool known = false;  ///< the shape of one that is not on the tape
    std::vector<double> values{};
  };
  struct Entry {
    const Node* node;
    std::string name{};  ///< of a leaf that has one
    std::vector<Input> inputs{};
    Place place{};
    std::vector<double> values{};  ///< none if they are many, or not known
    double grad_norm = -1.0;       ///< -1: not known

    /// A leaf's name, or "leaf"; what an operation is called.
    std::string label() const { return name.empty() ? node->op : name; }
  };
  /// Inputs before what is made of them, otherwise in the order in which it was done, if an Inspect
  /// saw it. An entry's number is its position.
  std::vector<Entry> entries;

  /// Throws GraphError that begins with `where` if y is not on the tape.
  TapeView(const char* where, const Tensor& y);
};

/// "0.5", or "[[1, 2], [3, 4]]".
std::string numbers(const std::vector<double>& values, const Shape& shape);
/// The elements of x, converted.
std::vector<double> all_values(const Tensor& x);
/// The same, or none if they are many.
std::vector<double> few_values(const Tensor& x);
/// The Euclidean norm of all elements.
double norm_of(const Tensor& x);

/// A table with columns as wide as they must be; `right` says which are aligned so. Rows end
/// without spaces. Columns in which all rows are empty are left out.
std::string table(const std::vector<std::string>& head,
                  const std::vector<std::vector<std::string>>& rows,
                  const std::vector<bool>& right);

}  // namespace unroll::detail
