#include "data/progress_lines.h"

#include <algorithm>
#include <cstdio>

#include "core/log.h"

namespace llmtk::data {

void ProgressLines::update(double done, double total, double earlier, const std::string& more) {
  const auto now = Clock::now();
  if (std::chrono::duration<double>(now - last_).count() < seconds_) return;
  last_ = now;
  const double speed = (done - earlier) / std::chrono::duration<double>(now - began_).count();
  char line[200];
  std::snprintf(line, sizeof line, "%s %.1f of %.1f %s (%.0f %%)%s, %.1f %s/s, %.0f s left", verb_.c_str(), done, total,
                unit_.c_str(), 100 * done / std::max(total, 1e-6), more.c_str(), speed, unit_.c_str(),
                (total - done) / std::max(speed, 1e-6));
  log::info(line);
}

}  // namespace llmtk::data
