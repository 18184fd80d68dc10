#include "examples/common/plot.h"

#include <fmt/format.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <iterator>
#include <string_view>

#include "examples/common/program.h"
#include "framework/check.h"
#include "framework/file.h"

namespace examples {

namespace {

/// As gnuplot writes a string.
std::string gnuplot_string(std::string_view text) {
  std::string result = "'";
  for (const char c : text) {
    if (c == '\'') result += c;
    result += c;
  }
  return result + "'";
}

std::string gnuplot_script(const std::string& output, const PlotOptions& options,
                           const std::vector<Curve>& curves) {
  std::string script;
  auto out = std::back_inserter(script);
  fmt::format_to(out,
                 "set terminal svg size 720,420 dynamic noenhanced font 'sans-serif,14' "
                 "background 'white'\n"
                 "set output {}\nset title {}\nset xlabel {}\nset ylabel {}\n"
                 "set grid\nset key top right\n{}",
                 gnuplot_string(output), gnuplot_string(options.title),
                 gnuplot_string(options.x_label), gnuplot_string(options.y_label),
                 options.log_scale ? "set logscale y 2\n" : "");
  const auto shorter = [](const Curve& a, const Curve& b) { return a.y.size() < b.y.size(); };
  const auto longest = std::max_element(curves.begin(), curves.end(), shorter);
  if (longest != curves.end() && longest->y.size() == 1) script += "set xrange [0:2]\n";
  for (std::size_t i = 0; i < curves.size(); ++i) {
    fmt::format_to(out, "$curve{} << END\n", i);
    for (std::size_t x = 0; x < curves[i].y.size(); ++x)
      fmt::format_to(out, "{} {}\n", x + 1, curves[i].y[x]);
    fmt::format_to(out, "END\n");
  }
  for (std::size_t i = 0; i < curves.size(); ++i)
    fmt::format_to(out, "{} $curve{} using 1:2 with {} linewidth 2 title {}", i == 0 ? "plot" : ",",
                   i, curves[i].y.size() == 1 ? "points" : "lines", gnuplot_string(curves[i].name));
  return script + "\n";
}

/// The reason why gnuplot did not run to its good end, or "".
std::string run_gnuplot(const std::string& script_file) {
  std::string program = "gnuplot";
  std::string argument = script_file;
  char* arguments[] = {program.data(), argument.data(), nullptr};
  pid_t process = 0;
  const int error = posix_spawnp(&process, program.c_str(), nullptr, nullptr, arguments, environ);
  if (error != 0) return fmt::format("gnuplot can't be started ({})", std::strerror(error));
  int status = 0;
  waitpid(process, &status, 0);
  return WIFEXITED(status) && WEXITSTATUS(status) == 0 ? "" : "gnuplot failed";
}

}  // namespace

bool plot_svg(const std::string& path, const PlotOptions& options,
              const std::vector<Curve>& curves) {
  const std::string name = fmt::format("{}.{}", path, getpid());
  const std::string script = name + ".gnuplot";
  const std::string picture = name + ".svg";
  std::string problem;
  try {
    unroll::write_file_atomically(script, gnuplot_script(picture, options, curves));
    problem = run_gnuplot(script);
    if (problem.empty()) unroll::write_file_atomically(path, unroll::read_file(picture));
  } catch (const unroll::Error& e) {
    problem = e.what();
  }
  std::remove(script.c_str());
  std::remove(picture.c_str());
  if (!problem.empty()) warn(fmt::format("no plot {}: {}", path, problem));
  return problem.empty();
}

}  // namespace examples
