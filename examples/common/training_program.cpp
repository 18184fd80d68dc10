#include "examples/common/training_program.h"

#include <fmt/format.h>

#include <algorithm>
#include <optional>
#include <utility>

#include "examples/common/program.h"
#include "framework/check.h"
#include "framework/kernels/parallel.h"

namespace examples {

using namespace unroll;

DataFiles DataFiles::or_bundled(const std::string& name, const std::string& extension) const {
  if (!train.empty()) return *this;
  if (!dev.empty() || !test.empty()) throw ValueError("--dev and --test need --train");
  const auto file = [&](const char* part) {
    return bundled(fmt::format("{}.{}.{}", name, part, extension));
  };
  return {file("train"), file("dev"), file("test")};
}

void save(const Call& call, const std::function<void(Checkpoint&)>& describe) {
  if (call.save.empty()) return;
  Checkpoint file;
  file.add_program(call.name);
  describe(file);
  file.save(call.save);
}

TrainingProgram::TrainingProgram(const std::string& description, const std::string& name, int argc,
                                 char** argv, const std::string& train, const std::string& purpose)
    : arguments_(argv + 1, argv + argc),
      app_(fmt::format("{} Without a command: {}.", description, train), name),
      default_file_(name + ".safetensors") {
  const std::string first = arguments_.empty() ? "-" : arguments_[0];
  if (first.starts_with('-') && first != "--help" && first != "-h")
    arguments_.insert(arguments_.begin(), train);
  app_.require_subcommand(1);
  call_.program = argv[0];
  call_.name = name;
  add_training(train, purpose);
}

CLI::App& TrainingProgram::add_training(const std::string& name, const std::string& description) {
  CLI::App& command = add_command(name, description);
  command.get_option("--load")->description("saved model to go on from, with its options");
  command
      .add_option("--save", call_.save,
                  fmt::format("file for the model; \"\": none (default: that of --load, else {})",
                              default_file_))
      ->check(writable());
  command.add_flag("--quiet", call_.quiet, "print the results only");
  train_.push_back(&command);
  return command;
}

CLI::App& TrainingProgram::add_command(const std::string& name, const std::string& description) {
  CLI::App& command = *app_.add_subcommand(name, description);
  command.add_option("--load", call_.load, fmt::format("saved model (default: {})", default_file_));
  command.add_option("--threads", call_.threads, "0: one per core")->check(at_least(0));
  return command;
}

CLI::App& TrainingProgram::add_action(const std::string& name, const std::string& description,
                                      std::function<void()> action) {
  CLI::App& command = *app_.add_subcommand(name, description);
  actions_[&command] = std::move(action);
  return command;
}

int TrainingProgram::dispatch(const std::function<void(const Checkpoint&)>& load,
                              const std::function<void(const Checkpoint&)>& check,
                              const std::function<int(const Call&, const Checkpoint*)>& learn,
                              const std::function<void(const CLI::App&, const Checkpoint&)>& use) {
  return examples::run(app_, arguments_, [&] {
    CLI::App* command = app_.get_subcommands().front();
    if (const auto action = actions_.find(command); action != actions_.end()) {
      action->second();
      return 0;
    }
    if (call_.threads > 0) set_num_threads(call_.threads);
    std::optional<Checkpoint> saved;
    const bool trains = std::find(train_.begin(), train_.end(), command) != train_.end();
    if (!trains && call_.load.empty()) call_.load = default_file_;
    if (!call_.load.empty()) {
      saved.emplace(call_.load);
      saved->require_program(call_.name);
      load(*saved);
      parse(app_, arguments_);  // options that are given count more
    }
    if (!trains) {
      use(*command, *saved);
      return 0;
    }
    if (saved) check(*saved);
    if (command->count("--save") == 0) call_.save = saved ? call_.load : default_file_;
    return learn(call_, saved ? &*saved : nullptr);
  });
}

void TrainingProgram::require_same(const Json& before, const Json& now,
                                   std::initializer_list<const char*> fixed) const {
  for (const char* name : fixed)
    if (before.at(name) != now.at(name))
      throw ValueError(fmt::format("--{} {} does not fit {}, which has {}", name,
                                   now.at(name).dump(), call_.load, before.at(name).dump()));
}

}  // namespace examples
