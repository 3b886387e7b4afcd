#pragma once
// What the families' configs and loading share.

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "io/json.h"
#include "models/limits.h"
#include "nn/activation.h"
#include "nn/rotary.h"

namespace llmtk::models {

/// Marks the keys that every config.json may hold and that change nothing in what is computed, and refuses those that
/// do (quantization_config). Throws Error(file).
void read_common(io::ObjectReader& config);
/// Says aloud which keys nobody knows. Those among `typed_keys` (what the user wrote, not what a folder brought) throw
/// Error(usage) with the nearest key; so do typed keys that only other programs act on.
void refuse_unread(const io::ObjectReader& config, const io::TypedKeys* typed_keys);

nn::Activation read_activation(io::ObjectReader& config, const std::string& key, const std::string& otherwise);

/// A number above 0; 0 where the key is null, which means "none", and `otherwise` where it is absent.
double read_bound(io::ObjectReader& config, const std::string& key, double otherwise);
/// sliding_window: tokens; 0 where it is null, `otherwise` where it is absent.
int64_t read_window(io::ObjectReader& config, int64_t otherwise);
/// Of each layer, whether it sees a sliding window alone: layer_types, or where config.json has none, `otherwise` of
/// the layer's number.
std::vector<bool> read_sliding_layers(io::ObjectReader& config, int64_t layers,
                                      const std::function<bool(int64_t layer)>& otherwise);

/// What a family calls its rotary settings, and what they are where config.json is silent.
struct RopeKeys {
  const char* theta = "rope_theta";
  double default_theta = 10000;
  bool partial = false;  ///< the family may turn a share of each head's dimensions
  const char* share = "partial_rotary_factor";
  double default_share = 1;
};
/// What is known of a model around its rotary settings.
struct RopeShape {
  int64_t head_dim, max_positions;
};
/// Rotary settings as transformers 5 (rope_parameters) or 4 (rope_theta, rope_scaling) spells them. Throws Error(file)
/// for a type that is not supported.
nn::RopeConfig read_rope(io::ObjectReader& config, const RopeShape& shape, const RopeKeys& keys = {});
/// The same from the object that holds them (none: plain), beside the keys of `config`.
nn::RopeConfig read_rope_parameters(io::ObjectReader& config, std::optional<io::ObjectReader> parameters,
                                    const RopeShape& shape, const RopeKeys& keys = {});
/// The object `rope_parameters`.
io::Json rope_parameters(const nn::RopeConfig& rope);
/// Both spellings, so that either version of transformers reads the same numbers.
void write_rope(const nn::RopeConfig& rope, io::Json& config, const RopeKeys& keys = {});

}  // namespace llmtk::models
