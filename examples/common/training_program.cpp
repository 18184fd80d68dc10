#include "examples/common/training_program.h"

#include <fmt/format.h>

#include <optional>

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

TrainingProgram::TrainingProgram(const std::string& description, const std::string& name, int argc,
                                 char** argv)
    : arguments_(argv + 1, argv + argc),
      app_(description + " Without a command it trains.", name),
      default_file_(name + ".safetensors") {
  const std::string first = arguments_.empty() ? "-" : arguments_[0];
  if (first.starts_with('-') && first != "--help" && first != "-h")
    arguments_.insert(arguments_.begin(), "train");
  app_.require_subcommand(1);
  call_.program = argv[0];
  call_.name = name;
  train_ = &add_command("train", "learn");
  train_
      ->add_option("--save", call_.save,
                   fmt::format("file for the model; \"\": none (default: that of --load, else {})",
                               default_file_))
      ->check(writable());
  train_->add_flag("--quiet", call_.quiet, "print the results only");
}

CLI::App& TrainingProgram::add_command(const std::string& name, const std::string& description) {
  CLI::App& command = *app_.add_subcommand(name, description);
  command.add_option("--load", call_.load,
                     name == "train" ? "saved model to go on from, with its options"
                                     : fmt::format("saved model (default: {})", default_file_));
  command.add_option("--threads", call_.threads, "0: one per core")->check(at_least(0));
  return command;
}

int TrainingProgram::dispatch(const std::function<void(const Checkpoint&)>& load,
                              const std::function<void(const Checkpoint&)>& check,
                              const std::function<int(const Call&, const Checkpoint*)>& learn,
                              const std::function<void(const CLI::App&, const Checkpoint&)>& use) {
  return examples::run(app_, arguments_, [&] {
    if (call_.threads > 0) set_num_threads(call_.threads);
    std::optional<Checkpoint> saved;
    const bool trains = train_->parsed();
    if (!trains && call_.load.empty()) call_.load = default_file_;
    if (!call_.load.empty()) {
      saved.emplace(call_.load);
      saved->require_program(call_.name);
      load(*saved);
      parse(app_, arguments_);  // options that are given count more
    }
    if (!trains) {
      use(*app_.get_subcommands().front(), *saved);
      return 0;
    }
    if (saved) check(*saved);
    if (train_->count("--save") == 0) call_.save = saved ? call_.load : default_file_;
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
