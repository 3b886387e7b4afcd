#pragma once
// The sections `ppo` and `rewards` of a config; names and defaults of `ppo` are those of TRL's PPOConfig (trl 1.9,
// trl.experimental.ppo), where it has them.

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "config/config.h"

namespace llmtk::rl {

/// What ends a response, besides its greatest length.
struct ResponseEndConfig {
  std::string stop_token = "eos";
  std::optional<int64_t> stop_token_id;

  template <class V>
  void fields(V& v) {
    v("stop_token", stop_token, "What ends a response: eos, or none (then all have the greatest length)",
      config::one_of({"eos", "none"}));
    v("stop_token_id", stop_token_id, "Another token that ends a response, by its id", config::at_least(0));
  }
  void validate(config::Problems& problems) const;
};

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

/// One part of the reward: a rule, a program or a model, and how much it counts.
struct RewardSourceConfig {
  std::string type;
  double weight = 1;
  std::string column = "answer";
  std::string pattern;
  std::string characters;
  int64_t target_length = 0;
  std::string command;
  double timeout = 60;
  std::string model;
  std::optional<double> min_accuracy;

  template <class V>
  void fields(V& v) {
    v("type", type,
      "exact_match: 1 where the response is what the row's `column` says; regex: 1 where `pattern` is found in it; "
      "length: how near its characters come to target_length; characters: the share of its characters that are in "
      "`characters`; command: what a program says; model: what a reward model says",
      config::required, config::one_of({"exact_match", "regex", "length", "characters", "command", "model"}));
    v("weight", weight, "What the number is multiplied by before all are added; may be negative");
    v("column", column, "exact_match: the key of a prompt's row that holds the answer", config::not_empty);
    v("pattern", pattern,
      "regex: the expression; exact_match: what of a response is compared, the last place it is found at (default: all of it, "
      "blanks around it left out)");
    v("characters", characters, "characters: the set, as aeiou");
    v("target_length", target_length, "length: 1 at so many characters, falling to 0 at none and at twice as many",
      config::at_least(0));
    v("command", command,
      "command: run by the shell for each batch; it reads JSON lines {prompt, response, and the row's other keys} and "
      "writes a number for each, a line each");
    v("timeout", timeout, "command: seconds that it may take", config::above(0));
    v("model", model, "model: the folder of a sequence classifier with one label");
    v("min_accuracy", min_accuracy, "model: refuse one whose held-out accuracy is below this (exit code 7)",
      config::between(0, 1));
  }
  void validate(config::Problems& problems) const;
};

}  // namespace llmtk::rl
