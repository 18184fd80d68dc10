#pragma once
/// What makes `for (auto& [x, y] : batches)` work for every kind of batches.

#include <cstdint>

namespace unroll {

/// Goes over batches[0] .. batches[batches.size() - 1] and makes each when it gets there.
template <class Batches>
class BatchIterator {
 public:
  /// Stands at batch `index`.
  BatchIterator(const Batches& batches, std::int64_t index) : batches_(&batches), index_(index) {
    make();
  }
  /// The batch.
  const typename Batches::Batch& operator*() const { return batch_; }
  /// Goes on to the next batch, and makes it.
  BatchIterator& operator++() {
    ++index_;
    make();
    return *this;
  }
  /// Whether both stand at the same batch.
  bool operator==(const BatchIterator& other) const { return index_ == other.index_; }

 private:
  void make() {
    if (index_ < batches_->size()) batch_ = (*batches_)[index_];
  }

  const Batches* batches_;
  std::int64_t index_;
  typename Batches::Batch batch_;
};

}  // namespace unroll
