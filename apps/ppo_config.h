#pragma once
// What `llmtk rlhf-ppo` reads.

#include <optional>
#include <string>
#include <vector>

#include "config/config.h"
#include "models/config.h"
#include "peft/lora_config.h"
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

struct PpoRunConfig {
  models::ModelConfig model;
  PolicyTokenizerConfig tokenizer;
  rl::PromptDataConfig data;
  rl::PpoConfig ppo;
  std::vector<rl::RewardSourceConfig> rewards;
  std::optional<peft::LoraConfig> lora;
  train::OptimizerConfig optimizer;
  train::SchedulerConfig scheduler;
  train::TrainerConfig trainer;

  PpoRunConfig() { optimizer.learning_rate = 3e-6; }  // PPOConfig's

  template <class V>
  void fields(V& v) {
    v("model", model, "The policy as it begins, and its reference");
    v("tokenizer", tokenizer, "Text to ids");
    v("data", data, "What the policy is asked");
    v("ppo", ppo, "How it learns");
    v("rewards", rewards, "What responses are worth: the sum of all, each with its weight", config::required,
      config::not_empty);
    v("lora", lora, "The policy learns an adapter, and its base is the reference; left out: all of it learns");
    v("optimizer", optimizer, "How weights follow from gradients");
    v("scheduler", scheduler, "The learning rate over the run");
    v("trainer", trainer, "The run");
  }
  void validate(config::Problems& problems) const;
};

inline void complete(PpoRunConfig& config) {
  if (config.tokenizer.name_or_path.empty()) config.tokenizer.name_or_path = config.model.name_or_path;
}

}  // namespace llmtk
