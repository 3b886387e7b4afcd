#pragma once
// What `llmtk rlhf-ppo` and `llmtk grpo` read.

#include <optional>
#include <string>
#include <vector>

#include "config/config.h"
#include "models/config.h"
#include "peft/lora_config.h"
#include "rl/grpo_config.h"
#include "rl/ppo_config.h"
#include "rl/prompts.h"
#include "train/config.h"

namespace llmtk {

struct PolicyTokenizerConfig {
  std::string name_or_path;

  template <class V>
  void fields(V& v) {
    v("name_or_path", name_or_path,
      "A tokenizer file, a folder that holds one, or a name in the local Hugging Face cache; empty: that of the model");
  }
};

/// The sections that both have, around the one that says how the policy learns.
struct PolicyConfig {
  models::ModelConfig model;
  PolicyTokenizerConfig tokenizer;
  rl::PromptDataConfig data;
  std::vector<rl::RewardSourceConfig> rewards;
  std::optional<peft::LoraConfig> lora;
  train::OptimizerConfig optimizer;
  train::SchedulerConfig scheduler;
  train::TrainerConfig trainer;

 protected:
  template <class V, class Method>
  void fields_around(V& v, const char* section, Method& method) {
    v("model", model, "The policy as it begins, and its reference");
    v("tokenizer", tokenizer, "Text to ids");
    v("data", data, "What the policy is asked");
    v(section, method, "How it learns");
    v("rewards", rewards, "What responses are worth: the sum of all, each with its weight", config::required,
      config::not_empty);
    v("lora", lora, "The policy learns an adapter, and its base is the reference; left out: all of it learns");
    v("optimizer", optimizer, "How weights follow from gradients");
    v("scheduler", scheduler, "The learning rate over the run");
    v("trainer", trainer, "The run");
  }
};

struct PpoRunConfig : PolicyConfig {
  rl::PpoConfig ppo;

  PpoRunConfig() { optimizer.learning_rate = 3e-6; }  // PPOConfig's
  template <class V>
  void fields(V& v) {
    fields_around(v, "ppo", ppo);
  }
  void validate(config::Problems& problems) const;
};

struct GrpoRunConfig : PolicyConfig {
  rl::GrpoConfig grpo;

  GrpoRunConfig() { optimizer.learning_rate = 1e-6; }  // GRPOConfig's
  template <class V>
  void fields(V& v) {
    fields_around(v, "grpo", grpo);
  }
  void validate(config::Problems& problems) const;
};

/// What a trainer's settings mean to neither, and what a reference that is the adapter's base rules out.
void validate_policy(const PolicyConfig& config, const std::string& method, config::Problems& problems);

inline void complete(PolicyConfig& config) {
  if (config.tokenizer.name_or_path.empty()) config.tokenizer.name_or_path = config.model.name_or_path;
}

}  // namespace llmtk
