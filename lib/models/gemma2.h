#pragma once
// Gemma 2 (Gemma Team, Gemma 2: Improving Open Language Models at a Practical Size, 2024), as HF's Gemma2ForCausalLM:
// the decoder of models/gemma.h with soft caps on the attention's scores and on the logits, and a window in every other
// layer. HF's default attention (sdpa) leaves the cap on the scores out, its eager and flash ones compute it, as here.

#include <map>

#include "models/gemma.h"

namespace llmtk::models {

std::shared_ptr<nn::Model> make_gemma2(const io::Json& config, const std::string& where, const nn::Build& build);

/// config.json by name: gemma-2-2b, gemma-2-9b, gemma-2-27b.
std::map<std::string, io::Json> gemma2_presets();

}  // namespace llmtk::models
