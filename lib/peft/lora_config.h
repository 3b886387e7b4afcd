#pragma once
// What a user may say about LoRA, in the section `lora`, and what an adapter_config.json says. Names and defaults are
// those of peft's LoraConfig.

#include <cstdint>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "config/config.h"
#include "io/json.h"

namespace llmtk::peft {

/// Modules by name: a list of names ("q_proj", or a whole path), each matching a module's path or its end, or one
/// regular expression that matches a whole path.
struct ModuleNames {
  bool given = false;
  std::optional<std::string> pattern;
  std::vector<std::string> names;

  /// null, a text, or a list of texts; nullopt for anything else.
  static std::optional<ModuleNames> from_json(const io::Json& json);
};

struct LoraConfig {
  int64_t r = 8;
  double lora_alpha = 8;
  double lora_dropout = 0;
  io::Json target_modules;   ///< null: peft's choice for the model_type; "all-linear"; as ModuleNames
  io::Json exclude_modules;  ///< as ModuleNames
  std::string bias = "none";
  std::vector<std::string> modules_to_save;
  std::map<std::string, int64_t> rank_pattern;
  std::map<std::string, double> alpha_pattern;
  std::vector<int64_t> layers_to_transform;
  std::vector<std::string> layers_pattern;
  bool use_rslora = false;
  bool use_dora = false;
  std::string init_lora_weights = "true";
  std::optional<double> loraplus_lr_ratio;
  std::optional<double> loraplus_lr_embedding;

  template <class V>
  void fields(V& v) {
    v("r", r, "Rank of the two matrices", config::at_least(1), config::at_most(65536));
    v("lora_alpha", lora_alpha, "The branch counts lora_alpha / r (with use_rslora: lora_alpha / sqrt(r))",
      config::above(0));
    v("lora_dropout", lora_dropout, "Share of a layer's input that the branch does not see in training",
      config::at_least(0), config::below(1));
    v("target_modules", target_modules,
      "Layers that get a branch: a list of names or ends of paths, one regular expression for whole paths, or "
      "all-linear (every matrix but the head); default: peft's choice for the family");
    v("exclude_modules", exclude_modules, "Layers that get none though they match: a list, or a regular expression");
    v("bias", bias, "Biases that are trained: none, all, or those of the layers with a branch (lora_only)",
      config::one_of({"none", "all", "lora_only"}));
    v("modules_to_save", modules_to_save,
      "Modules that are trained whole and saved with the adapter; a classifier always is");
    v("rank_pattern", rank_pattern, "Other ranks, by name or pattern: {q_proj: 16}", config::at_least(1));
    v("alpha_pattern", alpha_pattern, "Other lora_alpha, by name or pattern", config::above(0));
    v("layers_to_transform", layers_to_transform, "Only these layers, counted from 0; default: all",
      config::at_least(0));
    v("layers_pattern", layers_pattern, "What the list of layers is called, where layers_to_transform cannot find it");
    v("use_rslora", use_rslora, "Scale by lora_alpha / sqrt(r) (Kalajdzievski 2023)");
    v("use_dora", use_dora, "Train each row's length apart from its direction (DoRA, Liu et al. 2024)");
    v("init_lora_weights", init_lora_weights,
      "true (A uniform, B 0), gaussian (A normal, B 0), false (both random: not the base model at the start), pissa "
      "(the base's largest singular values, Meng et al. 2024), pissa_niter_N (the same by N steps of a randomized SVD)",
      config::or_bool);
    v("loraplus_lr_ratio", loraplus_lr_ratio, "LoRA+ (Hayou et al. 2024): B learns this many times faster than A",
      config::above(0));
    v("loraplus_lr_embedding", loraplus_lr_embedding,
      "LoRA+: learning rate of branches on embeddings; default: peft's 1e-6", config::above(0));
  }
  void validate(config::Problems& problems) const;

  /// "pissa" or "pissa_niter_N".
  bool is_pissa() const { return init_lora_weights.starts_with("pissa"); }
  /// N of pissa_niter_N.
  std::optional<int64_t> pissa_iterations() const;
  int64_t rank_of(const std::string& path) const;
  double alpha_of(const std::string& path) const;
  /// What the branch of a layer is multiplied with.
  double scaling_of(const std::string& path) const;
};

/// What stands in an adapter_config.json beside a LoraConfig.
struct AdapterIdentity {
  std::string base_model_name_or_path;  ///< empty: null
  std::string task_type;                ///< "CAUSAL_LM", ...; empty: null
  bool fan_in_fan_out = false;
};

/// adapter_config.json with every key that peft writes. LoRA+'s settings are none of them.
io::Json to_adapter_config(const LoraConfig& config, const AdapterIdentity& identity);
/// Reads one. Throws Error(file) naming `where` and the key, for a wrong value and for settings of peft that would
/// change what is computed and are not known here.
LoraConfig lora_config_from(const io::Json& adapter_config, const std::string& where);

}  // namespace llmtk::peft
