#pragma once
// LayerNorm and RMSNorm, alone and fused with the residual sum before them. All are differentiable.
//
// Statistics are computed in float32 whatever the dtype of x. x and weight are float32 or bfloat16 of the same dtype
// for the fused kernels; other combinations take the reference. Gradients of weight and bias are summed in an order
// that does not depend on the number of threads.

#include <ATen/core/Tensor.h>

#include <tuple>

namespace llmtk::kernels {

/// (x - mean) / sqrt(var + eps) * weight + bias over the last dimension. x: [..., H]; weight: [H]; bias: [H] or
/// undefined. Ba et al., Layer Normalization (2016).
at::Tensor layer_norm(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias, double eps);

/// x / sqrt(mean(x^2) + eps), cast to x's dtype, times weight: as HF's LlamaRMSNorm rounds. x: [..., H]; weight: [H].
/// unit_offset: times 1 + weight, and cast to x's dtype only then, as HF's GemmaRMSNorm does.
/// Zhang and Sennrich, Root Mean Square Layer Normalization (2019).
at::Tensor rms_norm(const at::Tensor& x, const at::Tensor& weight, double eps, bool unit_offset = false);

/// {sum, layer_norm(sum)} with sum = x + residual. One pass forward; backward adds the gradient that flows along the
/// residual in the pass that computes the norm's.
std::tuple<at::Tensor, at::Tensor> add_layer_norm(const at::Tensor& x, const at::Tensor& residual,
                                                  const at::Tensor& weight, const at::Tensor& bias, double eps);

/// {sum, rms_norm(sum)} with sum = x + residual.
std::tuple<at::Tensor, at::Tensor> add_rms_norm(const at::Tensor& x, const at::Tensor& residual,
                                                const at::Tensor& weight, double eps, bool unit_offset = false);

namespace reference {
at::Tensor layer_norm(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias, double eps);
at::Tensor rms_norm(const at::Tensor& x, const at::Tensor& weight, double eps, bool unit_offset = false);
}  // namespace reference

}  // namespace llmtk::kernels
