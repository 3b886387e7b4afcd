#pragma once
// The section `ppo` of a config; names and defaults are those of TRL's PPOConfig (trl 1.9, trl.experimental.ppo) but for
// stop_token, which is none there, and value_model: TRL always has a model of its own.

#include <cstdint>
#include <optional>
#include <string>

#include "config/config.h"
#include "rl/response_config.h"

namespace llmtk::rl {

struct PpoConfig : ResponseEndConfig {
  int64_t total_episodes = 0;
  int64_t num_ppo_epochs = 4;
  int64_t num_mini_batches = 1;
  int64_t response_length = 53;
  double temperature = 0.7;
  std::optional<double> missing_eos_penalty;
  int64_t local_rollout_forward_batch_size = 64;
  double kl_coef = 0.05;
  std::string kl_estimator = "k1";
  std::optional<double> adaptive_kl_target;
  int64_t kl_horizon = 10000;
  std::optional<double> target_kl;
  double cliprange = 0.2;
  double vf_coef = 0.1;
  double cliprange_value = 0.2;
  double gamma = 1.0;
  double lam = 0.95;
  bool whiten_rewards = false;
  double entropy_coef = 0;
  std::string value_model = "trunk";
  int64_t num_samples = 4;

  template <class V>
  void fields(V& v) {
    v("total_episodes", total_episodes, "Responses of the whole run; 0: trainer.num_train_epochs passes over the prompts",
      config::at_least(0));
    v("num_ppo_epochs", num_ppo_epochs, "Passes over each batch of responses", config::at_least(1));
    v("num_mini_batches", num_mini_batches,
      "Optimizer steps of a pass, each on as many of the batch's responses. A batch has per_device_train_batch_size * "
      "gradient_accumulation_steps responses; per_device_train_batch_size of them are read at a time",
      config::at_least(1));
    v("response_length", response_length, "New tokens of a response at most", config::at_least(1));
    v("temperature", temperature, "With which responses are drawn and log-probabilities computed", config::above(0));
    ResponseEndConfig::fields(v);
    v("missing_eos_penalty", missing_eos_penalty, "Taken off the score of a response that did not come to its end",
      config::above(0));
    v("local_rollout_forward_batch_size", local_rollout_forward_batch_size,
      "Responses that are written and scored together", config::at_least(1));
    v("kl_coef", kl_coef, "What a nat away from the reference costs; with adaptive_kl_target where it begins",
      config::at_least(0));
    v("kl_estimator", kl_estimator, "k1: unbiased; k3: of less variance, never negative", config::one_of({"k1", "k3"}));
    v("adaptive_kl_target", adaptive_kl_target,
      "kl_coef moves so that a response's KL comes to this many nats (Ziegler et al. 2019)", config::above(0));
    v("kl_horizon", kl_horizon, "adaptive_kl_target: episodes in which kl_coef follows", config::at_least(1));
    v("target_kl", target_kl,
      "The passes over a batch end where a step's policy/approxkl is above this; that step is not taken",
      config::above(0));
    v("cliprange", cliprange, "How far the ratio to the old policy counts", config::above(0));
    v("vf_coef", vf_coef, "Weight of the value loss", config::at_least(0));
    v("cliprange_value", cliprange_value, "How far values may move from the old ones", config::above(0));
    v("gamma", gamma, "Discount of later rewards", config::between(0, 1));
    v("lam", lam, "Lambda of generalized advantage estimation", config::between(0, 1));
    v("whiten_rewards", whiten_rewards, "Divide the tokens' rewards by their deviation");
    v("entropy_coef", entropy_coef, "What a nat of the policy's entropy earns", config::at_least(0));
    v("value_model", value_model,
      "trunk: a linear head on the policy's last hidden states, learnt with it; own: a model of its own that begins as "
      "the policy; or the folder of a model or reward model to begin with",
      config::not_empty);
    v("num_samples", num_samples, "Responses of each batch that are written down with their rewards", config::at_least(0));
  }
  void validate(config::Problems& problems) const;
  bool has_trunk_values() const { return value_model == "trunk"; }
};

}  // namespace llmtk::rl
