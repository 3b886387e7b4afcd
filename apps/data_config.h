#pragma once
// What `llmtk data` reads: a config of `finetune`, `lora` or `dpo`.

#include <memory>
#include <optional>

#include "any_method.h"
#include "dpo_teaching.h"

namespace llmtk {

struct DataCommandConfig : AnyMethodConfig {
  std::optional<rl::DpoConfig> dpo;

  template <class V>
  void fields(V& v) {
    AnyMethodConfig::fields(v);
    v("dpo", dpo, "Of llmtk dpo: what preferences teach");
  }
};

/// What is taught where it is none of the objectives of `finetune`; else null.
inline std::unique_ptr<Teaching> teaching_of(const DataCommandConfig& config) {
  return config.dpo ? teach_preferences(*config.dpo, config.trainer.per_device_eval_batch_size) : nullptr;
}

}  // namespace llmtk
