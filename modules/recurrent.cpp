#include "modules/recurrent.h"

#include <algorithm>

#include "framework/internal.h"

namespace unroll::detail {

void check_sequence(const Tensor& xs, std::int64_t rank) {
  if (xs.dim() < rank)
    fail<ShapeError>("scan: xs must be {}, but is {}", rank == 1 ? "[T, ...]" : "[T, B, ...]",
                     xs.shape());
  if (xs.size(0) == 0) fail<ShapeError>("scan: the sequence is empty: xs is {}", xs.shape());
}

std::int64_t steps_at_once(const Tensor& xs) {
  constexpr std::int64_t kRows = 256;
  const std::int64_t steps = xs.size(0);
  const std::int64_t batch = xs.dim() > 2 ? std::max<std::int64_t>(xs.size(1), 1) : 1;
  return steps * batch <= 2 * kRows ? steps : std::max<std::int64_t>(kRows / batch, 1);
}

void check_input(const Module& module, const Tensor& x, std::int64_t rank,
                 std::int64_t input_size) {
  if (x.dim() != rank || x.size(-1) != input_size)
    fail<ShapeError>("{}: {} input_size = {}], but is {}", type_name(typeid(module)),
                     rank == 3 ? "xs must be [T, B," : "step: x must be [B,", input_size,
                     x.shape());
}

void check_state_count(const Module& module, std::size_t given, std::size_t wanted) {
  if (given != 0 && given != wanted)
    fail<ValueError>("{}: the state must be of {} layer{}, but is of {}", type_name(typeid(module)),
                     wanted, wanted == 1 ? "" : "s", given);
}

}  // namespace unroll::detail
