#pragma once
// What the families' configs and loading share.

#include <optional>
#include <string>

#include "io/json.h"
#include "nn/activation.h"
#include "nn/rotary.h"

namespace llmtk::models {

/// Each layer is an object of its own: a hostile number of them would not come to an end.
inline constexpr int64_t kMostLayers = 10'000;

/// Marks the keys that every config.json may hold and that change nothing in what is computed, and refuses those that
/// do (quantization_config). Throws Error(file).
void read_common(io::ObjectReader& config);
/// Says aloud which keys nobody knows. Those among `typed_keys` (what the user wrote, not what a folder brought) throw
/// Error(usage) with the nearest key; so do typed keys that only other programs act on.
void refuse_unread(const io::ObjectReader& config, const io::TypedKeys* typed_keys);

nn::Activation read_activation(io::ObjectReader& config, const std::string& key, const std::string& otherwise);

/// Rotary settings as transformers 5 (rope_parameters) or 4 (rope_theta, rope_scaling) spells them. Throws Error(file)
/// for a type that is not supported.
nn::RopeConfig read_rope(io::ObjectReader& config, int64_t head_dim, int64_t max_position_embeddings);
/// Both spellings, so that either version of transformers reads the same numbers.
void write_rope(const nn::RopeConfig& rope, io::Json& config);

}  // namespace llmtk::models
