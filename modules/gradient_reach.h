#pragma once
/// How far a gradient reaches back in time, before it has vanished or exploded.

#include <cstdint>
#include <utility>
#include <vector>

#include "framework/autograd.h"
#include "framework/ops.h"
#include "framework/random.h"

namespace unroll {
namespace detail {
/// |d(part of the last h)/dh_k| from the last k to the first; hs: [B, H] each.
std::vector<double> gradient_reach(const std::vector<Tensor>& hs, Generator& generator);
}  // namespace detail

/// |dL_T/dh_k| at the distances T - k = 0, 1, ..., T - 1, where h_k is what the network puts out at
/// time step k and L_T the part of h_T in a random direction, so that |dL_T/dh_T| is 1; the mean
/// over the sequences (Hochreiter 1991; Pascanu et al. 2013). No .grad changes. xs: [T, B, I];
/// `network` has what a recurrent module has: State, and step(x, state) for one time step.
/// Throws ShapeError for no time step.
template <class Network>
std::vector<double> gradient_reach(const Network& network, const Tensor& xs,
                                   Generator& generator = default_generator()) {
  std::vector<Tensor> hs;
  typename Network::State state;
  for (std::int64_t t = 0; t < xs.size(0); ++t) {
    auto [h, next] = network.step(xs[t], state);
    hs.push_back(std::move(h));
    state = std::move(next);
  }
  return detail::gradient_reach(hs, generator);
}

}  // namespace unroll
