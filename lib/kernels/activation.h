#pragma once
// Activations of the feed-forward blocks. All are differentiable, compute in float32 inside, and keep only their inputs
// for backward.

#include <ATen/core/Tensor.h>

namespace llmtk::kernels {

/// x * Phi(x), or its tanh approximation (HF's "gelu_new", "gelu_pytorch_tanh"). Any shape.
/// Hendrycks and Gimpel, Gaussian Error Linear Units (2016).
at::Tensor gelu(const at::Tensor& x, bool tanh_approximation);

/// silu(gate) * up, elementwise over equal shapes; views whose last dimension is contiguous are read in place.
/// Shazeer, GLU Variants Improve Transformer (2020).
at::Tensor swiglu(const at::Tensor& gate, const at::Tensor& up);

/// gelu(gate) * up.
at::Tensor geglu(const at::Tensor& gate, const at::Tensor& up, bool tanh_approximation);

namespace reference {
at::Tensor gelu(const at::Tensor& x, bool tanh_approximation);
at::Tensor swiglu(const at::Tensor& gate, const at::Tensor& up);
at::Tensor geglu(const at::Tensor& gate, const at::Tensor& up, bool tanh_approximation);
}  // namespace reference

}  // namespace llmtk::kernels
