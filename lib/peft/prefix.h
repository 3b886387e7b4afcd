#pragma once
// Prefix tuning (Li and Liang 2021) and P-tuning v2 (Liu et al. 2022): every layer's attention sees P learned keys and
// values before those of the text; nothing else of the model is trained but a task's head. As peft's PrefixEncoder and
// PrefixTuningConfig.
//
// Shapes: P num_virtual_tokens, L layers, K key-value heads, D head_dim.

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <optional>

#include "config/config.h"
#include "nn/model.h"

namespace llmtk::peft {

/// The section `prefix_tuning`.
struct PrefixTuningConfig {
  int64_t num_virtual_tokens = 20;  // peft has no default
  bool prefix_projection = false;
  std::optional<int64_t> encoder_hidden_size;

  template <class V>
  void fields(V& v) {
    v("num_virtual_tokens", num_virtual_tokens,
      "Learned keys and values before every text; they take its first positions", config::at_least(1),
      config::at_most(65536));
    v("prefix_projection", prefix_projection,
      "Train a small network that makes them instead of themselves: steadier; saved are its results alone");
    v("encoder_hidden_size", encoder_hidden_size,
      "Width of that network's hidden layer; default: of the keys of all heads together", config::at_least(1));
  }
  /// A network's width without the network would have no effect: refused.
  void validate(config::Problems& problems) const;
};

/// The section `p_tuning_v2`: the same without the network. peft's folders call it PREFIX_TUNING.
struct PTuningV2Config {
  int64_t num_virtual_tokens = 20;

  template <class V>
  void fields(V& v) {
    v("num_virtual_tokens", num_virtual_tokens,
      "Deep prompts: learned keys and values before every text, in every layer", config::at_least(1),
      config::at_most(65536));
  }
};

/// The learned keys and values. Parameters in float32, named as peft's PrefixEncoder has them: embedding.weight, [P, 2
/// L K D] seen as [P, 2 L, K, D]; with a projection [P, K D], and transform.0, transform.2 with their weights and
/// biases.
class PrefixTuning final : public nn::VirtualTokens {
 public:
  /// Parameters on the model's device, not yet filled.
  PrefixTuning(const nn::Model& model, const PrefixTuningConfig& config);

  int64_t length() const override { return config_.num_virtual_tokens; }
  at::Tensor keys_values() override;
  /// What the parameters make: [P, 2 L K D], the table itself without a projection.
  at::Tensor table();
  /// Normal as torch.nn.Embedding, matrices uniform as torch.nn.Linear.
  void initialize(uint64_t seed);

  const PrefixTuningConfig& config() const { return config_; }
  const nn::KeyValueShape& shape() const { return shape_; }

 private:
  PrefixTuningConfig config_;
  nn::KeyValueShape shape_;
  at::Tensor order_;  // which of the pairs each layer sees; undefined: its own
  at::Tensor embedding_;
  std::shared_ptr<nn::Linear> hidden_, output_;  // with a projection
};

/// Freezes the model, gives it a prefix with random values, and unfreezes the head that classifies, where it has one.
/// Throws Error(usage) where the prefix leaves no position for a text.
void apply(nn::Model& model, const PrefixTuningConfig& config, uint64_t seed);
void apply(nn::Model& model, const PTuningV2Config& config, uint64_t seed);

}  // namespace llmtk::peft
