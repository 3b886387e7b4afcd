#pragma once
// A model's shape as GGUF's metadata says it, and as config.json does.

#include <string>
#include <vector>

#include "io/gguf.h"
#include "io/json.h"
#include "models/gguf_names.h"

namespace llmtk::models {

/// The architecture of a file. Throws Error(file) for one that this program does not know.
const GgufArchitecture& gguf_architecture(const io::GgufFile& file);

/// What config.json would say of the model in a GGUF file, ids of its special tokens included. Throws Error(file)
/// naming the key for a shape that config.json cannot say.
io::Json gguf_config(const io::GgufFile& file);

/// The tensor with a factor for every rotary frequency, which is how GGUF says Llama 3's scaling.
inline constexpr const char* kRopeFactorsTensor = "rope_freqs.weight";

/// The metadata of a model: ARCHITECTURE.* and general.architecture. `config`: as Model::config() says it. Throws
/// Error(file) naming `where` for what the architecture cannot say in GGUF.
io::GgufMetadata gguf_shape(const io::Json& config, const GgufArchitecture& architecture, const std::string& where);
/// What belongs into kRopeFactorsTensor, [head_dim / 2]; empty where the frequencies are plain.
std::vector<float> gguf_rope_factors(const io::Json& config);

}  // namespace llmtk::models
