#pragma once
// Prefix tuning, P-tuning v2 and prompt tuning as PEFT's folder: one tensor, `prompt_embeddings`, and the head of a
// classifier.

#include <filesystem>
#include <string>

#include "nn/model.h"

namespace llmtk::peft {

/// Writes the model's virtual tokens as peft's save_pretrained does: PREFIX_TUNING or PROMPT_TUNING. Of a projection
/// the table that it makes is saved, as in peft.
void save_virtual_tokens(nn::Model& model, const std::filesystem::path& folder,
                         const std::string& base_model_name_or_path);
/// Gives the model those of such a folder, frozen. Throws Error(file) where the folder is for another model or another
/// method.
void load_virtual_tokens(nn::Model& model, const std::filesystem::path& folder);

}  // namespace llmtk::peft
