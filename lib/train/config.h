#pragma once
// What a user may say about training, in the sections `optimizer`, `scheduler` and `trainer`. Names and defaults are
// those of transformers 5's TrainingArguments; where a default differs, the reason stands beside it.

#include <cstdint>
#include <optional>
#include <string>

#include "config/config.h"
#include "train/schedule.h"

namespace llmtk::train {

struct OptimizerConfig {
  std::string type = "adamw";
  double learning_rate = 5e-5;
  double weight_decay = 0.0;
  double adam_beta1 = 0.9;
  double adam_beta2 = 0.999;
  double adam_epsilon = 1e-8;
  double momentum = 0.0;
  double max_grad_norm = 1.0;

  template <class V>
  void fields(V& v) {
    v("type", type, "adamw, or sgd", config::one_of({"adamw", "sgd"}));
    v("learning_rate", learning_rate, "Peak learning rate", config::above(0));
    v("weight_decay", weight_decay, "Decay of matrices and embeddings; biases and norms have none",
      config::at_least(0));
    v("adam_beta1", adam_beta1, "AdamW: decay rate of the first moment", config::at_least(0), config::below(1));
    v("adam_beta2", adam_beta2, "AdamW: decay rate of the second moment", config::at_least(0), config::below(1));
    v("adam_epsilon", adam_epsilon, "AdamW: added to the denominator", config::above(0));
    v("momentum", momentum, "SGD: momentum", config::at_least(0), config::below(1));
    v("max_grad_norm", max_grad_norm, "Gradients are scaled down to this global norm; 0: never", config::at_least(0));
  }
  /// Settings of another optimizer than the chosen one would have no effect: refused.
  void validate(config::Problems& problems) const;
};

struct SchedulerConfig {
  std::string lr_scheduler_type = "linear";
  int64_t warmup_steps = 0;
  double warmup_ratio = 0.0;
  double min_lr_ratio = 0.0;
  int64_t num_decay_steps = 0;
  double decay_ratio = 0.1;
  std::string decay_type = "cosine";

  template <class V>
  void fields(V& v) {
    v("lr_scheduler_type", lr_scheduler_type, "How the learning rate goes over the run, after the warm-up",
      config::one_of({"constant", "constant_with_warmup", "linear", "cosine", "cosine_with_min_lr", "wsd",
                      "warmup_stable_decay"}));
    v("warmup_steps", warmup_steps, "Steps over which the learning rate rises from 0", config::at_least(0));
    v("warmup_ratio", warmup_ratio, "The same as a share of all steps, where warmup_steps is 0", config::at_least(0),
      config::below(1));
    v("min_lr_ratio", min_lr_ratio, "Where the fall ends, as a share of learning_rate", config::between(0, 1));
    v("num_decay_steps", num_decay_steps, "wsd: steps of the decay at the end", config::at_least(0));
    v("decay_ratio", decay_ratio, "wsd: the same as a share of all steps, where num_decay_steps is 0",
      config::between(0, 1));
    v("decay_type", decay_type, "wsd: shape of the decay", config::one_of({"linear", "cosine", "1-sqrt"}));
  }

  /// Settings of another schedule than the chosen one would have no effect: refused.
  void validate(config::Problems& problems) const;

  Schedule make(int64_t total_steps) const;
};

struct TrainerConfig {
  std::string output_dir;
  bool overwrite_output_dir = false;
  std::string resume_from_checkpoint = "false";
  std::string device = "auto";
  std::string dtype = "float32";
  int64_t num_threads = 0;
  int64_t seed = 42;
  bool deterministic = false;
  int64_t max_steps = -1;
  int64_t num_train_epochs = 3;
  int64_t per_device_train_batch_size = 8;
  int64_t per_device_eval_batch_size = 8;
  int64_t gradient_accumulation_steps = 1;
  bool gradient_checkpointing = false;
  int64_t logging_steps = 10;  // transformers: 500; a run on a CPU would say nothing for an hour
  int64_t eval_steps = 0;
  int64_t sample_steps = 0;
  int64_t save_steps = 500;
  int64_t save_total_limit = 0;
  bool eval_on_start = false;
  bool load_best_model_at_end = false;
  std::string metric_for_best_model = "loss";
  std::optional<bool> greater_is_better;
  int64_t early_stopping_patience = 0;
  double early_stopping_threshold = 0.0;
  int64_t max_nonfinite_steps = 3;

  template <class V>
  void fields(V& v) {
    v("output_dir", output_dir, "Where checkpoints, metrics and the trained model go", config::required,
      config::not_empty);
    v("overwrite_output_dir", overwrite_output_dir, "Begin anew in a folder that holds a run: that run is deleted");
    v("resume_from_checkpoint", resume_from_checkpoint,
      "auto: from the newest whole checkpoint of output_dir where there is one; true: the same, but there must be one; "
      "false; or the path of a checkpoint",
      config::or_bool);
    v("device", device, "auto (a GPU where there is one), cpu, cuda or cuda:N");
    v("dtype", dtype, "float32, or bfloat16 with float32 masters", config::one_of({"float32", "bfloat16"}));
    v("num_threads", num_threads, "Threads that compute; 0: all cores of this process", config::at_least(0));
    v("seed", seed, "Of initialization, data order, dropout", config::at_least(0));
    v("deterministic", deterministic, "Only operations that give the same bits every time (matters on GPUs)");
    v("max_steps", max_steps, "Optimizer steps; -1: num_train_epochs decides", config::at_least(-1));
    v("num_train_epochs", num_train_epochs, "Passes over the data, where max_steps is -1", config::at_least(1));
    v("per_device_train_batch_size", per_device_train_batch_size, "Rows per micro-batch and device",
      config::at_least(1));
    v("per_device_eval_batch_size", per_device_eval_batch_size, "The same in evaluations", config::at_least(1));
    v("gradient_accumulation_steps", gradient_accumulation_steps, "Micro-batches per optimizer step",
      config::at_least(1));
    v("gradient_checkpointing", gradient_checkpointing,
      "Keep only each layer's input and compute the rest again: less memory, a third more work");
    v("logging_steps", logging_steps, "Metrics every so many steps", config::at_least(1));
    v("eval_steps", eval_steps, "Evaluate every so many steps; 0: only at the end", config::at_least(0));
    v("eval_on_start", eval_on_start, "Evaluate before the first step too; that model is no candidate for the best");
    v("sample_steps", sample_steps, "Write samples every so many steps; 0: only at the end", config::at_least(0));
    v("save_steps", save_steps, "A checkpoint every so many steps; 0: only at the end", config::at_least(0));
    v("save_total_limit", save_total_limit, "Checkpoints kept; the newest and the best always are. 0: all",
      config::at_least(0));
    v("load_best_model_at_end", load_best_model_at_end,
      "The final model is that of the checkpoint with the best evaluation, as metric_for_best_model says");
    v("metric_for_best_model", metric_for_best_model,
      "What an evaluation is judged by: loss, perplexity, or one of the objective's own metrics (eval_ may stand before "
      "the name)",
      config::not_empty);
    v("greater_is_better", greater_is_better,
      "Whether a higher metric_for_best_model is better; default: not of losses, perplexities and errors");
    v("early_stopping_patience", early_stopping_patience,
      "Stop after so many evaluations in a row without a better metric_for_best_model; 0: never", config::at_least(0));
    v("early_stopping_threshold", early_stopping_threshold, "What is better must be so by more than this to count",
      config::at_least(0));
    v("max_nonfinite_steps", max_nonfinite_steps,
      "A step whose loss or gradient is NaN or infinite is skipped; so many in a row end the run (exit code 4)",
      config::at_least(1));
  }

  /// Rules between fields.
  void validate(config::Problems& problems) const;
};

}  // namespace llmtk::train
