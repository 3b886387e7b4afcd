#pragma once
// Gemma 3's text models (Gemma Team, Gemma 3 Technical Report, 2025), as HF's Gemma3ForCausalLM: the decoder of
// models/gemma.h with norms of queries and keys, five layers with a window to one that sees everything, and another
// rotary base for each of the two kinds.

#include <map>

#include "models/gemma.h"

namespace llmtk::models {

std::shared_ptr<nn::Model> make_gemma3_text(const io::Json& config, const std::string& where, const nn::Build& build);

/// config.json by name: gemma-3-270m, gemma-3-1b.
std::map<std::string, io::Json> gemma3_text_presets();

}  // namespace llmtk::models
