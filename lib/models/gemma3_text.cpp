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

io::Json gemma3_language_part(const io::Json& config, const std::string& where) {
  io::Json part = {{"vocab_size", 262208},
                   {"hidden_size", 2304},
                   {"intermediate_size", 9216},
                   {"num_hidden_layers", 26},
                   {"num_attention_heads", 8},
                   {"num_key_value_heads", 4},
                   {"head_dim", 256},
                   {"max_position_embeddings", 131072},
                   {"query_pre_attn_scalar", 256},
                   {"sliding_window", 4096},
                   {"rms_norm_eps", 1e-6},
                   {"bos_token_id", 2},
                   {"eos_token_id", 1},
                   {"pad_token_id", 0}};
  for (const char* key : {"bos_token_id", "eos_token_id", "pad_token_id", "dtype", "torch_dtype", "tie_word_embeddings",
                          "quantization_config"})
    if (config.contains(key)) part[key] = config[key];
  const auto text = config.find("text_config");
  if (text == config.end() || !text->is_object())
    io::ObjectReader(config, where).fail("text_config", "an object: the config of the language part");
  for (const auto& [key, value] : text->items()) part[key] = value;
  part["model_type"] = "gemma3_text";
  const bool classifies = config.value("architectures", io::Json()) == io::Json{"Gemma3ForSequenceClassification"};
  part["architectures"] = {classifies ? "Gemma3TextForSequenceClassification" : "Gemma3ForCausalLM"};
  for (const char* key : {"id2label", "label2id", "num_labels", "problem_type"})
    if (classifies && config.contains(key)) part[key] = config[key];
  return part;
}

std::optional<std::string> gemma3_parameter_name(const std::string& name) {
  // As files have them, and as version 5 of transformers calls them in memory.
  const std::string_view part = std::string_view(name).substr(name.starts_with("model.") ? 6 : 0);
  if (part.starts_with("vision_tower.") || part.starts_with("multi_modal_projector.")) return std::nullopt;
  constexpr std::string_view kLanguage = "language_model.";
  return gemma_parameter_name(part.starts_with(kLanguage) ? std::string(part.substr(kLanguage.size())) : name);
}

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
