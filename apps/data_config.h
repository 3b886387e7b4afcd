#pragma once
// What `llmtk data` reads: a config of `finetune`, `lora`, `dpo` or `rlhf-reward`.

#include <memory>
#include <optional>

#include "any_method.h"
#include "dpo_teaching.h"
#include "reward_teaching.h"

namespace llmtk {

struct DataCommandConfig : AnyMethodConfig {
  std::optional<rl::DpoConfig> dpo;
  std::optional<rl::RewardConfig> reward;

  template <class V>
  void fields(V& v) {
    AnyMethodConfig::fields(v);
    v("dpo", dpo, "Of llmtk dpo: what preferences teach");
    v("reward", reward, "Of llmtk rlhf-reward: how rewards are learnt");
  }
};

/// What is taught where it is none of the objectives of `finetune`; else null.
inline std::unique_ptr<Teaching> teaching_of(const DataCommandConfig& config) {
  if (config.reward) return teach_rewards(*config.reward);
  return config.dpo ? teach_preferences(*config.dpo, config.trainer.per_device_eval_batch_size) : nullptr;
}

}  // namespace llmtk
