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
  at::Tensor mask;  ///< [B, 1, 1, P + T] bool, true at the keys that are seen; undefined: all are
  VirtualInputs before;
  std::vector<at::Tensor>* attentions = nullptr;
};

/// Throws Error(usage) when a row has more real tokens than max_positions.
EncoderLayerContext make_encoder_context(const at::Tensor& input_ids, const EncoderContext& context,
                                         int64_t max_positions, VirtualInputs before = {});

/// softmax(q k^T / sqrt(D) + mask) v over all tokens, the virtual ones of the layer included, whose keys and values
/// context.before has as layer 0's. q, k, v: [B, N, T, D]. Returns [B, T, N * D]. With context.attentions set the
/// weights are computed explicitly and appended there, [B, N, T, P + T]; otherwise LibTorch's fused attention runs.
at::Tensor bidirectional_attention(const at::Tensor& q, at::Tensor k, at::Tensor v, const EncoderLayerContext& context,
                                   double dropout);

/// Each row's first real token. x: [B, T, H]; attention_mask: as in EncoderContext, may be undefined. Returns [B, H].
at::Tensor first_token(const at::Tensor& x, const at::Tensor& attention_mask);

/// layer.forward(x, context) of the layer of that number, with its activations recomputed in backward where
/// `checkpointing` is on and a gradient follows.
template <class Layer>
at::Tensor run_encoder_layer(Layer& layer, int64_t number, const at::Tensor& x, EncoderLayerContext context,
                             bool checkpointing) {
  at::Tensor& keys_values = context.before.keys_values;
  if (keys_values.defined()) keys_values = keys_values.narrow(0, 2 * number, 2);  // this layer's
  if (!checkpointing || context.attentions) return layer.forward(x, context);
  return checkpoint(layer, {x, keys_values}, [&layer, context](const Tensors& inputs) -> Tensors {
    EncoderLayerContext same = context;
    same.before.keys_values = inputs[1];
    return {layer.forward(inputs[0], same)};
  })[0];
}

}  // namespace llmtk::nn
