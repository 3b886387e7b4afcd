#include "models/gpt_neox.h"

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

namespace {

constexpr RopeKeys kRopeKeys{.theta = "rotary_emb_base", .partial = true, .share = "rotary_pct", .default_share = 0.25};

}  // namespace

GPTNeoXConfig GPTNeoXConfig::from_hf(const io::Json& json, const std::string& where, const io::TypedKeys* typed_keys) {
  io::ObjectReader config(json, where, typed_keys);
  read_common(config);
  GPTNeoXConfig c;
  c.vocab_size = config.integer("vocab_size");
  c.hidden_size = config.integer("hidden_size");
  c.intermediate_size = config.integer("intermediate_size");
  c.num_hidden_layers = config.integer("num_hidden_layers", 1, kMostLayers);
  c.num_attention_heads = config.integer("num_attention_heads");
  if (c.hidden_size % c.num_attention_heads != 0)
    config.fail("num_attention_heads", "a divisor of hidden_size, " + std::to_string(c.hidden_size));
  c.max_position_embeddings = config.integer("max_position_embeddings");
  c.hidden_act = read_activation(config, "hidden_act", "gelu");
  c.rope = read_rope(config, {c.head_dim(), c.max_position_embeddings}, kRopeKeys);
  if (const int64_t rotated = nn::rotated_dimensions(c.rope, c.head_dim()); rotated < 2 || rotated % 2 != 0)
    config.fail("rotary_pct", "an even number of a head's " + std::to_string(c.head_dim()) + " dimensions, at least 2");
  c.layer_norm_eps = config.number_or("layer_norm_eps", c.layer_norm_eps);
  c.initializer_range = config.number_or("initializer_range", c.initializer_range);
  c.attention_dropout = config.probability_or("attention_dropout", c.attention_dropout);
  c.hidden_dropout = config.probability_or("hidden_dropout", c.hidden_dropout);
  c.use_parallel_residual = config.boolean_or("use_parallel_residual", true);
  c.attention_bias = config.boolean_or("attention_bias", true);
  c.tie_word_embeddings = config.boolean_or("tie_word_embeddings", false);
  // The last files of version 4 say the rotary settings twice.
  config.only("rope_theta", c.rope.theta);
  config.only("partial_rotary_factor", c.rope.partial_rotary_factor);
  config.ignore({"classifier_dropout"});  // of a head for another task
  refuse_unread(config, typed_keys);
  c.raw = json;
  return c;
}

namespace {

struct Attention : torch::nn::Module {
  Attention(const GPTNeoXConfig& c, int64_t layer, const Build& build)
      : head_dim(c.head_dim()),
        layer(layer),
        scale(1 / std::sqrt(static_cast<double>(head_dim))),
        attention_dropout(c.attention_dropout) {
    const int64_t H = c.hidden_size;
    const Linear::Options options{.bias = c.attention_bias};
    query_key_value = register_module("query_key_value", std::make_shared<Linear>(H, 3 * H, options, build));
    dense = register_module("dense", std::make_shared<Linear>(H, H, options, build));
  }

  Tensor forward(const Tensor& x, const LayerContext& context) {
    const Tensor qkv = query_key_value->forward(x).unflatten(2, {-1, 3 * head_dim}).transpose(1, 2);  // [B, N, T, 3 D]
    const auto parts = qkv.chunk(3, -1);  // each [B, N, T, D]
    auto [q, k] = kernels::rotary(parts[0], parts[1], context.cos, context.sin);
    const Tensor y =
        nn::causal_attention(q, k, parts[2], context, layer,
                             {.scale = scale, .dropout = is_training() ? attention_dropout : 0.0});  // [B, T, H]
    return dense->forward(y);
  }

  int64_t head_dim, layer;
  double scale, attention_dropout;
  std::shared_ptr<Linear> query_key_value, dense;
};

struct MLP : torch::nn::Module {
  MLP(const GPTNeoXConfig& c, const Build& build) : hidden_act(c.hidden_act) {
    const int64_t H = c.hidden_size, I = c.intermediate_size;
    dense_h_to_4h = register_module("dense_h_to_4h", std::make_shared<Linear>(H, I, Linear::Options{}, build));
    dense_4h_to_h = register_module("dense_4h_to_h", std::make_shared<Linear>(I, H, Linear::Options{}, build));
  }

  Tensor forward(const Tensor& x) {
    return dense_4h_to_h->forward(nn::activate(hidden_act, dense_h_to_4h->forward(x)));
  }

  nn::Activation hidden_act;
  std::shared_ptr<Linear> dense_h_to_4h, dense_4h_to_h;
};

struct Block : torch::nn::Module {
  Block(const GPTNeoXConfig& c, int64_t layer, const Build& build)
      : use_parallel_residual(c.use_parallel_residual), hidden_dropout(c.hidden_dropout) {
    const auto norm = [&](const char* name) {
      return register_module(name, std::make_shared<nn::LayerNorm>(c.hidden_size, c.layer_norm_eps, build));
    };
    input_layernorm = norm("input_layernorm");
    post_attention_layernorm = norm("post_attention_layernorm");
    attention = register_module("attention", std::make_shared<Attention>(c, layer, build));
    mlp = register_module("mlp", std::make_shared<MLP>(c, build));
  }

  Residual forward(Residual x, const LayerContext& context) {
    const Tensor attended = drop(attention->forward(input_layernorm->forward(x), context));
    if (use_parallel_residual) {
      x.update = kernels::add(drop(mlp->forward(post_attention_layernorm->forward(x.stream))), attended);
    } else {
      x.update = attended;
      x.update = drop(mlp->forward(post_attention_layernorm->forward(x)));
    }
    return x;
  }

  Tensor drop(const Tensor& x) const { return nn::dropout(x, hidden_dropout, is_training()); }

  bool use_parallel_residual;
  double hidden_dropout;
  std::shared_ptr<nn::LayerNorm> input_layernorm, post_attention_layernorm;
  std::shared_ptr<Attention> attention;
  std::shared_ptr<MLP> mlp;
};

struct Decoder : torch::nn::Module {
  Decoder(const GPTNeoXConfig& c, const Build& build)
      : rotary(c.rope, c.head_dim(), c.max_position_embeddings), hidden_dropout(c.hidden_dropout) {
    embed_in = register_module("embed_in", std::make_shared<nn::Embedding>(c.vocab_size, c.hidden_size, build));
    layers = register_module("layers", std::make_shared<nn::Layers<Block>>());
    for (int64_t i = 0; i < c.num_hidden_layers; ++i) layers->append(std::make_shared<Block>(c, i, build));
    final_layer_norm =
        register_module("final_layer_norm", std::make_shared<nn::LayerNorm>(c.hidden_size, c.layer_norm_eps, build));
  }

  Tensor forward(const Tensor& input_ids, LayerContext& context, std::vector<Tensor>* hidden_states) {
    rotary.prepare(context);
    const Tensor embedded = nn::put_before(context.virtual_embeddings, embed_in->forward(input_ids));
    Residual x{nn::dropout(embedded, hidden_dropout, is_training()), {}};  // [B, T, H]
    for (const auto& block : *layers) {
      if (hidden_states) hidden_states->push_back(x.sum());
      x = nn::run_layer(*block, x, context, gradient_checkpointing);
    }
    const Tensor y = final_layer_norm->forward(x);
    if (hidden_states) hidden_states->push_back(y);
    return y;
  }

  nn::Rotary rotary;
  double hidden_dropout;
  bool gradient_checkpointing = false;
  std::shared_ptr<nn::Embedding> embed_in;
  std::shared_ptr<nn::Layers<Block>> layers;
  std::shared_ptr<nn::LayerNorm> final_layer_norm;
};

class GPTNeoX final : public nn::CausalModel {
 public:
  GPTNeoX(GPTNeoXConfig config, const Build& build) : config_(std::move(config)) {
    gpt_neox_ = register_module("gpt_neox", std::make_shared<Decoder>(config_, build));
    embed_out_ =
        register_module("embed_out", Linear::head(gpt_neox_->embed_in->weight, config_.tie_word_embeddings, build));
  }

  /// Normal with initializer_range, biases 0, norms 1 (PreTrainedModel._init_weights).
  void initialize(uint64_t seed) override { nn::init_parameters(*this, seed, config_.initializer_range); }

  nn::KeyValueShape key_value_shape() const override {
    return {config_.num_hidden_layers, config_.num_attention_heads, config_.head_dim()};
  }

  double training_flops_per_token(int64_t sequence_length) const override {
    const double H = config_.hidden_size, L = config_.num_hidden_layers;
    const double layer = H * (4 * H + 2.0 * config_.intermediate_size);
    return 6 * (L * layer + H * config_.vocab_size) + 6 * L * H * sequence_length;
  }

  std::map<std::string, Tensor> tied_names() override {
    if (!config_.tie_word_embeddings) return {};
    return {{"embed_out.weight", gpt_neox_->embed_in->weight}};
  }

  Linear& lm_head() override { return *embed_out_; }
  int64_t vocab_size() const override { return config_.vocab_size; }
  Tensor embed(const Tensor& ids) override { return gpt_neox_->embed_in->forward(ids); }
  int64_t num_positions() const override { return config_.max_position_embeddings; }
  bool depends_on_length() const override { return config_.rope.depends_on_length(); }
  int64_t num_layers() const override { return config_.num_hidden_layers; }
  void set_gradient_checkpointing(bool on) override { gpt_neox_->gradient_checkpointing = on; }

  io::Json config() const override {
    io::Json json = config_.raw;
    json["architectures"] = {"GPTNeoXForCausalLM"};
    json["model_type"] = "gpt_neox";
    write_rope(config_.rope, json, kRopeKeys);
    return json;
  }

 private:
  Tensor run_layers(const Tensor& input_ids, LayerContext& context, std::vector<Tensor>* hidden_states) override {
    return gpt_neox_->forward(input_ids, context, hidden_states);
  }

  GPTNeoXConfig config_;
  std::shared_ptr<Decoder> gpt_neox_;
  std::shared_ptr<Linear> embed_out_;
};

}  // namespace

std::shared_ptr<nn::Model> make_gpt_neox(const io::Json& config, const std::string& where, const Build& build) {
  return std::make_shared<GPTNeoX>(GPTNeoXConfig::from_hf(config, where, build.typed_keys), build);
}

std::optional<std::string> gpt_neox_parameter_name(const std::string& name) {
  if (name.ends_with(".attention.bias") || name.ends_with(".attention.masked_bias") ||
      name.ends_with(".rotary_emb.inv_freq"))
    return std::nullopt;
  if (name.starts_with("gpt_neox.") || name.starts_with("embed_out.")) return name;
  if (name == "lm_head.weight") return "embed_out.weight";  // as version 5 of transformers calls it in memory
  return "gpt_neox." + name;
}

std::map<std::string, io::Json> gpt_neox_presets() {
  struct Shape {
    const char* name;
    int64_t vocab, hidden, intermediate, layers, heads;
    const char* activation;
  };
  // As the published config.json of each says.
  static constexpr Shape kShapes[] = {
      {"pythia-14m", 50304, 128, 512, 6, 4, "gelu"},       {"pythia-70m", 50304, 512, 2048, 6, 8, "gelu"},
      {"pythia-160m", 50304, 768, 3072, 12, 12, "gelu"},   {"pythia-410m", 50304, 1024, 4096, 24, 16, "gelu"},
      {"pythia-1b", 50304, 2048, 8192, 16, 8, "gelu"},     {"pythia-1.4b", 50304, 2048, 8192, 24, 16, "gelu"},
      {"pythia-2.8b", 50304, 2560, 10240, 32, 32, "gelu"}, {"pythia-6.9b", 50432, 4096, 16384, 32, 32, "gelu"},
      {"pythia-12b", 50688, 5120, 20480, 36, 40, "gelu"},  {"gpt-neox-20b", 50432, 6144, 24576, 44, 64, "gelu_fast"},
  };
  std::map<std::string, io::Json> presets;
  for (const Shape& shape : kShapes) {
    io::Json& json = presets[shape.name] = {{"model_type", "gpt_neox"},
                                            {"architectures", {"GPTNeoXForCausalLM"}},
                                            {"vocab_size", shape.vocab},
                                            {"hidden_size", shape.hidden},
                                            {"intermediate_size", shape.intermediate},
                                            {"num_hidden_layers", shape.layers},
                                            {"num_attention_heads", shape.heads},
                                            {"hidden_act", shape.activation},
                                            {"max_position_embeddings", 2048},
                                            {"layer_norm_eps", 1e-5},
                                            {"initializer_range", 0.02},
                                            {"attention_dropout", 0.0},
                                            {"hidden_dropout", 0.0},
                                            {"use_parallel_residual", true},
                                            {"attention_bias", true},
                                            {"tie_word_embeddings", false},
                                            {"bos_token_id", 0},
                                            {"eos_token_id", 0}};
    write_rope({.theta = 1e4, .partial_rotary_factor = 0.25}, json, kRopeKeys);
  }
  return presets;
}

}  // namespace llmtk::models
