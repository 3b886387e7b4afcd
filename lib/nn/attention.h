#pragma once
// Causal self-attention: what all layers of one forward pass share, and the product itself.

#include <ATen/core/Tensor.h>

#include <vector>

#include "nn/causal_model.h"
#include "nn/checkpoint.h"
#include "nn/kv_cache.h"
#include "nn/norm.h"

namespace llmtk::nn {

/// Made once per forward pass, read by every layer.
struct LayerContext {
  KVCache* cache = nullptr;
  bool step = false;            ///< as ForwardContext has it; `past` is then that of the longest row, and there is no mask
  int64_t past = 0;             ///< tokens whose keys and values are there already: virtual ones, those in the cache
  int64_t length = 0;           ///< T, new tokens; virtual ones that are read in this pass are among them
  int64_t sequence_length = 0;  ///< at least that of the text that this pass is a piece of; 0: it is all
  bool default_positions = true;
  at::Tensor position_ids;  ///< [B, T] or [1, T] int64
  at::Tensor places;        ///< [B, past + T] int64, where padding may stand behind virtual tokens: how many tokens are
                            ///< before each; undefined: as many as columns
  int64_t window = 0;       ///< tokens that a query sees, itself included; 0: all before it
  int64_t first_key = 0;    ///< the keys before it are out of every query's window
  at::Tensor mask;          ///< bool [B or 1, 1, T, S], S = past + T - first_key, true where a query sees a key;
                            ///< undefined: plain causal
  at::Tensor virtual_embeddings;   ///< as VirtualInputs has them
  at::Tensor virtual_keys_values;  ///< the same
  at::Tensor cos, sin;             ///< rotary families only, see nn/rotary.h
  std::vector<at::Tensor>* attentions = nullptr;
  std::optional<int64_t> attention_layer;
};

/// Positions: context.position_ids; else counted over the real tokens of context.attention_mask (so padding on the left
/// changes nothing); else past, past + 1, ... Rows packed from several texts (position_ids that restart, no attention
/// mask, no cache) get a mask that keeps the texts apart, as transformers infers it.
/// Virtual tokens, those in the cache and those given, stand before every row: they take the first positions, which the
/// context's do not count, and are seen by all. Throws Error(usage) when a text exceeds max_positions.
LayerContext make_layer_context(const at::Tensor& input_ids, const ForwardContext& context, int64_t max_positions,
                                const VirtualInputs& before = {});

/// The context of layers that see a sliding window: each query the last `window` tokens, itself included, as HF's
/// create_sliding_window_causal_mask. The context as it is where the window holds all tokens there are, or is 0.
LayerContext within_window(LayerContext context, int64_t window);

struct AttentionOptions {
  double scale = 1;    ///< of the scores
  double dropout = 0;  ///< of the weights
  double softcap = 0;  ///< scores become kernels::softcap of themselves (Gemma 2); 0: they stay
};

/// softmax(q k^T * scale + mask) v, causal. q: [B, H, T, D]; k, v: [B, K, T, D] with H a multiple of K (grouped-query
/// attention); appended to the cache of `layer` where there is one. Returns [B, T, H * D]. With context.attentions set
/// (and this layer's weights wanted) the weights are computed explicitly and appended there, [B, H, T, past + T];
/// otherwise LibTorch's fused attention runs, or with a softcap, which that does not know, a product for some queries
/// at a time, computed again in backward.
at::Tensor causal_attention(const at::Tensor& q, at::Tensor k, at::Tensor v, const LayerContext& context, int64_t layer,
                            const AttentionOptions& options);

/// block.forward(x, context), with its activations recomputed in backward where `checkpointing` is on.
template <class Block>
Residual run_layer(Block& block, const Residual& x, const LayerContext& context, bool checkpointing) {
  if (!checkpointing || context.cache || context.attentions) return block.forward(x, context);
  // One tensor is kept per layer, so what waits is added first.
  const Tensors inputs = {x.sum(), context.virtual_keys_values};
  const auto outputs = checkpoint(block, inputs, [&block, context](const Tensors& inputs) -> Tensors {
    LayerContext same = context;
    same.virtual_keys_values = inputs[1];
    const Residual y = block.forward({inputs[0], {}}, same);
    return y.update.defined() ? Tensors{y.stream, y.update} : Tensors{y.stream};
  });
  return {outputs[0], outputs.size() > 1 ? outputs[1] : at::Tensor()};
}

}  // namespace llmtk::nn
