#pragma once
// The objective of pretraining and of causal fine-tuning: each position predicts its label.

#include <ATen/core/Tensor.h>

#include "data/batch.h"
#include "nn/causal_model.h"

namespace llmtk::train {

/// scale * sum over the labels that are not data::kIgnore of -log p(label), a scalar, float32, on the model's device;
/// as HF's ForCausalLMLoss with num_items_in_batch = 1 / scale. The logits are never held all at once.
at::Tensor causal_lm_loss(nn::CausalModel& model, const data::Batch& batch, double scale);

}  // namespace llmtk::train
