#include "nn/fused_attention.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/scaled_dot_product_attention.h>

#include "kernels/backend.h"

namespace llmtk::nn {
namespace {

/// Without the processor's bfloat16 instructions LibTorch's attention in bfloat16 is some four times slower than
/// through float32 when a gradient follows, and its gradients are as much less exact. Forward alone both take about as
/// long, so that texts are read alike with and without gradients; a single new token is left as it is.
bool is_better_wide(const at::Tensor& q) {
  const bool learns = q.requires_grad() && c10::GradMode::is_enabled();
  return q.is_cpu() && q.scalar_type() == c10::kBFloat16 && (learns || q.size(2) > 1) &&
         !kernels::fast_bfloat16_products();
}

}  // namespace

at::Tensor fused_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, const at::Tensor& mask,
                           const FusedAttentionOptions& options) {
  const bool widen = is_better_wide(q);
  const auto wide = [&](const at::Tensor& t) { return widen && t.is_floating_point() ? t.to(c10::kFloat) : t; };
  const std::optional<at::Tensor> given = mask.defined() ? std::optional(wide(mask)) : std::nullopt;
  return at::scaled_dot_product_attention(wide(q), wide(k), wide(v), given, options.dropout, options.causal,
                                          options.scale, /*enable_gqa=*/q.size(1) != k.size(1))
      .to(q.scalar_type());
}

}  // namespace llmtk::nn
