#pragma once
/// What the optimizers' own .cpp files share. Not for users.

#include <cstdint>
#include <vector>

#include "framework/internal.h"
#include "framework/kernels/parallel.h"

namespace unroll::detail {

/// Throws ValueError unless number >= 0.
inline void require_not_negative(const char* optimizer, const char* option, double number) {
  if (!(number >= 0.0))
    fail<ValueError>("{}: {} must not be negative, but is {}", optimizer, option, number);
}
/// Throws ValueError unless 0 <= number < 1.
inline void require_below_one(const char* optimizer, const char* option, double number) {
  if (!(number >= 0.0 && number < 1.0))
    fail<ValueError>("{}: {} must be in [0, 1), but is {}", optimizer, option, number);
}

/// Throws ValueError when there are no parameters, and for one that is undefined or not
/// floating-point.
inline void require_floating(const char* what, const std::vector<Tensor>& parameters) {
  if (parameters.empty()) fail<ValueError>("{}: there are no parameters", what);
  for (std::size_t i = 0; i < parameters.size(); ++i) {
    if (!parameters[i].defined()) fail<ValueError>("{}: parameter {} is undefined", what, i);
    if (!is_floating(parameters[i].dtype()))
      fail<ValueError>("{}: parameter {} is of {}", what, i, parameters[i].dtype());
  }
}

/// f(n, w, g, b): n elements of a parameter, of its gradient and, in the order of `buffers`, of its
/// buffers (three at most). Large parameters are shared between threads.
template <class F>
void update_elements(const Tensor& parameter, const Tensor& grad,
                     const std::vector<Tensor>& buffers, F&& f) {
  constexpr std::int64_t grain = 1 << 16;  // elements that are worth a thread
  dispatch_floating(parameter.dtype(), [&]<class T>(T) {
    T* const w = overwrite<T>(parameter);
    const T* const g = read<T>(grad);
    T* all[3] = {};
    for (std::size_t i = 0; i < buffers.size(); ++i) all[i] = overwrite<T>(buffers[i]);
    kernels::parallel_for(0, parameter.numel(), grain, [&](std::int64_t first, std::int64_t last) {
      T* b[3] = {};
      for (std::size_t i = 0; i < buffers.size(); ++i) b[i] = all[i] + first;
      f(last - first, w + first, g + first, b);
    });
  });
}

}  // namespace unroll::detail
