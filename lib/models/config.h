#pragma once
// The `model` section of a training config, and the config.json that it means.

#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>

#include "config/config.h"
#include "io/json.h"

namespace llmtk::models {

struct ModelConfig {
  std::string preset;
  std::string name_or_path;
  io::Json config = io::Json::object();

  template <class V>
  void fields(V& v) {
    v("preset", preset, "A published shape by name (gpt2, gpt2-medium, smollm2-135m, ...), with random weights");
    v("name_or_path", name_or_path,
      "A model folder, or a name in the local Hugging Face cache, whose weights to go on with; or the config.json of "
      "one "
      "to begin with random weights");
    v("config", config,
      "Keys of config.json: the whole shape (with model_type), or what differs from the preset (n_layer: 6)");
  }
  void validate(config::Problems& problems) const;
};

/// What a `model` section means.
struct ResolvedModel {
  io::Json config;                               ///< as config.json, every key that the user gave in it
  std::string where;                             ///< for messages
  std::optional<std::filesystem::path> weights;  ///< the folder whose weights are loaded; nothing: random ones
  io::TypedKeys typed_keys;                      ///< of config, from the user's model.config
  bool vocab_size_given = false;                 ///< by the user or by the weights; otherwise it is only the preset's
};

/// places: of the whole config, whose section `model` this is. Throws Error(file) for a folder that holds no model.
ResolvedModel resolve_model(const ModelConfig& config, const config::Places& places);

/// The special tokens and the size of the vocabulary, where the config leaves them to the tokenizer.
void adopt_vocabulary(ResolvedModel& model, int64_t vocab_size, int64_t bos, int64_t eos, int64_t pad);

}  // namespace llmtk::models
