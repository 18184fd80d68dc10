/// Losses. All but the cross entropy are written with other operations.

#include <algorithm>
#include <cmath>
#include <limits>

#include "framework/internal.h"
#include "framework/kernels/parallel.h"
#include "framework/ops.h"

namespace unroll {

using detail::fail;

namespace {

// --- What counts --------------------------------------------------------------------------------

Tensor length_mask(const char* name, const Tensor& lengths, std::int64_t steps) {
  detail::require_index(name, lengths);
  if (lengths.dim() != 1)
    fail<ShapeError>("{}: lengths have one dimension, got shape {}", name, lengths.shape());
  const Tensor flat = detail::dense(lengths);
  const std::int64_t* length = detail::read<std::int64_t>(flat);
  for (std::int64_t b = 0; b < flat.numel(); ++b)
    if (length[b] < 0 || length[b] > steps)
      fail<ValueError>("{}: length {} of sequence {} is not in [0, {}]", name, length[b], b, steps);
  return unsqueeze(arange(steps), 1) < flat;
}

/// What counts of a loss of this shape: i64 0 and 1, to be broadcast to it. Undefined: everything.
Tensor counted(const char* name, const Shape& shape, const Tensor& mask, const Tensor& lengths) {
  Tensor counts;
  const auto add = [&](const Tensor& part) {
    Shape wide = part.shape();
    while (wide.size() < shape.size()) wide.push_back(1);
    const Tensor next = reshape(part, wide);
    counts = counts.defined() ? counts * next : next;
  };
  if (mask.defined()) {
    bool fits = mask.dim() <= shape.size();
    for (std::int64_t d = 0; fits && d < mask.dim(); ++d) fits = mask.shape()[d] == shape[d];
    if (!fits)
      fail<ShapeError>("{}: the mask {} is not of the shape {}, or of its first dimensions", name,
                       mask.shape(), shape);
    add((mask != 0.0).to(DType::i64));
  }
  if (lengths.defined()) {
    if (shape.size() < 2 || lengths.shape() != Shape{shape[1]})
      fail<ShapeError>("{}: lengths {} do not fit {}: needed are (B) and (T, B, ...)", name,
                       lengths.shape(), shape);
    add(length_mask(name, lengths, shape[0]));
  }
  return counts;
}

/// `total` is what the mean divides by.
Tensor reduce(const Tensor& loss, Reduction reduction, double total) {
  switch (reduction) {
    case Reduction::none: return loss;
    case Reduction::sum: return sum(loss);
    default: return sum(loss) / total;
  }
}

// --- Losses of classes --------------------------------------------------------------------------

/// Checked targets of a classification.
struct Targets {
  Tensor index;   ///< i64, contiguous; -1 where a target does not count
  Tensor weight;  ///< [C], contiguous, or undefined
  double total;   ///< sum of the weights of those that count
  bool all;       ///< whether all count
};

/// Options: those of cross_entropy or nll_loss. `x` holds a value for each target and class.
template <class Options>
Targets check_targets(const char* name, const char* x_name, const Tensor& x, const Tensor& targets,
                      const Options& options) {
  detail::require_floating(name, x);
  detail::require_index(name, targets);
  if (x.dim() == 0) fail<ShapeError>("{}: {} () have no dimension of classes", name, x_name);
  Shape expected = x.shape();
  expected.resize(x.dim() - 1);
  if (targets.shape() != expected)
    fail<ShapeError>("{}: {} {} need targets {}, got {}", name, x_name, x.shape(), expected,
                     targets.shape());
  const std::int64_t classes = x.size(-1);
  Targets result{empty(targets.shape(), DType::i64), Tensor(), 0.0, true};
  if (options.weight.defined()) {
    detail::require_same_dtype(name, x, options.weight);
    if (options.weight.shape() != Shape{classes})
      fail<ShapeError>("{}: {} classes need weights ({}), got {}", name, classes, classes,
                       options.weight.shape());
    result.weight = detail::dense(options.weight);
  }
  const Tensor counts = counted(name, targets.shape(), options.mask, options.lengths);
  const Tensor every =
      counts.defined() ? detail::dense(broadcast_to(counts, targets.shape())) : Tensor();
  const std::int64_t* count = counts.defined() ? detail::read<std::int64_t>(every) : nullptr;
  const Tensor given = detail::dense(targets);
  const std::int64_t* target = detail::read<std::int64_t>(given);
  std::int64_t* index = detail::overwrite<std::int64_t>(result.index);
  detail::dispatch_floating(x.dtype(), [&]<class T>(T) {
    const T* weight = result.weight.defined() ? detail::read<T>(result.weight) : nullptr;
    for (std::int64_t i = 0; i < given.numel(); ++i) {
      index[i] = -1;
      if (target[i] == options.ignore_index || (count && count[i] == 0)) {
        result.all = false;
        continue;
      }
      if (target[i] < 0 || target[i] >= classes)
        fail<IndexError>("{}: target {} at position {} is out of range [0, {})", name, target[i],
                         detail::position(i, targets.shape()), classes);
      index[i] = target[i];
      result.total += weight ? static_cast<double>(weight[target[i]]) : 1.0;
    }
  });
  return result;
}

/// The coefficients c of a cross entropy -sum_c c log p, [..., C].
Tensor coefficients(const Targets& targets, std::int64_t classes, double smoothing, DType dtype) {
  const Tensor wanted = one_hot(clamp(targets.index, 0.0, 0x1p53), classes, dtype);
  Tensor c = wanted * (1.0 - smoothing) + smoothing / static_cast<double>(classes);
  if (targets.weight.defined()) c = c * targets.weight;
  return where(unsqueeze(targets.index, -1) >= 0.0, c, zeros({}, dtype));
}

constexpr std::int64_t kRowsTogether = 16384;  // logits that one thread takes at least

/// f(i) for every row of the logits, shared between threads.
template <class F>
void each_row(std::int64_t rows, std::int64_t classes, F&& f) {
  kernels::parallel_for(0, rows, kRowsTogether / std::max<std::int64_t>(classes, 1) + 1,
                        [&](std::int64_t first, std::int64_t last) {
                          for (std::int64_t i = first; i < last; ++i) f(i);
                        });
}

/// One row of a cross entropy: the part of the loss that its target has, and that all classes have.
template <class T>
struct Coefficients {
  Coefficients(const Targets& targets, std::int64_t classes, double smoothing)
      : weight(targets.weight.defined() ? detail::read<T>(targets.weight) : nullptr),
        wanted(1.0 - smoothing),
        every(classes > 0 ? smoothing / static_cast<double>(classes) : 0.0),
        total_weight(static_cast<double>(classes)) {
    if (!weight) return;
    total_weight = 0.0;
    for (std::int64_t c = 0; c < classes; ++c) total_weight += static_cast<double>(weight[c]);
  }
  double at(std::int64_t c) const { return weight ? static_cast<double>(weight[c]) : 1.0; }
  double of_target(std::int64_t c) const { return wanted * at(c); }
  /// The sum over all classes.
  double sum(std::int64_t target) const { return of_target(target) + every * total_weight; }

  const T* weight;
  double wanted, every, total_weight;
};

/// The losses, one for each target; for each its logits' maximum m and z = sum_c e^(x_c - m) go to
/// `rows`, [N, 2].
Tensor cross_entropy_values(const Tensor& logits, const Targets& targets, double smoothing,
                            const Tensor& rows) {
  const Tensor x = detail::dense(logits);
  const std::int64_t n = x.size(-1);
  Tensor loss = empty(targets.index.shape(), x.dtype());
  const std::int64_t* target = detail::read<std::int64_t>(targets.index);
  detail::dispatch_floating(x.dtype(), [&]<class T>(T) {
    const auto& k = kernels::float_kernels<T>();
    const Coefficients<T> c(targets, n, smoothing);
    const T* values = detail::read<T>(x);
    T* out = detail::overwrite<T>(loss);
    T* saved = detail::overwrite<T>(rows);
    each_row(loss.numel(), n, [&](std::int64_t i) {
      const T* row = values + i * n;
      if (target[i] < 0) {
        out[i] = T(0);
        return;
      }
      const T top = k.max(n, row), total = k.exp_sum(n, row, top, nullptr);
      const double log_total = std::log(static_cast<double>(total));
      const auto nll = [&](std::int64_t j) {
        return log_total - static_cast<double>(row[j] - top);
      };
      double value = c.of_target(target[i]) * nll(target[i]);
      if (c.every > 0.0)
        for (std::int64_t j = 0; j < n; ++j) value += c.every * c.at(j) * nll(j);
      out[i] = static_cast<T>(value);
      saved[2 * i] = top;
      saved[2 * i + 1] = total;
    });
  });
  return loss;
}

/// g (sum(c) p - c), in one pass over the logits.
Tensor cross_entropy_grad(const Tensor& logits, const Targets& targets, double smoothing,
                          const Tensor& rows, const Tensor& grad) {
  const Tensor x = detail::dense(logits), gs = detail::dense(grad);
  const std::int64_t n = x.size(-1);
  Tensor result = empty(x.shape(), x.dtype());
  const std::int64_t* target = detail::read<std::int64_t>(targets.index);
  detail::dispatch_floating(x.dtype(), [&]<class T>(T) {
    const auto& k = kernels::float_kernels<T>();
    const Coefficients<T> c(targets, n, smoothing);
    const T* values = detail::read<T>(x);
    const T* g = detail::read<T>(gs);
    const T* saved = detail::read<T>(rows);
    T* out = detail::overwrite<T>(result);
    each_row(gs.numel(), n, [&](std::int64_t i) {
      T* row = out + i * n;
      if (target[i] < 0) {
        std::fill_n(row, n, T(0));
        return;
      }
      const double gi = static_cast<double>(g[i]);
      k.exp_sum(n, values + i * n, saved[2 * i], row);
      const double scale[2] = {gi * c.sum(target[i]) / static_cast<double>(saved[2 * i + 1]),
                               c.weight ? 0.0 : -gi * c.every};
      k.elementwise[static_cast<std::size_t>(kernels::Op::affine)](n, row, row, nullptr, nullptr,
                                                                   scale);
      if (c.weight && c.every > 0.0)
        for (std::int64_t j = 0; j < n; ++j) row[j] -= static_cast<T>(gi * c.every) * c.weight[j];
      row[target[i]] -= static_cast<T>(gi * c.of_target(target[i]));
    });
  });
  return result;
}

}  // namespace

// loss = -sum_c c log p, p = softmax(x): dx = g (sum(c) p - c)
Tensor cross_entropy(const Tensor& logits, const Tensor& targets,
                     const CrossEntropyOptions& options) {
  const Targets checked = check_targets("cross_entropy", "logits", logits, targets, options);
  const double smoothing = options.label_smoothing;
  if (!(smoothing >= 0.0 && smoothing <= 1.0))
    fail<ValueError>("cross_entropy: label_smoothing must be in [0, 1], but is {}", smoothing);
  const Tensor rows = empty({targets.numel(), 2}, logits.dtype());
  const Tensor loss = record(
      "cross_entropy", {logits}, cross_entropy_values(logits.detach(), checked, smoothing, rows),
      Keep::input(0), [=](Back& back) {
        const Tensor x = back.in(0), g = back.grad;
        if (!back.create_graph()) {
          back.add(0, cross_entropy_grad(x, checked, smoothing, rows, g));
          return;
        }
        const Tensor c = coefficients(checked, x.size(-1), smoothing, x.dtype());
        // What does not count is replaced: it may be NaN, and 0 * NaN is not 0.
        const Tensor p =
            softmax(where(unsqueeze(checked.index, -1) >= 0.0, x, zeros({}, x.dtype())));
        back.add(0, unsqueeze(g, -1) * (sum(c, -1, true) * p - c));
      });
  return reduce(loss, options.reduction, checked.total);
}

double perplexity(const Tensor& logits, const Tensor& targets, const CrossEntropyOptions& options) {
  NoGrad no_grad;
  CrossEntropyOptions mean = options;
  mean.reduction = Reduction::mean;
  return std::exp(cross_entropy(logits, targets, mean).item());
}

Tensor nll_loss(const Tensor& log_probs, const Tensor& targets, const NLLLossOptions& options) {
  const Targets checked = check_targets("nll_loss", "log_probs", log_probs, targets, options);
  if (log_probs.size(-1) == 0)  // then no target counts: they are 0
    return reduce(sum(log_probs, -1), options.reduction, checked.total);
  const Tensor index = clamp(checked.index, 0.0, 0x1p53);  // the losses of -1 are replaced below
  Tensor loss = -squeeze(gather(log_probs, -1, unsqueeze(index, -1)), -1);
  if (checked.weight.defined())
    loss = loss *
           reshape(index_select(checked.weight, 0, reshape(index, {index.numel()})), index.shape());
  if (!checked.all) loss = where(checked.index >= 0.0, loss, zeros({}, loss.dtype()));
  return reduce(loss, options.reduction, checked.total);
}

// --- Elementwise losses -------------------------------------------------------------------------

namespace {

/// f(input, target) where it counts, else 0, reduced. Options: those of the losses below.
template <class Options, class F>
Tensor elementwise_loss(const char* name, Tensor input, Tensor target, const Options& options,
                        F&& f) {
  detail::require_floating(name, input);
  detail::require_same_dtype(name, input, target);
  if (input.shape() != target.shape())
    fail<ShapeError>("{}: the input has shape {}, the target {}", name, input.shape(),
                     target.shape());
  const Tensor counts = counted(name, input.shape(), options.mask, options.lengths);
  if (!counts.defined())
    return reduce(f(input, target), options.reduction, static_cast<double>(input.numel()));
  const Tensor zero = zeros({}, input.dtype());
  const Tensor loss =
      where(counts, f(where(counts, input, zero), where(counts, target, zero)), zero);
  return reduce(loss, options.reduction, sum(broadcast_to(counts, input.shape())).item());
}

}  // namespace

Tensor mse_loss(const Tensor& input, const Tensor& target, const LossOptions& options) {
  return elementwise_loss("mse_loss", input, target, options,
                          [](const Tensor& x, const Tensor& y) { return square(x - y); });
}

Tensor l1_loss(const Tensor& input, const Tensor& target, const LossOptions& options) {
  return elementwise_loss("l1_loss", input, target, options,
                          [](const Tensor& x, const Tensor& y) { return abs(x - y); });
}

Tensor huber_loss(const Tensor& input, const Tensor& target, const HuberLossOptions& options) {
  const double delta = options.delta;
  if (!(delta > 0.0)) fail<ValueError>("huber_loss: delta must be above 0, but is {}", delta);
  return elementwise_loss("huber_loss", input, target, options,
                          [delta](const Tensor& x, const Tensor& y) {
                            const Tensor d = x - y, near = clamp(d, -delta, delta);
                            return near * (d - near / 2.0);
                          });
}

// -log sigmoid(x) = softplus(-x), -log(1 - sigmoid(x)) = softplus(x)
Tensor binary_cross_entropy_with_logits(const Tensor& input, const Tensor& target,
                                        const BCEWithLogitsOptions& options) {
  constexpr const char* name = "binary_cross_entropy_with_logits";
  const auto require_broadcast = [&](const char* what, const Tensor& weight) {
    detail::require_same_dtype(name, input, weight);
    if (detail::broadcast_shapes(name, input.shape(), weight.shape()) != input.shape())
      fail<ShapeError>("{}: {} {} does not broadcast to the input {}", name, what, weight.shape(),
                       input.shape());
  };
  if (options.weight.defined()) require_broadcast("weight", options.weight);
  if (options.pos_weight.defined()) require_broadcast("pos_weight", options.pos_weight);
  // A logit of -inf, as masks leave them, makes 0 * inf of what does not count.
  const auto term = [](const Tensor& share, const Tensor& loss) {
    const Tensor never = (share == 0.0) * (loss == std::numeric_limits<double>::infinity());
    return masked_fill(share * loss, never, 0.0);
  };
  return elementwise_loss(name, input, target, options, [&](const Tensor& x, const Tensor& y) {
    Tensor positive = term(y, softplus(-x));
    if (options.pos_weight.defined()) positive = positive * options.pos_weight.detach();
    const Tensor loss = positive + term(1.0 - y, softplus(x));
    return options.weight.defined() ? loss * options.weight.detach() : loss;
  });
}

Tensor sequence_mask(const Tensor& lengths, std::int64_t steps, DType dtype) {
  if (steps < 0) fail<ValueError>("sequence_mask: steps must not be negative, but is {}", steps);
  return length_mask("sequence_mask", lengths, steps).to(dtype);
}

}  // namespace unroll
