#pragma once
// The families, by the model_type of config.json: making, loading and saving a model.

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "io/json.h"
#include "io/tensors.h"
#include "nn/causal_model.h"
#include "nn/linear.h"

namespace llmtk::models {

/// The registered model_types.
std::vector<std::string> model_types();
/// Names that stand for a shape: gpt2, gpt2-medium, ...
std::vector<std::string> preset_names();
/// config.json of a preset. Throws Error(usage) naming the nearest one.
io::Json preset(const std::string& name);

/// A model with uninitialised weights. config: as config.json; where: what errors name. Throws Error(file),
/// and Error(usage) for keys that the user typed (build.typed_keys).
std::shared_ptr<nn::CausalModel> make(const io::Json& config, const std::string& where, const nn::Build& build);
/// A model with random weights as published for the family.
std::shared_ptr<nn::CausalModel> create(const io::Json& config, const nn::Build& build, uint64_t seed,
                                        const std::string& where = "model");

/// Whether `name` stands in the files of this family beside the parameters (a mask, rotary frequencies) and is left
/// out. Of a family that is not registered nothing is known: false.
bool is_buffer(const std::string& model_type, const std::string& name);

struct LoadOptions {
  std::optional<c10::ScalarType> dtype;  ///< default: what config.json says, else that of the first floating tensor
  c10::Device device = c10::kCPU;
  /// On the CPU, parameters stored in the type that is asked for lie in the mapped files themselves: nothing is copied,
  /// and processes share the memory. Such a model is read-only (writing to a parameter crashes): not for training.
  bool map = false;
};
/// Opens a model folder, or a name in the local Hugging Face cache. Every parameter must be in the files with its
/// shape, and nothing else but what the family knows to leave out; Error(file) names what is missing, extra or
/// misshapen.
std::shared_ptr<nn::CausalModel> load(const std::string& path_or_name, const LoadOptions& options = {});
/// Fills a model's parameters from files, strictly, as load() does.
/// map: as in LoadOptions.
void load_weights(nn::CausalModel& model, const io::WeightFiles& weights, const std::string& where, bool map = false);

struct SaveOptions {
  uint64_t max_shard_bytes = uint64_t{50} << 30;
  std::optional<fs::path> companions;  ///< a folder whose tokenizer files and generation_config.json are copied along
};
/// Writes config.json, generation_config.json and the weights, as transformers opens them. Returns the files of
/// weights.
std::vector<io::WrittenFile> save(const nn::CausalModel& model, const fs::path& folder,
                                  const SaveOptions& options = {});

}  // namespace llmtk::models
