#pragma once
// SIGTERM and SIGINT while a run goes on: the first asks the loop to stop at its next safe place, the second ends the
// process at once.

namespace llmtk::train {

/// While an object of this class lives, the first SIGTERM or SIGINT is only noted; a second one ends the process with
/// 143 or 130. One object at a time; the handlers that stood before come back with its end.
class StopSignals {
 public:
  StopSignals();
  ~StopSignals();
  StopSignals(const StopSignals&) = delete;
  StopSignals& operator=(const StopSignals&) = delete;

  /// The signal that came, or 0.
  int received() const;
  static const char* name(int signal);
};

}  // namespace llmtk::train
