// Bottleneck adapters as AdapterHub's folder (the package `adapters`, 1.3).

#include <algorithm>

#include "core/error.h"
#include "core/file.h"
#include "nn/model.h"
#include "peft/bottleneck.h"
#include "peft/bottleneck_sites.h"
#include "peft/head.h"
#include "peft/modules.h"

namespace llmtk::peft {
namespace {

constexpr const char* kAdapterFile = "adapter.safetensors";
constexpr const char* kHeadConfigFile = "head_config.json";
constexpr const char* kHeadFile = "model_head.safetensors";
constexpr const char* kName = "default";
constexpr const char* kHubVersion = "adapters.1.3.0";

/// Settings of AdapterHub's BnConfig that are always these here: another value is another computation.
const io::Json& fixed_settings() {
  static const io::Json kFixed = {
      {"original_ln_before", false}, {"original_ln_after", true},
      {"ln_before", false},          {"ln_after", false},
      {"is_parallel", false},        {"use_gating", false},
      {"residual_before_ln", true},  {"adapter_residual_before_ln", false},
      {"inv_adapter", nullptr},      {"cross_adapter", false},
      {"phm_layer", false},          {"stochastic_depth", 0.0},
  };
  return kFixed;
}

io::Json hub_config(const BottleneckConfig& config, int64_t hidden_size) {
  io::Json json = fixed_settings();
  const auto H = static_cast<double>(hidden_size);
  json["mh_adapter"] = config.type == "houlsby";
  json["output_adapter"] = true;
  // AdapterHub rounds the quotient down.
  json["reduction_factor"] =
      config.bottleneck_size ? H / (static_cast<double>(*config.bottleneck_size) + 0.5) : config.reduction_factor;
  json["non_linearity"] = config.activation();
  json["scaling"] = config.scaling;
  json["leave_out"] = config.leave_out;
  json["init_weights"] = "bert";
  json["dropout"] = 0.0;
  return json;
}

/// What AdapterHub says of the model in each of its configs.
io::Json hub_identity(const nn::Model& model, int64_t hidden_size) {
  const io::Json config = model.config();
  return {{"hidden_size", hidden_size},
          {"model_class", config.at("architectures").at(0)},
          {"model_name", nullptr},
          {"model_type", config.at("model_type")},
          {"version", kHubVersion}};
}

std::string tensor_name(const BottleneckSite& site, const std::string& adapter, const std::string& parameter) {
  return site.hub_path + ".adapters." + adapter + "." + parameter;
}

/// f(site, adapter) for each place that has one.
template <class F>
void for_each_adapter(const nn::Model& model, F f) {
  for (const BottleneckSite& site : bottleneck_sites(model, /*attention=*/true))
    if (const auto* adapter = dynamic_cast<const Bottleneck*>(site.layer->branch().get())) f(site, *adapter);
}

void save_head(nn::Model& model, const io::Json& identity, const std::filesystem::path& folder) {
  const io::NamedTensors tensors = head_tensors(model, "");
  if (tensors.empty()) return;
  io::Json config = identity;
  const auto labels = model.label_names();
  config["config"] = nullptr;
  config["name"] = nullptr;
  config["num_labels"] = labels.size();
  config["label2id"] = io::Json::object();
  for (size_t i = 0; i < labels.size(); ++i) config["label2id"][labels[i]] = i;
  io::save_tensors(folder / kHeadFile, tensors);
  io::write_json(folder / kHeadConfigFile, config);
}

std::vector<int64_t> read_leave_out(const io::Json& json, const io::ObjectReader& reader) {
  std::vector<int64_t> layers;
  if (!json.is_array()) reader.fail("leave_out", "a list of layers");
  for (const io::Json& layer : json) {
    if (!layer.is_number_integer()) reader.fail("leave_out", "a list of layers");
    layers.push_back(layer.get<int64_t>());
  }
  return layers;
}

BottleneckConfig read_hub_config(const io::Json& json, io::ObjectReader& config) {
  BottleneckConfig read;
  const bool attention = config.boolean_or("mh_adapter", false);
  if (!config.boolean_or("output_adapter", false)) config.fail("output_adapter", "true");
  read.type = attention ? "houlsby" : "pfeiffer";
  read.reduction_factor = config.number("reduction_factor");
  if (read.reduction_factor < 1) config.fail("reduction_factor", "at least 1");
  read.non_linearity = config.string("non_linearity");
  if (!nn::parse_activation(*read.non_linearity)) config.fail("non_linearity", nn::kActivationNames);
  read.scaling = config.number_or("scaling", 1);
  if (config.has("leave_out")) read.leave_out = read_leave_out(json.at("leave_out"), config);
  for (const auto& [key, value] : fixed_settings().items())
    config.only(key, value, "adapters that need the model's own LayerNorm or another path are not known here");
  // What training began with, and details of settings that are off.
  config.ignore({"leave_out", "init_weights", "init_weights_seed", "dropout", "inv_adapter_reduction_factor", "phm_dim",
                 "factorized_phm_W", "shared_W_phm", "shared_phm_rule", "factorized_phm_rule", "phm_c_init",
                 "phm_init_range", "learn_phm", "hypercomplex_nonlinearity", "phm_rank", "phm_bias", "architecture"});
  for (const std::string& key : config.unread()) config.fail(key, "nothing: this setting is not known here");
  return read;
}

std::map<std::string, at::Tensor> tensors_of(const std::filesystem::path& file) {
  if (!std::filesystem::exists(file))
    throw Error(Exit::file, {.what = "no such file",
                             .where = file.string(),
                             .hint = "save the adapter with use_safetensors=True: a pickle may run any code"});
  std::map<std::string, at::Tensor> tensors;
  for (auto& [name, tensor] : io::load_tensors(file)) tensors.emplace(name, std::move(tensor));
  return tensors;
}

}  // namespace

void save_bottleneck(nn::Model& model, const BottleneckConfig& config, const std::filesystem::path& folder) {
  io::NamedTensors tensors;
  int64_t hidden_size = 0;
  for_each_adapter(model, [&](const BottleneckSite& site, const Bottleneck& adapter) {
    hidden_size = site.layer->out_features();
    for (const auto& parameter : adapter.named_parameters())
      tensors.emplace_back(tensor_name(site, kName, parameter.key()), parameter.value().detach());
  });
  LLMTK_CHECK(!tensors.empty(), "the model has no bottleneck adapters");
  std::filesystem::create_directories(folder);
  const io::Json identity = hub_identity(model, hidden_size);
  save_head(model, identity, folder);
  io::Json json = identity;
  json["name"] = kName;
  json["config"] = hub_config(config, hidden_size);
  io::save_tensors(folder / kAdapterFile, tensors);
  io::write_json(folder / kConfigFile, json);
}

bool is_adapterhub_folder(const std::filesystem::path& folder) {
  if (!std::filesystem::exists(folder / kConfigFile)) return false;
  const io::Json config = io::read_json(folder / kConfigFile);
  return config.is_object() && config.contains("config") && !config.contains("peft_type");
}

std::vector<std::string> adapterhub_files(const std::filesystem::path& folder) {
  std::vector<std::string> files = {kConfigFile, kAdapterFile};
  for (const char* name : {kHeadConfigFile, kHeadFile})
    if (std::filesystem::exists(folder / name)) files.emplace_back(name);
  return files;
}

AdapterTask read_adapterhub_task(const std::filesystem::path& folder) {
  AdapterTask task;
  const std::string model_class = io::read_json(folder / kConfigFile).value("model_class", "");
  if (model_class.ends_with("ForSequenceClassification")) task.task_type = "SEQ_CLS";
  if (model_class.ends_with("ForTokenClassification")) task.task_type = "TOKEN_CLS";
  if (task.task_type.empty() || !std::filesystem::exists(folder / kHeadConfigFile)) return task;
  const io::Json head = io::read_json(folder / kHeadConfigFile);
  io::ObjectReader reader(head, (folder / kHeadConfigFile).string());
  task.num_labels = reader.integer("num_labels");
  task.id2label = io::Json::object();
  if (!head.contains("label2id") || !head["label2id"].is_object())
    reader.fail("label2id", "an object: labels to numbers");
  for (const auto& [label, id] : head["label2id"].items()) {
    if (!id.is_number_integer()) reader.fail("label2id", "an object: labels to numbers");
    task.id2label[std::to_string(id.get<int64_t>())] = label;
  }
  return task;
}

void load_bottleneck(nn::Model& model, const std::filesystem::path& folder) {
  const io::Json json = io::read_json(folder / kConfigFile);
  io::ObjectReader outer(json, (folder / kConfigFile).string());
  auto inner = outer.object("config");
  if (!inner) outer.fail("config", "an object: the settings of the adapter");
  const BottleneckConfig config = read_hub_config(json.at("config"), *inner);
  const std::string name = outer.string("name"), where = (folder / kAdapterFile).string();
  apply(model, config, 0);
  auto left = tensors_of(folder / kAdapterFile);
  for_each_adapter(model, [&](const BottleneckSite& site, const Bottleneck& adapter) {
    for (const auto& parameter : adapter.named_parameters()) {
      const std::string key = tensor_name(site, name, parameter.key());
      assign(parameter.value(), take_tensor(left, key, where), key, where);
    }
  });
  refuse_left(left, where);
  if (!head_tensors(model, "").empty() && std::filesystem::exists(folder / kHeadFile)) {
    auto head = tensors_of(folder / kHeadFile);
    take_head(model, "", head, (folder / kHeadFile).string());
    refuse_left(head, (folder / kHeadFile).string());
  }
  freeze(model);
}

}  // namespace llmtk::peft
