#pragma once
/// Other people's programs: Graphviz's dot, gnuplot. Not for users.

#include <functional>
#include <string>
#include <vector>

#include "framework/check.h"

namespace unroll::detail {

/// A program is not installed: those who can do without it may go on.
class MissingProgram : public FileError {
 public:
  using FileError::FileError;
};

/// Writes `path` by means of a program: puts `input` into a temporary file, runs the command that
/// `command(input file, output file)` gives, and copies the output to `path`, which is complete or
/// as it was before. Throws FileError that names the path and the reason; MissingProgram if that is
/// the reason.
void write_by_program(
    const std::string& path, const std::string& input,
    const std::function<std::vector<std::string>(const std::string& from, const std::string& to)>&
        command);

}  // namespace unroll::detail
