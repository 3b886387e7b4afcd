#pragma once
// The families, by the model_type of config.json: making, loading and saving a model.

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "io/json.h"
#include "io/tensors.h"
#include "nn/causal_model.h"
#include "nn/encoder_model.h"
#include "nn/linear.h"
#include "nn/storage_reader.h"

namespace llmtk::models {

/// The registered model_types.
std::vector<std::string> model_types();
/// Names that stand for a shape: gpt2, gpt2-medium, ...
std::vector<std::string> preset_names();
/// config.json of a preset. Throws Error(usage) naming the nearest one.
io::Json preset(const std::string& name);

/// config.json as this program computes it: of a model that reads pictures beside text (model_type gemma3) the language
/// part, said aloud; every other as it is. Throws Error(file) where that part is missing.
io::Json language_part(io::Json config, const std::string& where);

/// A model with uninitialised weights. config: as config.json; where: what errors name. Throws Error(file),
/// and Error(usage) for keys that the user typed (build.typed_keys).
std::shared_ptr<nn::Model> make_model(const io::Json& config, const std::string& where, const nn::Build& build);

/// Throws Error(usage): a model of another kind than the command works with.
[[noreturn]] void refuse_kind(const nn::Model& model, const char* expected, const std::string& where);
/// The model as one of the kind `M` (nn::CausalModel, ...). Throws Error(usage) where it is of another.
template <class M>
std::shared_ptr<M> as(const std::shared_ptr<nn::Model>& model, const std::string& where) {
  if (auto found = std::dynamic_pointer_cast<M>(model)) return found;
  refuse_kind(*model, M::kKind, where);
}

/// make_model() for those who know the kind.
template <class M = nn::CausalModel>
std::shared_ptr<M> make(const io::Json& config, const std::string& where, const nn::Build& build) {
  return as<M>(make_model(config, where, build), where);
}
/// A model with random weights as published for the family.
template <class M = nn::CausalModel>
std::shared_ptr<M> create(const io::Json& config, const nn::Build& build, uint64_t seed,
                          const std::string& where = "model") {
  auto model = make<M>(config, where, build);
  model->initialize(seed);
  return model;
}

/// Whether `name` stands in the files of this family beside the parameters (a mask, rotary frequencies) and is left
/// out. Of a family that is not registered nothing is known: false.
bool is_buffer(const std::string& model_type, const std::string& name);

struct LoadOptions {
  std::optional<c10::ScalarType> dtype;  ///< default: what config.json says, else that of the first floating tensor
  c10::Device device = c10::kCPU;
  /// On the CPU, parameters stored in the type that is asked for lie in the mapped files themselves: nothing is copied,
  /// and processes share the memory. Such a model is read-only (writing to a parameter crashes): not for training.
  bool map = false;
  /// Of an encoder the head that a task wants, instead of the one that config.json's `architectures` names; of other
  /// models sequence_classification alone. What the files lack of it is drawn from `seed`, said as a warning.
  std::optional<nn::Head> head;
  uint64_t seed = 0;
  io::Json overrides = io::Json::object();  ///< keys of config.json to set first: id2label, problem_type, ...
  /// Reads the matrices of a folder that is quantized (quant::open_storages), of config.json's `quantization_config`. Without
  /// it such a folder is refused.
  std::function<std::unique_ptr<nn::StorageReader>(const io::Json& quantization_config, const io::WeightFiles& weights,
                                                   const std::string& where)>
      storages;
};
/// Opens a model folder, or a name in the local Hugging Face cache. Every parameter must be in the files with its
/// shape, and nothing else but what the family knows to leave out (buffers; other tasks' heads, said aloud);
/// Error(file) names what is missing, extra or misshapen.
std::shared_ptr<nn::Model> load_model(const std::string& path_or_name, const LoadOptions& options = {});
/// load_model() for those who know the kind.
template <class M = nn::CausalModel>
std::shared_ptr<M> load(const std::string& path_or_name, const LoadOptions& options = {}) {
  return as<M>(load_model(path_or_name, options), path_or_name);
}
/// Puts the head that a task wants into config.json (LoadOptions::head). Returns whether it is another than the config's
/// own. Throws Error(usage) where the family has no such model.
bool choose_head(io::Json& config, nn::Head head, const std::string& where);
/// Fills a model's parameters from files, strictly, as load() does. map: as in LoadOptions. seed_of_head: for a head
/// that another was chosen for (choose_head).
void load_weights(nn::Model& model, const io::WeightFiles& weights, const std::string& where, bool map = false,
                  const std::optional<uint64_t>& seed_of_head = std::nullopt);

struct SaveOptions {
  uint64_t max_shard_bytes = uint64_t{50} << 30;
  std::optional<fs::path> companions;  ///< a folder whose tokenizer files and generation_config.json are copied along
};
/// Writes config.json, with `more` keys in it, and generation_config.json of a model whose weights are written in `dtype`, and
/// copies the companions.
void save_config(const nn::Model& model, const fs::path& folder, c10::ScalarType dtype,
                 const SaveOptions& options = {}, const io::Json& more = io::Json::object());
/// Writes config.json, generation_config.json and the weights, as transformers opens them. Returns the files of
/// weights.
std::vector<io::WrittenFile> save(const nn::Model& model, const fs::path& folder, const SaveOptions& options = {});

}  // namespace llmtk::models
