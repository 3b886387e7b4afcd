#pragma once
// Learning-rate schedules as pure functions of the step. The formulas are those of transformers' get_*_schedule
// (transformers/optimization.py), so a run here and one there see the same rate at every step.

#include <cstdint>
#include <string>
#include <string_view>

namespace llmtk::train {

enum class ScheduleType {
  constant,  ///< warm-up, then 1
  linear,    ///< warm-up, then a straight line to min_lr_ratio
  cosine,    ///< warm-up, then a cosine to min_lr_ratio
  wsd,       ///< warm-up, stable, decay (arXiv:2404.06395)
};

/// "constant" (also "constant_with_warmup"), "linear", "cosine" (also "cosine_with_min_lr"), "wsd" (also
/// "warmup_stable_decay"). Throws Error(usage).
ScheduleType parse_schedule(std::string_view name);

/// How the last part of WSD falls.
enum class DecayShape { linear, cosine, one_minus_sqrt };
/// "linear", "cosine", "1-sqrt". Throws Error(usage).
DecayShape parse_decay(std::string_view name);

struct Schedule {
  ScheduleType type = ScheduleType::linear;
  int64_t total_steps = 0;
  int64_t warmup_steps = 0;
  int64_t decay_steps = 0;  ///< WSD only: the last steps of the run
  DecayShape decay_shape = DecayShape::cosine;
  double min_lr_ratio = 0.0;

  /// What the base learning rate is multiplied by in the optimizer step number `step`, counted from 0. Under warm-up
  /// the first step's factor is 0, as in transformers.
  double factor(int64_t step) const;
};

}  // namespace llmtk::train
