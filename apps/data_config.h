#pragma once
// What `llmtk data` reads of a training config. The sections that say how to train are checked where they are the same
// for every method, and otherwise left to the command that trains.

#include <nlohmann/json.hpp>

#include "finetuning_config.h"

namespace llmtk {

struct DataCommandConfig : FinetuneSections {
  nlohmann::ordered_json lora, quantization, parameters, adapter, prefix_tuning, p_tuning_v2, prompt_tuning, ia3;

  template <class V>
  void fields(V& v) {
    FinetuneSections::fields(v);
    for (auto& [name, section] : {std::pair("lora", &lora), std::pair("quantization", &quantization),
                                  std::pair("parameters", &parameters), std::pair("adapter", &adapter),
                                  std::pair("prefix_tuning", &prefix_tuning), std::pair("p_tuning_v2", &p_tuning_v2),
                                  std::pair("prompt_tuning", &prompt_tuning), std::pair("ia3", &ia3)})
      v(name, *section, "For the command that trains");
  }
};

}  // namespace llmtk
