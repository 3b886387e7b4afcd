#pragma once
// Gemma 3's text models (Gemma Team, Gemma 3 Technical Report, 2025), as HF's Gemma3ForCausalLM: the decoder of
// models/gemma.h with norms of queries and keys, five layers with a window to one that sees everything, and another
// rotary base for each of the two kinds. Its larger models read pictures too (Gemma3ForConditionalGeneration): of them
// this is the language part.

#include <map>

#include "models/gemma.h"

namespace llmtk::models {

/// The model_type of those that read pictures too.
inline constexpr const char* kGemma3WithPictures = "gemma3";
/// The config.json that its language part would have alone: `text_config`, which leaves out what HF's Gemma3TextConfig
/// has as its defaults, with the outer object's special tokens and dtype where it has none. Throws Error(file).
io::Json gemma3_language_part(const io::Json& config, const std::string& where);

/// The parameter that a tensor of a file means: of models that read pictures too the language part has a prefix.
/// nullopt: not a weight, or one of the part that reads pictures.
std::optional<std::string> gemma3_parameter_name(const std::string& name);

std::shared_ptr<nn::Model> make_gemma3_text(const io::Json& config, const std::string& where, const nn::Build& build);

/// config.json by name: gemma-3-270m, gemma-3-1b.
std::map<std::string, io::Json> gemma3_text_presets();

}  // namespace llmtk::models
