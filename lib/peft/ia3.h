#pragma once
// (IA)^3 (Liu et al. 2022, "Few-Shot Parameter-Efficient Fine-Tuning is Better and Cheaper than In-Context Learning"):
// keys, values and what a feed-forward's last matrix reads are multiplied, number by number, with learned vectors. As
// peft's IA3Layer and IA3Config.

#include <cstdint>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "config/config.h"
#include "nn/linear.h"
#include "nn/model.h"
#include "peft/lora_config.h"

namespace llmtk::peft {

/// The section `ia3`.
struct Ia3Config {
  io::Json target_modules;       ///< null: peft's choice for the model_type; as ModuleNames
  io::Json feedforward_modules;  ///< the same
  bool init_ia3_weights = true;

  template <class V>
  void fields(V& v) {
    v("target_modules", target_modules,
      "Layers that get a vector: a list of names or ends of paths, or one regular expression for whole paths; default: "
      "peft's "
      "choice for the family");
    v("feedforward_modules", feedforward_modules,
      "Those of them whose input is multiplied instead of their output: a list of ends, or a regular expression; "
      "default: "
      "peft's choice for the family");
    v("init_ia3_weights", init_ia3_weights, "Begin with ones, so that nothing changes; false: random, for tests");
  }
  void validate(config::Problems& problems) const;
};

/// The learned vector of one layer, float32: ia3_l, [out, 1], of a feed-forward [1, in].
class Ia3 final : public nn::LinearBranch {
 public:
  Ia3(const nn::Linear& layer, bool feedforward, c10::Device device);

  at::Tensor forward(const nn::Linear& layer, const at::Tensor& x) override;
  at::Tensor weight_delta(const nn::Linear& layer) const override;
  /// What it makes of the layer's bias. Undefined where there is none.
  at::Tensor merged_bias(const nn::Linear& layer) const;
  bool is_feedforward() const { return feedforward_; }

  at::Tensor ia3_l;

 private:
  bool feedforward_;
};

/// Freezes the model, gives the targets their vectors, and unfreezes the head that classifies, where it has one. Throws
/// Error(usage) where no layer is a target, a feed-forward is none, or peft has no choice for the family.
void apply(nn::Model& model, const Ia3Config& config, uint64_t seed);

/// Writes the vectors as peft's save_pretrained does: an IA3 folder, with the head of a classifier.
void save_ia3(nn::Model& model, const std::filesystem::path& folder, const std::string& base_model_name_or_path);
/// Gives the model the vectors of such a folder, frozen. Throws Error(file) where the folder is for another model or
/// another method.
void load_ia3(nn::Model& model, const std::filesystem::path& folder);
/// Multiplies the vectors into matrices and biases (new memory) and removes them. Throws Error(usage) for a quantized
/// layer.
void merge_ia3(nn::Model& model);

}  // namespace llmtk::peft
