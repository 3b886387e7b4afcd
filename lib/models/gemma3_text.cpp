#include "models/gemma3_text.h"

#include <algorithm>

#include "models/common.h"

namespace llmtk::models {
namespace {

constexpr RopeKeys kGlobalRope{.default_theta = 1e6};
constexpr RopeKeys kLocalRope{.theta = "rope_local_base_freq", .default_theta = 1e4};

/// Version 5 of transformers: rope_parameters, with an object for each kind of layer. Version 4: rope_theta and
/// rope_scaling of the layers that see everything, rope_local_base_freq of the others.
void read_ropes(io::ObjectReader& config, GemmaConfig& c) {
  const RopeShape shape{c.head_dim, c.max_position_embeddings};
  auto both = config.object("rope_parameters");
  const auto of = [&](const char* layer_type) { return both ? both->object(layer_type) : std::nullopt; };
  const auto full = of("full_attention"), sliding = of("sliding_attention");
  if (both)
    for (const std::string& key : both->unread()) both->fail(key, "full_attention and sliding_attention alone");
  // rope_scaling goes first where both stand, as in transformers.
  const auto scaling = config.object("rope_scaling");
  c.rope = read_rope_parameters(config, scaling ? scaling : full, shape, kGlobalRope);
  c.local_rope = read_rope_parameters(config, sliding, shape, kLocalRope);
}

GemmaConfig read_gemma3_text(const io::Json& json, const std::string& where, const io::TypedKeys* typed_keys) {
  io::ObjectReader config(json, where, typed_keys);
  GemmaConfig c = GemmaConfig::from_common(config);
  c.architecture = "Gemma3ForCausalLM";
  c.qk_norm = true;
  read_ropes(config, c);
  config.only("attn_logit_softcapping", nullptr);
  c.final_logit_softcapping = read_bound(config, "final_logit_softcapping", 0);
  const int64_t pattern = config.integer_or("sliding_window_pattern", 6, 1);
  c.is_sliding =
      read_sliding_layers(config, c.num_hidden_layers, [&](int64_t layer) { return (layer + 1) % pattern != 0; });
  const bool slides = std::ranges::find(c.is_sliding, true) != c.is_sliding.end();
  c.sliding_window = slides ? config.integer("sliding_window") : 0;
  config.ignore({"sliding_window", "_sliding_window_pattern"});  // the latter stands beside layer_types
  refuse_unread(config, typed_keys);
  c.raw = json;
  return c;
}

}  // namespace

std::shared_ptr<nn::Model> make_gemma3_text(const io::Json& config, const std::string& where, const nn::Build& build) {
  return make_gemma_decoder(read_gemma3_text(config, where, build.typed_keys), build);
}

std::map<std::string, io::Json> gemma3_text_presets() {
  // As the published config.json of each says.
  static constexpr GemmaShape kShapes[] = {
      {"gemma-3-270m", 262144, 640, 2048, 18, 4, 1, 256, 32768, 256, 512},
      {"gemma-3-1b", 262144, 1152, 6912, 26, 4, 1, 256, 32768, 256, 512},
  };
  std::map<std::string, io::Json> presets;
  for (const GemmaShape& shape : kShapes) {
    io::Json& json = presets[shape.name] = gemma_preset(shape, "gemma3_text", "Gemma3ForCausalLM");
    json["sliding_window_pattern"] = 6;
    json["attn_logit_softcapping"] = nullptr;
    json["final_logit_softcapping"] = nullptr;
    json["rope_theta"] = kGlobalRope.default_theta;
    json["rope_local_base_freq"] = kLocalRope.default_theta;
    json["rope_scaling"] = nullptr;
  }
  return presets;
}

}  // namespace llmtk::models
