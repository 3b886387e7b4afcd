#pragma once
// What prompt methods, (IA)^3 and bottleneck adapters have in common: the model is frozen, and the head of a classifier
// is trained and saved beside what the method adds.

#include <string>

#include "io/tensors.h"
#include "nn/model.h"
#include "peft/adapter_folder.h"

namespace llmtk::peft {

/// Freezes all of the model but the head of a classifier.
void train_head_alone(nn::Model& model);
/// Of the head of a classifier: its parameters, `before` put before their names. Empty for another model.
io::NamedTensors head_tensors(nn::Model& model, const std::string& before);
/// Fills the head from what a file holds of it and takes that out of `left`. Throws Error(file) naming `where`.
void take_head(nn::Model& model, const std::string& before, std::map<std::string, at::Tensor>& left,
               const std::string& where);
/// A tensor taken out of `left`. Throws Error(file) naming `where` where it is not there.
at::Tensor take_tensor(std::map<std::string, at::Tensor>& left, const std::string& key, const std::string& where);
/// Throws Error(file) naming `where` and the first of what is left.
void refuse_left(const std::map<std::string, at::Tensor>& left, const std::string& where);

/// The keys of adapter_config.json that every method of peft has.
io::Json common_config(const nn::Model& model, const std::string& peft_type,
                       const std::string& base_model_name_or_path);
/// Marks them as read; task_type must be the model's. Throws Error(file).
void read_common_config(const nn::Model& model, io::ObjectReader& config, const std::string& peft_type);

}  // namespace llmtk::peft
