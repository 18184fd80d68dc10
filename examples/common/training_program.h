#pragma once
/// The command line of a program that learns by epochs: commands and options.

#include <CLI/CLI.hpp>
#include <cstdint>
#include <functional>
#include <initializer_list>
#include <map>
#include <string>
#include <type_traits>
#include <vector>

#include "examples/common/checkpoint.h"
#include "examples/common/json_log.h"
#include "examples/common/options.h"

namespace examples {

/// The options of everything that learns, of a struct that has them as members.
template <class T, class F>
void each_learning_option(T& options, F&& option) {
  option("epochs", options.epochs, "times through the training data", at_least(1));
  option("lr", options.lr, "learning rate of Adam", above(0));
  option("clip", options.clip, "largest norm of the gradient; 0: any", at_least(0));
  option("seed", options.seed, "of all random numbers", at_least(0));
  option("log", options.log, "file for JSON lines: an object per epoch, and a last one",
         writable());
  option("plot", options.plot, "SVG file for the curves; \"\": none", writable());
}

/// Options that every training by batches has. A saved model carries them.
struct TrainingOptions {
  std::int64_t epochs = 10;
  std::int64_t batch = 32;
  double lr = 1e-3;
  double clip = 1;
  std::uint64_t seed = 0;
  std::string log{}, plot{};

  template <class F>
  void each(F&& option) {
    option("batch", batch, "sequences side by side", at_least(1));
    each_learning_option(*this, option);
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

/// Writes the file of --save, if there is to be one: the program's name, and what `describe` adds.
void save(const Call& call, const std::function<void(Checkpoint&)>& describe);

/// What "train" does with the configuration; returns the exit code.
template <class Config>
using Learn = std::function<int(const Config&, const Call&, const Checkpoint*)>;

/// A command line: a command that trains, which is also meant when there is none, and others.
class TrainingProgram {
 public:
  /// The default file for models is "name.safetensors".
  TrainingProgram(const std::string& description, const std::string& name, int argc, char** argv,
                  const std::string& train = "train", const std::string& purpose = "learn");

  /// Its options are those of the configuration, --load, --save, --quiet and --threads.
  CLI::App& train() { return *train_.front(); }
  /// Another command that trains, with the same options.
  CLI::App& add_training(const std::string& name, const std::string& description);
  /// One that uses a saved model. Has the options --load and --threads.
  CLI::App& add_command(const std::string& name, const std::string& description);
  /// One that calls `action` and needs no model.
  CLI::App& add_action(const std::string& name, const std::string& description,
                       std::function<void()> action);

  /// Parses and calls `learn(config, call, saved)`, which returns the exit code, or, for the other
  /// commands, `use(command, saved)`.
  /// The configuration is that of the file that was loaded, and options that are given count more;
  /// for "train" it is a ValueError if one of the options `fixed`, which make the model what it is,
  /// differs.
  template <class Config>
  int run(Config& config, std::initializer_list<const char*> fixed,
          const Learn<std::type_identity_t<Config>>& learn,
          const std::function<void(const CLI::App&, const Checkpoint&)>& use = {}) {
    for (CLI::App* command : train_) add_options(*command, config);
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
  std::vector<CLI::App*> train_;
  std::map<const CLI::App*, std::function<void()>> actions_;
  std::string default_file_;
  Call call_;
};

}  // namespace examples
