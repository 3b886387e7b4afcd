#include "peft/ia3.h"

#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <map>

#include "core/error.h"
#include "nn/init.h"
#include "peft/head.h"
#include "peft/modules.h"
#include "peft/targets.h"

namespace llmtk::peft {

Ia3::Ia3(const nn::Linear& layer, bool feedforward, c10::Device device) : feedforward_(feedforward) {
  const std::vector<int64_t> shape =
      feedforward ? std::vector<int64_t>{1, layer.in_features()} : std::vector<int64_t>{layer.out_features(), 1};
  ia3_l = register_parameter("ia3_l", nn::Build{at::kFloat, device}.empty(shape));
}

at::Tensor Ia3::forward(const nn::Linear& layer, const at::Tensor& x) {
  const auto scaled = [this](const at::Tensor& y) { return (y * ia3_l.flatten()).to(y.scalar_type()); };
  return feedforward_ ? layer.base(scaled(x)) : scaled(layer.base(x));
}

at::Tensor Ia3::weight_delta(const nn::Linear& layer) const {
  const at::Tensor base = layer.base_weight();  // [out, in]
  return (base * (ia3_l - 1)).to(base.scalar_type());
}

at::Tensor Ia3::merged_bias(const nn::Linear& layer) const {
  if (!layer.bias.defined() || feedforward_) return layer.bias;
  return (layer.bias * ia3_l.flatten()).to(layer.bias.scalar_type());
}

void Ia3Config::validate(config::Problems& problems) const {
  constexpr const char* kModules = "a list of names, or one regular expression";
  const auto targets = ModuleNames::from_json(target_modules), inner = ModuleNames::from_json(feedforward_modules);
  if (!targets || (targets->given && !targets->pattern && targets->names.empty()))
    problems.add("target_modules", {.what = "no modules", .got = target_modules.dump(), .expected = kModules});
  if (!inner) problems.add("feedforward_modules", {.what = "no modules", .expected = kModules});
  if (!targets || !inner || targets->pattern || inner->pattern || !targets->given) return;
  for (const std::string& name : inner->names)
    if (std::ranges::find(targets->names, name) == targets->names.end())
      problems.add("feedforward_modules", {.what = "holds what target_modules does not", .got = "'" + name + "'"});
}

namespace {

constexpr const char* kIa3 = "IA3";

struct Ia3Targets {
  std::vector<std::string> targets, feedforward;
};

/// peft's TRANSFORMERS_MODELS_TO_IA3_TARGET_MODULES_MAPPING and its feed-forward twin.
Ia3Targets default_ia3_targets(const nn::Model& model) {
  static const Ia3Targets kLlama{{"k_proj", "v_proj", "down_proj"}, {"down_proj"}};
  static const Ia3Targets kGemma{{"q_proj", "v_proj", "down_proj"}, {"down_proj"}};
  static const Ia3Targets kBert{{"key", "value", "output.dense"}, {"output.dense"}};
  static const std::map<std::string, Ia3Targets> kTargets = {
      {"bert", kBert},
      {"gemma2", kGemma},
      {"gemma3_text", kGemma},
      {"gpt2", {{"c_attn", "mlp.c_proj"}, {"mlp.c_proj"}}},
      {"gpt_neox", {{"query_key_value", "dense_4h_to_h"}, {"dense_4h_to_h"}}},
      {"llama", kLlama},
      {"mistral", kLlama},
      {"opt", {{"q_proj", "k_proj", "fc2"}, {"fc2"}}},
      {"qwen2", kGemma},
      {"qwen3", kGemma},
      {"roberta", kBert},
      {"t5", {{"k", "v", "wo"}, {"wo"}}},
  };
  const std::string model_type = model.config().at("model_type").get<std::string>();
  const auto found = kTargets.find(model_type);
  if (found != kTargets.end()) return found->second;
  throw Error(Exit::usage, {.what = "no layers are known for (IA)^3 in this family",
                            .where = "ia3.target_modules",
                            .got = model_type,
                            .hint = "name them: target_modules and feedforward_modules"});
}

ModuleNames names_or(const io::Json& given, const std::vector<std::string>& otherwise) {
  ModuleNames names = ModuleNames::from_json(given).value();
  if (!names.given) names.names = otherwise;
  return names;
}

/// peft looks for names of feed-forwards at the end of a path, wherever in a word that begins.
bool is_feedforward(const ModuleNames& names, const std::string& path) {
  if (names.pattern) return Pattern(*names.pattern).matches(path);
  return std::ranges::any_of(names.names, [&](const std::string& name) { return path.ends_with(name); });
}

bool is_ia3_target(const ModuleNames& names, const std::string& path) {
  if (names.pattern) return Pattern(*names.pattern).matches(path);
  return std::ranges::any_of(names.names,
                             [&](const std::string& name) { return path == name || path.ends_with("." + name); });
}

/// Modules that are saved whole are no targets, as in peft.
bool is_in_head(const std::vector<std::string>& heads, const std::string& path) {
  return std::ranges::any_of(heads,
                             [&](const std::string& head) { return path == head || path.starts_with(head + "."); });
}

void add_vector(nn::Linear& layer, const std::string& path, bool feedforward, bool ones, c10::Device device,
                uint64_t seed) {
  const auto vector = std::make_shared<Ia3>(layer, feedforward, device);
  if (ones)
    nn::init_constant(vector->ia3_l, 1);
  else
    nn::init_normal(vector->ia3_l, 1, seed, path + ".ia3_l");
  layer.set_branch("ia3", vector);
}

std::vector<std::pair<std::string, Ia3*>> vectors_of(const nn::Model& model) {
  std::vector<std::pair<std::string, Ia3*>> found;
  for (const auto& [path, module] : base_modules(model))
    if (const auto* layer = dynamic_cast<nn::Linear*>(module.get()))
      if (auto* vector = dynamic_cast<Ia3*>(layer->branch().get())) found.emplace_back(path, vector);
  return found;
}

std::string ia3_key(const std::string& path) { return kKeyPrefix + path + ".ia3_l"; }

}  // namespace

void apply(nn::Model& model, const Ia3Config& config, uint64_t seed) {
  const bool both = !config.target_modules.is_null() && !config.feedforward_modules.is_null();
  const Ia3Targets known = both ? Ia3Targets() : default_ia3_targets(model);
  const ModuleNames targets = names_or(config.target_modules, known.targets);
  const ModuleNames inner = names_or(config.feedforward_modules, known.feedforward);
  const auto heads = saved_module_names(model, {});
  train_head_alone(model);
  size_t found = 0;
  for (const auto& [path, module] : base_modules(model)) {
    auto* layer = dynamic_cast<nn::Linear*>(module.get());
    if (!layer || !is_ia3_target(targets, path) || is_in_head(heads, path)) continue;
    add_vector(*layer, path, is_feedforward(inner, path), config.init_ia3_weights, model.device(), seed);
    ++found;
  }
  if (found == 0)
    throw Error(Exit::usage, {.what = "no layer is a target",
                              .where = "ia3.target_modules",
                              .got = config.target_modules.dump(),
                              .hint = "llmtk inspect names the model's parameters"});
}

void save_ia3(nn::Model& model, const std::filesystem::path& folder, const std::string& base) {
  const auto vectors = vectors_of(model);
  LLMTK_CHECK(!vectors.empty(), "the model has no vectors of (IA)^3");
  std::vector<std::string> targets, inner;
  io::NamedTensors tensors = head_tensors(model, kKeyPrefix);
  bool conv1d = false;
  for (const auto& [path, module] : base_modules(model))
    if (const auto* layer = dynamic_cast<nn::Linear*>(module.get())) conv1d |= layer->is_conv1d();
  for (const auto& [path, vector] : vectors) {
    targets.push_back(path);
    if (vector->is_feedforward()) inner.push_back(path);
    tensors.emplace_back(ia3_key(path), vector->ia3_l.detach());
  }
  io::Json config = common_config(model, kIa3, base);
  config["target_modules"] = targets;
  config["feedforward_modules"] = inner;
  config["exclude_modules"] = nullptr;
  config["fan_in_fan_out"] = conv1d;
  config["init_ia3_weights"] = true;
  write_adapter_folder(folder, config, std::move(tensors));
}

void load_ia3(nn::Model& model, const std::filesystem::path& folder) {
  AdapterFolder files = read_adapter_folder(folder);
  const std::string where = (folder / kConfigFile).string(), tensors = (folder / kTensorsFile).string();
  io::ObjectReader config(files.config, where);
  read_common_config(model, config, kIa3);
  config.only("exclude_modules", nullptr);
  config.ignore({"target_modules", "feedforward_modules", "fan_in_fan_out", "init_ia3_weights"});
  for (const std::string& key : config.unread()) config.fail(key, "nothing: this setting is not known here");
  const auto given = [&](const char* key) { return files.config.contains(key) ? files.config[key] : io::Json(); };
  Ia3Config read{.target_modules = given("target_modules"), .feedforward_modules = given("feedforward_modules")};
  for (const auto& [key, value] : {std::pair<const char*, const io::Json&>{"target_modules", read.target_modules},
                                   {"feedforward_modules", read.feedforward_modules}})
    if (!ModuleNames::from_json(value)) config.fail(key, "a list of names, or one regular expression");
  apply(model, read, 0);
  for (const auto& [path, vector] : vectors_of(model))
    assign(vector->ia3_l, take_tensor(files.tensors, ia3_key(path), tensors), ia3_key(path), tensors);
  take_head(model, kKeyPrefix, files.tensors, tensors);
  refuse_left(files.tensors, tensors);
  freeze(model);
}

void merge_ia3(nn::Model& model) {
  const at::NoGradGuard no_grad;
  for (const auto& [path, module] : base_modules(model)) {
    auto* layer = dynamic_cast<nn::Linear*>(module.get());
    const auto* vector = layer ? dynamic_cast<Ia3*>(layer->branch().get()) : nullptr;
    if (!vector) continue;
    if (layer->storage())
      throw Error(Exit::usage, {.what = "a quantized layer cannot take in its (IA)^3 vector", .where = path});
    const at::Tensor weight = layer->effective_weight();  // [out, in]
    const at::Tensor bias = vector->merged_bias(*layer);
    assign(layer->weight, layer->is_conv1d() ? weight.t() : weight, path + ".weight", path);
    if (bias.defined()) assign(layer->bias, bias, path + ".bias", path);
    layer->set_branch("ia3", nullptr);
  }
}

}  // namespace llmtk::peft
