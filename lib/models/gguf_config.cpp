#include "models/gguf_config.h"

#include <cmath>
#include <cstring>
#include <numbers>

#include "core/error.h"
#include "core/log.h"
#include "core/utf8.h"
#include "models/limits.h"

namespace llmtk::models {
namespace {

/// A key that both sides have: "llama.context_length" and "max_position_embeddings".
struct KeyRow {
  const char* gguf;
  const char* hf;
  enum { integer, number } kind = integer;
  bool optional = false;  ///< of the file: left out of config.json where it is not there
};

constexpr KeyRow kDecoderKeys[] = {
    {"context_length", "max_position_embeddings"},
    {"embedding_length", "hidden_size"},
    {"block_count", "num_hidden_layers"},
    {"feed_forward_length", "intermediate_size"},
    {"attention.head_count", "num_attention_heads"},
    {"attention.head_count_kv", "num_key_value_heads", KeyRow::integer, true},
    {"attention.layer_norm_rms_epsilon", "rms_norm_eps", KeyRow::number},
};
constexpr KeyRow kGemma2Keys[] = {
    {"attention.sliding_window", "sliding_window"},
    {"attn_logit_softcapping", "attn_logit_softcapping", KeyRow::number, true},
    {"final_logit_softcapping", "final_logit_softcapping", KeyRow::number, true},
};
constexpr KeyRow kGemma3Keys[] = {{"attention.sliding_window", "sliding_window"}};
constexpr KeyRow kGpt2Keys[] = {
    {"context_length", "n_positions"},  {"embedding_length", "n_embd"},
    {"block_count", "n_layer"},         {"feed_forward_length", "n_inner"},
    {"attention.head_count", "n_head"}, {"attention.layer_norm_epsilon", "layer_norm_epsilon", KeyRow::number},
};

std::span<const KeyRow> keys_of(const GgufArchitecture& architecture) {
  return architecture.name == "gpt2" ? std::span<const KeyRow>(kGpt2Keys) : kDecoderKeys;
}
std::span<const KeyRow> more_keys_of(const GgufArchitecture& architecture) {
  if (architecture.name == "gemma2") return kGemma2Keys;
  if (architecture.name == "gemma3") return kGemma3Keys;
  return {};
}

/// Every n-th layer of Gemma sees all tokens, the others a window.
int64_t window_period(const GgufArchitecture& architecture) {
  return architecture.name == "gemma2" ? 2 : architecture.name == "gemma3" ? 6 : 0;
}

/// What Gemma's queries are scaled by. GGUF does not say it; llama.cpp tells the largest models by their depth.
int64_t query_scalar(const GgufArchitecture& architecture, int64_t layers, int64_t hidden, int64_t heads,
                     int64_t head_dim) {
  const bool largest = layers == (architecture.name == "gemma2" ? 46 : 62);
  return largest ? hidden / heads : head_dim;
}

/// Llama 3's scaling of frequency number i of D / 2 (HF's _compute_llama3_parameters), as what it is divided by.
struct Llama3Scaling {
  double factor, low = 1, high = 4;
  double original = 8192;  // what every published model of this scaling was trained with
};
float llama3_divisor(const Llama3Scaling& s, double theta, int64_t head_dim, int64_t i) {
  const double frequency = std::pow(theta, -2.0 * static_cast<double>(i) / static_cast<double>(head_dim));
  const double turns = s.original * frequency / (2 * std::numbers::pi);
  if (turns > s.high) return 1;
  if (turns < s.low) return static_cast<float>(s.factor);
  const double smooth = (turns - s.low) / (s.high - s.low);
  return static_cast<float>(1 / ((1 - smooth) / s.factor + smooth));
}

std::string key_of(const GgufArchitecture& architecture, const std::string& rest) {
  return std::string(architecture.name) + "." + rest;
}

/// The scaling that a tensor of factors stands for.
io::Json read_rope_factors(const io::GgufFile& file, const io::GgufTensor& tensor, double theta, int64_t head_dim) {
  std::vector<float> factors(static_cast<size_t>(tensor.count()));
  io::dequantize(tensor.type, file.bytes(tensor), factors);
  const auto matches = [&] {
    if (static_cast<int64_t>(factors.size()) != head_dim / 2) return false;
    const Llama3Scaling scaling{.factor = factors.back()};
    for (size_t i = 0; i < factors.size(); ++i)
      if (!(std::abs(factors[i] / llama3_divisor(scaling, theta, head_dim, static_cast<int64_t>(i)) - 1) < 1e-4))
        return false;
    return true;
  };
  if (!matches())
    throw Error(Exit::file, {.what = std::string("tensor '") + kRopeFactorsTensor +
                                     "' scales the rotary frequencies "
                                     "in a way that config.json cannot say",
                             .where = file.path().string(),
                             .expected = "Llama 3's scaling of a context of 8192"});
  const Llama3Scaling scaling{.factor = factors.back()};
  return {{"rope_type", "llama3"},
          {"factor", scaling.factor},
          {"low_freq_factor", scaling.low},
          {"high_freq_factor", scaling.high},
          {"original_max_position_embeddings", static_cast<int64_t>(scaling.original)}};
}

void read_rope(const io::GgufFile& file, const GgufArchitecture& architecture, io::Json& config) {
  const auto key = [&](const char* rest) { return key_of(architecture, std::string("rope.") + rest); };
  const double theta = file.find_number(key("freq_base")).value_or(10000);
  const int64_t head_dim = config["head_dim"].get<int64_t>();
  if (const auto turned = file.find_integer(key("dimension_count")); turned && *turned != head_dim)
    file.fail(key("dimension_count"), std::to_string(*turned), std::to_string(head_dim) + ", the size of a head");
  config["rope_theta"] = theta;
  const std::string type = file.find_string(key("scaling.type")).value_or("linear");
  const double factor =
      file.find_number(key("scaling.factor")).value_or(file.find_number(key("scale_linear")).value_or(1));
  for (const char* name : {"scaling.attn_factor", "scaling.yarn_attn_factor"})
    if (const auto scale = file.find_number(key(name)); scale && *scale != 1)
      file.fail(key(name), std::to_string(*scale), "1");
  if (const io::GgufTensor* factors = file.find_tensor(kRopeFactorsTensor)) {
    config["rope_scaling"] = read_rope_factors(file, *factors, theta, head_dim);
  } else if (type == "yarn") {
    io::Json yarn = {{"rope_type", "yarn"},
                     {"factor", factor},
                     {"original_max_position_embeddings", file.integer(key("scaling.original_context_length"))}};
    if (const auto fast = file.find_number(key("scaling.yarn_beta_fast"))) yarn["beta_fast"] = *fast;
    if (const auto slow = file.find_number(key("scaling.yarn_beta_slow"))) yarn["beta_slow"] = *slow;
    config["rope_scaling"] = yarn;
  } else if (type == "linear") {
    if (factor != 1) config["rope_scaling"] = {{"rope_type", "linear"}, {"factor", factor}};
  } else if (type != "none") {  // none: whatever factor stands beside it
    file.fail(key("scaling.type"), in_quotes(type), "none, linear or yarn");
  }
}

/// Whether the head has a matrix of its own: it is there, and its bytes are not the table's.
bool has_own_head(const io::GgufFile& file, const io::GgufTensor& table) {
  const io::GgufTensor* head = file.find_tensor("output.weight");
  if (!head) return false;
  const auto a = file.bytes(*head), b = file.bytes(table);
  return head->type != table.type || a.size() != b.size() || std::memcmp(a.data(), b.data(), a.size()) != 0;
}

void read_gemma(const io::GgufFile& file, const GgufArchitecture& architecture, io::Json& config) {
  config["hidden_activation"] = "gelu_pytorch_tanh";
  const auto layers = config["num_hidden_layers"].get<int64_t>();
  if (layers < 1 || layers > kMostLayers)
    file.fail(key_of(architecture, "block_count"), std::to_string(layers), "1 to " + std::to_string(kMostLayers));
  config["query_pre_attn_scalar"] =
      query_scalar(architecture, layers, config["hidden_size"].get<int64_t>(),
                   config["num_attention_heads"].get<int64_t>(), config["head_dim"].get<int64_t>());
  io::Json types = io::Json::array();
  for (int64_t i = 0; i < layers; ++i)
    types.push_back((i + 1) % window_period(architecture) == 0 ? "full_attention" : "sliding_attention");
  config["layer_types"] = types;
  if (architecture.name != "gemma3") return;  // Gemma 2's soft caps are what its config class says where none are given
  for (const char* key : {"attn_logit_softcapping", "final_logit_softcapping"})
    if (!config.contains(key)) config[key] = nullptr;
  config["rope_local_base_freq"] = file.find_number("gemma3.rope.freq_base_swa").value_or(10000);
}

/// head_count_kv may be a list, a number for each layer.
void refuse_per_layer(const io::GgufFile& file, const std::string& key) {
  const auto found = file.metadata().find(key);
  if (found != file.metadata().end() && std::holds_alternative<std::vector<int32_t>>(found->second))
    file.fail(key, "a list", "one number for all layers");
}

void read_token_ids(const io::GgufFile& file, io::Json& config) {
  for (const auto& [gguf, hf] : {std::pair{"bos", "bos_token_id"}, {"padding", "pad_token_id"}})
    if (const auto id = file.find_integer(std::string("tokenizer.ggml.") + gguf + "_token_id")) config[hf] = *id;
  const auto ends = io::gguf_end_ids(file);
  if (!ends.empty()) config["eos_token_id"] = ends.size() == 1 ? io::Json(ends.front()) : io::Json(ends);
}

}  // namespace

const GgufArchitecture& gguf_architecture(const io::GgufFile& file) {
  const std::string name = file.string("general.architecture");
  if (const GgufArchitecture* found = find_gguf_architecture(name)) return *found;
  std::string known;
  for (const GgufArchitecture& row : gguf_architectures())
    if (known.find(row.name) == known.npos) known += (known.empty() ? "" : ", ") + std::string(row.name);
  file.fail("general.architecture", in_quotes(name), known);
}

io::Json gguf_config(const io::GgufFile& file) {
  const GgufArchitecture& architecture = gguf_architecture(file);
  io::Json config = {{"model_type", architecture.model_type}};
  const io::GgufTensor* table = file.find_tensor("token_embd.weight");
  if (!table || table->shape.size() != 2)
    throw Error(Exit::file, {.what = "tensor 'token_embd.weight' is missing or no matrix",
                             .where = file.path().string(),
                             .hint = "the file holds a vocabulary only, or a part of a model"});
  config["vocab_size"] = table->shape[0];
  const auto read = [&](std::span<const KeyRow> rows) {
    for (const KeyRow& row : rows) {
      const std::string key = key_of(architecture, row.gguf);
      if (row.optional && !file.has(key)) continue;
      refuse_per_layer(file, key);
      if (row.kind == KeyRow::integer)
        config[row.hf] = file.integer(key);
      else
        config[row.hf] = file.number(key);
    }
  };
  read(keys_of(architecture));
  read(more_keys_of(architecture));
  if (architecture.name == "gpt2") {
    config["activation_function"] = "gelu_new";
  } else {
    config["hidden_act"] = "silu";
    const auto heads = config["num_attention_heads"].get<int64_t>();
    if (heads < 1) file.fail(key_of(architecture, "attention.head_count"), std::to_string(heads), "at least 1");
    const std::string key = key_of(architecture, "attention.key_length");
    config["head_dim"] = file.find_integer(key).value_or(config["hidden_size"].get<int64_t>() / heads);
    const auto value_length = file.find_integer(key_of(architecture, "attention.value_length"));
    if (value_length && *value_length != config["head_dim"].get<int64_t>())
      file.fail(key_of(architecture, "attention.value_length"), std::to_string(*value_length),
                config["head_dim"].dump() + ", the length of a key");
    read_rope(file, architecture, config);
  }
  if (architecture.name == "llama") {
    config["attention_bias"] = file.find_tensor("blk.0.attn_q.bias") != nullptr;
    config["mlp_bias"] = file.find_tensor("blk.0.ffn_up.bias") != nullptr;
    if (file.find_integer("llama.expert_count").value_or(0) > 0)
      file.fail("llama.expert_count", std::to_string(*file.find_integer("llama.expert_count")), "0: no experts");
  }
  if (window_period(architecture) > 0) {
    config.erase("hidden_act");
    read_gemma(file, architecture, config);
  }
  config["tie_word_embeddings"] = !has_own_head(file, *table);
  read_token_ids(file, config);
  return config;
}

namespace {

[[noreturn]] void cannot_say(const std::string& what, const std::string& where, const io::Json& got,
                             const std::string& expected) {
  throw Error(
      Exit::file,
      {.what = "GGUF cannot hold this model: " + what, .where = where, .got = got.dump(), .expected = expected});
}

/// The settings of the rotary positions: Gemma 3 has them for each kind of layer.
io::Json rope_settings(const io::Json& config) {
  for (const char* key : {"rope_scaling", "rope_parameters"}) {
    const auto found = config.find(key);
    if (found == config.end() || !found->is_object()) continue;
    const auto full = found->find("full_attention");
    return full == found->end() ? *found : *full;
  }
  return io::Json::object();
}

double rope_theta(const io::Json& config) {
  const double otherwise = config.value("model_type", "") == "gemma3_text" ? 1e6 : 1e4;
  return rope_settings(config).value("rope_theta", config.value("rope_theta", otherwise));
}

/// Whether Mistral's or Qwen's layers see a window only, with the defaults of either.
bool has_window(const io::Json& config) {
  const bool wanted = config.value("model_type", "") == "mistral" || config.value("use_sliding_window", false);
  return wanted && (!config.contains("sliding_window") || config["sliding_window"].is_number());
}

/// Of Gemma 3's layers with a window.
double local_rope_theta(const io::Json& config) {
  const auto parameters = config.find("rope_parameters");
  if (parameters != config.end() && parameters->is_object() && parameters->contains("sliding_attention"))
    return (*parameters)["sliding_attention"].value("rope_theta", 10000.0);
  return config.value("rope_local_base_freq", 10000.0);
}

int64_t head_dim_of(const io::Json& config) {
  const auto found = config.find("head_dim");
  if (found != config.end() && found->is_number_integer()) return found->get<int64_t>();
  return config.at("hidden_size").get<int64_t>() / config.at("num_attention_heads").get<int64_t>();
}

void add_rope(const io::Json& config, const GgufArchitecture& architecture, const std::string& where,
              io::GgufMetadata& out) {
  const auto put = [&](const char* rest, io::GgufValue value) {
    out.emplace_back(key_of(architecture, std::string("rope.") + rest), std::move(value));
  };
  put("dimension_count", static_cast<uint32_t>(head_dim_of(config)));
  put("freq_base", static_cast<float>(rope_theta(config)));
  const io::Json settings = rope_settings(config);
  const std::string type = settings.value("rope_type", settings.value("type", "default"));
  if (type == "default" || type == "llama3") return;  // llama3 is a tensor
  if (type != "linear" && type != "yarn")
    cannot_say("rotary positions of this kind", where, type, "default, linear, llama3 or yarn");
  put("scaling.type", type);
  put("scaling.factor", settings.at("factor").get<float>());
  if (type == "linear") return;
  for (const char* key : {"attention_factor", "mscale", "mscale_all_dim"})
    if (settings.contains(key) && !settings[key].is_null())
      cannot_say(std::string("yarn with ") + key, where, settings[key], "none");
  put("scaling.original_context_length",
      settings.value("original_max_position_embeddings", config.at("max_position_embeddings").get<uint32_t>()));
  put("scaling.yarn_beta_fast", settings.value("beta_fast", 32.0f));
  put("scaling.yarn_beta_slow", settings.value("beta_slow", 1.0f));
}

void check_gemma(const io::Json& config, const GgufArchitecture& architecture, const std::string& where) {
  const auto layers = config.at("num_hidden_layers").get<int64_t>();
  const int64_t scalar = query_scalar(architecture, layers, config.at("hidden_size").get<int64_t>(),
                                      config.at("num_attention_heads").get<int64_t>(), head_dim_of(config));
  if (config.value("query_pre_attn_scalar", static_cast<double>(scalar)) != static_cast<double>(scalar))
    cannot_say("query_pre_attn_scalar", where, config["query_pre_attn_scalar"], std::to_string(scalar));
  const io::Json types = config.value("layer_types", io::Json());
  if (!types.is_array() &&
      config.value("sliding_window_pattern", window_period(architecture)) != window_period(architecture))
    cannot_say("sliding_window_pattern", where, config["sliding_window_pattern"],
               std::to_string(window_period(architecture)));
  for (size_t i = 0; types.is_array() && i < types.size(); ++i)
    if ((types[i] == "full_attention") != ((static_cast<int64_t>(i) + 1) % window_period(architecture) == 0))
      cannot_say("layer_types", where, types,
                 "every layer number " + std::to_string(window_period(architecture)) + " with full attention");
  const bool caps = architecture.name != "gemma3";
  for (const char* key : {"attn_logit_softcapping", "final_logit_softcapping"})
    if (caps && config.contains(key) && config[key].is_null())
      cannot_say(key, where, nullptr, "a number: without one llama.cpp takes Gemma 2's own");
  if (caps) return;
  for (const char* key : {"attn_logit_softcapping", "final_logit_softcapping"})
    if (config.contains(key) && !config[key].is_null()) cannot_say(key, where, config[key], "null");
}

/// Values that config.json may leave out, because they follow from others.
io::Json completed(const io::Json& config) {
  io::Json whole = config;
  const auto fill = [&](const char* key, const io::Json& value) {
    if (!whole.contains(key) || whole[key].is_null()) whole[key] = value;
  };
  if (whole.contains("num_attention_heads")) fill("num_key_value_heads", whole["num_attention_heads"]);
  if (whole.contains("n_embd")) fill("n_inner", 4 * whole["n_embd"].get<int64_t>());
  return whole;
}

void check_activation(const io::Json& config, const GgufArchitecture& architecture, const std::string& where) {
  const bool gemma = window_period(architecture) > 0;
  const bool gpt2 = architecture.name == "gpt2";
  const char* key = gpt2 ? "activation_function" : gemma ? "hidden_activation" : "hidden_act";
  const std::string expected = gpt2 ? "gelu_new" : gemma ? "gelu_pytorch_tanh" : "silu";
  const std::string got = config.contains(key) && config[key].is_string() ? config[key].get<std::string>() : expected;
  if (got != expected && !(gpt2 && got == "gelu_pytorch_tanh")) cannot_say("its activation", where, got, expected);
}

}  // namespace

io::GgufMetadata gguf_shape(const io::Json& config, const GgufArchitecture& architecture, const std::string& where) {
  io::GgufMetadata out = {{"general.architecture", std::string(architecture.name)}};
  const io::Json whole = completed(config);
  const auto write = [&](std::span<const KeyRow> rows) {
    for (const KeyRow& row : rows) {
      const auto found = whole.find(row.hf);
      if (found == whole.end() || found->is_null()) {
        if (row.optional) continue;
        cannot_say(std::string("key '") + row.hf + "'", where, nullptr, "a number");
      }
      if (row.kind == KeyRow::integer)
        out.emplace_back(key_of(architecture, row.gguf), found->get<uint32_t>());
      else
        out.emplace_back(key_of(architecture, row.gguf), found->get<float>());
    }
  };
  write(keys_of(architecture));
  write(more_keys_of(architecture));
  check_activation(config, architecture, where);
  out.emplace_back(key_of(architecture, "vocab_size"), config.at("vocab_size").get<uint32_t>());
  if (architecture.name == "gpt2") {
    for (const char* key : {"scale_attn_by_inverse_layer_idx", "reorder_and_upcast_attn"})
      if (config.value(key, false)) cannot_say(key, where, true, "false");
    if (!config.value("scale_attn_weights", true)) cannot_say("scale_attn_weights", where, false, "true");
    return out;
  }
  out.emplace_back(key_of(architecture, "attention.key_length"), static_cast<uint32_t>(head_dim_of(config)));
  out.emplace_back(key_of(architecture, "attention.value_length"), static_cast<uint32_t>(head_dim_of(config)));
  add_rope(config, architecture, where, out);
  if (architecture.name == "gemma3")
    out.emplace_back("gemma3.rope.freq_base_swa", static_cast<float>(local_rope_theta(config)));
  if (window_period(architecture) > 0) {
    check_gemma(config, architecture, where);
  } else if (has_window(config)) {
    log::warn(where +
              ": GGUF has no sliding window for this architecture; llama.cpp lets every token see all before it");
  }
  return out;
}

std::vector<float> gguf_rope_factors(const io::Json& config) {
  const io::Json settings = rope_settings(config);
  if (settings.value("rope_type", settings.value("type", "default")) != "llama3") return {};
  const Llama3Scaling scaling{.factor = settings.at("factor").get<double>(),
                              .low = settings.at("low_freq_factor").get<double>(),
                              .high = settings.at("high_freq_factor").get<double>(),
                              .original = settings.at("original_max_position_embeddings").get<double>()};
  const int64_t head_dim = head_dim_of(config);
  std::vector<float> factors;
  for (int64_t i = 0; i < head_dim / 2; ++i)
    factors.push_back(llama3_divisor(scaling, rope_theta(config), head_dim, i));
  return factors;
}

}  // namespace llmtk::models
