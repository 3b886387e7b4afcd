// What a folder's config.json says of a T5, and the configs of published ones.

#include "models/common.h"
#include "models/t5.h"

namespace llmtk::models {

namespace {

/// "relu", "gated-gelu", ...: the gated one of v1.1 is the tanh approximation.
void read_feed_forward(io::ObjectReader& config, T5Config& c) {
  const std::string name = config.string_or("feed_forward_proj", "relu");
  c.gated = name.starts_with("gated-");
  const std::string activation = c.gated ? name.substr(6) : name;
  const auto known = nn::parse_activation(name == "gated-gelu" ? "gelu_new" : activation);
  if (!known) config.fail("feed_forward_proj", "one of " + std::string(nn::kActivationNames) + ", or gated- and one");
  c.activation = *known;
  config.ignore({"dense_act_fn", "is_gated_act"});  // what transformers derives from feed_forward_proj
}

}  // namespace

T5Config T5Config::from_hf(const io::Json& json, const std::string& where, const io::TypedKeys* typed_keys) {
  io::ObjectReader config(json, where, typed_keys);
  read_common(config);
  T5Config c;
  c.vocab_size = config.integer("vocab_size");
  c.d_model = config.integer("d_model");
  c.d_kv = config.integer("d_kv");
  c.d_ff = config.integer("d_ff");
  c.num_layers = config.integer("num_layers", 1, kMostLayers);
  c.num_decoder_layers =
      config.has("num_decoder_layers") ? config.integer("num_decoder_layers", 1, kMostLayers) : c.num_layers;
  config.ignore({"num_decoder_layers"});  // it may be there as null
  c.num_heads = config.integer("num_heads");
  c.relative_attention_num_buckets = config.integer_or("relative_attention_num_buckets", 32);
  if (c.relative_attention_num_buckets < 4) config.fail("relative_attention_num_buckets", "at least 4");
  c.relative_attention_max_distance = config.integer_or("relative_attention_max_distance", 128);
  if (c.relative_attention_max_distance <= c.relative_attention_num_buckets / 2)
    config.fail("relative_attention_max_distance", "more than half of relative_attention_num_buckets");
  c.dropout_rate = config.probability_or("dropout_rate", c.dropout_rate);
  c.layer_norm_epsilon = config.number_or("layer_norm_epsilon", c.layer_norm_epsilon);
  c.initializer_factor = config.number_or("initializer_factor", c.initializer_factor);
  read_feed_forward(config, c);
  c.tie_word_embeddings = config.boolean_or("tie_word_embeddings", true);
  // Version 4 of transformers has the first key alone and means both by it; version 5 writes the second.
  c.scale_decoder_outputs = config.boolean_or("scale_decoder_outputs", c.tie_word_embeddings);
  if (config.has("decoder_start_token_id")) c.decoder_start_token_id = config.integer("decoder_start_token_id", 0);
  // A length that nothing computes with; a setting of another task's head.
  config.ignore({"decoder_start_token_id", "n_positions", "output_past", "classifier_dropout"});
  refuse_unread(config, typed_keys);
  c.raw = json;
  return c;
}

std::optional<std::string> t5_parameter_name(const std::string& name) {
  if (name == "decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight") return std::nullopt;
  return name;
}

std::map<std::string, io::Json> t5_presets() {
  struct Shape {
    const char* name;
    bool v1_1;
    int64_t layers, d_model, d_ff, heads, d_kv;
  };
  // T5: section 3.7 of the paper. v1.1: the configs published with its checkpoints.
  static constexpr Shape kShapes[] = {
      {"t5-small", false, 6, 512, 2048, 8, 64},      {"t5-base", false, 12, 768, 3072, 12, 64},
      {"t5-large", false, 24, 1024, 4096, 16, 64},   {"t5-3b", false, 24, 1024, 16384, 32, 128},
      {"t5-11b", false, 24, 1024, 65536, 128, 128},  {"t5-v1_1-small", true, 8, 512, 1024, 6, 64},
      {"t5-v1_1-base", true, 12, 768, 2048, 12, 64}, {"t5-v1_1-large", true, 24, 1024, 2816, 16, 64},
      {"t5-v1_1-xl", true, 24, 2048, 5120, 32, 64},  {"t5-v1_1-xxl", true, 24, 4096, 10240, 64, 64},
  };
  std::map<std::string, io::Json> presets;
  for (const Shape& shape : kShapes)
    presets[shape.name] = {{"model_type", "t5"},
                           {"architectures", {"T5ForConditionalGeneration"}},
                           {"vocab_size", 32128},
                           {"d_model", shape.d_model},
                           {"d_kv", shape.d_kv},
                           {"d_ff", shape.d_ff},
                           {"num_layers", shape.layers},
                           {"num_decoder_layers", shape.layers},
                           {"num_heads", shape.heads},
                           {"dropout_rate", 0.1},
                           {"feed_forward_proj", shape.v1_1 ? "gated-gelu" : "relu"},
                           {"tie_word_embeddings", !shape.v1_1},
                           {"scale_decoder_outputs", !shape.v1_1},
                           {"pad_token_id", 0},
                           {"eos_token_id", 1},
                           {"decoder_start_token_id", 0}};
  return presets;
}

}  // namespace llmtk::models
