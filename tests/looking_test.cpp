/// Looking at what the tape does: inspect.h, graph.h, anomaly.h, profiler.h, gradient_trace.h.

#include <doctest/doctest.h>
#include <unroll/unroll.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <iostream>
#include <limits>
#include <nlohmann/json.hpp>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

#include "framework/file.h"
#include "tests/temporary_directory.h"

using namespace unroll;
using unroll::test::TemporaryDirectory;

namespace {

Tensor leaf(const Tensor& x) { return x.detach().clone().requires_grad_(); }

/// An LSTM and a linear layer, as most models are made.
struct Net : Module {
  LSTM lstm = child("lstm", LSTM(2, 3));
  Linear out = child("out", Linear(3, 1));
  Tensor operator()(const Tensor& xs) const { return out(lstm(xs).outputs[-1]); }
};

/// h_t = tanh(w h_t-1 + x_t) for two time steps, numbers all of them.
Tensor small_loss(const Tensor& w) {
  Tensor h = tensor(1.0);
  for (int t = 0; t < 2; ++t) {
    const Step step(t);
    h = tanh(w * h + tensor(0.5 * t));
  }
  return square(h);
}

}  // namespace

// --- The tape -----------------------------------------------------------------------------------

TEST_CASE("print_tape: what the tape itself knows") {
  const Tensor w = leaf(ones({3, 2})), x = ones({4, 3});
  const Tensor loss = mean(tanh(matmul(x, w)));
  CHECK(describe_tape(loss) == R"(    op      inputs  shape
#0  leaf            (3, 2)
#1  matmul  - #0    (4, 2)
#2  tanh    #1      (4, 2)
#3  sum     #2      ()
#4  div     #3      ()
)");
  loss.backward();
  CHECK(describe_tape(loss).find("    op      inputs  shape   |grad|\n"
                                 "#0  leaf            (3, 2)  0.01208\n") == 0);
  CHECK_THROWS_WITH_AS(describe_tape(x),
                       "print_tape: the tensor of shape (4, 3) is not on the tape", GraphError);
}

TEST_CASE("print_tape: an Inspect knows names, order, modules, time steps and gradients") {
  const Tensor w = leaf(tensor(0.5));
  const Inspect inspect({{"w", w}});
  const Scope scope("loop");
  const Tensor loss = small_loss(w);
  CHECK(describe_tape(loss) == R"(    op      inputs  shape  module  t
#0  w               ()
#1  mul     #0 ()   ()     loop    0
#2  add     #1 ()   ()     loop    0
#3  tanh    #2      ()     loop    0
#4  mul     #0 #3   ()     loop    1
#5  add     #4 ()   ()     loop    1
#6  tanh    #5      ()     loop    1
#7  square  #6      ()     loop
)");
  loss.backward();
  CHECK(describe_tape(loss) == R"(    op      inputs  shape  module  t  |grad|
#0  w               ()                0.6519
#1  mul     #0 ()   ()     loop    0  0.2997
#2  add     #1 ()   ()     loop    0  0.2997
#3  tanh    #2      ()     loop    0  0.3811
#4  mul     #0 #3   ()     loop    1  0.7622
#5  add     #4 ()   ()     loop    1  0.7622
#6  tanh    #5      ()     loop    1  1.247
#7  square  #6      ()     loop       1
)");
}

TEST_CASE("print_tape: modules of the library name themselves, and chains are open") {
  manual_seed(1);
  const Net net;
  const Inspect inspect(net.named_parameters());
  const Tensor loss = mean(net(normal({3, 4, 2})));
  const std::string text = describe_tape(loss);
  // Lines of an operation whose last columns are these.
  const auto lines = [&](const std::string& op, const std::string& place) {
    int count = 0;
    for (std::size_t at = 0, end = 0; (end = text.find('\n', at)) != std::string::npos;
         at = end + 1) {
      const std::string line = text.substr(at, end - at);
      count += line.find(" " + op + " ") != std::string::npos && line.ends_with(place);
    }
    return count;
  };
  CHECK(lines("reshape", "  lstm.l0") == 1);  // the projection of all time steps
  for (const char* place : {"  lstm.l0  0", "  lstm.l0  1", "  lstm.l0  2"}) {
    CHECK(lines("linear", place) == 1);
    CHECK(lines("sigmoid", place) == 3);
    CHECK(lines("tanh", place) == 2);
  }
  CHECK(lines("linear", "  out") == 1);
  CHECK(lines("out.weight", ")") == 1);
  CHECK(text.find("fused") == std::string::npos);
}

TEST_CASE("scopes: without names a module is called by its type, inside of the scope around it") {
  const LSTM lstm(2, 3, {.num_layers = 2, .bidirectional = true});
  const Inspect inspect;
  const Scope scope("encoder");
  const std::string text = describe_tape(lstm(ones({2, 1, 2})).outputs);
  for (const char* path : {"encoder.LSTM.l0 ", "encoder.LSTM.l0_reverse ", "encoder.LSTM.l1 "})
    CHECK(text.find(path) != std::string::npos);
}

TEST_CASE("scopes: while nobody looks, they are nothing, and one thread does not see another") {
  {
    const Scope scope("lost");
    const Step step(7);
    CHECK(detail::place() == detail::Place{});
    CHECK(!detail::watched());
  }
  const Tensor w = leaf(tensor(2.0));
  const Inspect inspect;
  Tensor elsewhere;
  std::thread([&] {
    const Scope scope("elsewhere");
    elsewhere = w * 2.0;
    CHECK(describe_tape(elsewhere) ==
          "    op    inputs  shape\n#0  leaf          ()\n#1  mul   #0      ()\n");
  }).join();
  CHECK(detail::place() == detail::Place{});
  CHECK(describe_tape(elsewhere).find("elsewhere") == std::string::npos);
}

TEST_CASE("print_tape, explain_backward: to the standard output") {
  const Tensor loss = square(leaf(tensor(0.5)) * 3.0);
  const std::string tape = describe_tape(loss), backward = describe_backward(loss);
  std::ostringstream out;
  std::streambuf* const before = std::cout.rdbuf(out.rdbuf());
  print_tape(loss);
  explain_backward(loss);
  std::cout.rdbuf(before);
  CHECK(out.str() == tape + backward);
}

// --- The sweep ----------------------------------------------------------------------------------

TEST_CASE("explain_backward: every step with its formula and its numbers") {
  const Tensor w = leaf(tensor(0.5)), b = leaf(tensor({1, 2}));
  const Inspect inspect({{"w", w}, {"b", b}});
  const Tensor loss = sum(square(b * w) - b);
  CHECK(describe_backward(loss) == R"(#5 sum(#4) = -1.75
    y = sum x:  dx = g, repeated
    g = 1
    to #4: [1, 1]
#4 sub(#3, #0) = [-0.75, -1]
    y = a - b:  da = g, db = -g
    g = [1, 1]
    to #3: [1, 1]
    to #0: [-1, -1]
#3 square(#2) = [0.25, 1]
    y = x^2:  dx = 2 g x
    g = [1, 1]
    to #2: [1, 2]
#2 mul(#0, #1) = [0.5, 1]
    y = a b:  da = g b, db = g a
    g = [1, 2]
    to #0: [0.5, 1]
    to #1: 5
#0 b = [1, 2]
    gradient = [-0.5, 0], the sum of 2
#1 w = 0.5
    gradient = 5
)");
  CHECK(!w.grad().defined());
  loss.backward();  // the tape is as it was
  CHECK(w.grad().item() == 5.0);
  CHECK_THROWS_WITH_AS(describe_backward(loss),
                       "explain_backward: the graph behind sum has been freed by an earlier "
                       "backward",
                       GraphError);
  CHECK_THROWS_WITH_AS(describe_backward(b * w),
                       "explain_backward: the tensor has shape (2): the gradient is defined for "
                       "one element",
                       GraphError);
  CHECK_THROWS_WITH_AS(describe_backward(tensor(1.0)),
                       "explain_backward: the tensor of shape () is not on the tape", GraphError);
}

TEST_CASE(
    "explain_backward: what is large has a shape and a norm, and so has an operation of one's "
    "own") {
  const Tensor x = leaf(ones({4, 4}));
  const auto twice = [](const Tensor& t) {
    return record("twice", {t}, t.detach() * 2.0, Keep::none,
                  [](Back& back) { back.add(0, back.grad * 2.0); });
  };
  CHECK(describe_backward(sum(twice(x))) == R"(#2 sum(#1)  ()
    y = sum x:  dx = g, repeated
    g = 1
    to #1: (4, 4) of norm 4
#1 twice(#0)  (4, 4)
    a rule of its own
    g = (4, 4) of norm 4
    to #0: (4, 4) of norm 8
#0 leaf  (4, 4)
    gradient = (4, 4) of norm 8
)");
}

TEST_CASE("explain_backward: constants, time steps, modules, and numbers beside tensors") {
  const Tensor w = leaf(tensor(2.0));
  const Inspect inspect({{"cell.w", w}});
  const Scope scope("cell");
  const Step step(3);
  CHECK(describe_backward(1.0 - w * tensor(3.0)) == R"(#2 sub(#1) = -5  cell  t = 3
    y = x - number or number - x:  dx = g or -g
    g = 1
    to #1: -1
#1 mul(#0, 3) = 6  cell  t = 3
    y = a b:  da = g b, db = g a
    g = -1
    to #0: -3
#0 cell.w = 2
    gradient = -3
)");
}

// --- The graph ----------------------------------------------------------------------------------

TEST_CASE("to_dot: time steps and modules are frames") {
  const Tensor w = leaf(tensor(0.5));
  const Inspect inspect({{"w", w}});
  CHECK(to_dot(small_loss(w)) == R"~(digraph tape {
  rankdir=LR; nodesep=0.15; ranksep=0.3; fontname="sans-serif"; fontsize=12;
  node [fontname="sans-serif", fontsize=11, height=0.3, margin="0.06,0.03"];
  edge [arrowsize=0.5, color="#555555"];
  n0 [label="w\n()", shape=box, style=filled, fillcolor="#dbe9f6"];
  n10 [label="square\n()", shape=ellipse, style=filled, fillcolor="#f6e3c5"];
  subgraph cluster0 {
    label="t = 0"; style=filled; color="#f2f2f2";
    n1 [label="mul\n()", shape=ellipse];
    n2 [label="1", shape=plaintext, fontcolor="#777777"];
    n3 [label="add\n()", shape=ellipse];
    n4 [label="0", shape=plaintext, fontcolor="#777777"];
    n5 [label="tanh\n()", shape=ellipse];
  }
  subgraph cluster1 {
    label="t = 1"; style=filled; color="#f2f2f2";
    n6 [label="mul\n()", shape=ellipse];
    n7 [label="add\n()", shape=ellipse];
    n8 [label="0.5", shape=plaintext, fontcolor="#777777"];
    n9 [label="tanh\n()", shape=ellipse];
  }
  n0 -> n1 [color="#9db8d2"];
  n2 -> n1;
  n1 -> n3;
  n4 -> n3;
  n3 -> n5;
  n0 -> n6 [color="#9db8d2"];
  n5 -> n6;
  n6 -> n7;
  n8 -> n7;
  n7 -> n9;
  n9 -> n10;
}
)~");
}

TEST_CASE("to_dot: folded, the loop is drawn once") {
  const Tensor w = leaf(tensor(0.5));
  const Inspect inspect({{"w", w}});
  CHECK(to_dot(small_loss(w), {.folded = true}) == R"~(digraph tape {
  rankdir=LR; nodesep=0.15; ranksep=0.3; fontname="sans-serif"; fontsize=12;
  node [fontname="sans-serif", fontsize=11, height=0.3, margin="0.06,0.03"];
  edge [arrowsize=0.5, color="#555555"];
  n0 [label="w\n()", shape=box, style=filled, fillcolor="#dbe9f6"];
  n6 [label="square\n()", shape=ellipse, style=filled, fillcolor="#f6e3c5"];
  subgraph cluster0 {
    label="every t"; style=filled; color="#f2f2f2";
    n1 [label="mul\n()", shape=ellipse];
    n2 [label="1", shape=plaintext, fontcolor="#777777"];
    n3 [label="add\n()", shape=ellipse];
    n4 [label="0", shape=plaintext, fontcolor="#777777"];
    n5 [label="tanh\n()", shape=ellipse];
  }
  n0 -> n1 [color="#9db8d2"];
  n2 -> n1;
  n1 -> n3;
  n4 -> n3;
  n3 -> n5;
  n5 -> n1 [style=dashed, color="#c0392b", fontcolor="#c0392b", fontname="sans-serif", fontsize=10, label="t - 1", constraint=false];
  n5 -> n6;
}
)~");
  CHECK_THROWS_WITH_AS(
      to_dot(w * 2.0, {.folded = true}),
      "to_dot: nothing to fold: no time step is known. An Inspect must live while the graph is "
      "recorded, and its loop must be scan(), or open a Step",
      GraphError);
}

TEST_CASE("to_dot: folded, an LSTM of any length is the same picture") {
  manual_seed(1);
  const Net net;
  const Inspect inspect(net.named_parameters());
  const auto picture = [&](std::int64_t steps) {
    return to_dot(mean(net.lstm(ones({steps, 2, 2})).outputs[0] * 0.0 +
                       net.lstm(ones({steps, 2, 2})).outputs[-1]),
                  {.folded = true});
  };
  const auto lines = [](const std::string& text) {
    return std::count(text.begin(), text.end(), '\n');
  };
  CHECK(picture(3).find("label=\"t - 1\"") != std::string::npos);
  CHECK(lines(picture(3)) == lines(picture(5)));
}

TEST_CASE("write_graph: text and pictures, and what is wrong with a path") {
  const TemporaryDirectory directory;
  const Tensor w = leaf(tensor(0.5));
  const Tensor loss = small_loss(w);
  write_graph(loss, directory.file("x.dot"));
  CHECK(read_file(directory.file("x.dot")) == to_dot(loss));
  CHECK(
      to_dot(loss, {.names = {{"the \"weight\"", w}}}).find("label=\"the \\\"weight\\\"\\n()\"") !=
      std::string::npos);
  if (std::system("dot -V 2>/dev/null") == 0) {
    write_graph(loss, directory.file("x.svg"));
    CHECK(read_file(directory.file("x.svg")).find("</svg>") != std::string::npos);
    CHECK_THROWS_WITH_AS(write_graph(loss, "/no/such/directory/x.svg"),
                         "cannot write '/no/such/directory/x.svg': No such file or directory",
                         FileError);
    const std::string odd = directory.file("x.odd");
    CHECK_THROWS_WITH_AS(write_graph(loss, odd), (odd + ": dot failed").c_str(), FileError);
  }
  {
    const std::string svg = directory.file("y.svg"), path = std::getenv("PATH");
    ::setenv("PATH", "/no/such/directory", 1);
    CHECK_THROWS_WITH_AS(write_graph(loss, svg),
                         (svg + ": dot can't be started (No such file or directory)").c_str(),
                         FileError);
    ::setenv("PATH", path.c_str(), 1);
  }
  CHECK_THROWS_WITH_AS(write_graph(loss, "graph"),
                       "graph: the end of the name must say the format, as in graph.svg",
                       FileError);
  CHECK_THROWS_WITH_AS(write_graph(loss, "/no/such/directory/x.dot"),
                       "cannot write '/no/such/directory/x.dot': No such file or directory",
                       FileError);
}

// --- Anomalies ----------------------------------------------------------------------------------

TEST_CASE("DetectAnomaly: the first NaN of a forward pass") {
  const Tensor x = leaf(tensor({{1, -4, 0}, {2, 3, -1}}));
  const DetectAnomaly detect;
  const Scope scope("head");
  const Step step(3);
  CHECK_THROWS_WITH_AS(
      sum(sqrt(x)),
      "anomaly: sqrt: the result (2, 3) has NaN in 2 of 6 elements, the first at (0, 1); inputs: "
      "(2, 3) in [-4, 3]; module head; time step 3",
      AnomalyError);
  const NoGrad no_grad;  // and off the tape
  CHECK_THROWS_WITH_AS(log(tensor({1, 0})),
                       "anomaly: log: the result (2) has Inf in 1 of 2 elements, the first at 1; "
                       "inputs: (2) in [0, 1]; module head; time step 3",
                       AnomalyError);
}

TEST_CASE("DetectAnomaly: a NaN that comes with the data, and one in a model") {
  manual_seed(1);
  const Net net;
  const DetectAnomaly detect(net.named_parameters());
  Tensor xs = zeros({3, 1, 2});
  xs[1].fill_(std::nan(""));
  CHECK_THROWS_WITH_AS(
      net(xs),
      "anomaly: reshape: the result (3, 2) has NaN in 2 of 6 elements, the first at (1, 0); "
      "inputs: (3, 1, 2) in [0, 0] with 2 NaN; module lstm.l0",
      AnomalyError);
}

TEST_CASE("DetectAnomaly: in a sweep, with the operation whose rule it is") {
  const Tensor x = leaf(tensor({4, 0}));
  const DetectAnomaly detect;
  Tensor loss;
  {
    const Step step(2);
    loss = sum(sqrt(x));
  }
  CHECK_THROWS_WITH_AS(
      loss.backward(),
      "anomaly: div: the result (2) has Inf in 1 of 2 elements, the first at 1; inputs: (2) in [1, "
      "1], (2) in [0, 4]; in the backward of sqrt, whose inputs were (2) in [0, 4]; time step 2",
      AnomalyError);
  const Tensor y = record("odd", {x}, x.detach() * 1.0, Keep::none, [](Back& back) {
    Tensor g = zeros({2});
    g.fill_(std::nan(""));
    back.add(0, g);
  });
  CHECK_THROWS_WITH_AS(sum(y).backward(),
                       "anomaly: odd: its rule gives input 0 a gradient (2) that has NaN in 2 of 2 "
                       "elements, the first at 0; in the backward of odd, whose inputs were (2) in "
                       "[0, 4]",
                       AnomalyError);
}

TEST_CASE("DetectAnomaly: a gradient that a sweep begins with") {
  const Tensor x = leaf(tensor({1, 2}));
  const DetectAnomaly detect({{"x", x}});
  Tensor y;
  {
    const Step step(2);
    y = x * 2.0;
  }
  const Tensor nan = tensor({1.0, std::nan("")});
  CHECK_THROWS_WITH_AS(
      y.backward(nan),
      "anomaly: the gradient of mul (2) has NaN in 1 of 2 elements, the first at 1; time step 2",
      AnomalyError);
  CHECK_THROWS_WITH_AS(x.backward(nan),
                       "anomaly: the gradient of x (2) has NaN in 1 of 2 elements, the first at 1",
                       AnomalyError);
}

TEST_CASE(
    "DetectAnomaly: one element, none of them finite, both kinds, and a leaf without a name") {
  const double nan = std::nan(""), inf = std::numeric_limits<double>::infinity();
  const Tensor x = leaf(tensor(0.0));
  const DetectAnomaly detect;
  CHECK_THROWS_WITH_AS(log(x),
                       "anomaly: log: the result () has Inf in 1 of 1 element, the first at (); "
                       "inputs: () in [0, 0]",
                       AnomalyError);
  CHECK_THROWS_WITH_AS(tensor({inf, nan, 1.0, nan}) * 2.0,
                       "anomaly: mul: the result (4) has NaN in 2 of 4 elements, the first at 1; "
                       "inputs: (4) in [1, 1] with 2 NaN and 1 Inf",
                       AnomalyError);
  CHECK_THROWS_WITH_AS(tensor({inf, -inf}) * tensor({0, 1}),
                       "anomaly: mul: the result (2) has NaN in 1 of 2 elements, the first at 0; "
                       "inputs: (2) with 2 Inf, (2) in [0, 1]",
                       AnomalyError);
  CHECK_THROWS_WITH_AS(x.backward(tensor(nan)),
                       "anomaly: the gradient of a leaf () has NaN in 1 of 1 element, the first at "
                       "()",
                       AnomalyError);
}

TEST_CASE("DetectAnomaly: masks of minus infinity are none, and without one nothing is checked") {
  const double inf = std::numeric_limits<double>::infinity();
  const Tensor x = leaf(tensor({{1, 2}, {3, 4}}));
  {
    const DetectAnomaly detect;
    const Tensor masked = masked_fill(x, tensor({{0, 1}, {0, 0}}), -inf);
    sum(softmax(masked)[0] * tensor({1, 2})).backward();
    CHECK(x.grad().defined());
  }
  CHECK(std::isnan(sum(sqrt(x - 5.0)).item()));
}

TEST_CASE("check_finite: every parameter and gradient that is none") {
  Linear linear(2, 2);
  check_finite(linear);
  linear.weight.detach()[1].fill_(std::nan(""));
  linear.bias.set_grad(tensor({0, std::numeric_limits<double>::infinity()}));
  CHECK_THROWS_WITH_AS(check_finite(linear),
                       "check_finite:\n"
                       "  weight (2, 2) has NaN in 2 of 4 elements, the first at (1, 0)\n"
                       "  the gradient of bias (2) has Inf in 1 of 2 elements, the first at 1",
                       AnomalyError);
}

// --- The profiler -------------------------------------------------------------------------------

namespace {

std::int64_t count_events(const Profiler& profiler, const std::string& op, std::int64_t* bytes) {
  std::int64_t count = 0;
  *bytes = 0;
  for (const Profiler::Event& event : profiler.events()) {
    if (event.op != op) continue;
    ++count;
    *bytes += event.bytes;
    CHECK(event.duration >= 0);
  }
  return count;
}

}  // namespace

TEST_CASE("Profiler: calls, bytes, modules and time steps") {
  manual_seed(1);
  const Net net;
  const Tensor xs = normal({3, 4, 2});
  std::int64_t bytes = 0;
  {
    const Profiler profiler(net.named_parameters(), {.open_chains = true});
    mean(net(xs)).backward();
    // The projection, three steps, and what comes out.
    CHECK(count_events(profiler, "linear", &bytes) == 5);
    CHECK(bytes == 4 * 4 * 12 * 2 * 3 + 4 * 4);
    CHECK(count_events(profiler, "linear backward", &bytes) == 5);
    CHECK(count_events(profiler, "sigmoid", &bytes) == 9);
    CHECK(bytes == 9 * 4 * 3 * 4);
    CHECK(count_events(profiler, "select", &bytes) == 4);
    CHECK(bytes == 0);
    CHECK(count_events(profiler, "fused", &bytes) == 0);
    int in_out = 0;
    for (const Profiler::Event& event : profiler.events()) {
      in_out += event.place.module == "out" && event.op.starts_with("linear");
      if (event.op == "sigmoid backward") {
        CHECK(event.place.module == "lstm.l0");
        CHECK(event.place.step >= 0);
        CHECK(event.backward);
      }
    }
    CHECK(in_out == 2);
  }
  const Profiler profiler(net.named_parameters());
  mean(net(xs)).backward();
  CHECK(count_events(profiler, "fused", &bytes) >= 2);
  CHECK(count_events(profiler, "fused backward", &bytes) >= 2);
}

TEST_CASE("Profiler: the table, and the trace for Chrome") {
  const TemporaryDirectory directory;
  const Tensor w = leaf(ones({2, 2}));
  const Profiler profiler({{"layer.w", w}});
  {
    const Scope scope("layer");
    const Step step(5);
    sum(matmul(w, w)).backward();
  }
  const std::string table = profiler.table();
  CHECK(table.find("operation") == 0);
  CHECK(table.find("\nmatmul backward ") != std::string::npos);
  CHECK(table.find("\n\nmodule  calls  forward ms  backward ms  share  memory\nlayer ") !=
        std::string::npos);
  CHECK(table.find(" ms in operations, ") != std::string::npos);

  profiler.write_trace(directory.file("trace.json"));
  const auto trace = nlohmann::json::parse(read_file(directory.file("trace.json")));
  bool found = false;
  for (const auto& event : trace.at("traceEvents")) {
    if (event.at("name") != "matmul") continue;
    found = true;
    CHECK(event.at("ph") == "X");
    CHECK(event.at("cat") == "forward");
    CHECK(event.at("dur").get<double>() >= 0.0);
    CHECK(event.at("args").at("place") == "layer, t = 5");
    CHECK(event.at("args").at("bytes") == 16);
  }
  CHECK(found);
  CHECK(trace.at("traceEvents").back().at("name") == "layer");
  CHECK(trace.at("traceEvents").back().at("cat") == "place");
  CHECK_THROWS_WITH_AS(profiler.write_trace("/no/such/directory/trace.json"),
                       "cannot write '/no/such/directory/trace.json': No such file or directory",
                       FileError);
}

TEST_CASE("Profiler: memory in bytes, kB and MB, modules without a name, steps without a module") {
  const TemporaryDirectory directory;
  const Tensor x = ones({2500}), y = ones({2500, 1000});
  const Profiler profiler;
  sin(x[0]);
  exp(x);
  {
    const Step step(7);
    cos(y);
  }
  const std::string table = profiler.table();
  const auto line = [&](const std::string& name) {
    const std::size_t begin = table.find("\n" + name + " ");
    REQUIRE(begin != std::string::npos);
    return table.substr(begin + 1, table.find('\n', begin + 1) - begin - 1);
  };
  CHECK(line("sin").ends_with("  4 B"));
  CHECK(line("exp").ends_with("  10.0 kB"));
  CHECK(line("cos").ends_with("  10.0 MB"));
  CHECK(line("(no module)").starts_with("(no module)      4 "));  // with x[0]
  profiler.write_trace(directory.file("trace.json"));
  const auto trace = nlohmann::json::parse(read_file(directory.file("trace.json")));
  const auto place = [&](const std::string& name) {
    for (const auto& event : trace.at("traceEvents"))
      if (event.at("name") == name) return event.at("args").at("place").get<std::string>();
    return std::string("none");
  };
  CHECK(place("exp") == "");
  CHECK(place("cos") == "t = 7");
  CHECK(trace.at("traceEvents").back().at("name") == "t = 7");
}

// --- Gradients over time ------------------------------------------------------------------------

namespace {

/// The loss h_T of h_t = w h_t-1, h_0 = 1, with every h_t watched.
void grow(GradientTrace& trace, double w, std::int64_t steps) {
  Tensor weight = leaf(tensor(w, DType::f64)), h = weight * 1.0;
  for (std::int64_t t = 0; t < steps; ++t) {
    if (t > 0) h = h * weight;
    trace.watch("h", h, t);
  }
  h.backward();
  trace.next_step();
}

}  // namespace

TEST_CASE("GradientTrace: norms over time and training steps, as a table and as CSV") {
  const TemporaryDirectory directory;
  GradientTrace trace({.values = true});
  grow(trace, 0.5, 4);
  grow(trace, 2.0, 3);
  CHECK(trace.table() == R"(tensor  t  step 0  step 1
h       0   0.125       4
h       1    0.25       2
h       2     0.5       1
h       3       1       -
)");
  trace.write_csv(directory.file("g.csv"));
  CHECK(read_file(directory.file("g.csv")) == R"(step,name,t,norm,values
0,h,3,1,1
0,h,2,0.5,0.5
0,h,1,0.25,0.25
0,h,0,0.125,0.125
1,h,2,1,1
1,h,1,2,2
1,h,0,4,4
)");
}

TEST_CASE("GradientTrace: parameters are watched once, and let go in the end") {
  Tensor w = leaf(tensor({3, 4}, DType::f64));
  {
    GradientTrace trace;
    trace.watch({{"w, all", w}});
    for (int i = 0; i < 20; ++i) {
      (sum(w) * (1.0 + i)).backward();
      trace.next_step();
    }
    CHECK(trace.records().size() == 20);
    CHECK(trace.records()[3].norm == doctest::Approx(4 * std::sqrt(2.0)));
    CHECK(trace.table() ==
          R"(tensor  step 0  step 2  step 5  step 8  step 10  step 13  step 16  step 19
w, all    1.41    4.24    8.49    12.7     15.6     19.8       24     28.3
)");
    const TemporaryDirectory directory;
    trace.write_csv(directory.file("g.csv"));
    CHECK(read_file(directory.file("g.csv")).find("step,name,t,norm\n0,\"w, all\",,1.41421") == 0);
    CHECK_THROWS_WITH_AS(trace.plot_over_time(directory.file("g.svg")),
                         "GradientTrace: no gradient was seen that could be drawn", ValueError);
    CHECK_THROWS_WITH_AS(trace.watch("x", ones({2})),
                         "GradientTrace: x, a tensor of shape (2), requires no gradient",
                         GraphError);
  }
  CHECK(w.impl().node->hooks->empty());
}

TEST_CASE("GradientTrace: inside of scan() the time step is known, and chains stay chains") {
  manual_seed(1);
  struct Cell : Module {
    Tensor u = param("u", full({2, 2}, 0.25));
    GradientTrace* trace = nullptr;
    Tensor initial_state(std::int64_t batch) const { return zeros({batch, 2}); }
    Tensor step(const Tensor& x, const Tensor& h) const {
      const Tensor next =
          fused([](const Tensor& a, const Tensor& b) { return tanh(a + b); }, x, matmul(h, u));
      trace->watch("h", next);
      return next;
    }
  } cell;
  GradientTrace trace;
  cell.trace = &trace;
  const Tensor last = scan(cell, ones({4, 1, 2})).state;
  CHECK(describe_tape(last).find("fused") != std::string::npos);
  sum(last).backward();
  REQUIRE(trace.records().size() == 4);
  for (std::int64_t i = 0; i < 4; ++i)
    CHECK(trace.records()[static_cast<std::size_t>(i)].t == 3 - i);
  CHECK(trace.records()[3].norm < trace.records()[0].norm);
}

TEST_CASE("GradientTrace: plots") {
  if (std::system("gnuplot --version >/dev/null 2>&1") != 0) return;
  const TemporaryDirectory directory;
  GradientTrace trace;
  grow(trace, 0.5, 4);
  grow(trace, 0.6, 4);
  trace.plot_over_time(directory.file("time.svg"));
  trace.plot_over_steps(directory.file("steps.svg"));
  CHECK(read_file(directory.file("time.svg")).find("time step") != std::string::npos);
  CHECK(read_file(directory.file("time.svg")).find("h, step 1") != std::string::npos);
  CHECK(read_file(directory.file("steps.svg")).find("training step") != std::string::npos);
  CHECK_THROWS_WITH_AS(trace.plot_over_time("/no/such/directory/time.svg"),
                       "cannot write '/no/such/directory/time.svg': No such file or directory",
                       FileError);
}
