#pragma once
// Activations by the names that Hugging Face's configs use.

#include <ATen/core/Tensor.h>

#include <optional>
#include <string_view>

namespace llmtk::nn {

enum class Activation { gelu, gelu_tanh, silu, relu };

/// "gelu", "gelu_new", "gelu_pytorch_tanh", "gelu_fast", "silu", "swish", "relu"; nullopt for another word.
std::optional<Activation> parse_activation(std::string_view name);
inline constexpr const char* kActivationNames = "gelu, gelu_new, gelu_pytorch_tanh, gelu_fast, silu, swish or relu";

at::Tensor activate(Activation activation, const at::Tensor& x);
/// activation(gate) * up: the gated feed-forward of Llama and its kin.
at::Tensor activate_gated(Activation activation, const at::Tensor& gate, const at::Tensor& up);

}  // namespace llmtk::nn
