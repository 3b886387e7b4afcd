#pragma once
// The prompts of a call, checked.

#include <span>
#include <vector>

#include "generate/generate.h"
#include "nn/model.h"

namespace llmtk::generate {

/// One prompt, and how far it may be continued.
struct Task {
  size_t index = 0;                    ///< of the prompt in the whole work
  std::vector<text::TokenId> prompt;   ///< what the model reads
  std::vector<text::TokenId> context;  ///< what continuations begin with: the prompt, or the decoder's start token
  int64_t limit = 0;                   ///< new tokens allowed
  /// What the new tokens are: more of the prompt, or a text of their own (encoder-decoders).
  text::StreamDecoder::Begins begins = text::StreamDecoder::Begins::continuation;
};

/// Throws Error(data) naming the prompt's place where there is no room for a new token, nothing to begin with, or an id
/// that the model does not know. The model's parameters are not looked at.
std::vector<Task> make_tasks(const nn::Model& model, std::span<const std::vector<text::TokenId>> prompts,
                             const GenerationConfig& config, const GenerateOptions& options);

}  // namespace llmtk::generate
