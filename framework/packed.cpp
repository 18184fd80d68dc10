/// Weights are multiplied in every time step: they are packed once per version.

#include <atomic>
#include <mutex>

#include "framework/internal.h"

namespace unroll::detail {

/// One matrix seen in a storage; its packed copy follows once it is seen a second time, or at once
/// if it is a weight. A storage has a list of them, since a weight is multiplied as it is and, in
/// the backward, transposed.
struct Packed {
  std::int64_t offset, rows, columns, row_stride, column_stride;
  Packed* next;
  std::atomic<void*> panels;
  std::int64_t bytes;

  bool is(const TensorImpl& b, bool transposed) const {
    return offset == b.offset && rows == b.shape[transposed] && columns == b.shape[!transposed] &&
           row_stride == b.strides[transposed] && column_stride == b.strides[!transposed];
  }
};

namespace {

/// Matrices of one storage that are remembered: those of a weight in its pieces and transposes.
/// More are windows on something else, such as time steps, which would only lengthen the search.
constexpr int kMost = 16;

int length(const Packed* list) {
  int n = 0;
  for (; list; list = list->next) ++n;
  return n;
}

std::atomic_ref<Packed*> list_of(Storage& storage) { return std::atomic_ref(storage.packed); }

Packed* find(Packed* list, const TensorImpl& b, bool transposed) {
  while (list && !list->is(b, transposed)) list = list->next;
  return list;
}

}  // namespace

const Node* weight_of(const TensorImpl& x) {
  const Node* node = x.node.get();
  while (node && node->is_view) node = node->input(0);
  return node && node->leaf ? node : nullptr;
}

template <class T>
const T* packed(const Tensor& b, bool transposed) {
  TensorImpl& impl = b.impl();
  Packed* entry = find(list_of(*impl.storage).load(std::memory_order_acquire), impl, transposed);
  if (entry)
    if (void* panels = entry->panels.load(std::memory_order_acquire))
      return static_cast<T*>(panels);

  // Threads that share a model for reading may come here together.
  static std::mutex mutex;
  const std::lock_guard lock(mutex);
  Packed* list = list_of(*impl.storage).load(std::memory_order_relaxed);
  entry = find(list, impl, transposed);
  if (!entry) {
    if (length(list) >= kMost) return nullptr;
    entry = new (pool_allocate(sizeof(Packed))) Packed{impl.offset,
                                                       impl.shape[transposed],
                                                       impl.shape[!transposed],
                                                       impl.strides[transposed],
                                                       impl.strides[!transposed],
                                                       list,
                                                       nullptr,
                                                       0};
    list_of(*impl.storage).store(entry, std::memory_order_release);
    // A weight will be multiplied again; and a product with packed panels may differ in the last
    // bits from one without, so that training would depend on who multiplied first after a
    // checkpoint was loaded.
    if (!weight_of(impl)) return nullptr;
  }
  void* panels = entry->panels.load(std::memory_order_relaxed);
  if (!panels) {
    entry->bytes = kernels::float_kernels<T>().packed_size(entry->rows, entry->columns) *
                   static_cast<std::int64_t>(sizeof(T));
    panels = pool_allocate(static_cast<std::size_t>(entry->bytes));
    kernels::pack<T>(entry->rows, entry->columns,
                     {read<T>(b), entry->row_stride, entry->column_stride},
                     static_cast<T*>(panels));
    entry->panels.store(panels, std::memory_order_release);
  }
  return static_cast<T*>(panels);
}
template const float* packed<float>(const Tensor&, bool);
template const double* packed<double>(const Tensor&, bool);

void drop_packed(Storage& storage) noexcept {
  for (Packed* entry = storage.packed; entry;) {
    Packed* next = entry->next;
    if (void* panels = entry->panels.load(std::memory_order_relaxed))
      pool_release(panels, static_cast<std::size_t>(entry->bytes));
    pool_release(entry, sizeof(Packed));
    entry = next;
  }
  storage.packed = nullptr;
}

}  // namespace unroll::detail
