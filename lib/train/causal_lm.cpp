#include "train/causal_lm.h"

#include <ATen/ATen.h>

namespace llmtk::train {
namespace {

at::Tensor on_device(const std::vector<int32_t>& values, const data::Batch& batch, c10::Device device) {
  auto* data = const_cast<int32_t*>(values.data());  // from_blob asks for it; the copy below only reads
  return at::from_blob(data, {batch.rows, batch.length}, at::kInt).to(device, at::kLong);  // [B, T]
}

}  // namespace

at::Tensor causal_lm_loss(nn::CausalModel& model, const data::Batch& batch, double scale) {
  const c10::Device device = model.device();
  nn::ForwardContext context;
  if (!batch.position_ids.empty()) context.position_ids = on_device(batch.position_ids, batch, device);
  const at::Tensor hidden = model.forward(on_device(batch.input_ids, batch, device), context);  // [B, T, H]
  const at::Tensor labels = on_device(batch.labels, batch, device);
  return model.cross_entropy(hidden.flatten(0, 1), labels.flatten(), scale, data::kIgnore);
}

}  // namespace llmtk::train
