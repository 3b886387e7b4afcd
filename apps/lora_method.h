#pragma once
// What `llmtk lora` reads: the sections of all fine-tuning configs, the adapter and how its base is kept.

#include <memory>
#include <optional>

#include "finetuning_config.h"
#include "finetuning_method.h"
#include "peft/lora_config.h"

namespace llmtk {

struct LoraRunConfig : FinetuneSections {
  peft::LoraConfig lora;
  std::optional<quant::QuantizationConfig> quantization;

  template <class V>
  void fields(V& v) {
    FinetuneSections::fields(v);
    v("lora", lora, "The adapter");
    v("quantization", quantization, "The base in 4 or 8 bits (QLoRA)");
  }
};

std::unique_ptr<Method> lora_method(peft::LoraConfig config, std::optional<quant::QuantizationConfig> quantization);
inline std::unique_ptr<Method> method_of(const LoraRunConfig& config) {
  return lora_method(config.lora, config.quantization);
}

}  // namespace llmtk
