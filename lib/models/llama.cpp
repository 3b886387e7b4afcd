#include "models/llama.h"

#include <cmath>

#include "kernels/rotary.h"
#include "models/common.h"
#include "nn/attention.h"
#include "nn/init.h"
#include "nn/norm.h"

namespace llmtk::models {

using at::Tensor;
using nn::Build;
using nn::LayerContext;
using nn::Linear;
using nn::Residual;

LlamaConfig LlamaConfig::from_common(io::ObjectReader& config) {
  read_common(config);
  LlamaConfig c;
  c.vocab_size = config.integer("vocab_size");
  c.hidden_size = config.integer("hidden_size");
  c.intermediate_size = config.integer("intermediate_size");
  c.num_hidden_layers = config.integer("num_hidden_layers", 1, kMostLayers);
  c.num_attention_heads = config.integer("num_attention_heads");
  c.num_key_value_heads = config.integer_or("num_key_value_heads", c.num_attention_heads, 1);
  if (c.num_attention_heads % c.num_key_value_heads != 0)
    config.fail("num_key_value_heads", "a divisor of num_attention_heads, " + std::to_string(c.num_attention_heads));
  if (!config.has("head_dim") && c.hidden_size % c.num_attention_heads != 0)
    config.fail("num_attention_heads", "a divisor of hidden_size, " + std::to_string(c.hidden_size));
  c.head_dim = config.integer_or("head_dim", c.hidden_size / c.num_attention_heads, 2);
  if (c.head_dim % 2 != 0) config.fail("head_dim", "an even number: rotary positions turn pairs");
  c.max_position_embeddings = config.integer("max_position_embeddings");
  c.hidden_act = read_activation(config, "hidden_act", "silu");
  c.rope = read_rope(config, {c.head_dim, c.max_position_embeddings});
  c.rms_norm_eps = config.number("rms_norm_eps");
  c.initializer_range = config.number_or("initializer_range", c.initializer_range);
  c.attention_dropout = config.probability_or("attention_dropout", c.attention_dropout);
  c.tie_word_embeddings = config.boolean_or("tie_word_embeddings", false);
  c.is_sliding.assign(c.num_hidden_layers, false);
  return c;
}

LlamaConfig LlamaConfig::from_hf(const io::Json& json, const std::string& where, const io::TypedKeys* typed_keys) {
  io::ObjectReader config(json, where, typed_keys);
  LlamaConfig c = from_common(config);
  c.qkv_bias = c.o_bias = config.boolean_or("attention_bias", false);
  c.mlp_bias = config.boolean_or("mlp_bias", false);
  config.only("rope_interleaved", false);
  // How a sum is split over devices in another program; and notes of those who published a model.
  config.ignore({"pretraining_tp", "is_llama_config", "transformers.js_config"});
  refuse_unread(config, typed_keys);
  c.raw = json;
  return c;
}

namespace {

struct Attention : torch::nn::Module {
  Attention(const LlamaConfig& c, int64_t layer, const Build& build)
      : head_dim(c.head_dim),
        layer(layer),
        scale(1 / std::sqrt(static_cast<double>(c.head_dim))),
        attention_dropout(c.attention_dropout) {
    const int64_t H = c.hidden_size, N = c.num_attention_heads, K = c.num_key_value_heads, D = c.head_dim;
    const Linear::Options options{.bias = c.qkv_bias};
    q_proj = register_module("q_proj", std::make_shared<Linear>(H, N * D, options, build));
    k_proj = register_module("k_proj", std::make_shared<Linear>(H, K * D, options, build));
    v_proj = register_module("v_proj", std::make_shared<Linear>(H, K * D, options, build));
    o_proj = register_module("o_proj", std::make_shared<Linear>(N * D, H, Linear::Options{.bias = c.o_bias}, build));
    if (!c.qk_norm) return;
    q_norm = register_module("q_norm", std::make_shared<nn::RMSNorm>(D, c.rms_norm_eps, build));
    k_norm = register_module("k_norm", std::make_shared<nn::RMSNorm>(D, c.rms_norm_eps, build));
  }

  Tensor forward(const Tensor& x, const LayerContext& context) {
    const auto heads = [&](const Tensor& y, const auto& norm) {
      const Tensor split = y.unflatten(2, {-1, head_dim});  // [B, T, N or K, D]
      return (norm ? norm->forward(split) : split).transpose(1, 2);
    };
    auto [q, k] = kernels::rotary(heads(q_proj->forward(x), q_norm),                             // [B, N, T, D]
                                  heads(k_proj->forward(x), k_norm), context.cos, context.sin);  // [B, K, T, D]
    const Tensor v = v_proj->forward(x).unflatten(2, {-1, head_dim}).transpose(1, 2);            // [B, K, T, D]
    const Tensor y =
        nn::causal_attention(q, k, v, context, layer,
                             {.scale = scale, .dropout = is_training() ? attention_dropout : 0.0});  // [B, T, N * D]
    return o_proj->forward(y);
  }

  int64_t head_dim, layer;
  double scale, attention_dropout;
  std::shared_ptr<Linear> q_proj, k_proj, v_proj, o_proj;
  std::shared_ptr<nn::RMSNorm> q_norm, k_norm;  // Qwen3 alone
};

struct MLP : torch::nn::Module {
  MLP(const LlamaConfig& c, const Build& build) : hidden_act(c.hidden_act) {
    const Linear::Options options{.bias = c.mlp_bias};
    gate_proj =
        register_module("gate_proj", std::make_shared<Linear>(c.hidden_size, c.intermediate_size, options, build));
    up_proj = register_module("up_proj", std::make_shared<Linear>(c.hidden_size, c.intermediate_size, options, build));
    down_proj =
        register_module("down_proj", std::make_shared<Linear>(c.intermediate_size, c.hidden_size, options, build));
  }

  Tensor forward(const Tensor& x) {
    return down_proj->forward(nn::activate_gated(hidden_act, gate_proj->forward(x), up_proj->forward(x)));
  }

  nn::Activation hidden_act;
  std::shared_ptr<Linear> gate_proj, up_proj, down_proj;
};

struct Block : torch::nn::Module {
  Block(const LlamaConfig& c, int64_t layer, const Build& build) {
    self_attn = register_module("self_attn", std::make_shared<Attention>(c, layer, build));
    mlp = register_module("mlp", std::make_shared<MLP>(c, build));
    input_layernorm =
        register_module("input_layernorm", std::make_shared<nn::RMSNorm>(c.hidden_size, c.rms_norm_eps, build));
    post_attention_layernorm = register_module("post_attention_layernorm",
                                               std::make_shared<nn::RMSNorm>(c.hidden_size, c.rms_norm_eps, build));
  }

  Residual forward(Residual x, const LayerContext& context) {
    x.update = self_attn->forward(input_layernorm->forward(x), context);
    x.update = mlp->forward(post_attention_layernorm->forward(x));
    return x;
  }

  std::shared_ptr<Attention> self_attn;
  std::shared_ptr<MLP> mlp;
  std::shared_ptr<nn::RMSNorm> input_layernorm, post_attention_layernorm;
};

struct Decoder : torch::nn::Module {
  Decoder(const LlamaConfig& c, const Build& build)
      : rotary(c.rope, c.head_dim, c.max_position_embeddings),
        sliding_window(c.sliding_window),
        is_sliding(c.is_sliding) {
    embed_tokens = register_module("embed_tokens", std::make_shared<nn::Embedding>(c.vocab_size, c.hidden_size, build));
    layers = register_module("layers", std::make_shared<nn::Layers<Block>>());
    for (int64_t i = 0; i < c.num_hidden_layers; ++i) layers->append(std::make_shared<Block>(c, i, build));
    norm = register_module("norm", std::make_shared<nn::RMSNorm>(c.hidden_size, c.rms_norm_eps, build));
  }

  Tensor forward(const Tensor& input_ids, LayerContext& context, std::vector<Tensor>* hidden_states) {
    rotary.prepare(context);
    const LayerContext windowed = nn::within_window(context, sliding_window);
    Residual x{nn::put_before(context.virtual_embeddings, embed_tokens->forward(input_ids)), {}};  // [B, T, H]
    for (size_t i = 0; i < layers->size(); ++i) {
      if (hidden_states) hidden_states->push_back(x.sum());
      x = nn::run_layer(*(*layers)[i], x, is_sliding[i] ? windowed : context, gradient_checkpointing);
    }
    const Tensor y = norm->forward(x);
    if (hidden_states) hidden_states->push_back(y);
    return y;
  }

  nn::Rotary rotary;
  int64_t sliding_window;
  std::vector<bool> is_sliding;
  bool gradient_checkpointing = false;
  std::shared_ptr<nn::Embedding> embed_tokens;
  std::shared_ptr<nn::Layers<Block>> layers;
  std::shared_ptr<nn::RMSNorm> norm;
};

/// The longest sequence: with dynamic scaling, the stretched length; the other scalings have it in the config already.
int64_t longest(const LlamaConfig& c) {
  if (c.rope.type != nn::RopeType::dynamic) return c.max_position_embeddings;
  return static_cast<int64_t>(c.rope.factor * static_cast<double>(c.max_position_embeddings));
}

class Llama final : public nn::CausalModel {
 public:
  Llama(LlamaConfig config, const Build& build) : config_(std::move(config)) {
    model_ = register_module("model", std::make_shared<Decoder>(config_, build));
    lm_head_ =
        register_module("lm_head", Linear::head(model_->embed_tokens->weight, config_.tie_word_embeddings, build));
  }

  /// Normal with initializer_range, biases 0, norms 1 (LlamaPreTrainedModel._init_weights).
  void initialize(uint64_t seed) override { nn::init_parameters(*this, seed, config_.initializer_range); }

  nn::KeyValueShape key_value_shape() const override {
    return {config_.num_hidden_layers, config_.num_key_value_heads, config_.head_dim};
  }

  double training_flops_per_token(int64_t sequence_length) const override {
    const double H = config_.hidden_size, D = config_.head_dim, L = config_.num_hidden_layers;
    const double N = config_.num_attention_heads, K = config_.num_key_value_heads;
    const double layer = H * (2 * N * D + 2 * K * D + 3.0 * config_.intermediate_size);
    return 6 * (L * layer + H * config_.vocab_size) + 6 * L * N * D * sequence_length;
  }

  Linear& lm_head() override { return *lm_head_; }
  int64_t vocab_size() const override { return config_.vocab_size; }
  Tensor embed(const Tensor& ids) override { return model_->embed_tokens->forward(ids); }
  int64_t num_positions() const override { return longest(config_); }
  bool depends_on_length() const override { return config_.rope.depends_on_length(); }
  int64_t num_layers() const override { return config_.num_hidden_layers; }
  void set_gradient_checkpointing(bool on) override { model_->gradient_checkpointing = on; }

  io::Json config() const override {
    io::Json json = config_.raw;
    json["architectures"] = {config_.architecture};
    write_rope(config_.rope, json);
    return json;
  }

 private:
  Tensor run_layers(const Tensor& input_ids, LayerContext& context, std::vector<Tensor>* hidden_states) override {
    return model_->forward(input_ids, context, hidden_states);
  }

  LlamaConfig config_;
  std::shared_ptr<Decoder> model_;
  std::shared_ptr<Linear> lm_head_;
};

}  // namespace

std::shared_ptr<nn::Model> make_llama_decoder(LlamaConfig config, const Build& build) {
  return std::make_shared<Llama>(std::move(config), build);
}

std::shared_ptr<nn::Model> make_llama(const io::Json& config, const std::string& where, const Build& build) {
  return make_llama_decoder(LlamaConfig::from_hf(config, where, build.typed_keys), build);
}

std::optional<std::string> llama_parameter_name(const std::string& name) {
  if (name.ends_with(".rotary_emb.inv_freq")) return std::nullopt;
  if (name.starts_with("model.") || name.starts_with("lm_head.")) return name;
  return "model." + name;
}

std::map<std::string, io::Json> llama_presets() {
  struct Shape {
    LlamaShape shape;
    double theta, llama3_factor;  // 0: no scaling
  };
  // As the published config.json of each says.
  static constexpr Shape kShapes[] = {
      {{"smollm2-135m", 49152, 576, 1536, 30, 9, 3, 64, 8192, 1e-5, true, 0, 0}, 1e5, 0},
      {{"smollm2-360m", 49152, 960, 2560, 32, 15, 5, 64, 8192, 1e-5, true, 0, 0}, 1e5, 0},
      {{"smollm2-1.7b", 49152, 2048, 8192, 24, 32, 32, 64, 8192, 1e-5, true, 0, 0}, 13e4, 0},
      {{"tinyllama-1.1b", 32000, 2048, 5632, 22, 32, 4, 64, 2048, 1e-5, false, 1, 2}, 1e4, 0},
      {{"llama-2-7b", 32000, 4096, 11008, 32, 32, 32, 128, 4096, 1e-5, false, 1, 2}, 1e4, 0},
      {{"llama-2-13b", 32000, 5120, 13824, 40, 40, 40, 128, 4096, 1e-5, false, 1, 2}, 1e4, 0},
      {{"llama-2-70b", 32000, 8192, 28672, 80, 64, 8, 128, 4096, 1e-5, false, 1, 2}, 1e4, 0},
      {{"llama-3-8b", 128256, 4096, 14336, 32, 32, 8, 128, 8192, 1e-5, false, 128000, 128001}, 5e5, 0},
      {{"llama-3-70b", 128256, 8192, 28672, 80, 64, 8, 128, 8192, 1e-5, false, 128000, 128001}, 5e5, 0},
      {{"llama-3.1-8b", 128256, 4096, 14336, 32, 32, 8, 128, 131072, 1e-5, false, 128000, 128001}, 5e5, 8},
      {{"llama-3.2-1b", 128256, 2048, 8192, 16, 32, 8, 64, 131072, 1e-5, true, 128000, 128001}, 5e5, 32},
      {{"llama-3.2-3b", 128256, 3072, 8192, 28, 24, 8, 128, 131072, 1e-5, true, 128000, 128001}, 5e5, 32},
  };
  std::map<std::string, io::Json> presets;
  for (const auto& [shape, theta, llama3_factor] : kShapes) {
    nn::RopeConfig rope{.theta = theta};
    if (llama3_factor > 0) {
      rope.type = nn::RopeType::llama3;
      rope.factor = llama3_factor;
      rope.original_max_position_embeddings = 8192;
    }
    io::Json& json = presets[shape.name] = llama_preset(shape, "llama", "LlamaForCausalLM", rope);
    json["attention_bias"] = false;
    json["mlp_bias"] = false;
  }
  return presets;
}

io::Json llama_preset(const LlamaShape& shape, const char* model_type, const char* architecture,
                      const nn::RopeConfig& rope) {
  io::Json json = {{"model_type", model_type},
                   {"architectures", {architecture}},
                   {"vocab_size", shape.vocab},
                   {"hidden_size", shape.hidden},
                   {"intermediate_size", shape.intermediate},
                   {"num_hidden_layers", shape.layers},
                   {"num_attention_heads", shape.heads},
                   {"num_key_value_heads", shape.kv_heads},
                   {"head_dim", shape.head_dim},
                   {"hidden_act", "silu"},
                   {"max_position_embeddings", shape.positions},
                   {"rms_norm_eps", shape.eps},
                   {"initializer_range", 0.02},
                   {"attention_dropout", 0.0},
                   {"tie_word_embeddings", shape.tied},
                   {"bos_token_id", shape.bos},
                   {"eos_token_id", shape.eos}};
  write_rope(rope, json);
  return json;
}

}  // namespace llmtk::models
