#pragma once
// The sections of configs that may name any method: those of `finetune` and of `lora`.

#include <memory>
#include <optional>
#include <string>

#include "finetuning_methods.h"
#include "lora_method.h"

namespace llmtk {

struct AnyMethodConfig : FinetuneConfig {
  std::optional<peft::LoraConfig> lora;
  std::optional<quant::QuantizationConfig> quantization;

  template <class V>
  void fields(V& v) {
    FinetuneConfig::fields(v);
    v("lora", lora, "LoRA and its kin: an adapter of low rank");
    v("quantization", quantization, "lora: the base in 4 or 8 bits");
  }
  void validate(config::Problems& problems) const {
    FinetuneConfig::validate(problems);
    if (quantization && !lora)
      problems.add("quantization", {.what = "has no effect without lora", .hint = "leave it out"});
    const bool another = parameters || adapter || prefix_tuning || p_tuning_v2 || prompt_tuning || ia3;
    if (lora && another)
      problems.add("lora", {.what = "given together with another method", .expected = "one method of fine-tuning"});
  }
};

inline std::unique_ptr<Method> method_of(const AnyMethodConfig& config) {
  return config.lora ? lora_method(*config.lora, config.quantization)
                     : method_of(static_cast<const FinetuneConfig&>(config));
}

/// For validate() of configs whose own section says what is taught (by the key `what`) and turns dropout off: what
/// `finetune` alone understands is refused.
inline void validate_teaching(const AnyMethodConfig& config, const std::string& section, const std::string& what,
                              bool disable_dropout, config::Problems& problems) {
  if (config.lora && config.lora->lora_dropout > 0 && disable_dropout)
    problems.add("lora.lora_dropout",
                 {.what = "has no effect with " + section + ".disable_dropout", .hint = "leave it out"});
  if (config.objective != "auto")
    problems.add("objective", {.what = "has no effect: " + what + " says what is learnt", .hint = "leave it out"});
  if (config.evaluation.predict_with_generate)
    problems.add("evaluation.predict_with_generate",
                 {.what = "has no effect: answers are compared, not written", .hint = "leave it out"});
}

}  // namespace llmtk
