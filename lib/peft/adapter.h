#pragma once
// An adapter on a model: made, loaded, switched, saved. Several may lie on one model at once; their deltas add up.

#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "nn/model.h"
#include "peft/lora.h"
#include "peft/lora_config.h"

namespace llmtk::peft {

namespace fs = std::filesystem;

/// One layer with a branch.
struct LoraTarget {
  std::string path;  ///< as Hugging Face names it
  std::shared_ptr<torch::nn::Module> layer;
  std::shared_ptr<Lora> lora;

  bool is_embedding() const { return dynamic_cast<const nn::Embedding*>(layer.get()) != nullptr; }
};

class Adapter {
 public:
  const std::string& name() const { return name_; }
  const LoraConfig& config() const { return config_; }
  nn::Model& model() const { return *model_; }
  const std::vector<LoraTarget>& targets() const { return targets_; }
  /// Parameters of the model itself that belong to the adapter: of modules_to_save, and biases.
  const std::vector<std::string>& own_parameters() const { return own_parameters_; }

  /// How much the deltas count; 0: not at all. Throws Error(usage) for another weight than 1 where the adapter has
  /// parameters of the model itself: these cannot be weighted.
  void set_weight(double weight);
  /// The learning rate of each trained parameter that LoRA+ gives another one than `learning_rate`, by its name in the
  /// model (peft's create_loraplus_optimizer). Empty without loraplus_lr_ratio.
  std::map<std::string, double> loraplus_learning_rates(double learning_rate) const;
  /// Whether the adapter's own parameters belong to a module of modules_to_save (else it is a bias).
  bool is_saved_module(const std::string& parameter) const;

 private:
  friend Adapter apply(nn::Model&, const LoraConfig&, uint64_t, const std::string&);
  std::string name_;
  LoraConfig config_;
  nn::Model* model_ = nullptr;
  std::vector<LoraTarget> targets_;
  std::vector<std::string> own_parameters_, saved_modules_;
};

/// Freezes the model, gives the layers that the config means a branch called `name` and lets the branches,
/// modules_to_save (of a classifier always its head) and biases learn. The start depends on the seed and on names
/// alone. With init_lora_weights pissa the base's matrices become what the branches leave of them (in new memory: files
/// are never written to). The model outlives the adapter. Throws Error(usage) naming what there is where nothing
/// matches, or something that cannot have a branch.
Adapter apply(nn::Model& model, const LoraConfig& config, uint64_t seed, const std::string& name = "default");

/// Writes adapter_config.json and adapter_model.safetensors as peft's save_pretrained does, for the unchanged base: a
/// PiSSA adapter is converted to a LoRA of twice the rank, as with path_initial_model_for_weight_conversion.
void save_adapter(const Adapter& adapter, const fs::path& folder, const std::string& base_model_name_or_path);

/// Fills an adapter from such a folder, strictly: of the same config, as after a save (resuming).
void load_adapter_weights(Adapter& adapter, const fs::path& folder);

/// Puts the adapter of a folder on the model, which it does not train. Several may be loaded under different names.
Adapter load_adapter(nn::Model& model, const fs::path& folder, const std::string& name = "default", double weight = 1);

/// A folder, and how much its adapter counts.
struct AdapterSource {
  fs::path folder;
  double weight = 1;
};
/// Puts several adapters on the model, named adapter_1, adapter_2, ... Throws Error(usage) for two that hold the same
/// parameters of the model itself, and for one of PiSSA whose start is still to be taken out of the base beside others.
std::vector<Adapter> load_adapters(nn::Model& model, const std::vector<AdapterSource>& sources);

/// Multiplies all branches into the matrices (new memory) and removes them. A head that is tied to a table only one of
/// which has a branch gets a matrix of its own first, so that the merged model computes what the adapter did. Returns
/// the names under which such matrices are now stored. Throws Error(usage) for a quantized layer, and for another
/// method's branch.
std::vector<std::string> merge_adapters(nn::Model& model);

}  // namespace llmtk::peft
