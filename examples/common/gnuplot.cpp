#include "examples/common/gnuplot.h"

#include <fmt/format.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <cstring>

#include "examples/common/program.h"
#include "framework/check.h"
#include "framework/file.h"

namespace examples {

namespace {

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

std::string gnuplot_string(std::string_view text) {
  std::string result = "'";
  for (const char c : text) {
    if (c == '\'') result += c;
    result += c;
  }
  return result + "'";
}

bool draw_svg(const std::string& path, int width, int height, const std::string& commands) {
  const std::string name = fmt::format("{}.{}", path, getpid());
  const std::string script = name + ".gnuplot";
  const std::string picture = name + ".svg";
  const std::string begin = fmt::format(
      "set encoding utf8\n"
      "set terminal svg size {},{} dynamic noenhanced font 'sans-serif,14' background 'white'\n"
      "set output {}\n",
      width, height, gnuplot_string(picture));
  std::string problem;
  try {
    unroll::write_file_atomically(script, begin + commands);
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
