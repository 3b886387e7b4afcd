#include "peft/head.h"

#include "core/error.h"
#include "peft/modules.h"

namespace llmtk::peft {
namespace {

std::vector<std::string> head_parameters(nn::Model& model) {
  return take_modules(model, saved_module_names(model, {}), {});
}

}  // namespace

void train_head_alone(nn::Model& model) {
  freeze(model);
  auto parameters = model.named_parameters();
  for (const std::string& name : head_parameters(model)) parameters[name].requires_grad_(true);
}

io::NamedTensors head_tensors(nn::Model& model, const std::string& before) {
  io::NamedTensors tensors;
  auto parameters = model.named_parameters();
  for (const std::string& name : head_parameters(model)) tensors.emplace_back(before + name, parameters[name].detach());
  return tensors;
}

void take_head(nn::Model& model, const std::string& before, std::map<std::string, at::Tensor>& left,
               const std::string& where) {
  auto parameters = model.named_parameters();
  for (const std::string& name : head_parameters(model)) {
    const std::string key = before + name;
    assign(parameters[name], take_tensor(left, key, where), key, where);
  }
}

at::Tensor take_tensor(std::map<std::string, at::Tensor>& left, const std::string& key, const std::string& where) {
  const auto found = left.find(key);
  if (found == left.end())
    throw Error(
        Exit::file,
        {.what = "tensor '" + key + "' is missing", .where = where, .hint = "is it an adapter for another model?"});
  const at::Tensor tensor = found->second;
  left.erase(found);
  return tensor;
}

void refuse_left(const std::map<std::string, at::Tensor>& left, const std::string& where) {
  if (left.empty()) return;
  throw Error(Exit::file, {.what = "a tensor that this adapter has no place for: '" + left.begin()->first + "'",
                           .where = where,
                           .hint = "is it an adapter for another model?"});
}

io::Json common_config(const nn::Model& model, const std::string& peft_type,
                       const std::string& base_model_name_or_path) {
  const auto or_null = [](const std::string& text) { return text.empty() ? io::Json() : io::Json(text); };
  const auto heads = saved_module_names(model, {});
  return {{"auto_mapping", nullptr}, {"base_model_name_or_path", or_null(base_model_name_or_path)},
          {"inference_mode", true},  {"modules_to_save", heads.empty() ? io::Json() : io::Json(heads)},
          {"peft_type", peft_type},  {"peft_version", kPeftVersion},
          {"revision", nullptr},     {"task_type", or_null(task_type(model))}};
}

void read_common_config(const nn::Model& model, io::ObjectReader& config, const std::string& peft_type) {
  config.only("peft_type", peft_type);
  if (config.has("task_type") && config.string("task_type") != task_type(model))
    config.fail("task_type", task_type(model).empty() ? "none" : task_type(model), "the adapter is for another task");
  const auto known = saved_module_names(model, {});
  if (config.has("modules_to_save"))
    for (const std::string& name : config.strings("modules_to_save"))
      if (std::ranges::find(known, name) == known.end())
        config.fail("modules_to_save", "the head of a classifier alone");
  config.ignore({"task_type", "modules_to_save", "auto_mapping", "base_model_name_or_path", "inference_mode",
                 "peft_version", "revision", "runtime_config"});
}

}  // namespace llmtk::peft
