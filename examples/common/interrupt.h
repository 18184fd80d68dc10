#pragma once
/// Ctrl-C as a question that a loop asks.

namespace examples {

/// While one lives, the first SIGINT or SIGTERM only sets a flag, so that the program can put its
/// work in a safe place; the second one ends it as usual.
class Interrupt {
 public:
  Interrupt();
  ~Interrupt();
  Interrupt(const Interrupt&) = delete;
  Interrupt& operator=(const Interrupt&) = delete;

  bool requested() const;
  /// What a shell expects of a program that a signal has stopped.
  int exit_code() const;
};

}  // namespace examples
