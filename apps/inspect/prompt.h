#pragma once
// What `inspect logits` and `inspect attention` share: a model and one text.

#include <ATen/core/Tensor.h>

#include <string>
#include <vector>

#include "open_model.h"

namespace llmtk {

struct PromptOptions {
  ModelOptions model;
  std::string text;
  bool add_special_tokens = true;
};

/// Adds the model's options, --prompt and --add-special-tokens.
void add_prompt_options(CLI::App& command, PromptOptions& options);
/// Ids of the text; of bos where it is empty. Throws Error(data) where there is nothing, where the model does not know
/// an id, or cannot see so many.
std::vector<text::TokenId> prompt_ids(const OpenModel& open, const PromptOptions& options);
/// [1, T] int64.
at::Tensor input_tensor(const std::vector<text::TokenId>& ids, c10::Device device);

}  // namespace llmtk
