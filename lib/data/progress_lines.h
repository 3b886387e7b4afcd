#pragma once
// How far a phase of some minutes is, for those who wait.

#include <chrono>
#include <string>

namespace llmtk::data {

/// A line on stderr every few seconds: "read 12.0 of 40.0 MB (30 %), 6.0 MB/s, 5 s left".
class ProgressLines {
 public:
  ProgressLines(std::string verb, std::string unit, double seconds = 5)
      : verb_(std::move(verb)), unit_(std::move(unit)), seconds_(seconds) {}
  /// `earlier`: so much of `done` was there before the phase began. `more` stands behind the share (", ...").
  void update(double done, double total, double earlier = 0, const std::string& more = {});

 private:
  using Clock = std::chrono::steady_clock;
  std::string verb_, unit_;
  double seconds_;
  Clock::time_point began_ = Clock::now(), last_ = began_;
};

}  // namespace llmtk::data
