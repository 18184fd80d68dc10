#pragma once
/// The command line of a program that learns by epochs: commands and options.

#include <CLI/CLI.hpp>
#include <cstdint>
#include <functional>
#include <initializer_list>
#include <string>
#include <type_traits>
#include <vector>

#include "examples/common/checkpoint.h"
#include "examples/common/json_log.h"
#include "examples/common/options.h"

namespace examples {

/// Options that every training has. A saved model carries them.
struct TrainingOptions {
  std::int64_t epochs = 10;
  std::int64_t batch = 32;
  double lr = 1e-3;
  double clip = 1;
  std::uint64_t seed = 0;
  std::string log{}, plot{};

  template <class F>
  void each(F&& option) {
    option("epochs", epochs, "times through the training data", at_least(1));
    option("batch", batch, "sequences side by side", at_least(1));
    option("lr", lr, "learning rate of Adam", above(0));
    option("clip", clip, "largest norm of the gradient; 0: any", at_least(0));
    option("seed", seed, "of all random numbers", at_least(0));
    option("log", log, "file for one JSON object per epoch", writable());
    option("plot", plot, "SVG file for the curves; \"\": none", writable());
  }
};

/// The files of --train, --dev and --test, with each() for a configuration.
struct DataFiles {
  std::string train{}, dev{}, test{};

  template <class F>
  void each(F&& option) {
    option("train", train, "file to learn (default: the bundled data)");
    option("dev", dev, "file to measure on after each epoch");
    option("test", test, "file to measure on at the end");
  }
  /// Without --train those that come with the examples, such as "ner.english.train.conll" for
  /// ("ner.english", "conll"). Throws ValueError for --dev or --test alone.
  DataFiles or_bundled(const std::string& name, const std::string& extension) const;
};

/// What belongs to one call of a program; a saved model carries the rest.
struct Call {
  std::string load, save;
  std::string program;  ///< how it was called: argv[0]
  std::string name;     ///< whose models it saves
  int threads = 0;
  bool quiet = false;
};

/// What "train" does with the configuration; returns the exit code.
template <class Config>
using Learn = std::function<int(const Config&, const Call&, const Checkpoint*)>;

/// A command line: "train", which is also meant when there is no command, and others that use a
/// saved model.
class TrainingProgram {
 public:
  /// The default file for models is "name.safetensors".
  TrainingProgram(const std::string& description, const std::string& name, int argc, char** argv);

  /// Its options are those of the configuration, --load, --save, --quiet and --threads.
  CLI::App& train() { return *train_; }
  /// Has the options --load and --threads.
  CLI::App& add_command(const std::string& name, const std::string& description);

  /// Parses and calls `learn(config, call, saved)`, which returns the exit code, or, for the other
  /// commands, `use(command, saved)`.
  /// With --load the configuration is that of the file, and options that are given count more; it
  /// is a ValueError if one of the options `fixed`, which make the model what it is, differs.
  template <class Config>
  int run(Config& config, std::initializer_list<const char*> fixed,
          const Learn<std::type_identity_t<Config>>& learn,
          const std::function<void(const CLI::App&, const Checkpoint&)>& use = {}) {
    add_options(train(), config);
    return dispatch(
        [&](const Checkpoint& saved) { config = saved.values<Config>("config"); },
        [&](const Checkpoint& saved) {
          require_same(to_json(saved.values<Config>("config")), to_json(config), fixed);
        },
        [&](const Call& call, const Checkpoint* saved) { return learn(config, call, saved); }, use);
  }

 private:
  int dispatch(const std::function<void(const Checkpoint&)>& load,
               const std::function<void(const Checkpoint&)>& check,
               const std::function<int(const Call&, const Checkpoint*)>& learn,
               const std::function<void(const CLI::App&, const Checkpoint&)>& use);
  void require_same(const Json& before, const Json& now,
                    std::initializer_list<const char*> fixed) const;

  std::vector<std::string> arguments_;
  CLI::App app_;
  CLI::App* train_;
  std::string default_file_;
  Call call_;
};

}  // namespace examples
