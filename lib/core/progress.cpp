#include "core/progress.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>

#include "core/log.h"

namespace llmtk {
namespace {

double steady_seconds() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

template <class... Args>
std::string print(const char* format, Args... args) {
  char buffer[64];
  std::snprintf(buffer, sizeof buffer, format, args...);
  return buffer;
}

}  // namespace

Progress::Progress(int64_t total, Options options)
    : total_(total), options_(std::move(options)), on_terminal_(log::on_terminal()) {
  if (!options_.clock) options_.clock = steady_seconds;
}

Progress::~Progress() { finish(); }

std::string Progress::line(int64_t step, const std::vector<Field>& fields) const {
  std::string text = options_.label + " " + std::to_string(step) + "/" + std::to_string(total_);
  for (const Field& field : fields) {
    text += "  ";
    if (!field.label.empty()) text += field.label + " ";
    text += field.text;
  }
  const int64_t done = step - first_step_;
  if (first_time_ >= 0 && done > 0 && step < total_) {
    const double per_step = (options_.clock() - first_time_) / static_cast<double>(done);
    text += "  ETA " + format_duration(per_step * static_cast<double>(total_ - step));
  }
  return text;
}

void Progress::update(int64_t step, const std::vector<Field>& fields, bool logging_step) {
  const double now = options_.clock();
  if (first_time_ < 0) {
    first_time_ = now;
    first_step_ = std::max(step, options_.first);
  }
  const bool last = step >= total_;
  if (!on_terminal_ && !logging_step && !last) return;
  if (!last && now - last_shown_ < (on_terminal_ ? options_.redraw_seconds : options_.log_seconds)) return;
  last_shown_ = now;
  latest_ = line(step, fields);
  if (on_terminal_)
    log::set_status(latest_);
  else
    log::info(latest_);
}

void Progress::finish() {
  if (on_terminal_ && !latest_.empty()) log::keep_status();
  latest_.clear();
}

std::string format_duration(double seconds) {
  if (!(seconds >= 0) || seconds > 1e9) return "?";
  const auto total = static_cast<long long>(std::llround(seconds));
  const long long days = total / 86400, hours = total / 3600 % 24, minutes = total / 60 % 60, rest = total % 60;
  if (days > 0) return print("%lldd %02lld:%02lld", days, hours, minutes);
  if (hours > 0) return print("%lld:%02lld:%02lld", hours, minutes, rest);
  if (minutes > 0) return print("%lld:%02lld", minutes, rest);
  return print("%llds", rest);
}

std::string format_count(double count) {
  if (!std::isfinite(count)) return "?";
  constexpr const char* kUnits[] = {"", "k", "M", "G", "T"};
  size_t unit = 0;
  while (std::abs(count) >= 999.5 && unit + 1 < std::size(kUnits)) {
    count /= 1000;
    ++unit;
  }
  const double magnitude = std::abs(count);
  if (unit == 0 && count == std::floor(count)) return print("%.0f", count);
  return print(magnitude < 9.995 ? "%.2f%s" : magnitude < 99.95 ? "%.1f%s" : "%.0f%s", count, kUnits[unit]);
}

}  // namespace llmtk
