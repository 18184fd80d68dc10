#include "common/options.h"

#include <CLI/CLI.hpp>

#include <algorithm>
#include <cstdlib>

namespace bench {

bool Options::listed(const std::vector<std::string>& names, const std::string& name) {
  return names.empty() || std::find(names.begin(), names.end(), name) != names.end();
}

Options parse(int argc, char** argv, const char* description) {
  Options options;
  CLI::App app(description);
  app.add_option("--threads", options.threads, "threads to use")
      ->check(CLI::Range(1, 4096))
      ->capture_default_str();
  app.add_option("--row", options.row, "only this row of the grid, from 0 on")
      ->check(CLI::Range(0, 7));
  app.add_option("--what", options.what, "only these, by the name in the column `what`")
      ->delimiter(',');
  app.add_option("--mode", options.mode, "only these, by the name in the column `mode`")
      ->delimiter(',');
  app.add_option("--seconds", options.budget.seconds, "time each thing at least so long")
      ->capture_default_str();
  app.add_option("--iterations", options.budget.iterations, "and at least so many times")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    std::exit(app.exit(error));
  }
  return options;
}

}  // namespace bench
