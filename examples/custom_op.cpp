// Operations of your own: an xtensor expression, a plain loop, a straight-through estimator.
//
// They are checked by gradcheck and then learn together, in a network with bits of 0 and 1 inside.
// To be read from top to bottom; docs/custom_ops.md tells more.

#include <fmt/format.h>
#include <unroll/framework/xtensor.h>
#include <unroll/unroll.h>

#include <cstdint>
#include <utility>

#include "common/options.h"
#include "common/training.h"

using namespace unroll;

namespace {

// --- 1. An xtensor expression --------------------------------------------------------------------

/// y = x / (1 + |x|), elementwise, f32 or f64.   dx = g / (1 + |x|)^2
Tensor softsign(const Tensor& x) {
  const Tensor in = x.detach().contiguous();
  const auto value = [&]<class T>(T) {
    const auto v = view<T>(in);
    return from_xtensor(v / (T(1) + xt::abs(v)));
  };
  return record("softsign", {x}, x.dtype() == DType::f64 ? value(0.0) : value(0.0f), Keep::inputs,
                [](Back& back) { back.add(0, back.grad / square(1.0 + abs(back.in(0)))); });
}

/// The same with a mistake: the square is missing.
Tensor wrong_softsign(const Tensor& x) {
  return record("wrong_softsign", {x}, softsign(x.detach()), Keep::inputs,
                [](Back& back) { back.add(0, back.grad / (1.0 + abs(back.in(0)))); });
}

// --- 2. A plain loop -----------------------------------------------------------------------------

template <class T>
void add_up(std::int64_t steps, std::int64_t width, T decay, const T* x, T* y) {
  for (std::int64_t t = 0; t < steps; ++t)
    for (std::int64_t i = 0; i < width; ++i)
      y[t * width + i] = x[t * width + i] + (t > 0 ? decay * y[(t - 1) * width + i] : T(0));
}

/// y_t = x_t + decay * y_{t-1} along the first dimension, f32 or f64: a recurrence without weights,
/// as one entry on the tape instead of two per time step.
///
///   dx_t = g_t + decay * dx_{t+1}
///
/// which is the same sum, from the end to the beginning. So the rule is written with the operation
/// itself, and has derivatives of any order.
Tensor leaky_sum(const Tensor& x, double decay) {
  const Tensor in = x.detach().contiguous();
  Tensor y = empty(x.shape(), x.dtype());
  const std::int64_t steps = x.size(0), width = steps > 0 ? x.numel() / steps : 0;
  if (x.dtype() == DType::f64)
    add_up(steps, width, decay, in.data<double>(), y.write<double>().data());
  else
    add_up(steps, width, static_cast<float>(decay), in.data<float>(), y.write<float>().data());
  return record("leaky_sum", {x}, y, Keep::none, [decay](Back& back) {
    back.add(0, flip(leaky_sum(flip(back.grad, {0}), decay), {0}));
  });
}

// --- 3. A straight-through estimator -------------------------------------------------------------

/// y = 1 where x > 0, else 0. Its derivative is 0 wherever there is one, so nothing could be
/// learned through it; the rule acts as if it were x near 0 (Bengio et al. 2013; Hubara et al.
/// 2016):
///
///   dx = g where |x| <= 1, else 0
Tensor binarize(const Tensor& x) {
  return record("binarize", {x}, x.detach() > 0.0, Keep::inputs,
                [](Back& back) { back.add(0, back.grad * (abs(back.in(0)) <= 1.0)); });
}

// --- 4. A network of them ------------------------------------------------------------------------

constexpr double kDecay = 0.9;

struct Config {
  std::int64_t steps = 20, hidden = 16, bits = 8;
  examples::TrainingOptions training{.batch = 64, .lr = 0.01, .plot = "custom_op.svg"};

  template <class F>
  void each(F&& option) {
    using examples::at_least;
    option("steps", steps, "numbers in a sequence", at_least(1));
    option("hidden", hidden, "units that add up", at_least(1));
    option("bits", bits, "units of 0 or 1", at_least(1));
    training.each(option);
  }
};

/// Numbers in, bits inside, a score out: how likely it is that the leaky sum of the numbers is
/// above 0.
struct Network : Module {
  explicit Network(const Config& config)
      : in(child("in", Linear(1, config.hidden))),
        code(child("code", Linear(config.hidden, config.bits))),
        out(child("out", Linear(config.bits, 1))) {}
  /// xs: [T, B, 1]; returns [B].
  Tensor operator()(const Tensor& xs) const {
    const Scope here = scope();
    const Tensor sums = leaky_sum(softsign(in(xs)), kDecay)[-1];
    return squeeze(out(binarize(code(sums))), 1);
  }
  Linear in, code, out;
};

/// Sequences [T, B, 1], and whether their leaky sums are above 0, [B].
std::pair<Tensor, Tensor> sequences(const Config& config, std::int64_t count) {
  const Tensor xs = normal({config.steps, count, 1});
  return {xs, squeeze(leaky_sum(xs, kDecay)[-1], 1) > 0.0};
}

/// The batches of an epoch, each made when it is asked for.
struct Batches {
  const Config& config;
  std::int64_t size() const { return 100; }
  std::pair<Tensor, Tensor> operator[](std::int64_t) const {
    return sequences(config, config.training.batch);
  }
};

/// A gradient is right when differences of the value say so.
void check_gradients() {
  const Tensor x = normal({5, 3}, 0, 1, DType::f64).requires_grad_();
  gradcheck([](const auto& inputs) { return softsign(inputs[0]); }, {x}, {.order = 2});
  gradcheck([](const auto& inputs) { return leaky_sum(inputs[0], kDecay); }, {x}, {.order = 2});
  fmt::print("softsign and leaky_sum: first and second derivatives are right\n");
  fmt::print("{}\n", gradcheck_message(
                         [](const auto& inputs) { return tanh(wrong_softsign(inputs[0])); }, {x}));
}

/// Returns the exit code.
int train(const Config& config, const examples::Call& call, const examples::Checkpoint* saved) {
  manual_seed(config.training.seed);
  check_gradients();
  Network net(config);
  Adam optimizer(net.parameters(), {.lr = config.training.lr});
  const auto [test_xs, test_labels] = sequences(config, 1000);
  const auto accuracy = [&, &xs = test_xs, &labels = test_labels] {
    const NoGrad no_grad;
    return mean(((net(xs) > 0.0) == labels).to(DType::f64)).item();
  };
  fmt::print("before training: {:.1f} % of new sequences are right, by a guess 50 %\n",
             100 * accuracy());

  examples::Training training(
      config.training, call, net, optimizer,
      [&](examples::Checkpoint& file) { file.add_values("config", config); }, "sequences");
  if (saved) training.go_on_from(*saved);
  const bool complete =
      training.run([&](Generator&) { return Batches{config}; },
                   [&](const std::pair<Tensor, Tensor>& batch) {
                     const auto& [xs, labels] = batch;
                     return examples::TrainingLoss{
                         binary_cross_entropy_with_logits(net(xs), labels), config.training.batch};
                   },
                   [&] {
                     return examples::Metrics{{"accuracy", accuracy()}};
                   });
  training.plot({.title = "new sequences that are right", .y_label = "accuracy"},
                {{"accuracy", "through bits"}});
  if (!complete) return training.exit_code();
  training.log_final({{"accuracy", accuracy()}});
  fmt::print(
      "after training: {:.1f} % of new sequences are right, through {} bits that have no "
      "derivative\n",
      100 * accuracy(), config.bits);
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  Config config;
  examples::TrainingProgram program("Operations of your own, checked and used.", "custom_op", argc,
                                    argv);
  return program.run(config, {"hidden", "bits"}, train);
}
