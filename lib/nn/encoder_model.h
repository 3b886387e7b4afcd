#pragma once
// The interface between families of encoders (BERT and its kin) and everything that trains or asks them.

#include <ATen/core/Tensor.h>

#include <vector>

#include "nn/model.h"

namespace llmtk::nn {

/// What bidirectional attention needs besides the ids. Everything may be left out.
struct EncoderContext {
  at::Tensor attention_mask;  ///< [B, T] bool (or 0 and 1), false at padding; default: all true
  at::Tensor token_type_ids;  ///< [B, T] int64: which of two texts; default: all 0
  at::Tensor position_ids;    ///< [B, T] int64; default: the family's own counting, over the real tokens
  /// When set, attention takes the explicit path and appends each layer's weights [B, H, T, T] here.
  std::vector<at::Tensor>* attentions = nullptr;
  /// When set, receives the embeddings' output and each layer's, L + 1 tensors [B, T, H].
  std::vector<at::Tensor>* hidden_states = nullptr;
};

class EncoderModel : public Model {
 public:
  static constexpr const char* kKind = "an encoder";
  const char* kind() const override { return kKind; }

  /// input_ids: [B, T] int64. Returns the last hidden states, [B, T, H]; [B, P + T, H] where virtual tokens are
  /// embedded and the head classifies texts: such a head looks at the first of them, as in peft.
  virtual at::Tensor forward(const at::Tensor& input_ids, const EncoderContext& context = {}) = 0;
  /// The pooler's output for hidden states [B, T, H]: [B, H]. Undefined where the model has none. attention_mask: as in
  /// EncoderContext; a row's first real token is the one that is looked at.
  virtual at::Tensor pooled(const at::Tensor& hidden, const at::Tensor& attention_mask = {}) = 0;
  /// What the head says of hidden states [B, T, H], shaped as Head says; the hidden states where it is none.
  /// Heads that look at each token alone take any [..., H], so that a loss can leave out what it does not count.
  virtual at::Tensor logits(const at::Tensor& hidden, const at::Tensor& attention_mask = {}) = 0;
  /// scale * sum of -log p(target) of what a head says that looks at each token alone; a masked LM's logits are never
  /// held all at once, nor computed where there is no target. hidden: [N, H]; targets: [N] int64, ids or classes, those
  /// that are ignore_index are left out. A scalar, float32.
  virtual at::Tensor token_cross_entropy(const at::Tensor& hidden, const at::Tensor& targets, double scale,
                                         int64_t ignore_index = -100) = 0;
  at::Tensor class_logits(const Texts& texts) override {
    const EncoderContext context{.attention_mask = texts.attention_mask, .token_type_ids = texts.token_type_ids};
    return logits(forward(texts.input_ids, context), texts.attention_mask);
  }

  void initialize(uint64_t seed) override {
    for (const auto& parameter : named_parameters()) initialize_parameter(parameter.key(), parameter.value(), seed);
  }
  /// For files that hold none: pooled() is undefined from now on. Only where the head needs no pooler.
  virtual void remove_pooler() = 0;
};

}  // namespace llmtk::nn
