#include "models/opt.h"

#include <cmath>

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

OPTConfig OPTConfig::from_hf(const io::Json& json, const std::string& where, const io::TypedKeys* typed_keys) {
  io::ObjectReader config(json, where, typed_keys);
  read_common(config);
  OPTConfig c;
  c.vocab_size = config.integer("vocab_size");
  c.hidden_size = config.integer("hidden_size");
  c.ffn_dim = config.integer("ffn_dim");
  c.num_hidden_layers = config.integer("num_hidden_layers", 1, kMostLayers);
  c.num_attention_heads = config.integer("num_attention_heads");
  if (c.hidden_size % c.num_attention_heads != 0)
    config.fail("num_attention_heads", "a divisor of hidden_size, " + std::to_string(c.hidden_size));
  c.max_position_embeddings = config.integer("max_position_embeddings");
  c.word_embed_proj_dim = config.integer_or("word_embed_proj_dim", c.hidden_size, 1);
  c.activation_function = read_activation(config, "activation_function", "relu");
  c.dropout = config.probability_or("dropout", c.dropout);
  c.attention_dropout = config.probability_or("attention_dropout", c.attention_dropout);
  c.init_std = config.number_or("init_std", c.init_std);
  c.do_layer_norm_before = config.boolean_or("do_layer_norm_before", true);
  c.remove_final_layer_norm = config.boolean_or("_remove_final_layer_norm", false);
  c.enable_bias = config.boolean_or("enable_bias", true);
  c.layer_norm_elementwise_affine = config.boolean_or("layer_norm_elementwise_affine", true);
  c.tie_word_embeddings = config.boolean_or("tie_word_embeddings", true);
  config.only("layerdrop", 0);
  // HF's model has no dropout there; and what its text pipeline puts before a prompt.
  config.ignore({"activation_dropout", "prefix"});
  refuse_unread(config, typed_keys);
  c.raw = json;
  return c;
}

namespace {

constexpr int64_t kFirstPosition = 2;  // rows before it were fairseq's, for padding
constexpr double kLayerNormEps = 1e-5;

struct Attention : torch::nn::Module {
  Attention(const OPTConfig& c, int64_t layer, const Build& build)
      : heads(c.num_attention_heads),
        layer(layer),
        scale(1 / std::sqrt(static_cast<double>(c.hidden_size / c.num_attention_heads))),
        attention_dropout(c.attention_dropout) {
    const auto linear = [&](const char* name) {
      return register_module(
          name, std::make_shared<Linear>(c.hidden_size, c.hidden_size, Linear::Options{.bias = c.enable_bias}, build));
    };
    k_proj = linear("k_proj");
    v_proj = linear("v_proj");
    q_proj = linear("q_proj");
    out_proj = linear("out_proj");
  }

  Tensor forward(const Tensor& x, const LayerContext& context) {
    const auto split = [&](const Tensor& y) { return y.unflatten(2, {heads, -1}).transpose(1, 2); };  // [B, N, T, D]
    const Tensor y =
        nn::causal_attention(split(q_proj->forward(x)), split(k_proj->forward(x)), split(v_proj->forward(x)), context,
                             layer, {.scale = scale, .dropout = is_training() ? attention_dropout : 0.0});  // [B, T, H]
    return out_proj->forward(y);
  }

  int64_t heads, layer;
  double scale, attention_dropout;
  std::shared_ptr<Linear> k_proj, v_proj, q_proj, out_proj;
};

std::shared_ptr<nn::LayerNorm> make_norm(const OPTConfig& c, const Build& build) {
  return std::make_shared<nn::LayerNorm>(c.hidden_size, kLayerNormEps, build, c.layer_norm_elementwise_affine);
}

struct Block : torch::nn::Module {
  Block(const OPTConfig& c, int64_t layer, const Build& build)
      : activation(c.activation_function), norm_before(c.do_layer_norm_before), dropout(c.dropout) {
    const Linear::Options options{.bias = c.enable_bias};
    self_attn = register_module("self_attn", std::make_shared<Attention>(c, layer, build));
    self_attn_layer_norm = register_module("self_attn_layer_norm", make_norm(c, build));
    fc1 = register_module("fc1", std::make_shared<Linear>(c.hidden_size, c.ffn_dim, options, build));
    fc2 = register_module("fc2", std::make_shared<Linear>(c.ffn_dim, c.hidden_size, options, build));
    final_layer_norm = register_module("final_layer_norm", make_norm(c, build));
  }

  Residual forward(Residual x, const LayerContext& context) {
    if (norm_before) {
      x.update = drop(self_attn->forward(self_attn_layer_norm->forward(x), context));
      x.update = drop(feed_forward(final_layer_norm->forward(x)));
    } else {
      x.stream = x.sum();
      x.update = drop(self_attn->forward(x.stream, context));
      x.stream = self_attn_layer_norm->forward(x);
      x.update = drop(feed_forward(x.stream));
      x.stream = final_layer_norm->forward(x);
    }
    return x;
  }

  Tensor feed_forward(const Tensor& x) { return fc2->forward(nn::activate(activation, fc1->forward(x))); }
  Tensor drop(const Tensor& x) const { return nn::dropout(x, dropout, is_training()); }

  nn::Activation activation;
  bool norm_before;
  double dropout;
  std::shared_ptr<Attention> self_attn;
  std::shared_ptr<Linear> fc1, fc2;
  std::shared_ptr<nn::LayerNorm> self_attn_layer_norm, final_layer_norm;
};

struct Decoder : torch::nn::Module {
  Decoder(const OPTConfig& c, const Build& build) {
    const int64_t H = c.hidden_size, E = c.word_embed_proj_dim;
    embed_tokens = register_module("embed_tokens", std::make_shared<nn::Embedding>(c.vocab_size, E, build));
    embed_positions = register_module(
        "embed_positions", std::make_shared<nn::Embedding>(c.max_position_embeddings + kFirstPosition, H, build));
    if (E != H) {
      project_out =
          register_module("project_out", std::make_shared<Linear>(H, E, Linear::Options{.bias = false}, build));
      project_in = register_module("project_in", std::make_shared<Linear>(E, H, Linear::Options{.bias = false}, build));
    }
    if (c.do_layer_norm_before && !c.remove_final_layer_norm)
      final_layer_norm = register_module("final_layer_norm", make_norm(c, build));
    layers = register_module("layers", std::make_shared<nn::Layers<Block>>());
    for (int64_t i = 0; i < c.num_hidden_layers; ++i) layers->append(std::make_shared<Block>(c, i, build));
  }

  Tensor forward(const Tensor& input_ids, const LayerContext& context, std::vector<Tensor>* hidden_states) {
    const Tensor tokens = nn::put_before(context.virtual_embeddings, embed_tokens->forward(input_ids));  // [B, T, E]
    const Tensor positions = embed_positions->forward(context.position_ids + kFirstPosition);  // [B or 1, T, H]
    Residual x{(project_in ? project_in->forward(tokens) : tokens) + positions, {}};           // [B, T, H]
    for (const auto& block : *layers) {
      if (hidden_states) hidden_states->push_back(x.sum());
      x = nn::run_layer(*block, x, context, gradient_checkpointing);
    }
    Tensor y = final_layer_norm ? final_layer_norm->forward(x) : x.sum();
    if (project_out) y = project_out->forward(y);  // [B, T, E]
    if (hidden_states) hidden_states->push_back(y);
    return y;
  }

  bool gradient_checkpointing = false;
  std::shared_ptr<nn::Embedding> embed_tokens, embed_positions;
  std::shared_ptr<Linear> project_in, project_out;
  std::shared_ptr<nn::LayerNorm> final_layer_norm;
  std::shared_ptr<nn::Layers<Block>> layers;
};

/// HF's OPTModel, which holds nothing but the decoder.
struct Body : torch::nn::Module {
  Body(const OPTConfig& c, const Build& build)
      : decoder(register_module("decoder", std::make_shared<Decoder>(c, build))) {}

  std::shared_ptr<Decoder> decoder;
};

class OPT final : public nn::CausalModel {
 public:
  OPT(OPTConfig config, const Build& build) : config_(std::move(config)) {
    decoder_ = register_module("model", std::make_shared<Body>(config_, build))->decoder;
    lm_head_ =
        register_module("lm_head", Linear::head(decoder_->embed_tokens->weight, config_.tie_word_embeddings, build));
  }

  /// Normal with init_std, biases 0, norms 1 (OPTPreTrainedModel._init_weights).
  void initialize(uint64_t seed) override { nn::init_parameters(*this, seed, config_.init_std); }

  nn::KeyValueShape key_value_shape() const override {
    return {config_.num_hidden_layers, config_.num_attention_heads, config_.hidden_size / config_.num_attention_heads};
  }

  double training_flops_per_token(int64_t sequence_length) const override {
    const double H = config_.hidden_size, E = config_.word_embed_proj_dim, L = config_.num_hidden_layers;
    const double layer = H * (4 * H + 2.0 * config_.ffn_dim), projections = E != H ? 2 * E * H : 0;
    return 6 * (L * layer + projections + E * config_.vocab_size) + 6 * L * H * sequence_length;
  }

  Linear& lm_head() override { return *lm_head_; }
  int64_t vocab_size() const override { return config_.vocab_size; }
  Tensor embed(const Tensor& ids) override { return decoder_->embed_tokens->forward(ids); }
  int64_t num_positions() const override { return config_.max_position_embeddings; }
  int64_t num_layers() const override { return config_.num_hidden_layers; }
  void set_gradient_checkpointing(bool on) override { decoder_->gradient_checkpointing = on; }

  io::Json config() const override {
    io::Json json = config_.raw;
    json["architectures"] = {"OPTForCausalLM"};
    json["model_type"] = "opt";
    return json;
  }

 private:
  Tensor run_layers(const Tensor& input_ids, LayerContext& context, std::vector<Tensor>* hidden_states) override {
    return decoder_->forward(input_ids, context, hidden_states);
  }

  OPTConfig config_;
  std::shared_ptr<Decoder> decoder_;
  std::shared_ptr<Linear> lm_head_;
};

}  // namespace

std::shared_ptr<nn::Model> make_opt(const io::Json& config, const std::string& where, const Build& build) {
  return std::make_shared<OPT>(OPTConfig::from_hf(config, where, build.typed_keys), build);
}

std::optional<std::string> opt_parameter_name(const std::string& name) {
  if (name.ends_with("decoder.version")) return std::nullopt;
  if (name.starts_with("decoder.")) return "model." + name;
  return name;
}

std::map<std::string, io::Json> opt_presets() {
  struct Shape {
    const char* name;
    int64_t hidden, layers, heads, embedding;
    bool norm_before;
  };
  // Table 1 of the paper, as the published config.json of each says.
  static constexpr Shape kShapes[] = {
      {"opt-125m", 768, 12, 12, 768, true},   {"opt-350m", 1024, 24, 16, 512, false},
      {"opt-1.3b", 2048, 24, 32, 2048, true}, {"opt-2.7b", 2560, 32, 32, 2560, true},
      {"opt-6.7b", 4096, 32, 32, 4096, true}, {"opt-13b", 5120, 40, 40, 5120, true},
      {"opt-30b", 7168, 48, 56, 7168, true},  {"opt-66b", 9216, 64, 72, 9216, true},
  };
  std::map<std::string, io::Json> presets;
  for (const Shape& shape : kShapes)
    presets[shape.name] = {{"model_type", "opt"},
                           {"architectures", {"OPTForCausalLM"}},
                           {"vocab_size", 50272},
                           {"hidden_size", shape.hidden},
                           {"num_hidden_layers", shape.layers},
                           {"ffn_dim", 4 * shape.hidden},
                           {"num_attention_heads", shape.heads},
                           {"max_position_embeddings", 2048},
                           {"word_embed_proj_dim", shape.embedding},
                           {"do_layer_norm_before", shape.norm_before},
                           {"activation_function", "relu"},
                           {"dropout", 0.1},
                           {"attention_dropout", 0.0},
                           {"layerdrop", 0.0},
                           {"init_std", 0.02},
                           {"enable_bias", true},
                           {"layer_norm_elementwise_affine", true},
                           {"tie_word_embeddings", true},
                           {"bos_token_id", 2},
                           {"eos_token_id", 2},
                           {"pad_token_id", 1}};
  return presets;
}

}  // namespace llmtk::models
