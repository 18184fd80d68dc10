#include "framework/shape.h"

#include <algorithm>
#include <ostream>

namespace unroll {

void Shape::insert(std::int64_t position, std::int64_t value) {
  std::int64_t* x = room_for(size_ + 1);
  std::copy_backward(x + position, x + size_, x + size_ + 1);
  x[position] = value;
  ++size_;
}

std::int64_t* Shape::grow(std::int64_t count) {
  auto* bigger = new std::int64_t[static_cast<std::size_t>(count)];
  std::copy_n(data(), size_, bigger);
  if (on_heap()) delete[] numbers_.heap;
  numbers_.heap = bigger;
  capacity_ = static_cast<std::int32_t>(count);
  return bigger;
}

void Shape::copy_heap(const Shape& other) {
  if (size_ > kLocal) {
    numbers_.heap = new std::int64_t[static_cast<std::size_t>(size_)];
    capacity_ = size_;
  }
  std::copy_n(other.numbers_.heap, size_, data());
}

std::string to_string(const Shape& shape) {
  std::string text = "(";
  for (std::int64_t i = 0; i < shape.size(); ++i) {
    if (i > 0) text += ", ";
    text += std::to_string(shape[i]);
  }
  return text + ")";
}

std::ostream& operator<<(std::ostream& out, const Shape& shape) { return out << to_string(shape); }

}  // namespace unroll
