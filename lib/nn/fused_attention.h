#pragma once
// LibTorch's fused attention, for every kind of it: causal, bidirectional, across.

#include <ATen/core/Tensor.h>

#include <optional>

namespace llmtk::nn {

struct FusedAttentionOptions {
  std::optional<double> scale;  ///< of the scores; default: 1 / sqrt(D)
  double dropout = 0;           ///< of the weights
  bool causal = false;          ///< query t sees keys 0 ... t; without a mask
};

/// softmax(q k^T * scale + mask) v, its weights nowhere held. q: [B, H, T, D]; k, v: [B, K, S, D] with H a multiple of
/// K; mask: broadcast to [B, H, T, S], bool, true where a query sees a key, or numbers that are added to the scores;
/// undefined: every query sees all keys. Returns [B, H, T, D] of q's dtype. On a processor that cannot multiply bfloat16
/// what lies between is float32, but for single queries without gradients.
at::Tensor fused_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, const at::Tensor& mask,
                           const FusedAttentionOptions& options);

}  // namespace llmtk::nn
