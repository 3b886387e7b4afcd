#include "train/config.h"

#include <cmath>

namespace llmtk::train {

Schedule SchedulerConfig::make(int64_t total_steps) const {
  const auto share = [total_steps](double ratio) {
    return static_cast<int64_t>(std::ceil(ratio * static_cast<double>(total_steps)));
  };
  return {.type = parse_schedule(lr_scheduler_type),
          .total_steps = total_steps,
          .warmup_steps = warmup_steps > 0 ? warmup_steps : share(warmup_ratio),
          .decay_steps = num_decay_steps > 0 ? num_decay_steps : share(decay_ratio),
          .decay_shape = parse_decay(decay_type),
          .min_lr_ratio = min_lr_ratio};
}

void OptimizerConfig::validate(config::Problems& problems) const {
  const OptimizerConfig defaults;
  const auto idle = [&](const char* key, bool set) {
    if (set) problems.add(key, {.what = "has no effect with optimizer.type " + type, .hint = "leave it out"});
  };
  idle("momentum", type != "sgd" && momentum != defaults.momentum);
  idle("adam_beta1", type != "adamw" && adam_beta1 != defaults.adam_beta1);
  idle("adam_beta2", type != "adamw" && adam_beta2 != defaults.adam_beta2);
  idle("adam_epsilon", type != "adamw" && adam_epsilon != defaults.adam_epsilon);
}

void SchedulerConfig::validate(config::Problems& problems) const {
  const SchedulerConfig defaults;
  const auto idle = [&](const char* key, bool set) {
    if (set)
      problems.add(key, {.what = "has no effect with lr_scheduler_type " + lr_scheduler_type, .hint = "leave it out"});
  };
  const ScheduleType schedule = parse_schedule(lr_scheduler_type);
  idle("min_lr_ratio", schedule == ScheduleType::constant && min_lr_ratio != defaults.min_lr_ratio);
  idle("num_decay_steps", schedule != ScheduleType::wsd && num_decay_steps != defaults.num_decay_steps);
  idle("decay_ratio", schedule != ScheduleType::wsd && decay_ratio != defaults.decay_ratio);
  idle("decay_type", schedule != ScheduleType::wsd && decay_type != defaults.decay_type);
  if (warmup_steps > 0 && warmup_ratio > 0)
    problems.add("warmup_ratio", {.what = "given together with warmup_steps", .expected = "one of the two"});
  if (num_decay_steps > 0 && decay_ratio != defaults.decay_ratio)
    problems.add("decay_ratio", {.what = "given together with num_decay_steps", .expected = "one of the two"});
}

void TrainerConfig::validate(config::Problems& problems) const {
  if (max_steps == 0)
    problems.add("max_steps", {.what = "no step to train", .got = "0", .expected = "1 or more, or -1"});
  if (load_best_model_at_end && eval_steps == 0)
    problems.add("load_best_model_at_end", {.what = "needs evaluations", .hint = "set trainer.eval_steps"});
  if (load_best_model_at_end && eval_steps > 0 && save_steps != eval_steps)
    problems.add("load_best_model_at_end",
                 {.what = "the best model must have been saved",
                  .got = "save_steps " + std::to_string(save_steps) + ", eval_steps " + std::to_string(eval_steps),
                  .expected = "save_steps equal to eval_steps"});
  if (greater_is_better && metric_for_best_model == "loss")
    problems.add("greater_is_better", {.what = "a lower loss is always better", .hint = "leave it out"});
  if (early_stopping_patience > 0 && eval_steps == 0)
    problems.add("early_stopping_patience", {.what = "needs evaluations", .hint = "set trainer.eval_steps"});
  if (early_stopping_threshold > 0 && early_stopping_patience == 0)
    problems.add("early_stopping_threshold",
                 {.what = "has no effect without early stopping", .hint = "set trainer.early_stopping_patience"});
}

}  // namespace llmtk::train
