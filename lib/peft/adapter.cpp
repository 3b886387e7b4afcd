#include "peft/adapter.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "core/error.h"
#include "nn/causal_model.h"
#include "peft/lora_init.h"
#include "peft/modules.h"
#include "peft/targets.h"

namespace llmtk::peft {
namespace {

constexpr const char* kBranch = "lora";

/// Every matrix but the one that gives scores to the vocabulary.
std::vector<std::string> all_linear(const nn::Model& model) {
  const nn::Linear* head = output_embedding(model);
  std::vector<std::string> names;
  for (const auto& [path, module] : base_modules(model))
    if (const auto* linear = dynamic_cast<const nn::Linear*>(module.get()); linear && linear != head)
      names.push_back(path);
  return names;
}

bool is_all_linear(const ModuleNames& targets) {
  if (!targets.pattern) return false;
  std::string lower = *targets.pattern;
  std::ranges::transform(lower, lower.begin(), [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  return lower == "all-linear";
}

/// target_modules without what stands for others.
ModuleNames resolve(const LoraConfig& config, const nn::Model& model) {
  ModuleNames targets = *ModuleNames::from_json(config.target_modules);
  if (is_all_linear(targets)) return {.given = true, .pattern = {}, .names = all_linear(model)};
  if (targets.given) return targets;
  const std::string type = model.config().value("model_type", "");
  const auto names = default_targets(type);
  if (names.empty())
    throw Error(Exit::usage, {.what = "peft has no default target_modules for this family",
                              .where = "lora.target_modules",
                              .got = type,
                              .expected = "names of layers, or all-linear"});
  return {.given = true, .pattern = {}, .names = names};
}

/// The last parts of the paths of everything that can have a branch: q_proj, k_proj, ...
std::string candidates(const nn::Model& model) {
  std::vector<std::string> ends;
  for (const auto& [path, module] : base_modules(model)) {
    if (!dynamic_cast<const nn::Linear*>(module.get()) && !dynamic_cast<const nn::Embedding*>(module.get())) continue;
    const std::string end = path.substr(path.rfind('.') + 1);
    if (std::ranges::find(ends, end) == ends.end()) ends.push_back(end);
  }
  std::string text;
  for (const std::string& end : ends) text += (text.empty() ? "" : ", ") + end;
  return text;
}

[[noreturn]] void refuse_targets(const nn::Model& model, const LoraConfig& config, const std::string& what,
                                 const std::string& got) {
  throw Error(Exit::usage, {.what = what,
                            .where = "lora.target_modules",
                            .got = got.empty() ? config.target_modules.dump() : got,
                            .expected = candidates(model)});
}

/// The branch of a layer, made where there is none; one of another kind is refused.
template <class Branch, class Layer>
Branch& branch_of(Layer& layer, const std::string& path) {
  if (!layer.branch()) layer.set_branch(kBranch, std::make_shared<Branch>());
  if (auto* branch = dynamic_cast<Branch*>(layer.branch().get())) return *branch;
  throw Error(Exit::usage, {.what = "the layer has a branch of another method already", .where = path});
}

std::shared_ptr<Lora> add_lora(nn::Model& model, const NamedModule& at, const LoraConfig& config,
                               const std::string& name) {
  Lora::Options options{.in = 0,
                        .out = 0,
                        .rank = config.rank_of(at.path),
                        .scaling = config.scaling_of(at.path),
                        .dropout = config.lora_dropout,
                        .dora = config.use_dora,
                        .device = model.device()};
  const auto make = [&](auto& branch) {
    if (branch.find(name))
      throw Error(Exit::usage, {.what = "an adapter of this name is on the model already", .got = "'" + name + "'"});
    auto lora = std::make_shared<Lora>(options);
    branch.add(name, lora);
    lora->train(at.module->is_training());
    return lora;
  };
  if (auto* layer = dynamic_cast<nn::Linear*>(at.module.get())) {
    options.in = layer->in_features();
    options.out = layer->out_features();
    if (options.dropout > 0 && layer == output_embedding(model))
      throw Error(Exit::usage, {.what = "the head cannot have a branch with dropout: the loss is fused with its matrix",
                                .where = at.path,
                                .hint = "set lora_dropout to 0, or leave the head out of target_modules"});
    return make(branch_of<LoraLinear>(*layer, at.path));
  }
  auto& table = dynamic_cast<nn::Embedding&>(*at.module);
  refuse_shared_table(model, at.path);
  refuse_quantized_table(table, at.path);
  options.in = table.rows();
  options.out = table.width();
  return make(branch_of<LoraEmbedding>(table, at.path));
}

std::vector<NamedModule> matching(const nn::Model& model, const LoraConfig& config, const ModuleNames& targets) {
  const TargetFilter is_target(config, targets, config.modules_to_save);
  std::vector<NamedModule> found;
  std::string other;
  for (const NamedModule& one : base_modules(model)) {
    if (!is_target(one.path)) continue;
    const bool fits = dynamic_cast<nn::Linear*>(one.module.get()) || dynamic_cast<nn::Embedding*>(one.module.get());
    if (!fits) refuse_targets(model, config, "a branch needs a matrix or a token table", "'" + one.path + "'");
    found.push_back(one);
  }
  if (found.empty()) refuse_targets(model, config, "target_modules means no layer of the model", "");
  return found;
}

/// Names of the biases that config.bias lets learn.
std::vector<std::string> biases(const nn::Model& model, const LoraConfig& config,
                                const std::vector<LoraTarget>& targets) {
  std::vector<std::string> names;
  if (config.bias == "lora_only")
    for (const LoraTarget& target : targets)
      if (const auto* layer = dynamic_cast<const nn::Linear*>(target.layer.get()); layer && layer->bias.defined())
        names.push_back(target.path + ".bias");
  if (config.bias == "all")
    for (const auto& parameter : model.named_parameters())
      if (parameter.key().ends_with(".bias")) names.push_back(parameter.key());
  return names;
}

}  // namespace

Adapter apply(nn::Model& model, const LoraConfig& given, uint64_t seed, const std::string& name) {
  Adapter adapter;
  adapter.name_ = name;
  adapter.model_ = &model;
  LoraConfig& config = adapter.config_ = given;
  config.modules_to_save = saved_module_names(model, given.modules_to_save);
  const ModuleNames targets = resolve(config, model);
  config.target_modules = targets.pattern ? io::Json(*targets.pattern) : io::Json(targets.names);

  const auto layers = matching(model, config, targets);
  freeze(model);
  for (const NamedModule& layer : layers) {
    adapter.targets_.push_back({layer.path, layer.module, add_lora(model, layer, config, name)});
    initialize(adapter.targets_.back(), config, seed);
  }
  adapter.saved_modules_ = take_modules(model, config.modules_to_save, given.modules_to_save);
  adapter.own_parameters_ = adapter.saved_modules_;
  for (std::string& bias : biases(model, config, adapter.targets_))
    if (!adapter.is_saved_module(bias)) adapter.own_parameters_.push_back(std::move(bias));
  auto parameters = model.named_parameters();
  for (const std::string& own : adapter.own_parameters_) parameters[own].requires_grad_(true);
  return adapter;
}

void Adapter::set_weight(double weight) {
  if (weight != 1 && !own_parameters_.empty())
    throw Error(Exit::usage, {.what = "the adapter has parameters of the model itself, which cannot be weighted",
                              .where = name_,
                              .got = own_parameters_.front(),
                              .expected = "weight 1"});
  for (const LoraTarget& target : targets_) target.lora->weight = weight;
}

bool Adapter::is_saved_module(const std::string& parameter) const {
  return std::ranges::find(saved_modules_, parameter) != saved_modules_.end();
}

std::map<std::string, double> Adapter::loraplus_learning_rates(double learning_rate) const {
  std::map<std::string, double> rates;
  if (!config_.loraplus_lr_ratio) return rates;
  const double faster = learning_rate * *config_.loraplus_lr_ratio;
  for (const LoraTarget& target : targets_) {
    const std::string at = target.path + "." + kBranch + "." + name_ + ".";
    if (target.is_embedding()) {
      for (const auto& parameter : target.lora->named_parameters())
        rates[at + parameter.key()] = config_.loraplus_lr_embedding.value_or(1e-6);
    } else {
      rates[at + "B"] = faster;
      if (target.lora->is_dora()) rates[at + "magnitude"] = faster;
    }
  }
  auto parameters = model_->named_parameters();
  for (const std::string& own : own_parameters_)
    if (parameters[own].dim() == 1) rates[own] = faster;
  return rates;
}

}  // namespace llmtk::peft
