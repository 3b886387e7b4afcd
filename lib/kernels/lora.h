#pragma once
// A product with a low-rank branch beside it.

#include <ATen/core/Tensor.h>

namespace llmtk::kernels {

/// x weight^T + bias + scale * dropout(x) a^T b^T (Hu et al., LoRA: Low-Rank Adaptation of Large Language Models, 2021,
/// eq. 3; dropout as in peft's LoraLayer). x: [..., I]; weight: [O, I]; bias: [O]; a: [r, I]; b: [O, r]. weight and
/// bias may be undefined: then the branch alone. Differentiable in all five. a and b are float32 or of x's dtype; the
/// branch is computed in float32 on a CPU and rounded once, in x's dtype on a GPU.
///
/// dropout: the share of x's elements that the branch does not see. On a CPU neither the mask nor the masked x is ever
/// held: the mask is drawn again, piece by piece, from one number of the default generator.
at::Tensor lora_linear(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias, const at::Tensor& a,
                       const at::Tensor& b, double scale, double dropout = 0);

namespace reference {
/// The same in plain ATen, with torch's dropout: what runs on a GPU, and where nothing learns.
at::Tensor lora_linear(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias, const at::Tensor& a,
                       const at::Tensor& b, double scale, double dropout = 0);
}  // namespace reference

}  // namespace llmtk::kernels
