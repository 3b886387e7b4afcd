#pragma once
// Activation checkpointing: keep a layer's inputs only, and compute the rest again in backward.

#include <ATen/core/Tensor.h>
#include <torch/nn/module.h>

#include <functional>
#include <vector>

namespace llmtk::nn {

using Tensors = std::vector<at::Tensor>;

/// Runs outputs = function(inputs) without keeping its intermediate results; backward runs it again, with the random
/// numbers (dropout) it had. `module` is the one whose trainable parameters the function uses. An undefined input stays
/// undefined. Outside of grad mode the function is simply called. Chen et al., Training Deep Nets with Sublinear Memory
/// Cost (2016).
Tensors checkpoint(const torch::nn::Module& module, const Tensors& inputs,
                   std::function<Tensors(const Tensors&)> function);

}  // namespace llmtk::nn
