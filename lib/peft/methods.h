#pragma once
// The methods beside LoRA, by what a folder says it holds.

#include <filesystem>
#include <string>
#include <vector>

#include "nn/model.h"
#include "peft/adapter_folder.h"

namespace llmtk::peft {

/// Whether a folder holds an adapter of one of them: PEFT's PREFIX_TUNING, PROMPT_TUNING or IA3, or AdapterHub's.
bool is_method_folder(const std::filesystem::path& folder);
/// The files of an adapter of any method, LoRA's too.
std::vector<std::string> adapter_files(const std::filesystem::path& folder);
/// read_adapter_task() for a folder of any method.
AdapterTask read_task(const std::filesystem::path& folder);
/// Gives the model what such a folder holds, frozen.
void load_method(nn::Model& model, const std::filesystem::path& folder);

}  // namespace llmtk::peft
