#pragma once
/// The command line that the benchmarks share.

#include <string>
#include <vector>

#include "common/stopwatch.h"

namespace bench {

struct Options {
  int threads = 1;
  int row = -1;                   ///< of the grid; -1: all
  std::vector<std::string> what;  ///< empty: everything
  std::vector<std::string> mode;  ///< empty: all
  Budget budget;

  bool wants_row(int r) const { return row < 0 || row == r; }
  bool wants(const std::string& name) const { return listed(what, name); }
  bool wants_mode(const std::string& name) const { return listed(mode, name); }

 private:
  static bool listed(const std::vector<std::string>& names, const std::string& name);
};

/// Reads the command line; on --help and on a mistake it prints and ends the program.
Options parse(int argc, char** argv, const char* description);

}  // namespace bench
