// Operations of your own: an xtensor expression, a plain loop, a straight-through estimator.
//
// They are checked by gradcheck and then learn together, in a network with bits of 0 and 1 inside.
// To be read from top to bottom; docs/custom_ops.md tells more.

#include <fmt/format.h>
#include <unroll/framework/xtensor.h>
#include <unroll/unroll.h>

#include <cstdint>

#include "common/options.h"
#include "common/program.h"
#include "common/progress.h"

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

/// Numbers in, bits inside, a score out: how likely it is that the leaky sum of the numbers is
/// above 0.
struct Network : Module {
  explicit Network(std::int64_t hidden, std::int64_t bits)
      : in(child("in", Linear(1, hidden))),
        code(child("code", Linear(hidden, bits))),
        out(child("out", Linear(bits, 1))) {}
  /// xs: [T, B, 1]; returns [B].
  Tensor operator()(const Tensor& xs) const {
    const Scope here = scope();
    const Tensor sums = leaky_sum(softsign(in(xs)), kDecay)[-1];
    return squeeze(out(binarize(code(sums))), 1);
  }
  Linear in, code, out;
};

/// How many of the sequences get the right sign.
double accuracy(const Network& net, const Tensor& xs, const Tensor& labels) {
  const NoGrad no_grad;
  return mean(((net(xs) > 0.0) == labels).to(DType::f64)).item();
}

}  // namespace

int main(int argc, char** argv) {
  std::int64_t steps = 20, batch = 64, hidden = 16, bits = 8, epochs = 10;
  double lr = 0.01;
  std::uint64_t seed = 0;
  int threads = 0;
  bool quiet = false;

  CLI::App app("Operations of your own, checked and used.", "custom_op");
  app.option_defaults()->always_capture_default();
  app.add_option("--steps", steps, "numbers in a sequence")->check(examples::at_least(1));
  app.add_option("--batch", batch, "sequences side by side")->check(examples::at_least(1));
  app.add_option("--hidden", hidden, "units that add up")->check(examples::at_least(1));
  app.add_option("--bits", bits, "units of 0 or 1")->check(examples::at_least(1));
  app.add_option("--epochs", epochs, "of 100 batches")->check(examples::at_least(1));
  app.add_option("--lr", lr, "learning rate of Adam")->check(examples::above(0));
  app.add_option("--seed", seed, "of all random numbers");
  app.add_option("--threads", threads, "0: one per core")->check(examples::at_least(0));
  app.add_flag("--quiet", quiet, "no progress");

  return examples::run(app, argc, argv, [&] {
    if (threads > 0) set_num_threads(threads);
    manual_seed(seed);

    // A gradient is right when differences of the value say so.
    const Tensor x = normal({5, 3}, 0, 1, DType::f64).requires_grad_();
    gradcheck([](const auto& inputs) { return softsign(inputs[0]); }, {x}, {.order = 2});
    gradcheck([](const auto& inputs) { return leaky_sum(inputs[0], kDecay); }, {x}, {.order = 2});
    fmt::print("softsign and leaky_sum: first and second derivatives are right\n");
    fmt::print(
        "{}\n",
        gradcheck_message([](const auto& inputs) { return tanh(wrong_softsign(inputs[0])); }, {x}));

    Network net(hidden, bits);
    Adam optimizer(net.parameters(), {.lr = lr});
    const auto sequences = [&](std::int64_t count) {
      const Tensor xs = normal({steps, count, 1});
      return std::pair{xs, squeeze(leaky_sum(xs, kDecay)[-1], 1) > 0.0};
    };
    const auto [test_xs, test_labels] = sequences(1000);
    fmt::print("before training: {:.1f} % of new sequences are right\n",
               100 * accuracy(net, test_xs, test_labels));
    examples::Progress progress(
        {.total = epochs * 100 * batch, .unit = "sequences", .quiet = quiet});
    for (std::int64_t epoch = 1; epoch <= epochs; ++epoch) {
      double total = 0;
      for (int i = 0; i < 100; ++i) {
        const auto [xs, labels] = sequences(batch);
        const Tensor loss = binary_cross_entropy_with_logits(net(xs), labels);
        optimizer.zero_grad();
        loss.backward();
        optimizer.step();
        total += loss.item();
      }
      progress.update(epoch * 100 * batch,
                      fmt::format("epoch {}/{}  loss {:.3f}", epoch, epochs, total / 100));
    }
    const double right = 100 * accuracy(net, test_xs, test_labels);
    progress.finish(epochs * 100 * batch, fmt::format("accuracy {:.1f} %", right));
    fmt::print(
        "after training: {:.1f} % of new sequences are right, through {} bits that have no "
        "derivative\n",
        right, bits);
    return 0;
  });
}
