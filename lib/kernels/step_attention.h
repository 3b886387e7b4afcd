#pragma once
// Attention of a decoder's newest tokens, each row at a place of its own.

#include <ATen/core/Tensor.h>

namespace llmtk::kernels {

/// Keys and values of one layer: [B, K, room, D]. int8 with a scale per token and head, [B, K, room] float32, or of q's
/// dtype without.
struct KeyValueBlocks {
  at::Tensor keys, values;
  at::Tensor key_scales, value_scales;

  bool quantized() const { return key_scales.defined(); }
};

struct StepAttentionOptions {
  double scale = 1;    ///< of the scores
  double softcap = 0;  ///< scores become softcap() of themselves; 0: they stay
  int64_t window = 0;  ///< tokens that a query sees, itself included; 0: all before it
};

/// Puts k and v behind the lengths[b] tokens that row b holds and lets each new token see those and the new ones up to
/// itself: softmax(q k^T * scale) v, summed in float32 (Vaswani et al. 2017, eq. 1). q: [B, H, T, D]; k, v: [B, K, T,
/// D], H a multiple of K; lengths: int64 [B], lengths[b] + T <= room. The lengths stay as they are. Returns [B, T, H *
/// D]. Not differentiable. What becomes of a token does not depend on the tokens and rows beside it, to the last bit on
/// a CPU. It can be recorded (plan.h).
at::Tensor step_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, const KeyValueBlocks& blocks,
                          const at::Tensor& lengths, const StepAttentionOptions& options);

/// x [B, K, T, D] as int8 with a scale per token and head: the largest absolute value over 127.
struct QuantizedTokens {
  at::Tensor codes, scales;  // int8 [B, K, T, D], float32 [B, K, T]
};
QuantizedTokens quantize_tokens(const at::Tensor& x);
at::Tensor dequantize_tokens(const at::Tensor& codes, const at::Tensor& scales, c10::ScalarType dtype);

namespace reference {
at::Tensor step_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, const KeyValueBlocks& blocks,
                          const at::Tensor& lengths, const StepAttentionOptions& options);
}  // namespace reference

}  // namespace llmtk::kernels
