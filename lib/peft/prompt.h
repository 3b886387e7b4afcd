#pragma once
// Prompt tuning (Lester et al. 2021): P learned embeddings before those of every text; of an encoder-decoder before the
// encoder's. As peft's PromptEmbedding and PromptTuningConfig.

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>
#include <vector>

#include "config/config.h"
#include "nn/model.h"

namespace llmtk::peft {

/// The section `prompt_tuning`. A text's tokens are those of the model's own tokenizer.
struct PromptTuningConfig {
  int64_t num_virtual_tokens = 20;  // peft has no default
  std::string prompt_tuning_init = "RANDOM";
  std::string prompt_tuning_init_text;

  template <class V>
  void fields(V& v) {
    v("num_virtual_tokens", num_virtual_tokens, "Learned embeddings before every text; they take its first positions",
      config::at_least(1), config::at_most(65536));
    v("prompt_tuning_init", prompt_tuning_init,
      "How they begin: RANDOM (normal), SAMPLE_VOCAB (as those of random tokens), TEXT (as those of a text)",
      config::one_of({"RANDOM", "SAMPLE_VOCAB", "TEXT"}));
    v("prompt_tuning_init_text", prompt_tuning_init_text, "TEXT: that text; cut, or repeated, to num_virtual_tokens");
  }
  /// A text without TEXT would have no effect, TEXT without one no meaning: refused.
  void validate(config::Problems& problems) const;
};

/// The learned embeddings. embedding.weight, float32: [P, E]; of an encoder-decoder [2 P, E], as peft's folders have
/// it, whose second half nothing reads.
class PromptTuning final : public nn::VirtualTokens {
 public:
  /// Parameters on the model's device, not yet filled.
  PromptTuning(nn::Model& model, const PromptTuningConfig& config);

  int64_t length() const override { return config_.num_virtual_tokens; }
  at::Tensor embeddings() override { return embedding_.narrow(0, 0, length()); }
  const at::Tensor& table() const { return embedding_; }
  const PromptTuningConfig& config() const { return config_; }

 private:
  PromptTuningConfig config_;
  at::Tensor embedding_;
};

/// Freezes the model, puts virtual embeddings before its texts, and unfreezes the head that classifies, where it has
/// one. text: with TEXT the tokens of prompt_tuning_init_text, special ones included, as peft's tokenizer(text) gives
/// them; otherwise empty. Throws Error(usage) where TEXT comes without tokens, or no position is left for a text.
void apply(nn::Model& model, const PromptTuningConfig& config, uint64_t seed, const std::vector<int64_t>& text = {});

}  // namespace llmtk::peft
