#pragma once
// The methods beside LoRA, by what a folder says it holds.

#include <filesystem>

#include "nn/model.h"

namespace llmtk::peft {

/// Whether a folder holds an adapter of one of them: PEFT's PREFIX_TUNING, PROMPT_TUNING or IA3, or AdapterHub's. False
/// for another of PEFT's folders; Error(file) where there is none.
bool is_method_folder(const std::filesystem::path& folder);
/// Gives the model what such a folder holds, frozen.
void load_method(nn::Model& model, const std::filesystem::path& folder);

}  // namespace llmtk::peft
