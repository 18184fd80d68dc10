#include "framework/gradcheck.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <deque>
#include <limits>
#include <string>
#include <vector>

#include "framework/autograd.h"
#include "framework/check.h"
#include "framework/format.h"
#include "framework/ops.h"
#include "framework/random.h"
#include "framework/watch.h"

namespace unroll {
namespace {

using Values = std::vector<double>;

/// A tensor to differentiate by, with its name in messages.
struct Variable {
  std::string name;
  Tensor tensor;
};

std::vector<Tensor> tensors_of(const std::vector<Variable>& variables) {
  std::vector<Tensor> tensors;
  tensors.reserve(variables.size());
  for (const Variable& v : variables) tensors.push_back(v.tensor);
  return tensors;
}

/// The variables among the inputs: those that require a gradient.
std::vector<Variable> variables_of(const std::vector<Tensor>& inputs) {
  std::vector<Variable> variables;
  for (std::size_t i = 0; i < inputs.size(); ++i) {
    const Tensor& x = inputs[i];
    if (!x.requires_grad()) continue;
    auto fail = [&](const std::string& what) {
      detail::fail<ValueError>("gradcheck: input {} {}", i, what);
    };
    if (x.dtype() != DType::f64) fail("must be f64, is " + to_string(x.dtype()));
    if (!x.is_leaf()) fail("must be a leaf, is the result of an operation");
    if (!x.is_contiguous()) fail("must be contiguous");
    variables.push_back({detail::format("input {}", i), x});
  }
  if (variables.empty()) throw ValueError("gradcheck: no input requires a gradient");
  return variables;
}

/// Random numbers of absolute value 0.5 to 1.5, so that each element of a result matters.
Tensor random_weights(const Shape& shape, Generator& generator) {
  Tensor weights = uniform(shape, 0.5, 1.5, DType::f64, generator);
  return where(uniform(shape, -1.0, 1.0, DType::f64, generator) < 0.0, -weights, weights);
}

/// A gradient as numbers; undefined, as of what does not depend on the variable, is 0.
Values values_of(const Tensor& gradient, const Tensor& variable) {
  if (!gradient.defined()) return Values(static_cast<std::size_t>(variable.numel()), 0.0);
  return gradient.to_vector<double>();
}

/// Whether the numbers are the same, NaN the same as NaN.
bool same(const Values& a, const Values& b) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end(),
                    [](double x, double y) { return x == y || (std::isnan(x) && std::isnan(y)); });
}

void set_element(Tensor variable, std::int64_t i, double value) {
  NoGrad no_grad;
  variable.write<double>()[i] = value;
}

/// Moves one element of a variable, and puts it back in the end.
class Nudge {
 public:
  Nudge(const Tensor& variable, std::int64_t i)
      : variable_(variable), i_(i), original_(variable.data<double>()[i]) {}
  Nudge(const Nudge&) = delete;
  Nudge& operator=(const Nudge&) = delete;
  ~Nudge() { set_element(variable_, i_, original_); }

  /// Moves the element to `distance` from where it was. Returns where it is, after rounding.
  double move(double distance) {
    const double value = original_ + distance;
    set_element(variable_, i_, value);
    return value;
  }

 private:
  Tensor variable_;
  std::int64_t i_;
  double original_;
};

/// d(weights . f)/d(variable) by central differences, for a function `f` to Values.
template <class F>
Values differences(const F& f, const Values& weights, const Tensor& variable, double eps) {
  Values result;
  for (std::int64_t i = 0; i < variable.numel(); ++i) {
    Nudge nudge(variable, i);
    const double x_above = nudge.move(eps);
    const Values above = f();
    const double x_below = nudge.move(-eps);
    const Values below = f();
    double difference = 0.0;
    for (std::size_t k = 0; k < weights.size(); ++k)
      difference += weights[k] * (above[k] - below[k]);
    result.push_back(difference / (x_above - x_below));
  }
  return result;
}

/// The position of element i in a contiguous tensor.
Shape position(std::int64_t i, const Shape& shape) {
  Shape result = shape;
  for (std::int64_t d = shape.size() - 1; d >= 0; --d) {
    result[d] = i % shape[d];
    i /= shape[d];
  }
  return result;
}

/// The line about one variable: "" if all elements agree.
std::string compare(const std::string& what, const Variable& variable, const Values& analytic,
                    const Values& numeric, const GradcheckOptions& options) {
  std::int64_t failed = 0;
  std::size_t worst = 0;
  double worst_excess = 0.0;
  for (std::size_t i = 0; i < numeric.size(); ++i) {
    const double difference = std::abs(analytic[i] - numeric[i]);
    const double tolerance = options.atol + options.rtol * std::abs(numeric[i]);
    if (difference <= tolerance) continue;
    ++failed;
    const double excess =
        std::isnan(difference) ? std::numeric_limits<double>::infinity() : difference / tolerance;
    if (excess > worst_excess) {
      worst_excess = excess;
      worst = i;
    }
  }
  if (failed == 0) return "";
  const Shape& shape = variable.tensor.shape();
  return detail::format(
      "gradcheck: {}: {}, element {}: analytic {:.9g}, numeric {:.9g}, difference {:.1e} "
      "({} of {} elements of {} differ)",
      what, variable.name, to_string(position(static_cast<std::int64_t>(worst), shape)),
      analytic[worst], numeric[worst], std::abs(analytic[worst] - numeric[worst]), failed,
      numeric.size(), to_string(shape));
}

/// Adds a line, if there is one.
void add_line(std::string& message, const std::string& line) {
  if (!message.empty() && !line.empty()) message += '\n';
  message += line;
}

/// The function under test, with the weights that reduce its result to a number.
struct Problem {
  const GradcheckFunction& f;
  const std::vector<Tensor>& inputs;
  std::vector<Variable> variables;
  Tensor weights;

  Values result() const {
    NoGrad no_grad;
    return f(inputs).to_vector<double>();
  }

  /// d(weights . f)/dx for each variable x.
  std::vector<Tensor> gradients(bool create_graph) const {
    const Tensor y = f(inputs);
    if (!y.requires_grad()) return std::vector<Tensor>(variables.size());
    return grad({y}, tensors_of(variables),
                {.create_graph = create_graph, .grad_outputs = {weights}, .allow_unused = true});
  }

  /// The same, all numbers in one row.
  Values gradient() const {
    Values numbers;
    const std::vector<Tensor> parts = gradients(false);
    for (std::size_t i = 0; i < parts.size(); ++i) {
      const Values part = values_of(parts[i], variables[i].tensor);
      numbers.insert(numbers.end(), part.begin(), part.end());
    }
    return numbers;
  }
};

/// The gradient against differences of the result. For order 2 what is recorded under create_graph
/// is checked, too: it may take other ways.
std::string check_order_1(const Problem& problem, const GradcheckOptions& options) {
  const Values weights = problem.weights.to_vector<double>();
  const std::vector<Tensor> plain = problem.gradients(false);
  std::vector<Tensor> recorded;
  if (options.order == 2) recorded = problem.gradients(true);

  std::string message;
  for (std::size_t i = 0; i < plain.size(); ++i) {
    const Variable& x = problem.variables[i];
    const Values numeric =
        differences([&] { return problem.result(); }, weights, x.tensor, options.eps);
    std::string line = compare("order 1", x, values_of(plain[i], x.tensor), numeric, options);
    if (line.empty() && options.order == 2) {
      line = compare("order 1 under create_graph", x, values_of(recorded[i], x.tensor), numeric,
                     options);
    }
    add_line(message, line);
  }
  return message;
}

/// The gradient of the gradient, along fixed random directions, against differences of the
/// gradient.
std::string check_order_2(const Problem& problem, const GradcheckOptions& options,
                          Generator& generator) {
  const std::vector<Tensor> recorded = problem.gradients(true);
  Values direction;
  std::vector<Tensor> ys, seeds;
  for (std::size_t i = 0; i < recorded.size(); ++i) {
    const Tensor seed = random_weights(problem.variables[i].tensor.shape(), generator);
    const Values numbers = seed.to_vector<double>();
    direction.insert(direction.end(), numbers.begin(), numbers.end());
    // The gradient of a linear function is constant, and leaves no graph.
    if (!recorded[i].defined() || !recorded[i].requires_grad()) continue;
    ys.push_back(recorded[i]);
    seeds.push_back(seed);
  }

  std::vector<Variable> variables = problem.variables;
  variables.push_back({"grad_output", problem.weights});
  std::vector<Tensor> second(variables.size());
  if (!ys.empty()) {
    second = grad(ys, tensors_of(variables), {.grad_outputs = seeds, .allow_unused = true});
  }

  std::string message;
  for (std::size_t i = 0; i < variables.size(); ++i) {
    const Variable& x = variables[i];
    const Values numeric =
        differences([&] { return problem.gradient(); }, direction, x.tensor, options.eps);
    add_line(message, compare("order 2", x, values_of(second[i], x.tensor), numeric, options));
  }
  return message;
}

// --- Whose fault it is --------------------------------------------------------------------------

/// One operation on the tape, as it was done.
struct Operation {
  const char* op;
  Tensor result;
  Values value;
  std::vector<Shape> shapes;   // of the inputs
  std::vector<Values> inputs;  // none where an input is not on the tape
};

Values values_of(const Tensor& x) { return x.detach().to(DType::f64).to_vector<double>(); }

/// Writes down all operations.
class Recorder : public detail::Watcher {
 public:
  std::vector<Operation> operations;

 private:
  void computed(const char* op, const detail::Inputs& inputs, const Tensor& value, int) override {
    if (!value.requires_grad()) return;
    Operation done{op, value, values_of(value), {}, {}};
    for (std::size_t i = 0; i < inputs.size(); ++i) {
      done.shapes.push_back(inputs[i].shape());
      done.inputs.push_back(inputs[i].requires_grad() ? values_of(inputs[i]) : Values());
    }
    operations.push_back(std::move(done));
  }
};

/// What the rule of one operation gives its inputs.
class RuleListener : public detail::Watcher {
 public:
  explicit RuleListener(const Tensor& result) : node_(result.impl().node.get()) {}
  std::vector<std::pair<std::size_t, Values>> gradients;  // by input

 private:
  void added(const detail::Node& node, int i, const Tensor& grad) override {
    if (&node == node_) gradients.emplace_back(static_cast<std::size_t>(i), values_of(grad));
  }
  const detail::Node* node_;
};

/// A scalar product with the sum of the absolute values of its terms.
struct Product {
  double sum = 0.0, size = 0.0;
  void add(const Values& weights, const Values& above, const Values& below, double distance) {
    for (std::size_t i = 0; i < weights.size(); ++i) {
      const double term = weights[i] * (above[i] - below[i]) / distance;
      sum += term;
      size += std::abs(term);
    }
  }
};

/// A variable that moves along a direction, and is put back in the end.
class Moved {
 public:
  Moved(const Tensor& variable, const Tensor& direction)
      : variable_(variable), start_(variable.detach().clone()), direction_(direction) {}
  Moved(const Moved&) = delete;
  Moved& operator=(const Moved&) = delete;
  ~Moved() { put(start_); }
  void move(double distance) { put(start_ + direction_ * distance); }

 private:
  void put(const Tensor& values) {
    NoGrad no_grad;
    variable_.copy_(values);
  }
  Tensor variable_, start_, direction_;
};

/// Looks at each operation by itself. All variables move a little along a random direction, and
/// with them the operation's inputs x by dx and its result y by dy. For any weights g of the result
/// its rule gives gradients with sum <gradient, dx> = <g, dy>, unless it is wrong. A line for each
/// operation for which that is not so.
std::string wrong_rules(const Problem& problem, const GradcheckOptions& options,
                        Generator& generator) {
  std::deque<Moved> moved;
  for (const Variable& x : problem.variables)
    moved.emplace_back(x.tensor, random_weights(x.tensor.shape(), generator));
  const auto operations = [&](double distance) {
    for (Moved& x : moved) x.move(distance);
    Recorder recorder;
    problem.f(problem.inputs);
    return std::move(recorder.operations);
  };
  const std::vector<Operation> above = operations(options.eps), below = operations(-options.eps),
                               here = operations(0.0);
  if (above.size() != here.size() || below.size() != here.size()) return "";

  std::string message;
  for (std::size_t k = 0; k < here.size(); ++k) {
    const Operation& op = here[k];
    if (!is_floating(op.result.dtype()) || above[k].value.size() != op.value.size()) continue;
    const Tensor g = random_weights(op.result.shape(), generator).to(op.result.dtype());
    Product result, inputs;
    result.add(values_of(g), above[k].value, below[k].value, 2.0 * options.eps);
    {
      RuleListener listener(op.result);
      grad({op.result}, tensors_of(problem.variables),
           {.create_graph = true, .grad_outputs = {g}, .allow_unused = true});
      for (const auto& [i, gradient] : listener.gradients)
        inputs.add(gradient, above[k].inputs[i], below[k].inputs[i], 2.0 * options.eps);
    }
    const double tolerance = 1e-7 + 1e-5 * (result.size + inputs.size);
    if (std::abs(result.sum - inputs.sum) <= tolerance) continue;
    std::string shapes;
    for (const Shape& shape : op.shapes) shapes += (shapes.empty() ? "" : ", ") + to_string(shape);
    add_line(message,
             detail::format("gradcheck: the rule of \"{}\" with inputs {} is wrong: along a random "
                            "direction its gradient is {:.6g}, its value changes by {:.6g}",
                            op.op, shapes, inputs.sum, result.sum));
  }
  return message;
}

}  // namespace

std::string gradcheck_message(const GradcheckFunction& f, const std::vector<Tensor>& inputs,
                              const GradcheckOptions& options) {
  if (options.order != 1 && options.order != 2) {
    detail::fail<ValueError>("gradcheck: order must be 1 or 2, got {}", options.order);
  }
  if (!grad_enabled()) throw GraphError("gradcheck: called under NoGrad, nothing is recorded");
  Problem problem{f, inputs, variables_of(inputs), {}};

  const Tensor y = f(inputs);
  if (y.dtype() != DType::f64) {
    detail::fail<ValueError>("gradcheck: the result must be f64, is {}", to_string(y.dtype()));
  }
  if (!same(problem.result(), problem.result())) {
    throw ValueError("gradcheck: two calls with the same inputs gave different results");
  }

  Generator generator;
  problem.weights = y.numel() == 1 ? ones_like(y) : random_weights(y.shape(), generator);
  problem.weights.requires_grad_();

  std::string message = check_order_1(problem, options);
  if (!message.empty()) add_line(message, wrong_rules(problem, options, generator));
  if (options.order == 1 || !message.empty()) return message;
  return check_order_2(problem, options, generator);
}

bool gradcheck(const GradcheckFunction& f, const std::vector<Tensor>& inputs,
               const GradcheckOptions& options) {
  const std::string message = gradcheck_message(f, inputs, options);
  if (!message.empty()) throw GraphError(message);
  return true;
}

}  // namespace unroll
