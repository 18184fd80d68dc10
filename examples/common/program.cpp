#include "examples/common/program.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <iostream>

#include "examples/common/gnuplot.h"
#include "framework/check.h"

namespace examples {

std::string file_of_part(const std::string& name, const std::string& part) {
  std::filesystem::path path(name);
  if (name.empty()) return "";
  path.replace_filename(path.stem().string() + "_" + part + path.extension().string());
  return path.string();
}

namespace {

/// Ends the output; a full disk, say, must not pass for success.
bool flush_output() {
  std::cout.flush();
  return std::fflush(stdout) == 0 && std::ferror(stdout) == 0 && std::cout.good();
}

int fail(const CLI::App& app, const std::string& message, int code) {
  fmt::print(stderr, "{}: {}\n", app.get_name(), message);
  return code;
}

}  // namespace

int run(CLI::App& app, const std::vector<std::string>& arguments,
        const std::function<int()>& body) {
  try {
    parse(app, arguments);
    const int code = body();
    if (!flush_output()) return fail(app, "the output could not be written", 1);
    return drawing_error().empty() ? code : fail(app, drawing_error(), code == 0 ? 1 : code);
  } catch (const CLI::ParseError& error) {
    if (error.get_exit_code() == 0) {  // --help
      app.exit(error);
      return flush_output() ? 0 : fail(app, "the output could not be written", 1);
    }
    return fail(app,
                fmt::format("{}\nRun {} --help for the options.", error.what(), app.get_name()), 2);
  } catch (const std::exception& error) {
    return fail(app, error.what(), 1);
  }
}

int run(CLI::App& app, int argc, char** argv, const std::function<int()>& body) {
  return run(app, std::vector<std::string>(argv + 1, argv + argc), body);
}

void parse(CLI::App& app, std::vector<std::string> arguments) {
  // CLI11 would only say that a command is missing.
  const auto commands = app.get_subcommands([](const CLI::App*) { return true; });
  const auto is_first = [&](const CLI::App* command) {
    return command->get_name() == arguments.front();
  };
  if (!commands.empty() && !arguments.empty() && !arguments.front().starts_with('-') &&
      std::none_of(commands.begin(), commands.end(), is_first)) {
    std::string names;
    for (const CLI::App* command : commands)
      names += (names.empty() ? "" : ", ") + command->get_name();
    throw CLI::ParseError(
        fmt::format("there is no command '{}' among {}", arguments.front(), names),
        CLI::ExitCodes::ExtrasError);
  }
  std::reverse(arguments.begin(), arguments.end());  // what CLI11 asks for
  app.parse(std::move(arguments));
}

void require_writable(const std::string& path) {
  if (path.empty()) return;
  const std::filesystem::path parent = std::filesystem::path(path).parent_path();
  // A file is renamed into its directory; a device or a pipe is written itself (framework/file.h).
  const bool itself = std::filesystem::is_other(std::filesystem::status(path));
  const std::string target = itself ? path : parent.empty() ? "." : parent.string();
  if (std::filesystem::is_directory(path))
    throw unroll::FileError(fmt::format("cannot write {}: it is a directory", path));
  if (::access(target.c_str(), itself ? W_OK : W_OK | X_OK) != 0)
    throw unroll::FileError(fmt::format("cannot write {}: {}", path, std::strerror(errno)));
}

void for_each_line(const std::vector<std::string>& given,
                   const std::function<void(const std::string&, const std::string&)>& f) {
  std::int64_t number = 0;
  const auto call = [&](const std::string& line) {
    const std::string where = fmt::format("line {}", ++number);
    try {
      f(line, where);
    } catch (const unroll::ValueError& error) {
      throw unroll::ValueError(fmt::format("{}: {}", where, error.what()));
    }
    std::fflush(stdout);
  };
  for (const std::string& line : given) call(line);
  if (given.empty())
    for (std::string line; std::getline(std::cin, line);) call(line);
}

void warn(const std::string& message) { fmt::print(stderr, "warning: {}\n", message); }

std::string grouped(std::int64_t number) {
  std::string digits = std::to_string(number);
  const std::int64_t first = number < 0 ? 1 : 0;
  for (std::int64_t i = static_cast<std::int64_t>(digits.size()) - 3; i > first; i -= 3)
    digits.insert(static_cast<std::size_t>(i), ",");
  return digits;
}

std::string bundled(const std::string& file) { return UNROLL_SOURCE_DIR "/examples/data/" + file; }

}  // namespace examples
