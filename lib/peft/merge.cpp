#include <ATen/ATen.h>

#include "core/error.h"
#include "peft/adapter.h"
#include "peft/modules.h"

namespace llmtk::peft {
namespace {

/// Of another method a branch may do more than add to the matrix.
void refuse_other_branches(const std::vector<NamedModule>& modules) {
  for (const auto& [path, module] : modules) {
    const auto* layer = dynamic_cast<const nn::Linear*>(module.get());
    if (layer && layer->branch() && !dynamic_cast<const LoraLinear*>(layer->branch().get()))
      throw Error(Exit::usage, {.what = "the layer's branch is not LoRA's", .where = path});
  }
}

/// Ends the ties of which only one side is about to change.
void untie_changed(nn::Model& model, const std::vector<NamedModule>& modules) {
  for (const auto& [path, module] : modules) {
    const auto* table = dynamic_cast<const nn::Embedding*>(module.get());
    const auto* head = dynamic_cast<const nn::Linear*>(module.get());
    if (table && table->branch()) untie_from(model, table->weight);
    if (head && head->branch() && !head->storage() && head->is_tied()) untie_from(model, head->weight);
  }
}

void merge_into(nn::Linear& layer, const std::string& path) {
  if (layer.storage())
    throw Error(Exit::usage, {.what = "the layer is quantized: an adapter is merged into the model it was made from",
                              .where = path,
                              .hint = "open the base without quantization"});
  at::Tensor merged = layer.effective_weight();
  if (layer.is_conv1d()) merged = merged.t();
  layer.weight.set_data(merged.to(layer.weight.scalar_type()).contiguous());
  layer.set_branch("", nullptr);
}

void merge_into(nn::Embedding& table) {
  table.weight.set_data((table.weight + table.branch()->weight_delta(table)).to(table.weight.scalar_type()));
  table.set_branch("", nullptr);
}

}  // namespace

std::vector<std::string> merge_adapters(nn::Model& model) {
  const at::NoGradGuard no_grad;
  const auto modules = base_modules(model);
  refuse_other_branches(modules);
  const auto tied = model.tied_names();
  untie_changed(model, modules);
  for (const auto& [path, module] : modules) {
    auto* layer = dynamic_cast<nn::Linear*>(module.get());
    auto* table = dynamic_cast<nn::Embedding*>(module.get());
    if (layer && layer->branch()) merge_into(*layer, path);
    if (table && table->branch()) merge_into(*table);
  }
  std::vector<std::string> untied;
  const auto parameters = model.named_parameters();
  for (const auto& [name, parameter] : tied)
    if (parameters.contains(name)) untied.push_back(name);
  return untied;
}

}  // namespace llmtk::peft
