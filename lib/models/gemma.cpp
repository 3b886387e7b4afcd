#include "models/gemma.h"

#include <ATen/ops/scalar_tensor.h>

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

GemmaConfig GemmaConfig::from_common(io::ObjectReader& config) {
  read_common(config);
  GemmaConfig c;
  c.vocab_size = config.integer("vocab_size");
  c.hidden_size = config.integer("hidden_size");
  c.intermediate_size = config.integer("intermediate_size");
  c.num_hidden_layers = config.integer("num_hidden_layers", 1, kMostLayers);
  c.num_attention_heads = config.integer("num_attention_heads");
  c.num_key_value_heads = config.integer("num_key_value_heads");
  if (c.num_attention_heads % c.num_key_value_heads != 0)
    config.fail("num_key_value_heads", "a divisor of num_attention_heads, " + std::to_string(c.num_attention_heads));
  c.head_dim = config.integer("head_dim", 2);
  if (c.head_dim % 2 != 0) config.fail("head_dim", "an even number: rotary positions turn pairs");
  c.max_position_embeddings = config.integer("max_position_embeddings");
  c.hidden_activation = read_activation(config, "hidden_activation", "gelu_pytorch_tanh");
  c.rms_norm_eps = config.number("rms_norm_eps");
  c.initializer_range = config.number_or("initializer_range", c.initializer_range);
  c.attention_dropout = config.probability_or("attention_dropout", c.attention_dropout);
  c.query_pre_attn_scalar = config.number("query_pre_attn_scalar");
  if (c.query_pre_attn_scalar <= 0) config.fail("query_pre_attn_scalar", "a number above 0");
  c.attention_bias = config.boolean_or("attention_bias", false);
  c.tie_word_embeddings = config.boolean_or("tie_word_embeddings", true);
  config.only("use_bidirectional_attention", false);
  // Named otherwise by the first files; and how another program keeps its cache.
  config.ignore({"hidden_act", "cache_implementation"});
  return c;
}

namespace {

struct Attention : torch::nn::Module {
  Attention(const GemmaConfig& c, int64_t layer, const Build& build)
      : head_dim(c.head_dim),
        layer(layer),
        scale(1 / std::sqrt(c.query_pre_attn_scalar)),
        softcap(c.attn_logit_softcapping),
        attention_dropout(c.attention_dropout) {
    const int64_t H = c.hidden_size, N = c.num_attention_heads, K = c.num_key_value_heads, D = c.head_dim;
    const Linear::Options options{.bias = c.attention_bias};
    q_proj = register_module("q_proj", std::make_shared<Linear>(H, N * D, options, build));
    k_proj = register_module("k_proj", std::make_shared<Linear>(H, K * D, options, build));
    v_proj = register_module("v_proj", std::make_shared<Linear>(H, K * D, options, build));
    o_proj = register_module("o_proj", std::make_shared<Linear>(N * D, H, options, build));
    if (!c.qk_norm) return;
    q_norm = register_module("q_norm", std::make_shared<nn::RMSNorm>(D, c.rms_norm_eps, build, true));
    k_norm = register_module("k_norm", std::make_shared<nn::RMSNorm>(D, c.rms_norm_eps, build, true));
  }

  Tensor forward(const Tensor& x, const LayerContext& context) {
    const auto heads = [&](const Tensor& y, const auto& norm) {
      const Tensor split = y.unflatten(2, {-1, head_dim});  // [B, T, N or K, D]
      return (norm ? norm->forward(split) : split).transpose(1, 2);
    };
    auto [q, k] = kernels::rotary(heads(q_proj->forward(x), q_norm),                             // [B, N, T, D]
                                  heads(k_proj->forward(x), k_norm), context.cos, context.sin);  // [B, K, T, D]
    const Tensor v = v_proj->forward(x).unflatten(2, {-1, head_dim}).transpose(1, 2);            // [B, K, T, D]
    const Tensor y = nn::causal_attention(
        q, k, v, context, layer,
        {.scale = scale, .dropout = is_training() ? attention_dropout : 0.0, .softcap = softcap});  // [B, T, N * D]
    return o_proj->forward(y);
  }

  int64_t head_dim, layer;
  double scale, softcap, attention_dropout;
  std::shared_ptr<Linear> q_proj, k_proj, v_proj, o_proj;
  std::shared_ptr<nn::RMSNorm> q_norm, k_norm;  // Gemma 3 alone
};

struct MLP : torch::nn::Module {
  MLP(const GemmaConfig& c, const Build& build) : hidden_activation(c.hidden_activation) {
    const int64_t H = c.hidden_size, I = c.intermediate_size;
    gate_proj = register_module("gate_proj", std::make_shared<Linear>(H, I, Linear::Options{.bias = false}, build));
    up_proj = register_module("up_proj", std::make_shared<Linear>(H, I, Linear::Options{.bias = false}, build));
    down_proj = register_module("down_proj", std::make_shared<Linear>(I, H, Linear::Options{.bias = false}, build));
  }

  Tensor forward(const Tensor& x) {
    return down_proj->forward(nn::activate_gated(hidden_activation, gate_proj->forward(x), up_proj->forward(x)));
  }

  nn::Activation hidden_activation;
  std::shared_ptr<Linear> gate_proj, up_proj, down_proj;
};

struct Block : torch::nn::Module {
  Block(const GemmaConfig& c, int64_t layer, const Build& build) : is_sliding(c.is_sliding[layer]) {
    self_attn = register_module("self_attn", std::make_shared<Attention>(c, layer, build));
    mlp = register_module("mlp", std::make_shared<MLP>(c, build));
    const auto norm = [&](const char* name) {
      return register_module(name, std::make_shared<nn::RMSNorm>(c.hidden_size, c.rms_norm_eps, build, true));
    };
    input_layernorm = norm("input_layernorm");
    post_attention_layernorm = norm("post_attention_layernorm");
    pre_feedforward_layernorm = norm("pre_feedforward_layernorm");
    post_feedforward_layernorm = norm("post_feedforward_layernorm");
  }

  Residual forward(Residual x, const LayerContext& context) {
    x.update = post_attention_layernorm->forward(self_attn->forward(input_layernorm->forward(x), context));
    x.update = post_feedforward_layernorm->forward(mlp->forward(pre_feedforward_layernorm->forward(x)));
    return x;
  }

  bool is_sliding;
  std::shared_ptr<Attention> self_attn;
  std::shared_ptr<MLP> mlp;
  std::shared_ptr<nn::RMSNorm> input_layernorm, post_attention_layernorm;
  std::shared_ptr<nn::RMSNorm> pre_feedforward_layernorm, post_feedforward_layernorm;
};

struct Decoder : torch::nn::Module {
  Decoder(const GemmaConfig& c, const Build& build)
      : rotary(c.rope, c.head_dim, c.max_position_embeddings),
        sliding_window(c.sliding_window),
        embed_scale(std::sqrt(static_cast<double>(c.hidden_size))) {
    if (c.local_rope) local_rotary.emplace(*c.local_rope, c.head_dim, c.max_position_embeddings);
    embed_tokens = register_module("embed_tokens", std::make_shared<nn::Embedding>(c.vocab_size, c.hidden_size, build));
    layers = register_module("layers", std::make_shared<nn::Layers<Block>>());
    for (int64_t i = 0; i < c.num_hidden_layers; ++i) layers->append(std::make_shared<Block>(c, i, build));
    norm = register_module("norm", std::make_shared<nn::RMSNorm>(c.hidden_size, c.rms_norm_eps, build, true));
  }

  Tensor forward(const Tensor& input_ids, LayerContext& context, std::vector<Tensor>* hidden_states) {
    rotary.prepare(context);
    LayerContext windowed = nn::within_window(context, sliding_window);
    if (local_rotary) local_rotary->prepare(windowed);
    Residual x{nn::put_before(context.virtual_embeddings, embed(input_ids)), {}};  // [B, T, H]
    for (const auto& block : *layers) {
      if (hidden_states) hidden_states->push_back(x.sum());
      x = nn::run_layer(*block, x, block->is_sliding ? windowed : context, gradient_checkpointing);
    }
    const Tensor y = norm->forward(x);
    if (hidden_states) hidden_states->push_back(y);
    return y;
  }

  /// The scale is rounded to the weights' dtype first, as HF's Gemma2TextScaledWordEmbedding does it.
  Tensor embed(const Tensor& input_ids) {
    const Tensor x = embed_tokens->forward(input_ids);
    return kernels::scale(x, embed_scale);
  }

  nn::Rotary rotary;
  std::optional<nn::Rotary> local_rotary;
  int64_t sliding_window;
  double embed_scale;
  bool gradient_checkpointing = false;
  std::shared_ptr<nn::Embedding> embed_tokens;
  std::shared_ptr<nn::Layers<Block>> layers;
  std::shared_ptr<nn::RMSNorm> norm;
};

class Gemma final : public nn::CausalModel {
 public:
  Gemma(GemmaConfig config, const Build& build) : config_(std::move(config)) {
    model_ = register_module("model", std::make_shared<Decoder>(config_, build));
    lm_head_ =
        register_module("lm_head", Linear::head(model_->embed_tokens->weight, config_.tie_word_embeddings, build));
  }

  /// Normal with initializer_range, biases and the norms' distances from 1 0 (Gemma2PreTrainedModel._init_weights).
  void initialize(uint64_t seed) override {
    for (const auto& parameter : named_parameters()) {
      if (parameter.value().dim() == 1)
        nn::init_constant(parameter.value(), 0);
      else
        nn::init_normal(parameter.value(), config_.initializer_range, seed, parameter.key());
    }
  }

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
  double final_logit_softcapping() const override { return config_.final_logit_softcapping; }
  int64_t vocab_size() const override { return config_.vocab_size; }
  Tensor embed(const Tensor& ids) override { return model_->embed(ids); }
  int64_t num_positions() const override { return config_.max_position_embeddings; }
  bool depends_on_length() const override {
    return config_.rope.depends_on_length() || (config_.local_rope && config_.local_rope->depends_on_length());
  }
  int64_t num_layers() const override { return config_.num_hidden_layers; }
  void set_gradient_checkpointing(bool on) override { model_->gradient_checkpointing = on; }

  io::Json config() const override {
    io::Json json = config_.raw;
    json["architectures"] = {config_.architecture};
    write_rope(config_.rope, json);
    if (config_.local_rope) {
      json["rope_parameters"] = {{"full_attention", rope_parameters(config_.rope)},
                                 {"sliding_attention", rope_parameters(*config_.local_rope)}};
      json["rope_local_base_freq"] = config_.local_rope->theta;
    }
    return json;
  }

 private:
  Tensor run_layers(const Tensor& input_ids, LayerContext& context, std::vector<Tensor>* hidden_states) override {
    return model_->forward(input_ids, context, hidden_states);
  }

  GemmaConfig config_;
  std::shared_ptr<Decoder> model_;
  std::shared_ptr<Linear> lm_head_;
};

}  // namespace

std::shared_ptr<nn::Model> make_gemma_decoder(GemmaConfig config, const Build& build) {
  return std::make_shared<Gemma>(std::move(config), build);
}

std::optional<std::string> gemma_parameter_name(const std::string& name) {
  if (name.ends_with(".rotary_emb.inv_freq")) return std::nullopt;
  if (name.starts_with("model.") || name.starts_with("lm_head.")) return name;
  return "model." + name;
}

io::Json gemma_preset(const GemmaShape& shape, const char* model_type, const char* architecture) {
  return {{"model_type", model_type},
          {"architectures", {architecture}},
          {"vocab_size", shape.vocab},
          {"hidden_size", shape.hidden},
          {"intermediate_size", shape.intermediate},
          {"num_hidden_layers", shape.layers},
          {"num_attention_heads", shape.heads},
          {"num_key_value_heads", shape.kv_heads},
          {"head_dim", shape.head_dim},
          {"hidden_activation", "gelu_pytorch_tanh"},
          {"max_position_embeddings", shape.positions},
          {"query_pre_attn_scalar", shape.query_pre_attn_scalar},
          {"sliding_window", shape.window},
          {"rms_norm_eps", 1e-6},
          {"initializer_range", 0.02},
          {"attention_bias", false},
          {"attention_dropout", 0.0},
          {"tie_word_embeddings", true},
          {"bos_token_id", 2},
          {"eos_token_id", 1},
          {"pad_token_id", 0}};
}

}  // namespace llmtk::models
