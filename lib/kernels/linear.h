#pragma once
// Matrix products in the dtype of their operands, by the fastest way that this processor has.

#include <ATen/core/Tensor.h>

namespace llmtk::kernels {

/// x weight^T + bias. x: [..., I]; weight: [O, I]; bias: [O] or undefined. Differentiable. at::linear, except on a CPU for the few
/// rows of decoding, which a kernel of our own multiplies at the memory's speed, and for bfloat16 on processors without
/// bfloat16 instructions: there the operands are widened to float32 panel by panel.
at::Tensor linear(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias = {});

/// out = a b, or out += a b. a: [M, K], b: [K, N], out: [M, N], all of one dtype. Not differentiable.
void mm_out(at::Tensor& out, const at::Tensor& a, const at::Tensor& b, bool accumulate = false);

}  // namespace llmtk::kernels
