#pragma once
// The line that says how far a run is.

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

namespace llmtk {

/// On a terminal: one line at the bottom, redrawn in place, cut to the terminal's width; log lines go above it.
/// Elsewhere (a file, a pipe): one log line at each logging step. Everything goes to stderr.
class Progress {
 public:
  struct Field {
    std::string label;  ///< "loss"; may be empty
    std::string text;   ///< "3.2145"
  };
  struct Options {
    std::string label = "step";
    int64_t first = 0;              ///< where counting starts: the step a run was resumed from
    double redraw_seconds = 0.1;    ///< at most one redraw in this time
    double log_seconds = 1.0;       ///< not on a terminal: at most one line in this time, the last step's always
    std::function<double()> clock;  ///< seconds; a steady clock unless a test gives its own
  };
  /// `total`: the last step's number.
  explicit Progress(int64_t total) : Progress(total, Options()) {}
  Progress(int64_t total, Options options);
  ~Progress();
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;

  /// `logging_step`: whether a plain line is due.
  void update(int64_t step, const std::vector<Field>& fields, bool logging_step);
  /// Leaves the last line where it is; later output starts below it.
  void finish();

  /// "step 20/100  loss 3.21  ETA 1:20". The time left follows from the mean speed since the first update.
  std::string line(int64_t step, const std::vector<Field>& fields) const;

 private:
  int64_t total_;
  Options options_;
  bool on_terminal_;
  double first_time_ = -1;
  int64_t first_step_ = 0;
  double last_shown_ = -1e300;
  std::string latest_;
};

/// "45s", "12:05", "3:07:45", "2d 03:10".
std::string format_duration(double seconds);
/// Three digits and a power of a thousand: "950", "12.3k", "1.24M".
std::string format_count(double count);

}  // namespace llmtk
