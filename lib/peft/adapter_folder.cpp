#include "peft/adapter_folder.h"

#include <algorithm>

#include "core/error.h"
#include "core/file.h"

namespace llmtk::peft {

bool is_adapter_folder(const fs::path& folder) { return fs::exists(folder / kConfigFile); }

AdapterFolder read_adapter_folder(const fs::path& folder) {
  if (!is_adapter_folder(folder))
    throw Error(Exit::file, {.what = "no adapter there", .where = folder.string(), .expected = kConfigFile});
  const fs::path weights = folder / kTensorsFile;
  if (!fs::exists(weights)) {
    const bool pickled = fs::exists(folder / "adapter_model.bin");
    throw Error(Exit::file,
                {.what = pickled ? "the adapter's weights are a pickle, which may run any code" : "no weights there",
                 .where = folder.string(),
                 .expected = kTensorsFile,
                 .hint = pickled ? "convert it with: python -c \"import torch, safetensors.torch as s; "
                                   "s.save_file(torch.load('adapter_model.bin', weights_only=True), "
                                   "'adapter_model.safetensors')\""
                                 : ""});
  }
  AdapterFolder adapter{.config = io::read_json(folder / kConfigFile)};
  for (auto& [name, tensor] : io::load_tensors(weights)) adapter.tensors.emplace(name, std::move(tensor));
  return adapter;
}

std::string peft_type(const io::Json& config, const std::string& where) {
  io::ObjectReader reader(config, where);
  return reader.string("peft_type");
}

AdapterTask read_adapter_task(const fs::path& folder) {
  const AdapterFolder files = read_adapter_folder(folder);
  io::ObjectReader reader(files.config, (folder / kConfigFile).string());
  AdapterTask task{.task_type = reader.string_or("task_type", "")};
  for (const auto& [key, tensor] : files.tensors)
    if (key.ends_with("classifier.weight") || key.ends_with("classifier.out_proj.weight") ||
        key.ends_with("classification_head.out_proj.weight") || key.ends_with("score.weight"))
      task.num_labels = tensor.size(0);
  if (const fs::path file = folder / "config.json"; fs::exists(file)) {
    const io::Json config = io::read_json(file);
    task.id2label = config.value("id2label", io::Json());
    task.pad_token_id = config.value("pad_token_id", io::Json());
  }
  return task;
}

void write_adapter_folder(const fs::path& folder, const io::Json& config, io::NamedTensors tensors) {
  fs::create_directories(folder);
  std::ranges::sort(tensors, {}, &io::NamedTensors::value_type::first);
  io::save_tensors(folder / kTensorsFile, tensors);
  io::write_json(folder / kConfigFile, config);
}

}  // namespace llmtk::peft
