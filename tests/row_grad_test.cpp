// Gradients by rows: the same numbers as dense ones, and only rows that were looked up are touched.

#include "framework/row_grad.h"

#include <doctest/doctest.h>

#include <cmath>
#include <memory>
#include <string>
#include <vector>

#include "framework/autograd.h"
#include "framework/gradcheck.h"
#include "framework/memory.h"
#include "framework/ops.h"
#include "framework/random.h"
#include "modules/embedding.h"
#include "optim/optim.h"
#include "tests/compare.h"
#include "tests/reference.h"

using namespace unroll;

namespace {

using Json = nlohmann::json;
using Indices = std::vector<std::int64_t>;

constexpr double kNan = std::numeric_limits<double>::quiet_NaN();

Tensor table() {
  manual_seed(11);
  return normal({6, 2}, 0.0, 1.0, DType::f64).requires_grad_();
}

/// A loss in which the gradient of every row that is looked up is another one.
Tensor look_up(const Tensor& weight, const Indices& indices, bool sparse, double scale = 1.0) {
  const Tensor rows = embedding(weight, from_vector(indices), -1, sparse);
  const Tensor factors = arange(rows.numel(), DType::f64) + 1.0;
  return sum(square(rows) * reshape(factors, rows.shape())) * scale;
}

std::unique_ptr<Optimizer> make_optimizer(const std::string& name, const Json& o,
                                          std::vector<Tensor> p) {
  if (name == "sgd") return std::make_unique<SGD>(std::move(p), SGDOptions{.lr = o["lr"]});
  if (name == "adagrad")
    return std::make_unique<Adagrad>(
        std::move(p),
        AdagradOptions{.lr = o["lr"],
                       .lr_decay = o.value("lr_decay", 0.0),
                       .initial_accumulator_value = o.value("initial_accumulator_value", 0.0)});
  REQUIRE(name == "sparse_adam");
  SparseAdamOptions options{.lr = o["lr"]};
  if (o.contains("betas")) options.betas = {o["betas"][0], o["betas"][1]};
  return std::make_unique<SparseAdam>(std::move(p), options);
}

}  // namespace

TEST_CASE("row_grad: a table that was looked up has the gradient of those rows") {
  const Tensor w = table();
  look_up(w, {4, 1, 4}, true).backward();
  const RowGrad grad = row_grad(w);
  REQUIRE(grad.defined());
  CHECK(grad.rows.to_vector<std::int64_t>() == Indices{1, 4});
  const Tensor dense = table();
  look_up(dense, {4, 1, 4}, false).backward();
  CHECK_FALSE(row_grad(dense).defined());
  CHECK(max_difference(grad.values, index_select(dense.grad(), 0, grad.rows)) == 0.0);
}

TEST_CASE("row_grad: whoever reads .grad gets what a dense gradient would be") {
  const Tensor w = table(), dense = table();
  double tolerance = 0.0;
  for (const bool sparse : {true, false}) {
    const Tensor& x = sparse ? w : dense;
    // Several look-ups in one graph, several sweeps, and other uses of the table besides.
    (look_up(x, {4, 1, 4, 0}, sparse) + look_up(x, {1, 1, 5}, sparse, 0.3)).backward();
    look_up(x, {5, 3}, sparse).backward();
    SUBCASE("alone") {}
    SUBCASE("with a dense part") {
      (look_up(x, {2, 4}, sparse) + sum(square(x))).backward();
      tolerance = 1e-14;  // the terms are added in another order
    }
    SUBCASE("read in between") {
      CHECK(x.grad().defined());
      look_up(x, {0, 1}, sparse).backward();
    }
  }
  CHECK(max_difference(w.grad(), dense.grad()) <= tolerance);
  CHECK_FALSE(row_grad(w).defined());  // dense from now on
  CHECK(max_difference(w.grad(), dense.grad()) <= tolerance);
}

TEST_CASE("row_grad: a gradient that is read belongs to its reader") {
  const Tensor w = table();
  look_up(w, {1, 2}, true).backward();
  const Tensor mine = w.grad(), before = mine.clone();
  mine.detach().mul_(2.0);  // writing into it changes the gradient, as it does for a dense one
  CHECK(max_difference(w.grad(), before * 2.0) == 0.0);
  look_up(w, {1, 2}, true).backward();
  CHECK(max_difference(w.grad(), before * 3.0) < 1e-12);
  CHECK(max_difference(mine, before * 2.0) == 0.0);
}

TEST_CASE("row_grad: zero_grad and set_grad replace it") {
  Tensor w = table();
  look_up(w, {1, 2}, true).backward();
  w.set_grad(Tensor());
  CHECK_FALSE(row_grad(w).defined());
  CHECK_FALSE(w.grad().defined());
  look_up(w, {1, 2}, true).backward();
  w.set_grad(ones({6, 2}, DType::f64));
  CHECK(max_difference(w.grad(), ones({6, 2}, DType::f64)) == 0.0);
}

TEST_CASE("row_grad: grad(), create_graph, hooks and tables that are no leaf get dense gradients") {
  const Tensor w = table();
  CHECK(gradcheck_message(
            [&](const auto&) {
              return look_up(w, {4, 1, 4}, true);
            },
            {w}, {.order = 2}) == "");
  const Tensor g = grad(look_up(w, {4, 1, 4}, true), w);
  CHECK(g.shape() == w.shape());
  CHECK_FALSE(row_grad(w).defined());

  look_up(w, {4, 1, 4}, true).backward(Tensor(), false, true);
  CHECK_FALSE(row_grad(w).defined());
  CHECK(max_difference(w.grad(), g) == 0.0);
  Tensor(w).set_grad(Tensor());  // it leads back to w: a circle

  const Tensor scaled = table();
  look_up(scaled * 2.0, {4, 1, 4}, true).backward();
  CHECK(max_difference(scaled.grad(), g * 4.0) < 1e-12);

  Tensor hooked = table();
  hooked.register_hook([](const Tensor& grad) { return grad * 10.0; });
  look_up(hooked, {4, 1, 4}, true).backward();
  CHECK(max_difference(hooked.grad(), g * 10.0) < 1e-12);
}

TEST_CASE("row_grad: padding is no row") {
  const Embedding embed(6, 2, {.padding_idx = 3, .sparse = true});
  sum(embed(from_vector<std::int64_t>({3, 5, 3, 0}))).backward();
  CHECK(row_grad(embed.weight).rows.to_vector<std::int64_t>() == Indices{0, 5});
  Tensor(embed.weight).set_grad(Tensor());
  sum(embed(from_vector<std::int64_t>({3, 3}))).backward();
  CHECK(row_grad(embed.weight).values.shape() == Shape{0, 2});
  CHECK(max_difference(embed.weight.grad(), zeros({6, 2})) == 0.0);
}

TEST_CASE("row_grad: clipping sees the whole norm and keeps rows") {
  const Tensor w = table(), dense = table(), other = tensor({3, 4}).requires_grad_();
  look_up(w, {4, 1, 4}, true).backward();
  look_up(dense, {4, 1, 4}, false).backward();
  Tensor(other).set_grad(tensor({3, 4}));
  const double norm = clip_grad_norm({dense, other}, 1.0);
  Tensor(other).set_grad(tensor({3, 4}));
  CHECK(clip_grad_norm({w, other}, 1.0) == doctest::Approx(norm).epsilon(1e-14));
  REQUIRE(row_grad(w).defined());
  CHECK(row_grad(w).rows.to_vector<std::int64_t>() == Indices{1, 4});
  clip_grad_value({w, dense}, 0.1);
  REQUIRE(row_grad(w).defined());
  CHECK(max_difference(w.grad(), dense.grad()) < 1e-15);
}

TEST_CASE("row_grad: set_row_grad refuses what does not fit") {
  const Tensor w = table();
  const auto rows = [](const Indices& list) { return from_vector(list); };
  const auto values = [](std::int64_t n) { return ones({n, 2}, DType::f64); };
  set_row_grad(w, {rows({0, 5}), values(2)});
  CHECK(sum(w.grad()).item() == 4.0);
  CHECK_THROWS_WITH_AS(set_row_grad(zeros({6, 2}), {rows({0}), values(1)}),
                       "set_row_grad: the tensor is not a leaf that requires a gradient",
                       GraphError);
  CHECK_THROWS_WITH_AS(set_row_grad(w, {rows({0}), values(2)}),
                       "set_row_grad: rows (1) and values (2, 2) do not fit the tensor (6, 2)",
                       ShapeError);
  CHECK_THROWS_WITH_AS(set_row_grad(w, {rows({0}), ones({1, 2})}),
                       "set_row_grad: dtypes differ: f64 and f32", DTypeError);
  CHECK_THROWS_WITH_AS(set_row_grad(w, {zeros({1}), values(1)}),
                       "set_row_grad: indices are i64, got f32", DTypeError);
  CHECK_THROWS_WITH_AS(set_row_grad(w, {rows({6}), values(1)}),
                       "set_row_grad: index 6 at position 0 is out of range [0, 6)", IndexError);
  CHECK_THROWS_WITH_AS(set_row_grad(w, {rows({2, 2}), values(2)}),
                       "set_row_grad: the rows do not rise", IndexError);
  CHECK(sum(w.grad()).item() == 4.0);
}

// --- Steps --------------------------------------------------------------------------------------

TEST_CASE("row_grad: 20 steps by rows end where PyTorch's do") {
  int cases = 0;
  for (const Json& test : read_reference("embedding.json")) {
    for (const DType dtype : {DType::f32, DType::f64}) {
      CAPTURE(test["optimizer"].dump());
      CAPTURE(test["options"].dump());
      CAPTURE(to_string(dtype));
      const Tensor weight = read_tensor(test["table"], dtype).requires_grad_();
      const Tensor y = read_tensor(test["y"], dtype);
      const Tensor indices = read_tensor(test["indices"], DType::i64);
      const auto optimizer = make_optimizer(test["optimizer"], test["options"], {weight});
      for (std::int64_t step = 0; step < 20; ++step) {
        optimizer->zero_grad();
        mse_loss(embedding(weight, indices[step], -1, true), y).backward();
        CHECK(row_grad(weight).defined());
        optimizer->step();
      }
      const Json& end = test["end_" + to_string(dtype)];
      const double tolerance = dtype == DType::f32 ? 1e-6 : 1e-12;
      CHECK(max_difference(weight, read_tensor(end, DType::f64)) < tolerance);
      ++cases;
    }
  }
  CHECK(cases == 10);
}

TEST_CASE("row_grad: SGD and Adagrad end at the same bits with and without sparse") {
  for (const char* name : {"sgd", "adagrad"}) {
    CAPTURE(name);
    const Tensor by_rows = table(), dense = table();
    const auto train = [&](const Tensor& w, bool sparse) {
      const auto optimizer = make_optimizer(name, {{"lr", 0.01}}, {w});
      for (int step = 0; step < 5; ++step) {
        optimizer->zero_grad();
        look_up(w, {4, step % 3, 4}, sparse).backward();
        optimizer->step();
      }
    };
    train(by_rows, true);
    train(dense, false);
    CHECK(max_difference(by_rows, dense) == 0.0);
  }
}

TEST_CASE("row_grad: SparseAdam is Adam, but for eps, where every row is looked up") {
  const Tensor lazy = table(), usual = table();
  SparseAdam sparse_adam({lazy}, {.lr = 0.1});
  Adam adam({usual}, {.lr = 0.1});
  for (int step = 0; step < 5; ++step) {
    sparse_adam.zero_grad();
    adam.zero_grad();
    look_up(lazy, {5, 4, 3, 2, 1, 0}, true).backward();
    look_up(usual, {5, 4, 3, 2, 1, 0}, true).backward();
    sparse_adam.step();
    adam.step();
  }
  CHECK(max_difference(lazy, usual) < 1e-6);
}

TEST_CASE("row_grad: optimizers that move rows without a gradient have the dense step") {
  const auto check = [](const auto& make) {
    const Tensor by_rows = table(), dense = table();
    const auto train = [&](const Tensor& w, bool sparse) {
      const auto optimizer = make(std::vector<Tensor>{w});
      for (int step = 0; step < 3; ++step) {
        optimizer->zero_grad();
        look_up(w, {4, step % 3, 4}, sparse).backward();
        optimizer->step();
      }
    };
    train(by_rows, true);
    train(dense, false);
    CHECK(max_difference(by_rows, dense) == 0.0);
  };
  using P = std::vector<Tensor>;
  check([](P p) { return std::make_unique<Adam>(p); });
  check([](P p) { return std::make_unique<AdamW>(p); });
  check([](P p) { return std::make_unique<SGD>(p, SGDOptions{.momentum = 0.9}); });
  check([](P p) { return std::make_unique<SGD>(p, SGDOptions{.weight_decay = 0.9}); });
  check([](P p) { return std::make_unique<Adagrad>(p, AdagradOptions{.weight_decay = 0.9}); });
  check([](P p) { return std::make_unique<RMSprop>(p); });
  check([](P p) { return std::make_unique<Adadelta>(p); });
}

TEST_CASE("row_grad: a step touches the rows that were looked up and no other") {
  // What the optimizer remembers of all other rows becomes NaN: who reads it, writes NaN.
  for (const char* name : {"sgd", "adagrad", "sparse_adam"}) {
    CAPTURE(name);
    const std::int64_t rows = 1000;
    const Tensor weight = zeros({rows, 3}).requires_grad_();
    const auto optimizer = make_optimizer(name, {{"lr", 0.5}}, {weight});
    const Indices looked_up{7, 999, 7, 500};
    const auto step = [&] {
      optimizer->zero_grad();
      sum(embedding(weight, from_vector(looked_up), -1, true)).backward();
      optimizer->step();
    };
    step();
    for (auto& [key, buffer] : optimizer->state_dict()) {
      if (buffer.dim() != 2) continue;
      for (std::int64_t row = 0; row < rows; ++row)
        if (row != 7 && row != 500 && row != 999) buffer[row].fill_(kNan);
    }
    step();
    const std::vector<float> w = weight.detach().to_vector<float>();
    std::int64_t changed = 0, spoilt = 0;
    for (std::int64_t row = 0; row < rows; ++row) {
      changed += w[static_cast<std::size_t>(3 * row)] != 0.0f;
      spoilt += std::isnan(w[static_cast<std::size_t>(3 * row)]);
    }
    CHECK(changed == 3);
    CHECK(spoilt == 0);
  }
}

TEST_CASE("row_grad: an optimizer that passes over zeros is given rows only") {
  struct Counting : Optimizer {
    explicit Counting(std::vector<Tensor> parameters) : Optimizer("Counting") {
      add_group(std::move(parameters), 0.1, {"seen"});
    }
    void update(Tensor& parameter, const Tensor& grad, Slot& slot) override {
      rows += parameter.size(0);
      parameter.add_(grad, -lr(slot.group));
      slot.buffers[0].add_(ones_like(grad));
    }
    bool passes_over_zeros(std::size_t) const override { return true; }
    std::int64_t rows = 0;
  };
  const Tensor w = table();
  Counting counting({w});
  for (const Indices& indices : {Indices{4, 1, 4}, Indices{2}, Indices{5, 5}}) {
    counting.zero_grad();
    look_up(w, indices, true).backward();
    counting.step();
  }
  CHECK(counting.rows == 2 + 1 + 1);
  CHECK(max_difference(select(find(counting.state_dict(), "0.seen"), 1, 0),
                       tensor({0, 1, 1, 0, 1, 1})) == 0.0);
}

TEST_CASE("row_grad: neither backward nor step asks for memory of the table's size") {
  const std::int64_t bytes = 100'000 * 16 * 4;
  const Tensor weight = zeros({100'000, 16}).requires_grad_();
  SGD sgd({weight}, {.lr = 0.1});
  const std::int64_t before = pool_stats().in_use;
  reset_peak_memory();
  for (int i = 0; i < 3; ++i) {
    sgd.zero_grad();
    sum(square(embedding(weight, from_vector<std::int64_t>({5, 99'999}), -1, true))).backward();
    clip_grad_norm({weight}, 1.0);
    sgd.step();
  }
  CHECK(pool_stats().peak_in_use - before < bytes / 100);
}
