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

/// One call of a layer, held back.
struct LayerCall {
  const torch::nn::Module* layer;
  Tensors inputs;
  std::function<Tensors(const Tensors&)> function;
};

/// While one lives, checkpoint() outside of grad mode calls no layer on this thread: it notes the call, and the layer's first input
/// stands for its output. So one cheap pass of a model whose checkpointing is on gives all its layers, in their order, as
/// functions of what comes in (calibration runs them one by one).
class RecordLayers {
 public:
  RecordLayers();
  ~RecordLayers();
  RecordLayers(const RecordLayers&) = delete;
  RecordLayers& operator=(const RecordLayers&) = delete;

  std::vector<LayerCall> calls;
};

}  // namespace llmtk::nn
