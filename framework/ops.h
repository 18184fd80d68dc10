#pragma once
/// The index of every operation. All of them are differentiable, to any order, with respect to
/// their floating-point inputs, except where it says "no gradient".
///
/// Binary operations broadcast as NumPy does: shapes are aligned at their last dimensions and a
/// size of 1 repeats. Their operands have the same dtype (DTypeError); a plain number takes the
/// dtype of the tensor beside it (ValueError for a fraction beside i64). Dimension arguments may be
/// negative (from the end); one that a tensor does not have throws IndexError. Shapes that don't
/// fit throw ShapeError.
///
/// An operation that takes a Tensor by value may write its result over one that nobody else holds:
/// a temporary, or one that was moved.

#include <cstdint>
#include <initializer_list>
#include <utility>
#include <vector>

#include "framework/tensor.h"

namespace unroll {

// --- Elementwise: ops/elementwise.cpp -----------------------------------------------------------

/// Element by element. Division, and exp to softplus below, are for floating-point tensors only
/// (DTypeError for i64).
/// @{
Tensor operator+(Tensor a, Tensor b);
Tensor operator-(Tensor a, Tensor b);
Tensor operator*(Tensor a, Tensor b);
Tensor operator/(const Tensor& a, const Tensor& b);
Tensor operator+(Tensor a, double b);
Tensor operator-(Tensor a, double b);
Tensor operator*(Tensor a, double b);
Tensor operator/(Tensor a, double b);
Tensor operator+(double a, Tensor b);
Tensor operator-(double a, Tensor b);
Tensor operator*(double a, Tensor b);
Tensor operator/(double a, const Tensor& b);
Tensor operator-(Tensor x);
/// @}

/// |x|; the gradient at 0 is 0.
Tensor abs(const Tensor& x);
/// -1, 0 or 1; its gradient is 0 everywhere.
Tensor sign(const Tensor& x);
/// x^2
Tensor square(const Tensor& x);
/// e^x
Tensor exp(Tensor x);
/// The natural logarithm.
Tensor log(const Tensor& x);
/// The square root.
Tensor sqrt(Tensor x);
/// The sine.
Tensor sin(const Tensor& x);
/// The cosine.
Tensor cos(const Tensor& x);
/// The hyperbolic tangent.
Tensor tanh(Tensor x);
/// 1 / (1 + e^-x)
Tensor sigmoid(Tensor x);
/// max(x, 0); the gradient at 0 is 0.
Tensor relu(Tensor x);
/// log(1 + e^x), without overflow.
Tensor softplus(const Tensor& x);
/// x^exponent
Tensor pow(const Tensor& x, double exponent);
/// x^exponent, differentiable in both where x > 0.
Tensor pow(const Tensor& x, const Tensor& exponent);
/// min(max(x, low), high); the gradient is 1 where low <= x <= high, else 0.
Tensor clamp(const Tensor& x, double low, double high);
/// Where a == b each side gets half of the gradient.
Tensor minimum(const Tensor& a, const Tensor& b);
/// The larger one; where equal, each gets half of the gradient.
Tensor maximum(const Tensor& a, const Tensor& b);
/// condition != 0 ? a : b, elementwise with broadcasting; condition may have any dtype.
Tensor where(const Tensor& condition, const Tensor& a, const Tensor& b);
/// x with `value` where mask != 0.
Tensor masked_fill(const Tensor& x, const Tensor& mask, double value);

/// Comparisons give 1 where true and 0 where not, in the dtype of the operands, so that a mask can
/// be multiplied in. No gradient.
/// @{
Tensor operator==(const Tensor& a, const Tensor& b);
Tensor operator!=(const Tensor& a, const Tensor& b);
Tensor operator<(const Tensor& a, const Tensor& b);
Tensor operator<=(const Tensor& a, const Tensor& b);
Tensor operator>(const Tensor& a, const Tensor& b);
Tensor operator>=(const Tensor& a, const Tensor& b);
Tensor operator==(const Tensor& a, double b);
Tensor operator!=(const Tensor& a, double b);
Tensor operator<(const Tensor& a, double b);
Tensor operator<=(const Tensor& a, double b);
Tensor operator>(const Tensor& a, double b);
Tensor operator>=(const Tensor& a, double b);
/// @}

// --- Matrix product: ops/matmul.cpp -------------------------------------------------------------

/// [..., m, k] x [..., k, n] -> [..., m, n]; leading dimensions broadcast. A vector on the left
/// counts as a row, on the right as a column, and its dimension is dropped from the result.
Tensor matmul(const Tensor& a, const Tensor& b);
/// x weight' + bias. x: [..., in]; weight: [out, in]; bias: [out], or [..., out] with an addend for
/// each row of x, or undefined. -> [..., out].
Tensor linear(const Tensor& x, const Tensor& weight, const Tensor& bias = Tensor());

// --- Reductions: ops/reduce.cpp -----------------------------------------------------------------
// Over `axes` (default: all). With keepdim the reduced dimensions stay, with size 1.

/// The sum over the axes.
Tensor sum(const Tensor& x, const Axes& axes = {}, bool keepdim = false);
/// Floating-point only. The mean of nothing is NaN.
Tensor mean(const Tensor& x, const Axes& axes = {}, bool keepdim = false);
/// Largest and smallest value; ties share the gradient evenly. An empty range throws ShapeError.
Tensor max(const Tensor& x, const Axes& axes = {}, bool keepdim = false);
/// The smallest value, as max().
Tensor min(const Tensor& x, const Axes& axes = {}, bool keepdim = false);
/// Position of the largest value along one dimension (the first of equals), i64. No gradient.
Tensor argmax(const Tensor& x, std::int64_t dim = -1, bool keepdim = false);
/// log(sum(exp(x))), without overflow.
Tensor logsumexp(const Tensor& x, const Axes& axes = {}, bool keepdim = false);
/// Sum of squared distances to the mean, divided by n - correction.
Tensor var(const Tensor& x, const Axes& axes = {}, bool keepdim = false, double correction = 1.0);
/// (sum |x|^p)^(1/p); for p = 2 the gradient at 0 is 0.
Tensor norm(const Tensor& x, double p = 2.0, const Axes& axes = {}, bool keepdim = false);
/// y[i] = x[0] + ... + x[i] along dim.
Tensor cumsum(const Tensor& x, std::int64_t dim);
/// x summed over the dimensions along which `shape` would be broadcast to x's shape.
Tensor sum_to(const Tensor& x, const Shape& shape);

// --- Softmax: ops/softmax.cpp -------------------------------------------------------------------

/// e^x / sum(e^x) along dim, without overflow.
Tensor softmax(const Tensor& x, std::int64_t dim = -1);
/// log(softmax(x)), exact also where softmax rounds to 0.
Tensor log_softmax(const Tensor& x, std::int64_t dim = -1);

// --- Losses: ops/loss.cpp -----------------------------------------------------------------------
// A loss has a value for each target. `mask` and `lengths` choose those that count, for batches of
// sequences of different length:
//
//   mask     [...], the shape of the targets or their first dimensions, any dtype; 0: left out
//   lengths  i64 [B], for targets [T, B, ...]: target (t, b) counts where t < lengths[b]
//
// What does not count has loss 0 and gradient 0, whatever numbers stand there, NaN included.
// `mean` divides by the number of those that count (NaN if none does). There is no gradient for
// weights, masks and i64 targets. Shapes that differ from those given here throw ShapeError, a
// length outside of [0, T] throws ValueError.

/// What becomes of the losses: as they are, their mean, or their sum.
enum class Reduction { none, mean, sum };

/// Options of cross_entropy and perplexity.
struct CrossEntropyOptions {
  Tensor weight{};                        ///< [C], of the classes; default: 1 for each
  std::int64_t ignore_index = -100;       ///< targets with this value don't count
  Reduction reduction = Reduction::mean;  ///< mean: over the weights of the targets that count
  double label_smoothing = 0.0;           ///< in [0, 1] (ValueError)
  Tensor mask{};                          ///< which targets count; see above
  Tensor lengths{};                       ///< how many steps of each sequence count; see above
};
/// -log softmax(logits)[target]. logits: [..., C], targets: [...] of i64 with the same leading
/// dimensions. With weights w, and with label smoothing e (Szegedy et al. 2016), which gives part e
/// of the probability that is wanted to all classes alike, as PyTorch has them:
///
///   loss = -(1 - e) w[target] log p[target] - e / C sum_c w[c] log p[c]
///
/// and `mean` divides the sum by the sum of w[target]. `none` gives the shape of the targets.
/// Throws IndexError, with the position, for a target outside of [0, C).
Tensor cross_entropy(const Tensor& logits, const Tensor& targets,
                     const CrossEntropyOptions& options = {});

/// exp(mean of -log softmax(logits)[target]): how many tokens the model hesitates between. Nothing
/// is recorded; the mean is taken in double. Arguments and errors as cross_entropy.
double perplexity(const Tensor& logits, const Tensor& targets,
                  const CrossEntropyOptions& options = {});

/// Options of nll_loss.
struct NLLLossOptions {
  Tensor weight{};                        ///< [C], of the classes; default: 1 for each
  std::int64_t ignore_index = -100;       ///< targets with this value don't count
  Reduction reduction = Reduction::mean;  ///< mean: over the weights of the targets that count
  Tensor mask{};                          ///< which targets count; see above
  Tensor lengths{};                       ///< how many steps of each sequence count; see above
};
/// -w[target] log_probs[target], for what log_softmax gives. Shapes and errors as cross_entropy.
Tensor nll_loss(const Tensor& log_probs, const Tensor& targets, const NLLLossOptions& options = {});

// Of input and target of one shape and dtype (DTypeError), elementwise; differentiable with respect
// to both.

/// Options of mse_loss and l1_loss.
struct LossOptions {
  Reduction reduction = Reduction::mean;  ///< what becomes of the losses
  Tensor mask{};                          ///< which targets count; see above
  Tensor lengths{};                       ///< how many steps of each sequence count; see above
};
/// (input - target)^2
Tensor mse_loss(const Tensor& input, const Tensor& target, const LossOptions& options = {});
/// |input - target|; the gradient at 0 is 0.
Tensor l1_loss(const Tensor& input, const Tensor& target, const LossOptions& options = {});

/// Options of huber_loss.
struct HuberLossOptions {
  Reduction reduction = Reduction::mean;  ///< what becomes of the losses
  double delta = 1.0;                     ///< above 0 (ValueError)
  Tensor mask{};                          ///< which targets count; see above
  Tensor lengths{};                       ///< how many steps of each sequence count; see above
};
/// d^2 / 2 for d = input - target with |d| <= delta, delta (|d| - delta / 2) beyond (Huber 1964).
Tensor huber_loss(const Tensor& input, const Tensor& target, const HuberLossOptions& options = {});

/// Options of binary_cross_entropy_with_logits.
struct BCEWithLogitsOptions {
  Tensor weight{};  ///< broadcast to the input: of the losses; `mean` does not divide by it
  Reduction reduction = Reduction::mean;  ///< what becomes of the losses
  Tensor pos_weight{};                    ///< broadcast to the input: of the positive part
  Tensor mask{};                          ///< which targets count; see above
  Tensor lengths{};                       ///< how many steps of each sequence count; see above
};
/// Binary cross entropy of probabilities sigmoid(input) with targets in [0, 1], without overflow:
/// -pos_weight target log sigmoid(input) - (1 - target) log(1 - sigmoid(input)).
Tensor binary_cross_entropy_with_logits(const Tensor& input, const Tensor& target,
                                        const BCEWithLogitsOptions& options = {});

/// 1 where t < lengths[b], else 0: lengths [B] of i64 -> [steps, B]. No gradient. Throws ValueError
/// for a length outside of [0, steps].
Tensor sequence_mask(const Tensor& lengths, std::int64_t steps, DType dtype = DType::f32);

// --- Shape: ops/shape.cpp -----------------------------------------------------------------------
// Views (no element is copied) unless said otherwise.

/// The same elements in another shape; one size may be -1. Copies only where strides demand it.
Tensor reshape(const Tensor& x, const Shape& shape);
/// Dimensions start..end (inclusive) merged into one.
Tensor flatten(const Tensor& x, std::int64_t start = 0, std::int64_t end = -1);
/// Without dimension `dim`, whose size is 1 (ShapeError otherwise).
Tensor squeeze(const Tensor& x, std::int64_t dim);
/// With a dimension of size 1 before `dim`.
Tensor unsqueeze(const Tensor& x, std::int64_t dim);
/// Two dimensions exchanged.
Tensor transpose(const Tensor& x, std::int64_t dim0 = -2, std::int64_t dim1 = -1);
/// Dimension i of the result is dimension order[i] of x.
Tensor permute(const Tensor& x, const Shape& order);
/// x repeated to a larger shape, as binary operations do.
Tensor broadcast_to(const Tensor& x, const Shape& shape);
/// The dimensions in `dims` back to front.
Tensor flip(const Tensor& x, const Axes& dims);
/// Copies: the tensors one after the other along an existing dimension. They agree in all others.
Tensor concatenate(const std::vector<Tensor>& tensors, std::int64_t dim = 0);
/// Copies: tensors of one shape along a new dimension.
Tensor stack(const std::vector<Tensor>& tensors, std::int64_t dim = 0);
/// Pieces of `size` along dim; the last may be shorter.
std::vector<Tensor> split(const Tensor& x, std::int64_t size, std::int64_t dim = 0);
/// `chunks` equal pieces along dim. Throws ShapeError when it does not divide.
std::vector<Tensor> chunk(const Tensor& x, std::int64_t chunks, std::int64_t dim = 0);

// --- Indexing: ops/index.cpp --------------------------------------------------------------------
// Index tensors are i64. An index outside of its range throws IndexError with position and value.

/// x with dimension `dim` fixed at index (negative ones count from the end); a view.
Tensor select(const Tensor& x, std::int64_t dim, std::int64_t index);
/// start, start + step, ... below end along dim; negative start and end count from the end, and
/// both are cut to the range, as in Python. step > 0. A view.
Tensor slice(const Tensor& x, std::int64_t dim, std::int64_t start, std::int64_t end,
             std::int64_t step = 1);
/// `length` elements from start along dim; must lie within. A view.
Tensor narrow(const Tensor& x, std::int64_t dim, std::int64_t start, std::int64_t length);
/// Slices index[0], index[1], ... of x along dim; index: [n].
Tensor index_select(const Tensor& x, std::int64_t dim, const Tensor& index);
/// out[i][j] = x[i][index[i][j]] for dim = 1, and so on for any rank; index has x's rank and, but
/// for `dim`, sizes not above x's.
Tensor gather(const Tensor& x, std::int64_t dim, const Tensor& index);
/// Rows of a table: weight [V, E], indices [...] -> [..., E]. Row padding_idx (-1: none) gets no
/// gradient. With `sparse`, backward() gives the table, if it is a leaf, a gradient by rows
/// (row_grad.h): the same numbers, but neither memory nor time for rows that were not looked up.
Tensor embedding(const Tensor& weight, const Tensor& indices, std::int64_t padding_idx = -1,
                 bool sparse = false);
/// 1 at the index, 0 elsewhere: [...] -> [..., classes]. No gradient.
Tensor one_hot(const Tensor& indices, std::int64_t classes, DType dtype = DType::f32);
/// The part of the last two dimensions on and below (tril) or above (triu) the given diagonal, the
/// rest 0.
Tensor tril(const Tensor& x, std::int64_t diagonal = 0);
/// The part on and above the diagonal.
Tensor triu(const Tensor& x, std::int64_t diagonal = 0);

}  // namespace unroll
