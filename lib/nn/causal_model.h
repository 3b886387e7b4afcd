#pragma once
// The interface between model families and everything that trains or generates with them.

#include <ATen/core/Tensor.h>
#include <torch/nn/module.h>

#include <cstdint>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <vector>

namespace llmtk::nn {

class KVCache;
class Linear;

/// What attention needs besides the ids. Everything may be left out.
struct ForwardContext {
  KVCache* cache = nullptr;   ///< null in training
  at::Tensor position_ids;    ///< [B, T] int64; default: counted over the real tokens, from the cache's length on
  at::Tensor attention_mask;  ///< [B, past + T] bool (or 0 and 1), false at padding; default: all true
  /// When set, attention takes the explicit path, softmax(QK^T / sqrt(d)) V, and appends each layer's [B, H, T, S]
  /// here; with attention_layer given, that layer's alone.
  std::vector<at::Tensor>* attentions = nullptr;
  std::optional<int64_t> attention_layer;
  /// When set, receives the embeddings' output and each layer's, as HF's output_hidden_states does: L + 1 tensors
  /// [B, T, H], the last one after the final norm.
  std::vector<at::Tensor>* hidden_states = nullptr;
};

/// A decoder with a language-model head.
class CausalModel : public torch::nn::Module {
 public:
  /// input_ids: [B, T] int64. Returns the last hidden states after the final norm: [B, T, H].
  virtual at::Tensor forward(const at::Tensor& input_ids, const ForwardContext& context = {}) = 0;
  /// The head, [V, H]; tied or not. Losses fuse with it, so logits need not be materialised.
  virtual Linear& lm_head() = 0;
  /// Logits of hidden states: [..., H] -> [..., V].
  at::Tensor logits(const at::Tensor& hidden);

  virtual int64_t vocab_size() const = 0;
  virtual int64_t max_positions() const = 0;  ///< longest sequence the model can see
  virtual int64_t num_layers() const = 0;
  virtual void initialize(uint64_t seed) = 0;  ///< random weights as published for the family
  /// A cache for `batch` sequences of at most `max_length` tokens, in the model's dtype and on its device.
  virtual std::unique_ptr<KVCache> make_cache(int64_t batch, int64_t max_length) = 0;
  virtual void set_gradient_checkpointing(bool on) = 0;
  /// Floating-point operations of one training step per token (forward and backward, without what checkpointing
  /// repeats), for the share of peak: 6 per weight of every matrix product, head included, and 6 * heads * head_dim *
  /// sequence_length per layer for causal attention (half of the full square).
  virtual double training_flops_per_token(int64_t sequence_length) const = 0;
  /// What config.json says of this model, "model_type" and "architectures" included.
  virtual nlohmann::ordered_json config() const = 0;

  /// Of the parameters.
  c10::ScalarType dtype() const;
  c10::Device device() const;
  int64_t num_parameters() const;  ///< tied ones once
};

}  // namespace llmtk::nn
