#pragma once
/// What the main() of every example does.

#include <CLI/CLI.hpp>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "framework/check.h"

namespace examples {

/// "bptt_norms.svg" for "bptt.svg" and "norms": where the parts of a program have files of their
/// own.
/// "" stays "".
std::string file_of_part(const std::string& name, const std::string& part);

/// Parses the arguments (without the program's name), calls `body` and returns its result, the exit
/// code. Errors become one message on stderr that begins with the program's name; the exit code is
/// 2 for wrong arguments, 1 for everything else, which includes pictures that could not be drawn.
int run(CLI::App& app, const std::vector<std::string>& arguments, const std::function<int()>& body);
int run(CLI::App& app, int argc, char** argv, const std::function<int()>& body);

/// What run() does first. Once more inside of `body`, options that are not given keep the values
/// that their variables have by then.
void parse(CLI::App& app, std::vector<std::string> arguments);

/// Throws FileError unless a file can be made at `path` or none is wanted (""): better before an
/// hour of training than after it.
void require_writable(const std::string& path);

/// Calls f(line, "line 1"), f(line, "line 2"), ... for the lines that are given or, if there are
/// none, for those of stdin, and flushes stdout each time: somebody may be typing. A ValueError
/// gets the number of its line.
void for_each_line(const std::vector<std::string>& given,
                   const std::function<void(const std::string&, const std::string&)>& f);

/// What f() returns. A ValueError gets the name of what was wrong, such as a file, in front of it.
template <class F>
auto naming(const std::string& what, const F& f) {
  try {
    return f();
  } catch (const unroll::ValueError& error) {
    throw unroll::ValueError(what + ": " + error.what());
  }
}

/// "warning: ..." on stderr.
void warn(const std::string& message);

/// 1234567 as "1,234,567".
std::string grouped(std::int64_t number);

/// The path of a file that comes with the examples, such as "english.txt".
std::string bundled(const std::string& file);

}  // namespace examples
