#pragma once
// Rotary position embedding in the rotate-half convention of HF's Llama.

#include <ATen/core/Tensor.h>

#include <tuple>

namespace llmtk::kernels {

/// {q', k'} with x' = x * cos + rotate_half(x) * sin, rotate_half(x) = [-x2, x1] for the halves x1, x2.
/// q: [B, H, T, D], k: [B, K, T, D] (H and K may differ; views with a contiguous last dimension are read in place).
/// cos, sin: [T, R] or [B or 1, T, R], R <= D and even: the first R of D are rotated, the others copied. float32 keeps
/// the angles exact; another dtype is taken as it is. Differentiable in q and k. The results lie in memory as the
/// inputs do (a [B, T, H, D] tensor seen as [B, H, T, D] stays one). Su et al., RoFormer (2021).
std::tuple<at::Tensor, at::Tensor> rotary(const at::Tensor& q, const at::Tensor& k, const at::Tensor& cos,
                                          const at::Tensor& sin);

namespace reference {
std::tuple<at::Tensor, at::Tensor> rotary(const at::Tensor& q, const at::Tensor& k, const at::Tensor& cos,
                                          const at::Tensor& sin);
}  // namespace reference

}  // namespace llmtk::kernels
