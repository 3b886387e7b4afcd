#pragma once
// llmtk generate --fill-mask: what an encoder would write in place of each mask of a text.

#include <CLI/CLI.hpp>
#include <cstdint>
#include <vector>

#include "generate_prompts.h"
#include "open_model.h"

namespace llmtk {

struct FillMaskOptions {
  ModelOptions model;
  int64_t top_k = 5;  ///< candidates for each mask
  int64_t batch_size = 8;
  bool json = false;
};

/// Throws Error(usage) for a flag of `generate` that was given and has no effect with --fill-mask.
void refuse_flags_beside_fill_mask(const CLI::App& app);

/// Prints the candidates for every mask of every prompt, the most probable first, with the scores and texts that
/// transformers' fill-mask pipeline gives; with --json one object a prompt. Throws Error(data) naming a prompt without
/// a mask, or longer than the model can see; Error(usage) for a model that is no masked language model.
int fill_masks(const FillMaskOptions& options, const std::vector<Prompt>& prompts);

}  // namespace llmtk
