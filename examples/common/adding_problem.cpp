#include "examples/common/adding_problem.h"

#include "framework/ops.h"

namespace examples {

Batch adding_problem(std::int64_t steps, std::int64_t batch_size, unroll::Generator& generator) {
  using namespace unroll;
  const Tensor numbers = uniform({steps, batch_size}, 0.0, 1.0, DType::f32, generator);
  const Tensor first = randint(0, steps / 2, {batch_size}, generator);
  const Tensor second = randint(steps / 2, steps, {batch_size}, generator);
  const Tensor marks = transpose(one_hot(first, steps) + one_hot(second, steps));
  return {stack({numbers, marks}, 2), unsqueeze(sum(numbers * marks, {0}), 1)};
}

}  // namespace examples
