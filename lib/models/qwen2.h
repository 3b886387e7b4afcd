#pragma once
// Qwen2 and Qwen2.5 (Qwen Team, 2024), as HF's Qwen2ForCausalLM: the decoder of Llama (models/llama.h) with biases on
// queries, keys and values, and a sliding window in its upper layers where config.json turns that on.

#include "models/llama.h"

namespace llmtk::models {

/// use_sliding_window, sliding_window, max_window_layers and layer_types, which Qwen3 has too. Throws Error(file).
void read_qwen_window(io::ObjectReader& config, LlamaConfig& c);

std::shared_ptr<nn::Model> make_qwen2(const io::Json& config, const std::string& where, const nn::Build& build);

/// config.json by name: qwen2.5-0.5b, qwen2.5-7b, ...
std::map<std::string, io::Json> qwen2_presets();

}  // namespace llmtk::models
