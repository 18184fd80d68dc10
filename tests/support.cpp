#include "tests/support.h"

#include <doctest/doctest.h>

#include <cmath>
#include <cstdio>

#include "framework/gradcheck.h"

namespace unroll::test {

Array to_array(const Tensor& x) {
  Array result{x.shape(), {}};
  const auto copy = [&](const auto& values) {
    for (auto v : values) result.values.push_back(static_cast<double>(v));
  };
  switch (x.dtype()) {
    case DType::f32: copy(x.to_vector<float>()); break;
    case DType::f64: copy(x.to_vector<double>()); break;
    case DType::i64: copy(x.to_vector<std::int64_t>()); break;
  }
  return result;
}

Tensor to_tensor(const Array& x, DType dtype) { return from_vector(x.values, x.shape).to(dtype); }

std::string difference(const Tensor& actual, const Array& expected, double tolerance,
                       double floor) {
  if (!actual.defined()) return "undefined tensor";
  if (!(actual.shape() == expected.shape)) {
    return "shape is " + to_string(actual.shape()) + ", expected " + to_string(expected.shape);
  }
  const Array values = to_array(actual);
  std::string text;
  double worst = 0.0;
  for_each_index(expected.shape, [&](const Shape& index) {
    const double a = values.at(index);
    const double e = expected.at(index);
    if (a == e || (std::isnan(a) && std::isnan(e))) return;
    const double error = std::abs(a - e) / (tolerance * std::max(std::abs(e), floor));
    if (error <= 1.0 || (!text.empty() && error <= worst)) return;
    worst = error;
    char numbers[100];
    std::snprintf(numbers, sizeof numbers, ": %.17g, expected %.17g (%.1e times the tolerance)", a,
                  e, error);
    text = "element " + to_string(index) + " of " + to_string(expected.shape) + numbers;
  });
  return text;
}

std::string difference(const Tensor& actual, const Tensor& expected, double tolerance,
                       double floor) {
  if (!expected.defined()) return "expected is an undefined tensor";
  return difference(actual, to_array(expected), tolerance, floor);
}

bool shares_memory(const Tensor& a, const Tensor& b) {
  return a.impl().storage == b.impl().storage;
}

std::string to_string(Layout layout) {
  switch (layout) {
    case Layout::contiguous: return "contiguous";
    case Layout::offset: return "offset";
    case Layout::transposed: return "transposed";
    case Layout::stepped: return "stepped";
    case Layout::flipped: return "flipped";
    case Layout::first_repeated: return "first dimension repeated";
    case Layout::last_repeated: return "last dimension repeated";
  }
  return "?";
}

namespace {

Shape all_dims(const Tensor& x) {
  Shape dims;
  for (std::int64_t d = 0; d < x.dim(); ++d) dims.push_back(d);
  return dims;
}

Tensor repeat(const Tensor& x, std::int64_t dim) {
  return x.numel() == 0 ? x : broadcast_to(slice(x, dim, 0, 1), x.shape());
}

}  // namespace

Tensor lay_out(const Tensor& x, Layout layout) {
  if (layout == Layout::contiguous) return x;
  if (layout == Layout::offset) {
    const Tensor padded = concatenate({zeros({3}, x.dtype()), reshape(x, {x.numel()})});
    return reshape(narrow(padded, 0, 3, x.numel()), x.shape());
  }
  if (layout == Layout::stepped) return select(stack({x, x}, -1), -1, 1);
  if (x.dim() == 0) return x;
  switch (layout) {
    case Layout::transposed: return transpose(transpose(x, 0, -1).clone(), 0, -1);
    case Layout::flipped: return flip(flip(x, all_dims(x)).clone(), all_dims(x));
    case Layout::first_repeated: return repeat(x, 0);
    default: return repeat(x, -1);
  }
}

Tensor random_tensor(const Shape& shape, Range range, DType dtype, Generator& generator) {
  if (dtype != DType::i64) return uniform(shape, range.low, range.high, dtype, generator);
  return randint(static_cast<std::int64_t>(std::ceil(range.low)),
                 static_cast<std::int64_t>(std::floor(range.high)) + 1, shape, generator);
}

namespace {

std::vector<Tensor> random_inputs(const Op& op, const std::vector<Shape>& shapes, DType dtype,
                                  Generator& generator) {
  std::vector<Tensor> inputs;
  for (std::size_t i = 0; i < shapes.size(); ++i) {
    const Range range = op.ranges[std::min(i, op.ranges.size() - 1)];
    inputs.push_back(random_tensor(shapes[i], range, dtype, generator));
  }
  return inputs;
}

/// Inputs in one layout (shift 0) or each in another.
std::vector<Tensor> lay_out_all(const std::vector<Tensor>& inputs, std::size_t layout,
                                std::size_t shift) {
  std::vector<Tensor> result;
  for (std::size_t i = 0; i < inputs.size(); ++i)
    result.push_back(lay_out(inputs[i], kLayouts[(layout + i * shift) % std::size(kLayouts)]));
  return result;
}

double tolerance_of(DType dtype) {
  switch (dtype) {
    case DType::f32: return 1e-5;
    case DType::f64: return 1e-12;
    default: return 0.0;
  }
}

void check_values(const Op& op, const std::vector<Tensor>& inputs, DType dtype) {
  std::vector<Array> before;
  for (const Tensor& x : inputs) before.push_back(to_array(x));

  const Tensor y = op.run(inputs);
  CHECK(y.dtype() == op.result_dtype(dtype));
  CHECK(difference(y, op.expected(before), tolerance_of(dtype), op.floor) == "");
  for (std::size_t i = 0; i < inputs.size(); ++i) {
    CHECK(difference(inputs[i], before[i], 0.0) == "");
    if (y.numel() > 0) CHECK(shares_memory(y, inputs[i]) == (op.view && i == 0));
  }
}

std::int64_t count_elements(const std::vector<Shape>& shapes) {
  std::int64_t n = 0;
  for (const Shape& shape : shapes) n += shape.numel();
  return n;
}

/// Calls f(layout, shift) for the layouts of all inputs together and, if there are several inputs,
/// for each input in another.
template <class F>
void for_each_layout(std::size_t inputs, F f) {
  for (std::size_t shift = 0; shift < (inputs > 1 ? 2 : 1); ++shift) {
    for (std::size_t layout = 0; layout < std::size(kLayouts); ++layout) {
      INFO("layout ", to_string(kLayouts[layout]), std::string(shift ? " and following ones" : ""));
      f(layout, shift);
    }
  }
}

}  // namespace

void check_values(const Op& op) {
  INFO("op ", op.name);
  Generator generator(1);
  for (DType dtype : {DType::f32, DType::f64, DType::i64}) {
    INFO("dtype ", to_string(dtype));
    for (const std::vector<Shape>& shapes : op.shapes) {
      std::string text;
      for (const Shape& shape : shapes) text += " " + to_string(shape);
      INFO("shapes", text);
      const std::vector<Tensor> inputs = random_inputs(op, shapes, dtype, generator);
      if (dtype == DType::i64 && op.takes == Takes::floating) {
        const std::string error = op.name + ": needs a floating-point tensor, got i64";
        CHECK_THROWS_WITH_AS(op.run(inputs), error.c_str(), DTypeError);
        continue;
      }
      for_each_layout(inputs.size(), [&](std::size_t layout, std::size_t shift) {
        check_values(op, lay_out_all(inputs, layout, shift), dtype);
      });
    }
  }
}

void check_gradients(const Op& op) {
  INFO("op ", op.name);
  Generator generator(2);
  for (const std::vector<Shape>& shapes : op.shapes) {
    if (count_elements(shapes) > 40) continue;
    std::string text;
    for (const Shape& shape : shapes) text += " " + to_string(shape);
    INFO("shapes", text);
    std::vector<Tensor> inputs = random_inputs(op, shapes, DType::f64, generator);
    for (Tensor& x : inputs) x.requires_grad_();
    if (!op.differentiable) {
      CHECK_FALSE(op.run(inputs).requires_grad());
      continue;
    }

    for_each_layout(inputs.size(), [&](std::size_t layout, std::size_t shift) {
      if (!op.smooth) {
        for (std::size_t i = 0; i < inputs.size(); ++i)
          if (kLayouts[(layout + i * shift) % std::size(kLayouts)] >= Layout::first_repeated)
            return;
      }
      const auto f = [&](const std::vector<Tensor>& xs) {
        return op.run(lay_out_all(xs, layout, shift));
      };
      CHECK(gradcheck_message(f, inputs, {.order = 2}) == "");
    });

    // The rules work in f32, too, and give gradients of f32.
    const Tensor y = op.run(inputs);
    const Tensor seed = random_tensor(y.shape(), {0.5, 1.5}, DType::f64, generator);
    const std::vector<Tensor> expected = grad({y}, inputs, {.grad_outputs = {seed}});
    std::vector<Tensor> inputs32;
    for (const Tensor& x : inputs) inputs32.push_back(x.detach().to(DType::f32).requires_grad_());
    for (bool create_graph : {false, true}) {
      const std::vector<Tensor> actual =
          grad({op.run(inputs32)}, inputs32,
               {.create_graph = create_graph, .grad_outputs = {seed.to(DType::f32)}});
      for (std::size_t i = 0; i < inputs.size(); ++i) {
        CHECK(actual[i].dtype() == DType::f32);
        CHECK(difference(actual[i], expected[i], 1e-4, 1.0) == "");
      }
    }
  }
}

}  // namespace unroll::test
