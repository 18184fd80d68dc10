#pragma once
/// Gradient clipping. Parameters without a gradient are passed over.

#include <vector>

#include "framework/tensor.h"

namespace unroll {

/// Scales all gradients by min(1, max_norm / (norm + 1e-6)), where norm is the length of all of
/// them as one vector (Pascanu et al. 2013; the 1e-6 is PyTorch's). Returns norm, as it was; it is
/// NaN or infinite where a gradient is. Throws ValueError for a negative max_norm.
double clip_grad_norm(const std::vector<Tensor>& parameters, double max_norm);

/// Moves each element of the gradients into [-limit, limit]. Throws ValueError for a negative
/// limit.
void clip_grad_value(const std::vector<Tensor>& parameters, double limit);

}  // namespace unroll
