#include "framework/inspect.h"

#include <iostream>
#include <map>
#include <string_view>

#include "framework/autograd.h"
#include "framework/tape_view.h"

namespace unroll {

using detail::fail;
using detail::Node;
using detail::TapeView;

// --- The tape -----------------------------------------------------------------------------------

std::string describe_tape(const Tensor& y) {
  const TapeView view("print_tape", y);
  std::vector<std::vector<std::string>> rows;
  for (std::size_t n = 0; n < view.entries.size(); ++n) {
    const TapeView::Entry& entry = view.entries[n];
    std::string inputs;
    for (const TapeView::Input& input : entry.inputs) {
      if (!inputs.empty()) inputs += ' ';
      inputs += input.number >= 0 ? detail::format("#{}", input.number)
                : input.known     ? detail::format("{}", input.shape)
                                  : "-";
    }
    rows.push_back({detail::format("#{}", n), entry.label(), inputs,
                    detail::format("{}", entry.node->shape), entry.place.module,
                    entry.place.step >= 0 ? std::to_string(entry.place.step) : "",
                    entry.grad_norm >= 0.0 ? detail::format("{:.4g}", entry.grad_norm) : ""});
  }
  return detail::table({"", "op", "inputs", "shape", "module", "t", "|grad|"}, rows,
                       {true, false, false, false, false, true, false});
}

void print_tape(const Tensor& y) { std::cout << describe_tape(y); }

// --- The sweep ----------------------------------------------------------------------------------

namespace {

struct Formula {
  const char* value;
  const char* rule;
};

/// What operations do, and their rules, with y for the result, g for its gradient, and x or a, b,
/// ... for the inputs.
const Formula* formula(std::string_view op, std::size_t inputs) {
  static const std::map<std::string_view, Formula> with_number = {
      {"add", {"x + number", "dx = g"}},
      {"div", {"x / number", "dx = g / number"}},
      {"mul", {"x number", "dx = g number"}},
      {"sub", {"x - number or number - x", "dx = g or -g"}},
  };
  static const std::map<std::string_view, Formula> formulas = {
      {"abs", {"|x|", "dx = g sign(x)"}},
      {"add", {"a + b", "da = g, db = g"}},
      {"broadcast_to", {"x, repeated", "dx = g, summed over what was repeated"}},
      {"clamp", {"x within limits", "dx = g where x is within, else 0"}},
      {"clone", {"x", "dx = g"}},
      {"concatenate", {"the inputs, one after the other", "each input gets its part of g"}},
      {"cos", {"cos(x)", "dx = -g sin(x)"}},
      {"cumsum", {"x_1 + ... + x_i", "dx_i = g_i + ... + g_n"}},
      {"div", {"a / b", "da = g / b, db = -g y / b"}},
      {"dropout", {"x mask / (1 - p)", "dx = g mask / (1 - p)"}},
      {"embedding", {"rows of the table", "the same rows get g added"}},
      {"exp", {"e^x", "dx = g y"}},
      {"flip", {"x, reversed", "dx = g, reversed"}},
      {"gather", {"elements of x", "the same elements get g added"}},
      {"index_select", {"slices of x", "the same slices get g added"}},
      {"linear", {"x W' + b", "dx = g W, dW = g' x, db = sum of the rows of g"}},
      {"log", {"log x", "dx = g / x"}},
      {"log_softmax", {"x - log sum e^x", "dx = g - e^y sum(g)"}},
      {"logsumexp", {"log sum e^x", "dx = g e^(x - y)"}},
      {"matmul", {"A B", "dA = g B', dB = A' g"}},
      {"max", {"max x", "dx = g where x = y, shared among equals, else 0"}},
      {"maximum", {"max(a, b)", "the larger one gets g"}},
      {"mean", {"sum x / n", "dx = g / n"}},
      {"min", {"min x", "dx = g where x = y, shared among equals, else 0"}},
      {"minimum", {"min(a, b)", "the smaller one gets g"}},
      {"mul", {"a b", "da = g b, db = g a"}},
      {"narrow", {"a piece of x", "the same piece gets g, the rest 0"}},
      {"neg", {"-x", "dx = -g"}},
      {"norm", {"(sum |x|^p)^(1/p)", "dx = g sign(x) (|x| / y)^(p - 1)"}},
      {"permute", {"x, other order of dimensions", "dx = g, in the old order"}},
      {"pow", {"a^b", "da = g b a^(b - 1), db = g y log a"}},
      {"relu", {"max(x, 0)", "dx = g where x > 0, else 0"}},
      {"reshape", {"x in another shape", "dx = g in the old shape"}},
      {"select", {"x[i]", "x[i] gets g, the rest 0"}},
      {"sigmoid", {"1 / (1 + e^-x)", "dx = g y (1 - y)"}},
      {"sign", {"sign(x)", "dx = 0"}},
      {"sin", {"sin(x)", "dx = g cos(x)"}},
      {"slice", {"a piece of x", "the same piece gets g, the rest 0"}},
      {"softmax", {"e^x / sum e^x", "dx = y (g - sum(g y))"}},
      {"softplus", {"log(1 + e^x)", "dx = g sigmoid(x)"}},
      {"sqrt", {"x^(1/2)", "dx = g / (2 y)"}},
      {"square", {"x^2", "dx = 2 g x"}},
      {"squeeze", {"x without a dimension", "dx = g with it"}},
      {"stack", {"the inputs, side by side", "each input gets its part of g"}},
      {"sub", {"a - b", "da = g, db = -g"}},
      {"sum", {"sum x", "dx = g, repeated"}},
      {"tanh", {"tanh(x)", "dx = g (1 - y^2)"}},
      {"to", {"x in another dtype", "dx = g in the old one"}},
      {"transpose", {"x'", "dx = g'"}},
      {"unsqueeze", {"x with a dimension more", "dx = g without it"}},
      {"where", {"a where c, else b", "da = g where c, db = g elsewhere"}},
  };
  if (const auto found = with_number.find(op); inputs == 1 && found != with_number.end())
    return &found->second;
  const auto found = formulas.find(op);
  return found == formulas.end() ? nullptr : &found->second;
}

/// What a sweep brings.
class Listener : public detail::Watcher {
 public:
  struct Part {
    const Node* from;
    int input;
    std::string text;
  };
  std::map<const Node*, std::string> gradients;
  std::map<const Node*, std::vector<Part>> parts;  ///< by the node that gives them

  static std::string text_of(const Tensor& x) {
    const std::vector<double> values = detail::few_values(x);
    if (!values.empty() || x.numel() == 0) return detail::numbers(values, x.shape());
    return detail::format("{} of norm {:.4g}", x.shape(), detail::norm_of(x));
  }

 private:
  void arrived(const Node& node, const Tensor& grad) override {
    if (grad.defined()) gradients[&node] = text_of(grad);
  }
  void added(const Node& node, int i, const Tensor& grad) override {
    parts[&node].push_back({&node, i, text_of(grad)});
  }
};

}  // namespace

std::string describe_backward(const Tensor& y) {
  const char* where = "explain_backward";
  const TapeView view(where, y);
  if (y.numel() != 1)
    fail<GraphError>("{}: the tensor has shape {}: the gradient is defined for one element", where,
                     y.shape());
  for (auto entry = view.entries.rbegin(); entry != view.entries.rend(); ++entry)
    if (entry->node->released)
      fail<GraphError>("{}: the graph behind {} has been freed by an earlier backward", where,
                       entry->node->op);

  Listener seen;
  {
    // Under create_graph every gradient takes the one way that can be watched.
    std::vector<Tensor> leaves;
    for (const TapeView::Entry& entry : view.entries) {
      if (!entry.node->leaf) continue;
      Tensor leaf = detail::make(entry.node->shape, entry.node->dtype);
      leaf.impl().node = detail::Ref<Node>::share(const_cast<Node*>(entry.node));
      leaves.push_back(std::move(leaf));
    }
    grad(std::vector<Tensor>{y}, leaves, {.create_graph = true});
  }

  std::string text;
  const auto add = [&]<class... Args>(fmt::format_string<Args...> format, Args&&... args) {
    text += detail::format(format, std::forward<Args>(args)...);
  };
  const auto place_text = [](const TapeView::Entry& entry) {
    std::string place;
    if (!entry.place.module.empty()) place += "  " + entry.place.module;
    if (entry.place.step >= 0) place += detail::format("  t = {}", entry.place.step);
    return place;
  };
  const auto value_text = [](const TapeView::Entry& entry) {
    return entry.values.empty() ? detail::format("  {}", entry.node->shape)
                                : " = " + detail::numbers(entry.values, entry.node->shape);
  };
  // By how many rules each gradient was summed.
  std::map<int, int> terms;
  for (auto n = static_cast<int>(view.entries.size()); n-- > 0;) {
    const TapeView::Entry& entry = view.entries[static_cast<std::size_t>(n)];
    if (entry.node->leaf) continue;
    const Formula* known = formula(entry.node->op, entry.inputs.size());
    std::string inputs;
    for (const TapeView::Input& input : entry.inputs) {
      if (!inputs.empty()) inputs += ", ";
      if (input.number >= 0)
        inputs += detail::format("#{}", input.number);
      else if (!input.known)
        inputs += "-";
      else
        inputs += input.values.empty() ? detail::format("{}", input.shape)
                                       : detail::numbers(input.values, input.shape);
    }
    add("#{} {}({}){}{}\n", n, entry.node->op, inputs, value_text(entry), place_text(entry));
    if (known)
      add("    y = {}:  {}\n", known->value, known->rule);
    else
      add("    a rule of its own\n");
    const auto g = seen.gradients.find(entry.node);
    if (g == seen.gradients.end()) continue;
    const int count = terms[n];
    add("    g = {}{}\n", g->second, count > 1 ? detail::format(", the sum of {}", count) : "");
    for (const Listener::Part& part : seen.parts[entry.node]) {
      const int to = entry.inputs[static_cast<std::size_t>(part.input)].number;
      ++terms[to];
      add("    to #{}: {}\n", to, part.text);
    }
  }
  for (std::size_t n = 0; n < view.entries.size(); ++n) {
    const TapeView::Entry& entry = view.entries[n];
    if (!entry.node->leaf) continue;
    add("#{} {}{}\n", n, entry.label(), value_text(entry));
    const int count = terms[static_cast<int>(n)];
    add("    gradient = {}{}\n", seen.gradients[entry.node],
        count > 1 ? detail::format(", the sum of {}", count) : "");
  }
  return text;
}

void explain_backward(const Tensor& y) { std::cout << describe_backward(y); }

}  // namespace unroll
