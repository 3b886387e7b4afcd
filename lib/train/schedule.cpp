#include "train/schedule.h"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "core/error.h"

namespace llmtk::train {
namespace {

double ratio(int64_t part, int64_t whole) {
  return static_cast<double>(part) / static_cast<double>(std::max<int64_t>(1, whole));
}

double half_cosine(double progress) { return 0.5 * (1.0 + std::cos(std::numbers::pi * progress)); }

}  // namespace

ScheduleType parse_schedule(std::string_view name) {
  if (name == "constant" || name == "constant_with_warmup") return ScheduleType::constant;
  if (name == "linear") return ScheduleType::linear;
  if (name == "cosine" || name == "cosine_with_min_lr") return ScheduleType::cosine;
  if (name == "wsd" || name == "warmup_stable_decay") return ScheduleType::wsd;
  throw Error(Exit::usage, {.what = "unknown lr_scheduler_type",
                            .got = "'" + std::string(name) + "'",
                            .expected = "constant, linear, cosine or wsd"});
}

DecayShape parse_decay(std::string_view name) {
  if (name == "linear") return DecayShape::linear;
  if (name == "cosine") return DecayShape::cosine;
  if (name == "1-sqrt") return DecayShape::one_minus_sqrt;
  throw Error(
      Exit::usage,
      {.what = "unknown decay_type", .got = "'" + std::string(name) + "'", .expected = "linear, cosine or 1-sqrt"});
}

double Schedule::factor(int64_t step) const {
  const auto above_floor = [this](double factor) {
    return std::max(0.0, factor * (1.0 - min_lr_ratio) + min_lr_ratio);
  };
  if (step < warmup_steps) {
    const double progress = ratio(step, warmup_steps);
    // transformers lifts the warm-up of WSD off the floor, and of no other schedule.
    return type == ScheduleType::wsd ? above_floor(progress) : progress;
  }
  switch (type) {
    case ScheduleType::constant:
      return 1.0;
    case ScheduleType::linear:
      return above_floor(std::max(0.0, ratio(total_steps - step, total_steps - warmup_steps)));
    case ScheduleType::cosine:
      return above_floor(half_cosine(std::min(1.0, ratio(step - warmup_steps, total_steps - warmup_steps))));
    case ScheduleType::wsd:
      break;
  }
  const int64_t decay_start = std::max(warmup_steps, total_steps - decay_steps);
  if (step < decay_start) return 1.0;
  if (step >= decay_start + decay_steps) return min_lr_ratio;
  const double progress = ratio(step - decay_start, decay_steps);
  switch (decay_shape) {
    case DecayShape::linear:
      return above_floor(1.0 - progress);
    case DecayShape::cosine:
      return above_floor(half_cosine(progress));
    case DecayShape::one_minus_sqrt:
      return above_floor(1.0 - std::sqrt(progress));
  }
  return min_lr_ratio;
}

}  // namespace llmtk::train
