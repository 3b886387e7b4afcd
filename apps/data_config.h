#pragma once
// What `llmtk data` reads: a config of `finetune` or of `lora`.

#include <optional>

#include "finetuning_methods.h"
#include "lora_method.h"

namespace llmtk {

struct DataCommandConfig : FinetuneConfig {
  std::optional<peft::LoraConfig> lora;
  std::optional<quant::QuantizationConfig> quantization;

  template <class V>
  void fields(V& v) {
    FinetuneConfig::fields(v);
    v("lora", lora, "Of llmtk lora: the adapter");
    v("quantization", quantization, "Of llmtk lora: the base in 4 or 8 bits");
  }
};

inline std::unique_ptr<Method> method_of(const DataCommandConfig& config) {
  return config.lora ? lora_method(*config.lora, config.quantization)
                     : method_of(static_cast<const FinetuneConfig&>(config));
}

}  // namespace llmtk
