#pragma once
/// Shape: the sizes of a tensor's dimensions.

#include <array>
#include <cstdint>
#include <initializer_list>
#include <iosfwd>
#include <string>
#include <utility>
#include <vector>

namespace unroll {

/// A short list of integers: sizes, strides or dimension numbers. Up to six lie in the object
/// itself; more go to the heap, so any rank works.
class Shape {
 public:
  Shape() = default;
  /// The numbers of a list.
  Shape(std::initializer_list<std::int64_t> values) : Shape(values.begin(), values.size()) {}
  /// The numbers of a vector.
  Shape(const std::vector<std::int64_t>& values) : Shape(values.data(), values.size()) {}
  /// `count` numbers from an array.
  Shape(const std::int64_t* values, std::size_t count) {
    resize(static_cast<std::int64_t>(count));
    for (std::size_t i = 0; i < count; ++i) data()[i] = values[i];
  }
  /// A copy.
  Shape(const Shape& other) : size_(other.size_), local_(other.local_) {  // all of it: no branch
    if (other.heap_) copy_heap(other);
  }
  /// Takes over; `other` is empty then.
  Shape(Shape&& other) noexcept
      : heap_(std::exchange(other.heap_, nullptr)),
        size_(std::exchange(other.size_, 0)),
        capacity_(std::exchange(other.capacity_, kLocal)),
        local_(other.local_) {}
  /// Becomes a copy.
  Shape& operator=(const Shape& other) {
    if (heap_ || other.heap_) return *this = Shape(other);
    size_ = other.size_;
    local_ = other.local_;
    return *this;
  }
  /// Takes over; `other` is empty then.
  Shape& operator=(Shape&& other) noexcept {
    std::swap(heap_, other.heap_);
    std::swap(capacity_, other.capacity_);
    size_ = std::exchange(other.size_, 0);
    local_ = other.local_;
    return *this;
  }
  ~Shape() { delete[] heap_; }

  /// How many numbers: a tensor's rank.
  std::int64_t size() const { return size_; }
  /// Whether there is none: a scalar's shape.
  bool empty() const { return size_ == 0; }
  /// The numbers in a row.
  const std::int64_t* data() const { return heap_ ? heap_ : local_.data(); }
  /// The numbers in a row, to write.
  std::int64_t* data() { return heap_ ? heap_ : local_.data(); }
  /// The first one.
  const std::int64_t* begin() const { return data(); }
  /// Behind the last one.
  const std::int64_t* end() const { return data() + size_; }
  /// The first one, to write.
  std::int64_t* begin() { return data(); }
  /// Behind the last one, to write.
  std::int64_t* end() { return data() + size_; }
  /// Number i, from 0 on; not checked.
  std::int64_t operator[](std::int64_t i) const { return data()[i]; }
  /// Number i, to write; not checked.
  std::int64_t& operator[](std::int64_t i) { return data()[i]; }
  /// The last one; there must be one.
  std::int64_t back() const { return data()[size_ - 1]; }

  /// Adds one at the end.
  void push_back(std::int64_t value) {
    resize(size_ + 1);
    data()[size_ - 1] = value;
  }
  /// Adds one before `position`.
  void insert(std::int64_t position, std::int64_t value) {
    resize(size_ + 1);
    for (std::int64_t i = size_ - 1; i > position; --i) data()[i] = data()[i - 1];
    data()[position] = value;
  }
  /// Takes one out.
  void erase(std::int64_t position) {
    if (heap_) {
      for (std::int64_t i = position; i + 1 < size_; ++i) heap_[i] = heap_[i + 1];
    } else {  // as many moves for any position, and no branch
      for (std::int64_t i = 0; i + 1 < kLocal; ++i) local_[at(i)] = local_[at(i + (i >= position))];
    }
    --size_;
  }
  /// New places hold 0.
  void resize(std::int64_t count) {
    if (count > capacity_) grow(count);
    for (std::int64_t i = size_; i < count; ++i) data()[i] = 0;
    size_ = static_cast<std::int32_t>(count);
  }

  /// The product of all sizes: how many elements; 1 for an empty shape (a scalar).
  std::int64_t numel() const {
    std::int64_t n = 1;
    for (std::int64_t s : *this) n *= s;
    return n;
  }

  /// Whether both have the same numbers.
  friend bool operator==(const Shape& a, const Shape& b) {
    if (a.size_ != b.size_) return false;
    for (std::int64_t i = 0; i < a.size_; ++i)
      if (a[i] != b[i]) return false;
    return true;
  }

 private:
  static constexpr std::int32_t kLocal = 6;
  static std::size_t at(std::int64_t i) { return static_cast<std::size_t>(i); }

  void grow(std::int64_t count) {
    auto* bigger = new std::int64_t[static_cast<std::size_t>(count)];
    for (std::int64_t i = 0; i < size_; ++i) bigger[i] = data()[i];
    delete[] heap_;
    heap_ = bigger;
    capacity_ = static_cast<std::int32_t>(count);
  }
  void copy_heap(const Shape& other) {
    heap_ = new std::int64_t[static_cast<std::size_t>(size_)];
    capacity_ = size_;
    for (std::int64_t i = 0; i < size_; ++i) heap_[i] = other.heap_[i];
  }

  std::int64_t* heap_ = nullptr;
  std::int32_t size_ = 0;
  std::int32_t capacity_ = kLocal;
  std::array<std::int64_t, kLocal> local_ = {};
};

/// "(2, 3)"; "()" for a scalar.
std::string to_string(const Shape& shape);
/// Writes to_string(shape).
std::ostream& operator<<(std::ostream& out, const Shape& shape);

/// Dimensions that a reduction runs over: none named means all. Negative ones count from the end.
class Axes {
 public:
  Axes() = default;
  /// One dimension.
  Axes(std::int64_t axis) : list_{axis} {}
  /// One dimension.
  Axes(int axis) : list_{axis} {}
  /// Several dimensions.
  Axes(std::initializer_list<std::int64_t> axes) : list_(axes) {}
  /// Several dimensions.
  Axes(const Shape& axes) : list_(axes) {}
  /// As they were given; empty: all.
  const Shape& list() const { return list_; }

 private:
  Shape list_;
};

}  // namespace unroll
