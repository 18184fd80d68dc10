#include "modules/equations.h"

#include <algorithm>
#include <iterator>

#include "framework/internal.h"

namespace unroll {

std::vector<Tensor> Equations::arguments(const Tensor& x, const std::vector<Tensor>& state) const {
  if (!function_) throw ValueError("Equations: there are none");
  if (static_cast<int>(state.size()) != function_().states())
    detail::fail<ValueError>("Equations: the function takes a state of {} tensor{}, but gets {}",
                             function_().states(), function_().states() == 1 ? "" : "s",
                             state.size());
  std::vector<Tensor> list = {x};
  list.insert(list.end(), state.begin(), state.end());
  list.insert(list.end(), weights_.begin(), weights_.end());
  return list;
}

Tensor Equations::step_tensors(const Tensor& x, std::vector<Tensor>& state) const {
  const auto in = arguments(x, state);
  std::vector<Tensor> out(state.size() + (function_().has_output() ? 1 : 0));
  if (!function_().step(in.data(), out.data())) function_().call(in.data(), out.data());
  const Tensor output = out[0];
  std::move(out.end() - static_cast<std::ptrdiff_t>(state.size()), out.end(), state.begin());
  return output;
}

Tensor Equations::over_time(const Tensor& xs, const detail::SequenceOptions& options,
                            std::vector<Tensor>& state) const {
  const auto in = arguments(xs, state);
  std::vector<Tensor> out(1 + state.size());
  if (!function_().over_time(in.data(), options, out.data())) return Tensor();
  std::move(out.begin() + 1, out.end(), state.begin());
  return out[0];
}

}  // namespace unroll
