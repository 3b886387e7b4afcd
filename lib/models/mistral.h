#pragma once
// Mistral (Jiang et al., Mistral 7B, 2023), as HF's MistralForCausalLM: the decoder of Llama (models/llama.h) with
// attention over a sliding window.

#include "models/llama.h"

namespace llmtk::models {

std::shared_ptr<nn::Model> make_mistral(const io::Json& config, const std::string& where, const nn::Build& build);

/// config.json by name: mistral-7b-v0.1, mistral-7b-v0.3, ...
std::map<std::string, io::Json> mistral_presets();

}  // namespace llmtk::models
