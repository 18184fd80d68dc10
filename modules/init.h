#pragma once
/// Initialisers: they write into a tensor, whether or not it requires a gradient, and return it, so
/// that they serve for new tensors, param("w", init::orthogonal_(empty({n, n}))), and for those of
/// a finished module.
///
/// Fans are counted as PyTorch does: for a weight [out, in, ...] each element of the dimensions
/// from the third on counts as an input and as an output. Less than two dimensions throw
/// ShapeError.

#include "framework/random.h"
#include "framework/tensor.h"

namespace unroll {

namespace init {

Tensor constant_(Tensor x, double value);
Tensor uniform_(Tensor x, double low = 0.0, double high = 1.0,
                Generator& generator = default_generator());
Tensor normal_(Tensor x, double mean = 0.0, double std = 1.0,
               Generator& generator = default_generator());

/// U(-a, a) with a = gain * sqrt(6 / (fan_in + fan_out)) (Glorot and Bengio 2010, eq. 16).
Tensor xavier_uniform_(Tensor x, double gain = 1.0, Generator& generator = default_generator());
/// N(0, s^2) with s = gain * sqrt(2 / (fan_in + fan_out)).
Tensor xavier_normal_(Tensor x, double gain = 1.0, Generator& generator = default_generator());

/// Which side keeps its variance: the activations (in) or the gradients (out).
enum class Fan { in, out };
/// U(-a, a) with a = sqrt(6 / ((1 + slope^2) * fan)), for layers followed by a leaky ReLU of this
/// negative slope, 0 for a ReLU (He et al. 2015, eq. 15).
Tensor kaiming_uniform_(Tensor x, double slope = 0.0, Fan fan = Fan::in,
                        Generator& generator = default_generator());
/// N(0, s^2) with s = sqrt(2 / ((1 + slope^2) * fan)).
Tensor kaiming_normal_(Tensor x, double slope = 0.0, Fan fan = Fan::in,
                       Generator& generator = default_generator());

/// `gain` times a random matrix with orthonormal rows or, if there are more rows than columns,
/// orthonormal columns (Saxe et al. 2014). Dimensions from the second on count as columns.
Tensor orthogonal_(Tensor x, double gain = 1.0, Generator& generator = default_generator());

}  // namespace init

/// A new tensor from init::orthogonal_.
Tensor orthogonal(const Shape& shape, double gain = 1.0, DType dtype = DType::f32,
                  Generator& generator = default_generator());

}  // namespace unroll
