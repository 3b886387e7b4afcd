#pragma once
// Qwen3 (Qwen Team, Qwen3 Technical Report, 2025), as HF's Qwen3ForCausalLM: the decoder of Llama (models/llama.h) with
// an RMSNorm of each head's queries and keys, and Qwen2's window.

#include "models/llama.h"

namespace llmtk::models {

std::shared_ptr<nn::Model> make_qwen3(const io::Json& config, const std::string& where, const nn::Build& build);

/// config.json by name: qwen3-0.6b, qwen3-8b, ...
std::map<std::string, io::Json> qwen3_presets();

}  // namespace llmtk::models
