#include "framework/repeated_rows.h"

#include <algorithm>
#include <vector>

#include "framework/autograd.h"
#include "framework/internal.h"
#include "framework/kernels/parallel.h"
#include "framework/ops.h"

namespace unroll::detail {

std::optional<RepeatedRows> RepeatedRows::find(const Tensor& x) {
  const Node* node = x.impl().node.get();
  if (!node || !node->takes_rows || node->released || version(x) != node->output_version)
    return std::nullopt;
  const Tensor& index = const_cast<Node*>(node)->saved()[1].tensor;
  const std::int64_t table_rows = node->input(0)->shape[0], rows = index.numel();
  if (2 * table_rows > rows) return std::nullopt;

  RepeatedRows made;
  made.number_ = empty({rows}, DType::i64);
  const std::int64_t* of_table = read<std::int64_t>(index);
  std::int64_t* number = overwrite<std::int64_t>(made.number_);
  std::vector<std::int64_t> number_of(static_cast<std::size_t>(table_rows), -1), first;
  for (std::int64_t row = 0; row < rows; ++row) {
    std::int64_t& known = number_of[static_cast<std::size_t>(of_table[row])];
    if (known < 0) {
      known = std::ssize(first);
      first.push_back(row);
    }
    number[row] = known;
  }
  made.first_ = from_vector(first);

  const NoGrad no_grad;
  const std::int64_t width = x.size(-1);
  made.distinct_ = index_select(reshape(x.detach(), {rows, width}), 0, made.first_);
  return made;
}

template <class T>
void RepeatedRows::take(const T* from, std::int64_t width, std::int64_t row, std::int64_t rows,
                        T* to) const {
  const std::int64_t* number = read<std::int64_t>(number_) + row;
  for (std::int64_t i = 0; i < rows; ++i)
    std::copy_n(from + number[i] * width, width, to + i * width);
}
template void RepeatedRows::take(const float*, std::int64_t, std::int64_t, std::int64_t,
                                 float*) const;
template void RepeatedRows::take(const double*, std::int64_t, std::int64_t, std::int64_t,
                                 double*) const;

void RepeatedRows::add_to(const Tensor& sums, const Tensor& g, std::int64_t row) const {
  constexpr std::int64_t kElements = 1 << 14;  // that a thread should have to add
  const std::int64_t width = sums.size(-1), rows = g.numel() / width;
  const std::int64_t* number = read<std::int64_t>(number_) + row;
  dispatch_floating(sums.dtype(), [&]<class T>(T) {
    const auto add =
        kernels::float_kernels<T>().elementwise[static_cast<std::size_t>(kernels::Op::add)];
    const T* from = read<T>(g);
    T* const to = overwrite<T>(sums);
    kernels::parallel_for(
        0, width, kElements / rows + 64,
        [&](std::int64_t column, std::int64_t last) {
          for (std::int64_t i = 0; i < rows; ++i) {
            T* sum = to + number[i] * width + column;
            add(last - column, sum, sum, from + i * width + column, nullptr, nullptr);
          }
        },
        rows * width >= 8 * kElements);
  });
}

void RepeatedRows::put_sums(const Tensor& sums, const Tensor& dx) const {
  const std::int64_t width = dx.size(-1);
  const std::int64_t* first = read<std::int64_t>(first_);
  dispatch_floating(dx.dtype(), [&]<class T>(T) {
    T* const to = overwrite<T>(dx);
    std::fill_n(to, dx.numel(), T(0));
    for (std::int64_t i = 0; i < size(); ++i)
      std::copy_n(read<T>(sums) + i * width, width, to + first[i] * width);
  });
}

}  // namespace unroll::detail
