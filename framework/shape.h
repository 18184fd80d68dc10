#pragma once
/// Shape: the sizes of a tensor's dimensions.

#include <cstdint>
#include <initializer_list>
#include <iosfwd>
#include <string>
#include <utility>
#include <vector>

namespace unroll {

/// A short list of integers: sizes, strides or dimension numbers. Up to four lie in the object
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
    std::int64_t* to = room_for(static_cast<std::int64_t>(count));
    for (std::size_t i = 0; i < count; ++i) to[i] = values[i];
    size_ = static_cast<std::int32_t>(count);
  }
  /// A copy.
  Shape(const Shape& other) : size_(other.size_), numbers_(other.numbers_) {
    if (other.on_heap()) copy_heap(other);
  }
  /// Takes over; `other` is empty then.
  Shape(Shape&& other) noexcept
      : size_(std::exchange(other.size_, 0)),
        capacity_(std::exchange(other.capacity_, kLocal)),
        numbers_(other.numbers_) {}
  /// Becomes a copy.
  Shape& operator=(const Shape& other) {
    if (on_heap() || other.on_heap()) return *this = Shape(other);
    size_ = other.size_;
    numbers_ = other.numbers_;
    return *this;
  }
  /// Takes over; `other` is empty then.
  Shape& operator=(Shape&& other) noexcept {
    std::swap(capacity_, other.capacity_);
    std::swap(numbers_, other.numbers_);
    size_ = std::exchange(other.size_, 0);
    return *this;
  }
  ~Shape() {
    if (on_heap()) delete[] numbers_.heap;
  }

  /// How many numbers: a tensor's rank.
  std::int64_t size() const { return size_; }
  /// Whether there is none: a scalar's shape.
  bool empty() const { return size_ == 0; }
  /// The numbers in a row.
  const std::int64_t* data() const { return on_heap() ? numbers_.heap : numbers_.local; }
  /// The numbers in a row, to write.
  std::int64_t* data() { return on_heap() ? numbers_.heap : numbers_.local; }
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
    room_for(size_ + 1)[size_] = value;
    ++size_;
  }
  /// Adds one before `position`.
  void insert(std::int64_t position, std::int64_t value);
  /// Takes one out.
  void erase(std::int64_t position) {
    if (on_heap()) {
      std::int64_t* x = numbers_.heap;
      for (std::int64_t i = position; i + 1 < size_; ++i) x[i] = x[i + 1];
    } else {  // as many moves for any position, and no branch
      std::int64_t* x = numbers_.local;
      for (std::int64_t i = 0; i + 1 < kLocal; ++i) x[i] = x[i + (i >= position)];
    }
    --size_;
  }
  /// New places hold 0.
  void resize(std::int64_t count) {
    std::int64_t* to = room_for(count);
    for (std::int64_t i = size_; i < count; ++i) to[i] = 0;
    size_ = static_cast<std::int32_t>(count);
  }

  /// The product of all sizes: how many elements; 1 for an empty shape (a scalar).
  std::int64_t numel() const {
    std::int64_t n = 1;
    const std::int64_t* const sizes = data();
    for (std::int32_t i = 0; i < size_; ++i) n *= sizes[i];
    return n;
  }

  /// Whether both have the same numbers.
  friend bool operator==(const Shape& a, const Shape& b) {
    if (a.size_ != b.size_) return false;
    const std::int64_t *x = a.data(), *y = b.data();
    for (std::int64_t i = 0; i < a.size_; ++i)
      if (x[i] != y[i]) return false;
    return true;
  }

 private:
  static constexpr std::int32_t kLocal = 4;
  bool on_heap() const { return capacity_ > kLocal; }

  /// The numbers, with room for so many. (To reach them by data() afterwards would make g++ warn of
  /// places behind the local ones.)
  std::int64_t* room_for(std::int64_t count) { return count > capacity_ ? grow(count) : data(); }
  std::int64_t* grow(std::int64_t count);
  /// The numbers of `other`, which has them on the heap, when all else has been copied.
  void copy_heap(const Shape& other);

  std::int32_t size_ = 0;
  std::int32_t capacity_ = kLocal;
  union {
    std::int64_t local[kLocal] = {};
    std::int64_t* heap;
  } numbers_;
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
