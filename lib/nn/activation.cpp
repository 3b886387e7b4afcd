#include "nn/activation.h"

#include <ATen/ops/mul.h>
#include <ATen/ops/relu.h>
#include <ATen/ops/silu.h>

#include "core/error.h"
#include "kernels/activation.h"
#include "kernels/elementwise.h"

namespace llmtk::nn {

std::optional<Activation> parse_activation(std::string_view name) {
  if (name == "gelu") return Activation::gelu;
  if (name == "gelu_new" || name == "gelu_pytorch_tanh" || name == "gelu_fast") return Activation::gelu_tanh;
  if (name == "silu" || name == "swish") return Activation::silu;
  if (name == "relu") return Activation::relu;
  return std::nullopt;
}

at::Tensor activate(Activation activation, const at::Tensor& x) {
  switch (activation) {
    case Activation::gelu:
      return kernels::gelu(x, /*tanh_approximation=*/false);
    case Activation::gelu_tanh:
      return kernels::gelu(x, /*tanh_approximation=*/true);
    case Activation::silu:
      return at::silu(x);
    case Activation::relu:
      return kernels::relu(x);
  }
  LLMTK_CHECK(false, "unknown activation");
}

at::Tensor activate_gated(Activation activation, const at::Tensor& gate, const at::Tensor& up) {
  switch (activation) {
    case Activation::gelu:
      return kernels::geglu(gate, up, /*tanh_approximation=*/false);
    case Activation::gelu_tanh:
      return kernels::geglu(gate, up, /*tanh_approximation=*/true);
    case Activation::silu:
      return kernels::swiglu(gate, up);
    case Activation::relu:
      return at::relu(gate) * up;
  }
  LLMTK_CHECK(false, "unknown activation");
}

}  // namespace llmtk::nn
