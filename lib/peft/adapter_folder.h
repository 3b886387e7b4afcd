#pragma once
// PEFT's folder: adapter_config.json beside adapter_model.safetensors. What the config says belongs to each method.

#include <cstdint>
#include <filesystem>
#include <map>
#include <string>

#include "io/json.h"
#include "io/tensors.h"

namespace llmtk::peft {

inline constexpr const char* kConfigFile = "adapter_config.json";
inline constexpr const char* kTensorsFile = "adapter_model.safetensors";
/// Before the name that a module has in the base model.
inline constexpr const char* kKeyPrefix = "base_model.model.";
/// The release whose format this is.
inline constexpr const char* kPeftVersion = "0.21.2";

struct AdapterFolder {
  io::Json config;
  std::map<std::string, at::Tensor> tensors;  ///< views of the file, by the keys in it
};

/// Whether the folder holds an adapter.
bool is_adapter_folder(const std::filesystem::path& folder);
/// Throws Error(file): no folder, no config, pickled weights only (with the line that converts them).
AdapterFolder read_adapter_folder(const std::filesystem::path& folder);
/// peft_type of a config: "LORA", "PREFIX_TUNING", ... Throws Error(file) naming `where`.
std::string peft_type(const io::Json& config, const std::string& where);
/// What a classifier's adapter says of the model that it belongs to.
struct AdapterTask {
  std::string task_type;   ///< "SEQ_CLS", "TOKEN_CLS", ...; empty: not said
  int64_t num_labels = 0;  ///< rows of the classifier among the tensors; 0: none
  io::Json id2label;       ///< of a config.json beside the adapter; null: none
  io::Json pad_token_id;   ///< the same
};
AdapterTask read_adapter_task(const std::filesystem::path& folder);
/// Writes both files, the tensors sorted by key; the folder is made where it is not there.
void write_adapter_folder(const std::filesystem::path& folder, const io::Json& config, io::NamedTensors tensors);

}  // namespace llmtk::peft
