#include "peft/methods.h"

#include <functional>
#include <map>

#include "core/error.h"
#include "io/json.h"
#include "peft/bottleneck.h"
#include "peft/ia3.h"
#include "peft/prompt_files.h"

namespace llmtk::peft {
namespace {

using Load = void (*)(nn::Model&, const std::filesystem::path&);

/// Null for a method that is none of these.
Load loader_of(const std::filesystem::path& folder) {
  static const std::map<std::string, Load> kLoaders = {
      {"PREFIX_TUNING", load_virtual_tokens}, {"PROMPT_TUNING", load_virtual_tokens}, {"IA3", load_ia3}};
  if (is_adapterhub_folder(folder)) return load_bottleneck;
  if (!is_adapter_folder(folder)) return nullptr;
  const std::filesystem::path file = folder / kConfigFile;
  const auto found = kLoaders.find(peft_type(io::read_json(file), file.string()));
  return found == kLoaders.end() ? nullptr : found->second;
}

}  // namespace

bool is_method_folder(const std::filesystem::path& folder) { return loader_of(folder) != nullptr; }

std::vector<std::string> adapter_files(const std::filesystem::path& folder) {
  return is_adapterhub_folder(folder) ? adapterhub_files(folder) : std::vector<std::string>{kConfigFile, kTensorsFile};
}

AdapterTask read_task(const std::filesystem::path& folder) {
  return is_adapterhub_folder(folder) ? read_adapterhub_task(folder) : read_adapter_task(folder);
}

void load_method(nn::Model& model, const std::filesystem::path& folder) {
  const Load load = loader_of(folder);
  LLMTK_CHECK(load, folder.string(), " holds another method's adapter");
  load(model, folder);
}

}  // namespace llmtk::peft
