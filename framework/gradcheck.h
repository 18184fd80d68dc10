#pragma once
/// Is a gradient right? Central differences in f64 say so.

#include <functional>
#include <string>
#include <vector>

#include "framework/tensor.h"

namespace unroll {

/// How closely gradients are looked at.
struct GradcheckOptions {
  int order = 1;       ///< 1: the gradient; 2: the gradient of the gradient, too
  double eps = 1e-6;   ///< half the distance of the difference quotient
  double atol = 1e-6;  ///< |analytic - numeric| <= atol + rtol * |numeric|
  double rtol = 1e-5;  ///< see atol
};

/// What is checked: a function of the inputs.
using GradcheckFunction = std::function<Tensor(const std::vector<Tensor>&)>;

/// Compares the gradient of `f` by the tape with difference quotients, element by element, for
/// every input that requires a gradient. A result with more than one element is reduced by fixed
/// random weights. For order 2 the same is done for the gradient along fixed random directions,
/// with respect to the inputs and to those weights (in messages: grad_output).
///
/// `f` must give the same result whenever its inputs hold the same values: seed a generator inside
/// it if it draws random numbers. It need not read its argument: for the parameters of a module,
/// pass them as inputs, and let `f` use the module.
///
///   gradcheck([&](const auto&) { return sum(square(linear(x))); }, linear.parameters());
///
/// The inputs are contiguous leaves of f64; they are moved by eps and put back. No .grad changes.
///
/// Returns "" if all is well, otherwise a line for each input that fails: it names the order, the
/// input, the element that is farthest off, the analytic and the numeric value. Where the gradient
/// of order 1 is wrong, a line follows for each operation whose rule does not fit its own value:
/// that is where to look. There is none if the fault is beside the tape, such as a detach(). Throws
/// ValueError for an input that is none of what it must be, when no input requires a gradient, for
/// a result that is not f64 or not the same twice, and for an order other than 1 and 2; GraphError
/// under NoGrad.
std::string gradcheck_message(const GradcheckFunction& f, const std::vector<Tensor>& inputs,
                              const GradcheckOptions& options = {});

/// As gradcheck_message, but throws GraphError with the message. Returns true.
bool gradcheck(const GradcheckFunction& f, const std::vector<Tensor>& inputs,
               const GradcheckOptions& options = {});

}  // namespace unroll
