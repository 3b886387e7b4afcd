// An adapter as PEFT's folder.

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>

#include "core/error.h"
#include "peft/adapter.h"
#include "peft/adapter_folder.h"
#include "peft/modules.h"

namespace llmtk::peft {
namespace {

using at::Tensor;
using Tensors = std::map<std::string, Tensor>;

struct Keys {
  std::string A, B, magnitude;
};

Keys keys_of(const LoraTarget& target) {
  const std::string at = kKeyPrefix + target.path;
  if (target.is_embedding()) return {at + ".lora_embedding_A", at + ".lora_embedding_B", at + ".lora_magnitude_vector"};
  return {at + ".lora_A.weight", at + ".lora_B.weight", at + ".lora_magnitude_vector"};
}

bool is_target(const Adapter& adapter, const std::string& path) {
  return std::ranges::find(adapter.targets(), path, &LoraTarget::path) != adapter.targets().end();
}

/// The key of a parameter of the model itself: peft has the bias of a layer with a branch below base_layer.
std::string key_of(const Adapter& adapter, const std::string& parameter) {
  const size_t dot = parameter.rfind('.');
  const std::string path = parameter.substr(0, dot);
  const bool wrapped = is_target(adapter, path) && !adapter.is_saved_module(parameter);
  return kKeyPrefix + (wrapped ? path + ".base_layer" + parameter.substr(dot) : parameter);
}

/// The config under which a converted PiSSA adapter is an ordinary one: twice the ranks at the same scaling.
LoraConfig converted(LoraConfig config) {
  const double factor = config.use_rslora ? std::sqrt(2.0) : 2.0;
  config.init_lora_weights = "true";
  config.r *= 2;
  config.lora_alpha *= factor;
  for (auto& [name, rank] : config.rank_pattern) rank *= 2;
  for (auto& [name, alpha] : config.alpha_pattern) alpha *= factor;
  return config;
}

/// A parameter's tensor out of `left`, or Error(file).
Tensor take(Tensors& left, const std::string& key, const std::string& where) {
  const auto found = left.find(key);
  if (found == left.end()) throw Error(Exit::file, {.what = "tensor '" + key + "' is missing", .where = where});
  const Tensor tensor = found->second;
  left.erase(found);
  return tensor;
}

/// Of a converted PiSSA adapter, what was trained: the other half must be this model's start.
Tensor trained_half(const Tensor& both, const Tensor& start, int64_t dim, double sign, const std::string& key,
                    const std::string& where) {
  const int64_t rank = start.size(dim);
  if (both.dim() != 2 || both.size(dim) != 2 * rank) return both;  // a shape that assign() names
  const Tensor rest = both.narrow(dim, rank, rank).to(start.options()) * sign;
  if ((rest - start).abs().max().item<double>() > 1e-3 * start.abs().max().item<double>())
    throw Error(Exit::file,
                {.what = "tensor '" + key + "' began at another base or with another seed", .where = where});
  return both.narrow(dim, 0, rank);
}

void fill_target(const LoraTarget& target, Tensors& left, const std::string& where) {
  const Keys keys = keys_of(target);
  Lora& lora = *target.lora;
  lora.values_changed();
  Tensor a = take(left, keys.A, where), b = take(left, keys.B, where);
  if (lora.has_start() && a.sizes() != lora.A.sizes()) {
    a = trained_half(a, lora.start_A, 0, 1, keys.A, where);
    b = trained_half(b, lora.start_B, 1, -1, keys.B, where);
  }
  assign(lora.A, a, keys.A, where);
  assign(lora.B, b, keys.B, where);
  if (lora.is_dora()) assign(lora.magnitude, take(left, keys.magnitude, where), keys.magnitude, where);
}

/// Whether peft writes this beside an adapter without need: the original of a module that was trained in whole.
bool is_copy(const std::string& key) {
  return key.find(".original_module.") != std::string::npos || key.find(".modules_to_save.") != std::string::npos;
}

/// peft saves the table below a branch on an embedding, which may have been resized.
bool take_base_table(const Adapter& adapter, const std::string& key, const Tensor& tensor, const std::string& where) {
  constexpr std::string_view kEnd = ".base_layer.weight", kBefore = kKeyPrefix;
  if (!key.ends_with(kEnd) || !key.starts_with(kBefore)) return false;
  const std::string path = key.substr(kBefore.size(), key.size() - kBefore.size() - kEnd.size());
  if (!is_target(adapter, path)) return false;
  for (const LoraTarget& target : adapter.targets()) {
    if (target.path != path) continue;
    if (auto* table = dynamic_cast<nn::Embedding*>(target.layer.get())) assign(table->weight, tensor, key, where);
    if (auto* layer = dynamic_cast<nn::Linear*>(target.layer.get()); layer && layer->weight.defined())
      assign(layer->weight, tensor, key, where);
  }
  return true;
}

void fill(Adapter& adapter, const AdapterFolder& folder, const std::string& where) {
  Tensors left = folder.tensors;
  std::erase_if(left, [&](const auto& item) {
    return is_copy(item.first) || take_base_table(adapter, item.first, item.second, where);
  });
  for (const LoraTarget& target : adapter.targets()) fill_target(target, left, where);
  auto parameters = adapter.model().named_parameters();
  for (const std::string& own : adapter.own_parameters()) {
    const std::string key = key_of(adapter, own);
    assign(parameters[own], take(left, key, where), key, where);
  }
  if (!left.empty())
    throw Error(Exit::file, {.what = "a tensor that this adapter has no place for: '" + left.begin()->first + "'",
                             .where = where,
                             .hint = "is it an adapter for another model?"});
}

}  // namespace

void save_adapter(const Adapter& adapter, const fs::path& folder, const std::string& base_model_name_or_path) {
  const at::NoGradGuard no_grad;
  io::NamedTensors tensors;
  bool converts = false, conv1d = false;
  for (const LoraTarget& target : adapter.targets()) {
    const Keys keys = keys_of(target);
    const Lora& lora = *target.lora;
    if (const auto* layer = dynamic_cast<const nn::Linear*>(target.layer.get())) conv1d |= layer->is_conv1d();
    converts |= lora.has_start();
    tensors.emplace_back(keys.A, lora.has_start() ? at::cat({lora.A, lora.start_A.to(lora.A.scalar_type())}) : lora.A);
    tensors.emplace_back(keys.B,
                         lora.has_start() ? at::cat({lora.B, -lora.start_B.to(lora.B.scalar_type())}, 1) : lora.B);
    if (lora.is_dora()) tensors.emplace_back(keys.magnitude, lora.magnitude);
  }
  auto parameters = adapter.model().named_parameters();
  for (const std::string& own : adapter.own_parameters())
    tensors.emplace_back(key_of(adapter, own), parameters[own].detach());
  const AdapterIdentity identity{.base_model_name_or_path = base_model_name_or_path,
                                 .task_type = task_type(adapter.model()),
                                 .fan_in_fan_out = conv1d};
  const LoraConfig config = converts ? converted(adapter.config()) : adapter.config();
  write_adapter_folder(folder, to_adapter_config(config, identity), std::move(tensors));
}

void load_adapter_weights(Adapter& adapter, const fs::path& folder) {
  const std::string where = folder.string();
  const AdapterFolder files = read_adapter_folder(folder);
  LoraConfig saved = lora_config_from(files.config, (folder / kConfigFile).string());
  const LoraConfig own = adapter.config().is_pissa() ? converted(adapter.config()) : adapter.config();
  for (const LoraTarget& target : adapter.targets())
    if (saved.scaling_of(target.path) != own.scaling_of(target.path))
      throw Error(Exit::file, {.what = "the adapter was trained with another scaling",
                               .where = where,
                               .got = std::to_string(saved.scaling_of(target.path)) + " for " + target.path,
                               .expected = std::to_string(own.scaling_of(target.path))});
  fill(adapter, files, where);
}

Adapter load_adapter(nn::Model& model, const fs::path& folder, const std::string& name, double weight) {
  const AdapterFolder files = read_adapter_folder(folder);
  const LoraConfig config = lora_config_from(files.config, (folder / kConfigFile).string());
  Adapter adapter = apply(model, config, /*seed=*/0, name);
  fill(adapter, files, folder.string());
  adapter.set_weight(weight);
  for (Tensor parameter : model.parameters()) parameter.requires_grad_(false);
  return adapter;
}

std::vector<Adapter> load_adapters(nn::Model& model, const std::vector<AdapterSource>& sources) {
  std::vector<Adapter> adapters;
  std::map<std::string, std::string> holders;  // of the model's own parameters
  for (const AdapterSource& source : sources) {
    const std::string folder = source.folder.string();
    adapters.push_back(load_adapter(model, source.folder, "adapter_" + std::to_string(adapters.size() + 1), source.weight));
    if (sources.size() > 1 && adapters.back().config().is_pissa())
      throw Error(Exit::usage, {.what = "an adapter of PiSSA changes the base that the others were made for",
                                .where = folder,
                                .hint = "save it in peft with path_initial_model_for_weight_conversion"});
    for (const std::string& own : adapters.back().own_parameters())
      if (const auto [holder, fresh] = holders.emplace(own, folder); !fresh)
        throw Error(Exit::usage, {.what = "two adapters hold the same parameter of the model itself",
                                  .where = folder,
                                  .got = own,
                                  .expected = "it in " + holder->second + " alone"});
  }
  return adapters;
}

}  // namespace llmtk::peft
