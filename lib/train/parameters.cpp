#include "train/parameters.h"

#include <unordered_set>

namespace llmtk::train {
namespace {

template <class Visit>
void each_once(const torch::nn::Module& module, Visit&& visit) {
  std::unordered_set<const c10::TensorImpl*> seen;
  for (const auto& item : module.named_parameters())
    if (seen.insert(item.value().unsafeGetTensorImpl()).second) visit(item.key(), item.value());
}

}  // namespace

std::vector<Parameter> trainable_parameters(const torch::nn::Module& module, double weight_decay) {
  std::vector<Parameter> parameters;
  each_once(module, [&](const std::string& name, const at::Tensor& tensor) {
    if (tensor.requires_grad()) parameters.push_back({name, tensor, tensor.dim() >= 2 ? weight_decay : 0.0});
  });
  return parameters;
}

int64_t count_parameters(const torch::nn::Module& module, bool trainable_only) {
  int64_t count = 0;
  each_once(module, [&](const std::string&, const at::Tensor& tensor) {
    if (!trainable_only || tensor.requires_grad()) count += tensor.numel();
  });
  return count;
}

Rounded::Rounded(const torch::nn::Module& module, c10::ScalarType dtype) {
  for (at::Tensor& parameter : module.parameters()) {
    if (!parameter.is_floating_point() || parameter.scalar_type() == dtype) continue;
    before_.emplace_back(parameter, parameter.variable_data());
    parameter.set_data(parameter.variable_data().to(dtype));
  }
}

Rounded::~Rounded() {
  for (auto& [parameter, data] : before_) parameter.set_data(data);
}

}  // namespace llmtk::train
