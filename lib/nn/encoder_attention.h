#pragma once
// Bidirectional self-attention: what all layers of one forward pass share, and the product itself.

#include <ATen/core/Tensor.h>

#include <vector>

#include "nn/checkpoint.h"
#include "nn/encoder_model.h"

namespace llmtk::nn {

/// Made once per forward pass, read by every layer.
struct EncoderLayerContext {
  at::Tensor real;  ///< [B, T] bool, false at padding; undefined: there is none
  at::Tensor mask;  ///< [B, 1, 1, T] bool, true at the keys that are seen; undefined: all are
  std::vector<at::Tensor>* attentions = nullptr;
};

/// Throws Error(usage) when a row has more real tokens than max_positions.
EncoderLayerContext make_encoder_context(const at::Tensor& input_ids, const EncoderContext& context,
                                         int64_t max_positions);

/// softmax(q k^T / sqrt(D) + mask) v over all tokens. q, k, v: [B, N, T, D]. Returns [B, T, N * D]. With
/// context.attentions set the weights are computed explicitly and appended there, [B, N, T, T]; otherwise LibTorch's
/// fused attention runs.
at::Tensor bidirectional_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                                   const EncoderLayerContext& context, double dropout);

/// Each row's first real token. x: [B, T, H]; attention_mask: as in EncoderContext, may be undefined. Returns [B, H].
at::Tensor first_token(const at::Tensor& x, const at::Tensor& attention_mask);

/// layer.forward(x, context), with its activations recomputed in backward where `checkpointing` is on and the module is
/// training.
template <class Layer>
at::Tensor run_encoder_layer(Layer& layer, const at::Tensor& x, const EncoderLayerContext& context,
                             bool checkpointing) {
  if (!checkpointing || context.attentions || !layer.is_training()) return layer.forward(x, context);
  return checkpoint(layer, {x}, [&layer, context](const Tensors& inputs) -> Tensors {
    return {layer.forward(inputs[0], context)};
  })[0];
}

}  // namespace llmtk::nn
