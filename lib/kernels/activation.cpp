#include "kernels/activation.h"

#include <ATen/ATen.h>

#include "core/error.h"
#include "kernels/backend.h"

namespace llmtk::kernels {

namespace reference {

at::Tensor gelu(const at::Tensor& x, bool tanh_approximation) {
  return at::gelu(x, tanh_approximation ? "tanh" : "none");
}

at::Tensor swiglu(const at::Tensor& gate, const at::Tensor& up) {
  return (at::silu(gate.to(at::kFloat)) * up.to(at::kFloat)).to(gate.scalar_type());
}

at::Tensor geglu(const at::Tensor& gate, const at::Tensor& up, bool tanh_approximation) {
  return (gelu(gate.to(at::kFloat), tanh_approximation) * up.to(at::kFloat)).to(gate.scalar_type());
}

}  // namespace reference

at::Tensor gelu(const at::Tensor& x, bool tanh_approximation) { return reference::gelu(x, tanh_approximation); }

at::Tensor swiglu(const at::Tensor& gate, const at::Tensor& up) { return reference::swiglu(gate, up); }

at::Tensor geglu(const at::Tensor& gate, const at::Tensor& up, bool tanh_approximation) {
  return reference::geglu(gate, up, tanh_approximation);
}

}  // namespace llmtk::kernels
