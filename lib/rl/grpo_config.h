#pragma once
// The section `grpo` of a config; names and defaults are those of TRL's GRPOConfig (trl 1.9).

#include <cstdint>
#include <optional>
#include <string>

#include "config/config.h"
#include "rl/response_config.h"

namespace llmtk::rl {

struct GrpoConfig : ResponseEndConfig {
  int64_t num_generations = 8;
  int64_t max_completion_length = 256;
  double temperature = 1.0;
  double top_p = 1.0;
  int64_t top_k = 0;
  std::optional<double> min_p;
  double repetition_penalty = 1.0;
  int64_t steps_per_generation = 0;
  int64_t num_iterations = 1;
  double beta = 0;
  double epsilon = 0.2;
  std::optional<double> epsilon_high;
  std::optional<double> delta;
  std::string loss_type = "dapo";
  std::string importance_sampling_level = "token";
  std::string scale_rewards = "group";
  bool mask_truncated_completions = false;
  int64_t local_rollout_forward_batch_size = 64;
  int64_t num_samples = 4;

  template <class V>
  void fields(V& v) {
    v("num_generations", num_generations, "Responses to each prompt, which are compared with one another",
      config::at_least(2));
    v("max_completion_length", max_completion_length, "New tokens of a response at most", config::at_least(1));
    ResponseEndConfig::fields(v);
    v("temperature", temperature, "With which responses are drawn and log-probabilities computed", config::above(0));
    v("top_p", top_p, "Draw from the most probable tokens that make up this much", config::between(0, 1));
    v("top_k", top_k, "Draw from so many of the most probable tokens; 0: from all", config::at_least(0));
    v("min_p", min_p, "Draw from tokens at least this times as probable as the most probable one",
      config::between(0, 1));
    v("repetition_penalty", repetition_penalty, "Divides the scores of tokens that were there before", config::above(0));
    v("steps_per_generation", steps_per_generation,
      "Micro-batches of per_device_train_batch_size responses in a batch, a multiple of gradient_accumulation_steps; 0: "
      "those of one optimizer step",
      config::at_least(0));
    v("num_iterations", num_iterations, "Passes over each batch of responses", config::at_least(1));
    v("beta", beta, "What a nat away from the reference costs (k3); 0: there is no reference", config::at_least(0));
    v("epsilon", epsilon, "How far below 1 the ratio to the old policy counts, and above", config::above(0));
    v("epsilon_high", epsilon_high, "How far above 1 it counts, where that differs", config::above(0));
    v("delta", delta, "A bound of the ratio where it is not clipped, above 1 + epsilon", config::above(0));
    v("loss_type", loss_type,
      "What the loss is a mean over: dapo: the tokens of the batch, as many for each of its steps; bnpo: the step's tokens; "
      "grpo: each response's tokens, then responses; dr_grpo: max_completion_length tokens of each response",
      config::one_of({"dapo", "bnpo", "grpo", "dr_grpo"}));
    v("importance_sampling_level", importance_sampling_level,
      "token: each has a ratio; sequence: a response has one, the geometric mean (GSPO)",
      config::one_of({"token", "sequence"}));
    v("scale_rewards", scale_rewards,
      "What differences of rewards are divided by: the deviation of the group, of the batch, or none",
      config::one_of({"group", "batch", "none"}));
    v("mask_truncated_completions", mask_truncated_completions,
      "Nothing is learnt from responses that did not come to their end");
    v("local_rollout_forward_batch_size", local_rollout_forward_batch_size,
      "Responses that are written and scored together", config::at_least(1));
    v("num_samples", num_samples, "Responses of each batch that are written down with their rewards", config::at_least(0));
  }
  void validate(config::Problems& problems) const;
};

}  // namespace llmtk::rl
