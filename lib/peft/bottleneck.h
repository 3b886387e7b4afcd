#pragma once
// Bottleneck adapters (Houlsby et al. 2019; Pfeiffer et al. 2021): a small network with a residual connection behind
// the matrices that write into the residual stream. As AdapterHub's BnConfig with original_ln_before: false.

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "config/config.h"
#include "nn/activation.h"
#include "nn/linear.h"
#include "nn/model.h"
#include "peft/adapter_folder.h"

namespace llmtk::peft {

/// The section `adapter`. Names and defaults are those of AdapterHub's DoubleSeqBnConfig (houlsby) and SeqBnConfig
/// (pfeiffer).
struct BottleneckConfig {
  std::string type = "houlsby";
  double reduction_factor = 16;
  std::optional<int64_t> bottleneck_size;
  std::optional<std::string> non_linearity;
  double scaling = 1;
  std::vector<int64_t> leave_out;

  template <class V>
  void fields(V& v) {
    v("type", type,
      "houlsby: behind attention and behind the feed-forward of each layer; pfeiffer: behind the latter alone",
      config::one_of({"houlsby", "pfeiffer"}));
    v("reduction_factor", reduction_factor, "The model's width over the adapter's", config::at_least(1));
    v("bottleneck_size", bottleneck_size, "The adapter's width itself, instead of reduction_factor",
      config::at_least(1));
    v("non_linearity", non_linearity,
      "Between its two matrices: gelu, gelu_new, silu, swish or relu; default: swish (houlsby), relu (pfeiffer)",
      config::one_of({"gelu", "gelu_new", "gelu_pytorch_tanh", "gelu_fast", "silu", "swish", "relu"}));
    v("scaling", scaling, "What the adapter's output is multiplied with", config::above(0));
    v("leave_out", leave_out, "Layers without adapters, counted from 0", config::at_least(0));
  }
  /// Both widths at once: refused.
  void validate(config::Problems& problems) const;

  const char* activation() const;
  int64_t width(int64_t hidden_size) const;  ///< at least 1
};

/// y = base(x); y + scaling * up(f(down(y))). Parameters in float32, named as AdapterHub has them: adapter_down.0 and
/// adapter_up, each with weight and bias.
class Bottleneck final : public nn::LinearBranch {
 public:
  Bottleneck(int64_t hidden_size, const BottleneckConfig& config, c10::Device device);

  at::Tensor forward(const nn::Linear& layer, const at::Tensor& x) override;
  /// Throws Error(usage): an adapter is no change of a matrix.
  at::Tensor weight_delta(const nn::Linear& layer) const override;
  /// As AdapterHub's init_weights: bert.
  void initialize(uint64_t seed, const std::string& path);

 private:
  nn::Activation activation_;
  double scaling_;
  std::shared_ptr<nn::Linear> down_, up_;
};

/// Freezes the model, gives its layers adapters, and unfreezes the head that classifies, where it has one. Of an
/// encoder-decoder the layers of both parts get them, behind the attention to themselves. Throws Error(usage) where a
/// layer has another branch already, or leave_out names one that is not there.
void apply(nn::Model& model, const BottleneckConfig& config, uint64_t seed);

/// Writes AdapterHub's folder: adapter_config.json and adapter.safetensors, of a classifier head_config.json and
/// model_head.safetensors. config: what the model was given.
void save_bottleneck(nn::Model& model, const BottleneckConfig& config, const std::filesystem::path& folder);
/// Whether the folder is one of AdapterHub's.
bool is_adapterhub_folder(const std::filesystem::path& folder);
/// The files of such a folder.
std::vector<std::string> adapterhub_files(const std::filesystem::path& folder);
/// What its model's class and the config of its head say.
AdapterTask read_adapterhub_task(const std::filesystem::path& folder);
/// Gives the model the adapters of such a folder, frozen. Throws Error(file) where the folder is for another model, or
/// for a kind of adapter that is not known here (original_ln_before: true among them).
void load_bottleneck(nn::Model& model, const std::filesystem::path& folder);

}  // namespace llmtk::peft
