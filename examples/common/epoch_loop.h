#pragma once
/// The loop over epochs and batches that every training has.

#include <cstdint>
#include <functional>
#include <optional>
#include <string>

#include "examples/common/checkpoint.h"
#include "examples/common/interrupt.h"
#include "examples/common/json_log.h"
#include "examples/common/training_program.h"
#include "framework/random.h"

namespace examples {

/// Knows where a training is, shows progress, writes the log, stops at Ctrl-C and saves: at the
/// end, once a minute, and when interrupted. What goes on from there ends as if nothing had
/// happened.
class EpochLoop {
 public:
  /// What a training does.
  struct Actions {
    /// Begins an epoch and returns how many batches it has. The generator is the same one if the
    /// epoch goes on after an interruption.
    std::function<std::int64_t(unroll::Generator&)> start;
    std::function<void(std::int64_t batch)> learn;  ///< learns one of them, from 0 on
    std::function<std::string()> status;            ///< what the progress says behind the epoch
    std::function<void(Json& line)> finish;         ///< ends an epoch: what to log of it
    std::function<void(Checkpoint&)> save;          ///< adds what it takes to go on
  };

  /// Throws FileError for files that cannot be written, before any work is done.
  EpochLoop(const TrainingOptions& options, const Call& call);

  /// The position of a file, and its random numbers. Throws ValueError if all epochs are done.
  void go_on_from(const Checkpoint& saved);
  /// Where the epoch that was interrupted cannot go on: `why` is the first part of a warning.
  void restart_epoch(const std::string& why);

  /// All epochs that are left, or until Ctrl-C. Returns whether all is done; otherwise it has said
  /// how to go on.
  bool run(const Actions& actions);
  int exit_code() const { return interrupt_.exit_code(); }

  /// Complete ones.
  std::int64_t epochs() const { return at_.epoch; }
  /// Writes a last line, with "final" before it.
  void log_final(Json line);

 private:
  struct Position {
    std::int64_t epoch = 0;    ///< complete epochs
    std::int64_t batch = 0;    ///< complete batches of the next one,
    std::int64_t batches = 0;  ///< out of so many

    template <class F>
    void each(F&& field) {
      field("epoch", epoch), field("batch", batch), field("batches", batches);
    }
  };
  void save(const Actions& actions) const;

  TrainingOptions options_;
  Call call_;
  Position at_;
  std::optional<JsonLog> log_;
  Interrupt interrupt_;
};

}  // namespace examples
