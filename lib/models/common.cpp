#include "models/common.h"

#include "core/error.h"
#include "core/log.h"
#include "core/suggest.h"

namespace llmtk::models {
namespace {

/// What only other programs act on, and what has its effect here.
constexpr std::pair<const char*, const char*> kOfOtherPrograms[] = {
    {"torch_dtype", "set trainer.dtype"},
    {"dtype", "set trainer.dtype"},
    {"gradient_checkpointing", "set trainer.gradient_checkpointing"},
    {"n_ctx", "set n_positions or max_position_embeddings"},
    {"attn_implementation", ""},
    {"_attn_implementation_autoset", ""},
    {"use_cache", ""},
    {"output_attentions", ""},
    {"output_hidden_states", ""},
    {"return_dict", ""},
    {"is_encoder_decoder", ""},
    {"is_decoder", ""},
    {"chunk_size_feed_forward", ""},
    {"torchscript", ""},
    {"tf_legacy_loss", ""},
    // How texts are written: old folders have it here, and generate::load_config reads it.
    {"max_length", ""},
    {"min_length", ""},
    {"do_sample", ""},
    {"early_stopping", ""},
    {"num_beams", ""},
    {"num_beam_groups", ""},
    {"diversity_penalty", ""},
    {"temperature", ""},
    {"top_k", ""},
    {"top_p", ""},
    {"typical_p", ""},
    {"repetition_penalty", ""},
    {"length_penalty", ""},
    {"no_repeat_ngram_size", ""},
    {"encoder_no_repeat_ngram_size", ""},
    {"bad_words_ids", ""},
    {"num_return_sequences", ""},
    {"output_scores", ""},
    {"return_dict_in_generate", ""},
    {"forced_bos_token_id", ""},
    {"forced_eos_token_id", ""},
    {"remove_invalid_values", ""},
    {"exponential_decay_length_penalty", ""},
    {"suppress_tokens", ""},
    {"begin_suppress_tokens", ""},
};

}  // namespace

void read_common(io::ObjectReader& config) {
  config.ignore({"model_type", "architectures", "transformers_version", "_name_or_path", "bos_token_id", "eos_token_id",
                 "pad_token_id", "task_specific_params", "id2label", "label2id", "problem_type", "finetuning_task"});
  for (const auto& [key, hint] : kOfOtherPrograms) config.ignore({key});
  config.only("quantization_config", nullptr, "load the weights as they were before quantization");
  config.only("pruned_heads", io::Json::object());
}

void refuse_unread(const io::ObjectReader& config, const io::TypedKeys* typed_keys) {
  const auto is_typed = [&](const std::string& key) { return typed_keys && typed_keys->contains(key); };
  for (const auto& [key, hint] : kOfOtherPrograms)
    if (is_typed(key))
      throw Error(Exit::usage, {.what = "key 'model.config." + std::string(key) + "' has no effect in this program",
                                .where = typed_keys->at(key),
                                .hint = *hint ? hint : "leave it out"});
  for (const std::string& key : config.unread()) {
    if (is_typed(key)) {
      const std::string near = nearest(key, config.known());
      throw Error(Exit::usage, {.what = "unknown key 'model.config." + key + "'",
                                .where = typed_keys->at(key),
                                .hint = near.empty() ? "" : "did you mean '" + near + "'?"});
    }
    log::warn(config.where() + ": key '" + key + "' is not known to this program; it has no effect");
  }
}

nn::Activation read_activation(io::ObjectReader& config, const std::string& key, const std::string& otherwise) {
  const auto activation = nn::parse_activation(config.string_or(key, otherwise));
  if (!activation) config.fail(key, nn::kActivationNames);
  return *activation;
}

double read_bound(io::ObjectReader& config, const std::string& key, double otherwise) {
  const double value = config.number_or(key, 0);
  if (!config.mentions(key)) return otherwise;
  if (config.has(key) && value <= 0) config.fail(key, "a number above 0, or null for none");
  return value;
}

int64_t read_window(io::ObjectReader& config, int64_t otherwise) {
  const int64_t window = config.integer_or("sliding_window", 0, 1);
  return config.mentions("sliding_window") ? window : otherwise;
}

std::vector<bool> read_sliding_layers(io::ObjectReader& config, int64_t layers,
                                      const std::function<bool(int64_t layer)>& otherwise) {
  std::vector<bool> sliding;
  if (!config.has("layer_types")) {
    config.ignore({"layer_types"});
    for (int64_t layer = 0; layer < layers; ++layer) sliding.push_back(otherwise(layer));
    return sliding;
  }
  for (const std::string& type : config.strings("layer_types")) {
    if (type != "full_attention" && type != "sliding_attention")
      config.fail("layer_types", "full_attention or sliding_attention for each layer");
    sliding.push_back(type == "sliding_attention");
  }
  if (static_cast<int64_t>(sliding.size()) != layers)
    config.fail("layer_types", "as many as num_hidden_layers, " + std::to_string(layers));
  return sliding;
}

namespace {

nn::RopeType parse_rope_type(io::ObjectReader& reader) {
  const std::string key = reader.has("rope_type") ? "rope_type" : "type";
  reader.ignore({"rope_type", "type"});
  const std::string name = reader.string_or(key, "default");
  if (name == "default") return nn::RopeType::plain;
  if (name == "linear") return nn::RopeType::linear;
  if (name == "dynamic") return nn::RopeType::dynamic;
  if (name == "llama3") return nn::RopeType::llama3;
  if (name == "yarn") return nn::RopeType::yarn;
  if (name == "longrope") return nn::RopeType::longrope;
  if (name == "proportional") return nn::RopeType::proportional;
  reader.fail(key, "default, linear, dynamic, llama3, yarn, longrope or proportional");
}

const char* rope_type_name(nn::RopeType type) {
  switch (type) {
    case nn::RopeType::plain:
      return "default";
    case nn::RopeType::linear:
      return "linear";
    case nn::RopeType::dynamic:
      return "dynamic";
    case nn::RopeType::llama3:
      return "llama3";
    case nn::RopeType::yarn:
      return "yarn";
    case nn::RopeType::longrope:
      return "longrope";
    case nn::RopeType::proportional:
      return "proportional";
  }
  LLMTK_CHECK(false, "unknown rope type");
}

double at_least(io::ObjectReader& reader, const std::string& key, double value, double least) {
  if (value < least) reader.fail(key, "a number of at least " + io::Json(least).dump());
  return value;
}

/// original_positions: as Phi-3 and its kin have it, beside the other sizes; it goes first.
void read_scaling(io::ObjectReader& reader, nn::RopeConfig& rope, const RopeShape& shape,
                  std::optional<int64_t> original_positions) {
  using nn::RopeType;
  rope.type = parse_rope_type(reader);
  if (rope.type == RopeType::plain) return;
  const auto optional = [&](const char* key) -> std::optional<double> {
    if (!reader.has(key)) return std::nullopt;
    return reader.number(key);
  };
  const int64_t inside = reader.integer_or("original_max_position_embeddings", shape.max_positions, 1);
  rope.original_max_position_embeddings = original_positions.value_or(inside);
  const bool inferred = (rope.type == RopeType::yarn || rope.type == RopeType::longrope) && !reader.has("factor");
  if (inferred) {
    reader.ignore({"factor"});  // it may be there as null
    rope.factor = static_cast<double>(shape.max_positions) / static_cast<double>(rope.original_max_position_embeddings);
  } else {
    rope.factor = rope.type == RopeType::proportional ? reader.number_or("factor", 1) : reader.number("factor");
    at_least(reader, "factor", rope.factor, 1);
  }
  if (rope.type == RopeType::longrope) {
    const auto count = static_cast<size_t>(nn::rotated_dimensions(rope, shape.head_dim) / 2);
    rope.short_factor = reader.positive_numbers("short_factor", count);
    rope.long_factor = reader.positive_numbers("long_factor", count);
    rope.attention_factor = optional("attention_factor");
  }
  if (rope.type == nn::RopeType::llama3) {
    rope.low_freq_factor = reader.number("low_freq_factor");
    rope.high_freq_factor = reader.number("high_freq_factor");
    if (rope.high_freq_factor <= rope.low_freq_factor) reader.fail("high_freq_factor", "more than low_freq_factor");
  }
  if (rope.type == nn::RopeType::yarn) {
    rope.beta_fast = reader.number_or("beta_fast", 32);
    rope.beta_slow = reader.number_or("beta_slow", 1);
    rope.truncate = reader.boolean_or("truncate", true);
    rope.attention_factor = optional("attention_factor");
    rope.mscale = optional("mscale");
    rope.mscale_all_dim = optional("mscale_all_dim");
  }
  for (const std::string& key : reader.unread())
    if (key != "rope_theta" && key != "attention_factor" && key != "partial_rotary_factor")
      reader.fail(key, "no such key for rope_type " + std::string(rope_type_name(rope.type)));
}

}  // namespace

nn::RopeConfig read_rope(io::ObjectReader& config, const RopeShape& shape, const RopeKeys& keys) {
  config.ignore({"rope_scaling", "rope_parameters"});
  // rope_scaling goes first where both stand, as in transformers.
  return read_rope_parameters(config, config.object(config.has("rope_scaling") ? "rope_scaling" : "rope_parameters"),
                              shape, keys);
}

nn::RopeConfig read_rope_parameters(io::ObjectReader& config, std::optional<io::ObjectReader> parameters,
                                    const RopeShape& shape, const RopeKeys& keys) {
  nn::RopeConfig rope;
  const double outer = config.number_or(keys.theta, keys.default_theta);
  rope.theta = parameters ? parameters->number_or("rope_theta", outer) : outer;
  if (rope.theta <= 1) {
    if (parameters && parameters->has("rope_theta")) parameters->fail("rope_theta", "a number above 1");
    config.fail(keys.theta, "a number above 1");
  }
  const double outer_share = config.number_or(keys.share, keys.default_share);
  rope.partial_rotary_factor = parameters ? parameters->number_or("partial_rotary_factor", outer_share) : outer_share;
  const auto refuse_share = [&](const char* expected) {
    if (parameters && parameters->has("partial_rotary_factor")) parameters->fail("partial_rotary_factor", expected);
    config.fail(keys.share, expected);
  };
  if (rope.partial_rotary_factor <= 0 || rope.partial_rotary_factor > 1) refuse_share("a number above 0 and at most 1");
  std::optional<int64_t> original;
  if (config.has("original_max_position_embeddings")) original = config.integer("original_max_position_embeddings");
  if (parameters) read_scaling(*parameters, rope, shape, original);
  const bool partial = keys.partial || rope.type == nn::RopeType::proportional;
  if (!partial && rope.partial_rotary_factor != 1) refuse_share("1: this family turns all dimensions");
  return rope;
}

io::Json rope_parameters(const nn::RopeConfig& rope) {
  io::Json parameters = {{"rope_type", rope_type_name(rope.type)}, {"rope_theta", rope.theta}};
  const auto put = [&](const char* key, const auto& value) {
    if (value) parameters[key] = *value;
  };
  // Below 1 only where it follows from the lengths: null tells every reader to infer it again.
  if (rope.type != nn::RopeType::plain) parameters["factor"] = rope.factor < 1 ? io::Json() : io::Json(rope.factor);
  if (rope.type == nn::RopeType::llama3) {
    parameters["low_freq_factor"] = rope.low_freq_factor;
    parameters["high_freq_factor"] = rope.high_freq_factor;
  }
  if (rope.type == nn::RopeType::yarn) {
    parameters["beta_fast"] = rope.beta_fast;
    parameters["beta_slow"] = rope.beta_slow;
    parameters["truncate"] = rope.truncate;
    put("attention_factor", rope.attention_factor);
    put("mscale", rope.mscale);
    put("mscale_all_dim", rope.mscale_all_dim);
  }
  if (rope.type == nn::RopeType::longrope) {
    parameters["short_factor"] = rope.short_factor;
    parameters["long_factor"] = rope.long_factor;
    parameters["attention_factor"] = nn::attention_factor(rope);
  }
  if (rope.partial_rotary_factor != 1 || rope.type == nn::RopeType::proportional)
    parameters["partial_rotary_factor"] = rope.partial_rotary_factor;
  if (rope.type == nn::RopeType::llama3 || rope.type == nn::RopeType::yarn || rope.type == nn::RopeType::longrope)
    parameters["original_max_position_embeddings"] = rope.original_max_position_embeddings;
  return parameters;
}

void write_rope(const nn::RopeConfig& rope, io::Json& config, const RopeKeys& keys) {
  const io::Json parameters = rope_parameters(rope);
  // Version 4 of transformers looks for the original length here alone, and infers the attention factor from it.
  if (rope.type == nn::RopeType::longrope)
    config["original_max_position_embeddings"] = rope.original_max_position_embeddings;
  config[keys.theta] = rope.theta;
  if (keys.partial) config[keys.share] = rope.partial_rotary_factor;
  config["rope_scaling"] = rope.type == nn::RopeType::plain ? io::Json(nullptr) : parameters;
  config["rope_parameters"] = parameters;
}

}  // namespace llmtk::models
